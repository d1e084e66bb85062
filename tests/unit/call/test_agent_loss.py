"""A call whose agent's socket dies in its middle."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from ari_app.agent.elevenlabs.closing import AgentClose, CloseKind
from ari_app.agent.elevenlabs.errors import AgentRefused, AgentUnavailable
from ari_app.agent.interface import Resumed
from ari_app.audio.sound_file import SoundFile
from ari_app.call.conversation import HELD_BY_PHONE
from ari_app.call.resume import GO_ON
from ari_app.call.signals import ConsultRequested
from ari_app.call.states import State
from ari_app.errors import AgentError
from ari_app.line.asterisk.ari.resources import START_MOH
from ari_app.line.interface import KeyPressed, TargetConnected
from lab.softphone.sounds import babble
from tests.session_view import Session
from tests.unit.call.stage import Stage, heard_ms, now, sound
from tests.waiting import until

PHRASE = SoundFile(np.full(4000, 5000, "<i2").tobytes(), 8000)  # half a second


def lose(stage: Stage, kind: CloseKind = CloseKind.LOST) -> None:
    stage.agent().closes(kind, 1006)


async def resumed(stage: Stage, session: Session) -> None:
    """Lose the agent, and let the new one speak."""
    lose(stage)
    await stage.settle()
    stage.agent().says(200, event_id=1, final=True)
    await stage.settle()
    assert session.state is State.TALKING


async def test_a_new_agent_is_told_what_was_said_and_not_to_greet(stage: Stage) -> None:
    session = await stage.talk("customer_name=Jane")
    first = stage.agent()
    first.handler.agent_response("Hello, how can I help?", 1)
    first.handler.user_transcript("My bicycle was stolen.", 2)
    await resumed(stage, session)
    second = stage.agent()
    assert second is not first
    assert second.briefing == replace(
        first.briefing,
        resumed=Resumed(
            "conv_of_agent_default",
            "Agent: Hello, how can I help?\nCaller: My bicycle was stolen.",
            first_message="",
        ),
    )
    assert second.briefing.variables["customer_name"] == "Jane"
    (way, context), prompt = second.told
    assert way == "context"
    assert "Caller: My bicycle was stolen." in context
    assert prompt == ("text", GO_ON)


async def test_what_the_lost_agent_said_is_heard_though_asking_the_new_one_interrupts_it(
    stage: Stage,
) -> None:
    session = await stage.talk()
    stage.agent().says(3000, event_id=7)
    await asyncio.sleep(0.5)
    lose(stage)
    await stage.settle()
    second = stage.agent()
    assert second.told[-1] == ("text", GO_ON)
    second.handler.interruption(1)
    await asyncio.sleep(0.5)
    second.says(1000, event_id=2, final=True)
    await asyncio.sleep(4)
    assert heard_ms(stage.media(session)) == pytest.approx(4000, abs=40)
    assert session.refresh().sound.interruptions == 0
    second.says(3000, event_id=3)
    second.handler.interruption(3)
    await asyncio.sleep(4)
    assert heard_ms(stage.media(session)) < 4100, "its own words may be interrupted"


async def test_the_call_goes_on_with_the_new_agent(stage: Stage) -> None:
    session = await stage.talk()
    await resumed(stage, session)
    second = stage.agent()
    assert session.conversation_id == "conv_of_agent_default_again"
    assert session.metadata == {"first_conversation_id": "conv_of_agent_default"}
    before = len(second.heard)
    await asyncio.sleep(1)
    assert len(second.heard) > before, "it hears the caller"
    second.handler.tool_call("send_dtmf", "t1", {"digits": "5"}, True)
    await asyncio.sleep(0.1)
    assert second.results == [("t1", "The keys are pressed.", False)]
    session.tells(KeyPressed("7"))
    session.tells(KeyPressed("#"))
    assert second.told[-1] == ("dtmf", "7")
    second.handler.interruption(1)
    assert session.refresh().sound.interruptions == 1
    second.says(100, event_id=2)
    notes = [line.text for line in session.transcript if line.who == "note"]
    assert notes == ["the agent was lost", "the agent is back"]
    second.closes()
    await session.ended.wait()
    landed = stage.landed(session)
    assert (landed.status, landed.reason) == ("COMPLETED", "agent_ended")
    assert landed.variables["AGENT_CONVERSATION_ID"] == "conv_of_agent_default_again"
    assert stage.left_behind() == []


async def test_music_covers_a_gap_of_more_than_a_second(stage: Stage) -> None:
    stage.agents.ready.clear()
    session = await begin(stage)
    lose(stage)
    began = now()
    await until(lambda: bool(stage.asterisk.requests(START_MOH)))
    assert now() - began == pytest.approx(1.0, abs=0.05)
    stage.agents.ready.set()
    await asyncio.sleep(0.5)
    assert session.state is State.RECOVERING, "the music goes on until the agent speaks"
    stage.agent().says(500)
    stage.agent().says(500, final=True)
    await stage.until(session, State.TALKING)
    await asyncio.sleep(1.5)
    assert heard_ms(stage.media(session)) == 1000, "its first word is not lost in the music"


async def test_who_has_waited_already_waits_no_longer(stage: Stage) -> None:
    session = await begin(stage)
    stage.agent().dead_seconds = 4.0
    lose(stage)
    await asyncio.sleep(0.1)
    assert len(stage.asterisk.requests(START_MOH)) == 1
    stage.agents.ready.set()
    await asyncio.sleep(0.1)
    stage.agent().says(100)
    await stage.until(session, State.TALKING)


async def begin(stage: Stage) -> Session:
    """A call whose second agent waits for `ready`."""
    stage.agents.ready.set()
    session = await stage.talk()
    stage.agents.ready.clear()
    return session


async def test_a_phrase_covers_it_and_after_that_music() -> None:
    async with Stage() as stage:
        stage.with_policy(loss_sound=PHRASE)
        session = await begin(stage)
        lose(stage)
        await asyncio.sleep(0.95)
        assert heard_ms(stage.media(session)) == 0
        await asyncio.sleep(0.7)
        assert heard_ms(stage.media(session)) == 500
        assert stage.asterisk.requests(START_MOH) == []
        await asyncio.sleep(1.3)
        assert len(stage.asterisk.requests(START_MOH)) == 1


async def test_a_new_agent_without_a_word_is_asked_again(stage: Stage) -> None:
    await stage.talk()
    lose(stage)
    await asyncio.sleep(3.9)
    assert stage.notes.resumed == []
    await asyncio.sleep(0.2)
    assert stage.notes.resumed == [pytest.approx(4.0, abs=0.05)]
    assert [text for way, text in stage.agent().told if way == "text"] == [GO_ON, GO_ON]


async def test_a_message_of_ones_own(stage: Stage) -> None:
    stage.with_policy(resume_message="I am back.")
    session = await stage.talk()
    await resumed(stage, session)
    told = stage.agent().briefing.resumed
    assert told is not None and told.first_message == "I am back."
    assert [way for way, _ in stage.agent().told] == ["context"]


def refusing(stage: Stage, failure: AgentError) -> None:
    """No attempt succeeds from now on."""

    def fail() -> None:
        raise failure

    stage.agents.before = fail


QUOTA = AgentRefused(AgentClose(1008, "", CloseKind.QUOTA, retryable=False))


async def test_an_agent_that_allows_no_override_greets_but_knows(stage: Stage) -> None:
    session = await stage.talk()
    stage.agents.greets_always = True
    await resumed(stage, session)
    assert [way for way, _ in stage.agent().told] == ["context"]


@pytest.mark.parametrize("failure", [AgentUnavailable("no"), QUOTA], ids=str)
async def test_no_other_agent_is_to_be_had(stage: Stage, failure: AgentError) -> None:
    session = await stage.talk()
    refusing(stage, failure)
    lose(stage, CloseKind.CRASHED)
    await session.ended.wait()
    landed = stage.landed(session)
    assert (landed.status, landed.reason) == ("FAILED", "crashed")
    assert stage.notes.not_reached == [failure.code]
    assert stage.left_behind() == []


async def test_the_other_agent_takes_too_long(stage: Stage) -> None:
    session = await begin(stage)
    began = now()
    lose(stage)
    await session.ended.wait()
    assert now() - began == pytest.approx(8.2, abs=0.01)
    assert stage.landed(session).reason == "lost"
    assert stage.agents.given_up == 1
    assert stage.left_behind() == []


@pytest.mark.parametrize(
    "kind", [CloseKind.AGENT_ENDED, CloseKind.MAX_DURATION, CloseKind.QUOTA, CloseKind.SAFETY]
)
async def test_what_is_no_loss(stage: Stage, kind: CloseKind) -> None:
    session = await stage.talk()
    stage.agent().closes(kind)
    await session.ended.wait()
    assert len(stage.agents.dialled) == 1


async def test_keys_that_are_pressed_in_the_gap_are_not_lost(stage: Stage) -> None:
    session = await begin(stage)
    lose(stage)
    for keys in ("12#", "34#"):
        for key in keys:
            session.tells(KeyPressed(key))
        await asyncio.sleep(0.5)
    stage.agents.ready.set()
    await asyncio.sleep(0.1)
    _, context = stage.agent().told[0]
    assert context.endswith("Keys: 12\nKeys: 34")


async def test_a_new_agent_is_told_that_the_caller_holds(stage: Stage) -> None:
    session = await stage.talk()
    session.line.held_by_phone(True)
    await resumed(stage, session)
    assert ("context", HELD_BY_PHONE) in stage.agent().told
    session.line.held_by_phone(False)
    assert "is back" in stage.agent().told[-1][1]


async def test_a_tool_that_runs_on_is_answered_to_nobody(stage: Stage) -> None:
    session = await stage.talk()
    first = stage.agent()
    first.handler.tool_call(
        "transfer_call", "t1", {"to": "+493023125001", "mode": "attended"}, True
    )
    await stage.until(session, State.CONSULTING)
    lose(stage)
    await asyncio.sleep(0.5)
    assert session.target_id == ""
    second = stage.agent()
    second.says(100)
    await stage.until(session, State.TALKING)
    assert first.results == second.results == []
    why = "the agent was lost before it was answered"
    assert [line.text for line in session.transcript] == [
        "the target of a transfer is called",
        f"the transfer has come to nothing: {why}",
        "the agent was lost",
        f"transfer_call: The call was not transferred: {why}. The caller hears you again.",
        "the agent is back",
    ]
    assert session.record.legs[-1].result == "agent_lost"


async def test_a_new_agent_is_told_what_came_of_a_transfer_that_the_lost_one_asked_for(
    stage: Stage,
) -> None:
    """It begins once the sentence is over, and the agent is another one by then."""
    session = await stage.talk()
    first, target = stage.agent(), {"to": "+493023125001", "mode": "attended"}
    first.says(2000, final=True)
    first.handler.tool_call("transfer_call", "t1", target, True)
    await resumed(stage, session)
    await stage.until(session, State.CONSULTING)
    session.tells(TargetConnected())
    await stage.settle()
    second = stage.agent()
    way, text = second.told[-1]
    assert (way, "The target has answered and hears you now" in text) == ("context", True)
    assert first.results == second.results == []


async def test_a_new_agent_is_told_of_a_transfer_that_was_lost_with_the_last_one(
    stage: Stage,
) -> None:
    session = await stage.talk()
    # From outside, so no tool's result says what came of it.
    session.call.context.post(ConsultRequested("+493023125001"))
    await stage.until(session, State.CONSULTING)
    await resumed(stage, session)
    told = [text for way, text in stage.agent().told if way == "context"]
    assert "came to nothing: nobody has taken the call" in told[1]


async def test_observers_are_told(stage: Stage) -> None:
    session = await stage.talk()
    await resumed(stage, session)
    assert stage.notes.lost == ["conv_of_agent_default"]
    assert len(stage.notes.resumed) == 1
    assert len(stage.notes.connected) == 1, "the time to connect is that of the call's start"


async def test_before_the_caller_is_there_the_new_agent_greets(stage: Stage) -> None:
    stage.asterisk.withheld.add("ChannelEnteredBridge of media")
    session = await stage.enter()
    await stage.settle()
    first = stage.agent()
    first.says(400)
    lose(stage)
    await stage.settle()
    assert session.state is State.CONNECTING
    second = stage.agent()
    assert second.briefing == replace(first.briefing, resumed=None)
    assert second.told == []
    assert session.sound.playout.pending_ms == 0, "one greeting is enough"


async def test_the_response_time_does_not_count_the_gap(stage: Stage) -> None:
    session = await stage.talk()
    hearing = session.sound.hearing
    hearing.heard(babble(1000), now())
    await resumed(stage, session)
    await asyncio.sleep(0.5)
    assert np.count_nonzero(sound(stage.media(session)))
    assert hearing.responses == []
