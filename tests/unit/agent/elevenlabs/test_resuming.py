"""A conversation that goes on with a lost one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ari_app.agent.elevenlabs import errors
from ari_app.agent.elevenlabs.client import AgentClient, initiation_for
from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.agent.interface import Briefing, Resumed
from tests.unit.agent.elevenlabs.fake_agent import FakeAgent, FakeConversation, Script, quiet
from tests.unit.agent.elevenlabs.told import Told

OVERRIDES = {
    "agent": {"first_message": "Hello!", "language": "en"},
    "tts": {"voice_id": "v1"},
}
LOST = Briefing(
    "a",
    {"customer": "Jane"},
    options={"conversation_config_override": OVERRIDES, "user_id": "u"},
    resumed=Resumed("conv_1", "Caller: yes", first_message=""),
)


def sent(agent: FakeAgent, number: int = -1) -> dict[str, Any]:
    """What a conversation began with."""
    first: dict[str, Any] = json.loads(agent.conversations[number].frames[0])
    return first


def test_other_overrides_and_variables_stay() -> None:
    told = initiation_for(LOST)
    assert told.dynamic_variables == {
        "customer": "Jane",
        "resumed_from": "conv_1",
        "transcript_so_far": "Caller: yes",
    }
    assert told.conversation_config_override == {
        "agent": {"first_message": "", "language": "en"},
        "tts": {"voice_id": "v1"},
    }
    assert told.user_id == "u"
    again = initiation_for(LOST, greets_as_always=True)
    assert again.conversation_config_override == OVERRIDES
    assert again.dynamic_variables == told.dynamic_variables
    assert LOST.options["conversation_config_override"] == OVERRIDES


def test_where_there_are_none_the_first_message_is_the_only_override() -> None:
    resumed = Resumed("conv_1", "(nothing)", first_message="I am back.")
    told = initiation_for(Briefing("a", resumed=resumed))
    assert told.conversation_config_override == {"agent": {"first_message": "I am back."}}
    plain = initiation_for(Briefing("a", resumed=resumed), greets_as_always=True)
    assert plain.conversation_config_override is None
    assert initiation_for(Briefing("a")).dynamic_variables is None


@pytest.mark.parametrize(("first_message", "waits"), [("", True), ("I am back.", False)])
async def test_one_that_says_nothing_first_waits_to_be_asked(
    told: Told, first_message: str, waits: bool
) -> None:
    briefing = Briefing("a", resumed=Resumed("conv_1", "Caller: yes", first_message))
    async with FakeAgent() as agent, AgentClient(agent.base_url) as client:
        connection = await client.connect(briefing, told)
        await connection.close()
        assert connection.waits is waits
        override = sent(agent)["conversation_config_override"]
        assert override == {"agent": {"first_message": first_message}}
        new = await client.connect(Briefing("a"), Told())
        await new.close()
    assert not new.waits
    assert "conversation_config_override" not in sent(agent)


def refusing(reason: str, *, times: int = 1) -> Script:
    """An agent that closes its first sockets at once."""
    left = [times]

    async def script(conversation: FakeConversation) -> None:
        if left[0] == 0:
            await quiet(conversation)
            return
        left[0] -= 1
        await conversation.receive()
        await conversation.socket.close(1008, reason)

    return script


async def test_an_agent_that_allows_no_override_greets_but_knows(told: Told) -> None:
    script = refusing("override_error")
    async with FakeAgent(script) as agent, AgentClient(agent.base_url) as client:
        connection = await client.connect(LOST, told)
        await connection.close()
        first, second = sent(agent, 0), sent(agent, 1)
    assert first["conversation_config_override"]["agent"]["first_message"] == ""
    assert second["conversation_config_override"] == OVERRIDES
    assert second["dynamic_variables"] == first["dynamic_variables"]
    assert not connection.waits, "it greets, so nobody needs to ask it"
    assert len(agent.conversations) == 2


async def test_if_its_own_overrides_are_refused_too_there_is_none(told: Told) -> None:
    script = refusing("override_error", times=9)
    async with FakeAgent(script) as agent, AgentClient(agent.base_url) as client:
        with pytest.raises(errors.AgentRefused) as caught:
            await client.connect(LOST, told)
    assert caught.value.close.kind is CloseKind.OVERRIDE_ERROR
    assert len(agent.conversations) == 2
    assert told.events == []


@pytest.mark.parametrize(
    ("briefing", "reason"), [(Briefing("a"), "override_error"), (LOST, "unauthorized")]
)
async def test_nothing_else_is_tried_without_it(
    told: Told, briefing: Briefing, reason: str
) -> None:
    async with FakeAgent(refusing(reason)) as agent, AgentClient(agent.base_url) as client:
        with pytest.raises(errors.AgentRefused):
            await client.connect(briefing, told)
    assert len(agent.conversations) == 1
