from __future__ import annotations

import pytest

from ari_app.agent.elevenlabs.client import KeyStatus
from ari_app.agent.elevenlabs.errors import (
    AgentTimeout,
    AgentUnavailable,
    ConnectError,
    error_from_status,
)


def refused() -> KeyStatus:
    key = KeyStatus()
    key.failed("agent_7", error_from_status(401))
    return key


def test_a_key_is_good_until_it_is_refused() -> None:
    seen = [(key := KeyStatus()).refused]
    key.failed("agent_7", error_from_status(401))
    seen.append(key.refused)
    key.accepted()
    seen.append(key.refused)
    assert seen == [False, True, False]
    assert key.agent_id == "agent_7"


def test_credits_that_are_used_up_are_no_wrong_key() -> None:
    key = refused()
    key.failed("agent_7", error_from_status(401, "quota_exceeded"))
    assert not key.refused


@pytest.mark.parametrize("status", [404, 422])
def test_another_refusal_shows_that_the_key_is_taken(status: int) -> None:
    key = refused()
    key.failed("agent_8", error_from_status(status))
    assert not key.refused


@pytest.mark.parametrize(
    "error", [*(error_from_status(status) for status in (403, 408, 429, 500)), AgentTimeout("")]
)
def test_what_says_nothing_of_the_key_changes_nothing(error: ConnectError) -> None:
    key = KeyStatus()
    key.failed("agent_7", error)
    assert not key.refused
    key = refused()
    key.failed("agent_7", error)
    assert key.refused


@pytest.mark.parametrize("status", [404, 429, 500])
def test_nobody_is_reached_until_somebody_answers(status: int) -> None:
    key = KeyStatus()
    key.failed("agent_7", AgentUnavailable("cannot be reached: connection refused"))
    key.failed("agent_7", AgentTimeout(""))
    assert key.problem == "cannot be reached: connection refused"
    assert not key.refused
    key.failed("agent_7", error_from_status(status))
    assert not key.problem


def test_a_refused_key_stays_refused_while_nobody_is_reached() -> None:
    key = refused()
    key.failed("agent_7", AgentUnavailable("cannot be reached"))
    assert key.problem == "ElevenLabs refuses the key"
    key.accepted()
    assert not key.problem
