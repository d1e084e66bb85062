"""The agent fails: before the call, in its middle, and without a word. As the caller hears it."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ari_app.call.states import State
from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook, ConversationRecord
from lab.softphone.call import Call
from lab.softphone.sounds import babble, level_dbfs, tone, tone_dbfs, write_wav
from tests.e2e.conftest import Logged
from tests.e2e.harness import HUMAN_HZ, Bench, bench, book, profile
from tests.session_view import Session
from tests.waiting import until

pytestmark = pytest.mark.e2e

LOUD = -35.0
MUSIC_HZ = 440


def dead_air(call: Call, since: float) -> float:
    """The longest time without sound at the phone from `since` (monotonic) to its last sound."""
    loud = [
        arrival.at
        for arrival in call.ear.arrivals
        if arrival.at >= since and level_dbfs(arrival.pcm) > -50
    ]
    assert loud, "nothing was heard any more"
    return max(after - before for before, after in pairwise([since, *loud]))


def hears(call: Call, hz: float) -> bool:
    return bool(tone_dbfs(call.heard_pcm()[-1600:], hz) > -40)


async def metrics(b: Bench) -> str:
    host, port = b.bridge.api_address
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://{host}:{port}/metrics") as answer,
    ):
        return await answer.text()


# --- no conversation comes about


@pytest.mark.parametrize(
    ("faults", "reason", "at_least", "at_most"),
    [
        ({"signed_url_status": 401}, "agent_unauthorized", 0, 3),
        ({"signed_url_status": 429}, "agent_rate_limited", 1, 3.5),
        ({"signed_url_status": 429, "retry_after_seconds": 60}, "agent_rate_limited", 0, 2.5),
        ({"signed_url_status": 500}, "agent_unavailable", 0.2, 3),
        ({"handshake_status": 403}, "agent_unauthorized", 0, 3),
        ({"handshake_status": 503}, "agent_unavailable", 0.2, 3),
        ({"handshake_delay_ms": 20_000}, "agent_timeout", 1.9, 4),
        ({"metadata_delay_ms": 20_000}, "agent_timeout", 1.9, 4),
        ({"close": {"code": 1006}}, "agent_lost", 0.2, 3),
        ({"close": {"code": 1002, "error": "client_error", "reason": "quota"}}, None, 0, 3),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
async def test_the_caller_rings_on_and_then_gets_a_human(
    asterisk: LabAsterisk,
    logged: Logged,
    faults: dict[str, Any],
    reason: str | None,
    at_least: float,
    at_most: float,
) -> None:
    if faults.get("close"):
        faults = {**faults, "metadata_delay_ms": 500}
    async with bench(asterisk, book(faults=faults), agent_connect_timeout_seconds=2) as b:
        began = time.monotonic()
        call = await b.dial()
        await call.rung()
        session = await b.session()
        await session.ended.wait()
        assert session.record.answered_at is None
        line = await logged("landed=human", 5)
        took = time.monotonic() - began
        assert "agent=FAILED" in line
        assert f"reason={reason or 'agent_quota'}" in line
        assert at_least <= took <= at_most + 2
        await until(lambda: hears(call, HUMAN_HZ))
        code = reason or "agent_quota"
        assert f'ari_app_agent_connect_failures_total{{reason="{code}"}} 1.0' in await metrics(b)
        await call.hang_up()
        await b.all_gone()


# --- it is lost in the middle


def mortal(**changes: Any) -> AgentBook:
    """An agent that dies in its first conversation, half a second into its greeting."""
    faults = {"times": 1, "close": {"code": 1006, "mid_response": True, "after_ms": 500}}
    return book(**{"faults": faults, **changes})


async def lost(b: Bench) -> float:
    """Wait until the agent has died; when that was."""
    record = await b.conversation(0)
    await until(lambda: record.closing is not None)
    return time.monotonic()


async def back(b: Bench, call: Call, session: Session) -> ConversationRecord:
    """Wait until the second agent is heard; its conversation."""
    await until(lambda: len(b.agent.conversations) == 2)
    await until(lambda: session.state is State.TALKING)
    record = await b.conversation(1)
    await until(lambda: record.agent_audio_seconds > 0)
    await until(lambda: session.sound.playout.idle)
    await asyncio.sleep(0.2)
    return record


async def test_another_agent_takes_the_call_and_knows_what_was_said(asterisk: LabAsterisk) -> None:
    close = {"code": 1006, "mid_response": True, "after_ms": 500, "response": 2}
    dying = {"times": 1, "close": close}
    async with bench(asterisk, book(faults=dying)) as b:
        call, session = await b.talk()
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(500)
        await call.play(babble(1000, -20))
        died = await lost(b)
        second = await back(b, call, session)
        assert dead_air(call, died) < 2
        first = await b.conversation(0)
        assert session.conversation_id == second.conversation_id
        assert session.metadata["first_conversation_id"] == first.conversation_id
        (context,) = [m["text"] for m in second.messages if m.get("type") == "contextual_update"]
        assert "Agent: Hello, how can I help you today?" in context
        assert "Caller: (caller spoke for" in context
        heard_before = second.user_audio_seconds
        await call.play(babble(1000, -20))
        await until(lambda: second.user_audio_seconds > heard_before + 0.9)
        await call.send_digits("12#")
        await until(lambda: any(m.get("source_medium") == "dtmf" for m in second.messages))
        text = await metrics(b)
        assert "ari_app_agent_losses_total 1.0" in text
        assert "ari_app_agent_gap_seconds_count 1.0" in text
        await call.hang_up()
        await b.all_gone()


@pytest.mark.parametrize("phrase", [False, True], ids=["music", "phrase"])
async def test_a_long_gap_is_covered(asterisk: LabAsterisk, tmp_path: Path, phrase: bool) -> None:
    settings: dict[str, Any] = {}
    if phrase:
        path = tmp_path / "one-moment.wav"
        write_wav(path, tone(700, 1000, -12, 16000), 16000)
        settings["agent_loss_sound"] = path
    slow = {"think_ms": 3500}
    async with bench(asterisk, mortal(delivery=slow), **settings) as b:
        call, session = await b.talk()
        died = await lost(b)
        if phrase:
            await until(lambda: hears(call, 700))
        await until(lambda: hears(call, MUSIC_HZ))
        await back(b, call, session)
        assert not hears(call, MUSIC_HZ)
        assert dead_air(call, died) < 2
        await call.hang_up()
        await b.all_gone()


async def test_an_agent_that_allows_no_override_greets_again(asterisk: LabAsterisk) -> None:
    async with bench(asterisk, mortal(allow_overrides=False)) as b:
        call, session = await b.talk()
        died = await lost(b)
        await until(lambda: len(b.agent.conversations) == 3)
        await until(lambda: session.state is State.TALKING)
        await until(lambda: session.sound.playout.idle)
        refused, third = await b.conversation(1), await b.conversation(2)
        assert refused.error is not None
        assert refused.error.startswith("override_error")
        assert third.closing is None
        assert any(m.get("type") == "contextual_update" for m in third.messages)
        assert dead_air(call, died) < 2
        await call.hang_up()
        await b.all_gone()


async def test_no_other_agent_is_to_be_had(asterisk: LabAsterisk, logged: Logged) -> None:
    async with bench(asterisk, mortal()) as b:
        call, _ = await b.talk()
        b.agent.set_profile("agent_default", profile(faults={"handshake_status": 503}))
        died = await lost(b)
        line = await logged("landed=human", 10)
        assert "agent=FAILED reason=lost" in line
        assert (await b.conversation(0)).conversation_id in line
        await until(lambda: hears(call, HUMAN_HZ))
        assert dead_air(call, died) < 2
        await call.hang_up()
        await b.all_gone()


async def test_an_agent_that_is_frozen_is_found(asterisk: LabAsterisk) -> None:
    frozen = {"times": 1, "freeze_after_ms": 3000}
    async with bench(asterisk, book(faults=frozen), agent_dead_after_seconds=2) as b:
        call, session = await b.talk()
        died = await lost(b)
        await until(lambda: session.state is State.RECOVERING)
        found = time.monotonic() - died
        assert 1.5 < found < 4, "2 to 2.5 s on a machine with nothing else to do"
        await back(b, call, session)
        assert dead_air(call, died) < found + 1.5
        await call.hang_up()
        await b.all_gone()


# --- it is there and says nothing


async def test_one_that_stays_silent_has_failed(asterisk: LabAsterisk, logged: Logged) -> None:
    faults = {"never_answers": True}
    async with bench(asterisk, book(faults=faults), agent_silence_timeout_seconds=2) as b:
        call, _ = await b.talk()
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(500)
        await call.play(babble(1000, -20))
        line = await logged("landed=human", 12)
        assert "agent=FAILED reason=agent_silent" in line
        await until(lambda: hears(call, HUMAN_HZ))
        await call.hang_up()
        await b.all_gone()
