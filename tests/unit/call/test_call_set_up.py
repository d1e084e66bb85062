from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_app.call.states import State
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.names import bridge_name
from ari_app.line.interface import Outcome, Status
from tests.unit.call.fake_ari import (
    ADD_CHANNEL,
    ANSWER,
    CONTINUE,
    CREATE_BRIDGE,
    DESTROY_BRIDGE,
    EXTERNAL_MEDIA,
    HANGUP,
    RING,
    SET_VARIABLE,
    never,
)
from tests.unit.call.stage import Stage, nth

RELEASED = [State.RELEASING, State.ENDED]

# --- setting up


class Gates:
    """The steps of setting up a call, each of which happens when a test says so."""

    STEPS = ("bridge answered", "media answered", "media started", "joined", "agent")

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._answers = {step: asyncio.Event() for step in self.STEPS[:2]}
        asterisk = stage.asterisk
        asterisk.after[CREATE_BRIDGE] = self._answers["bridge answered"].wait
        asterisk.after[EXTERNAL_MEDIA] = self._answers["media answered"].wait
        asterisk.withheld |= {"StasisStart of media", "ChannelEnteredBridge of media"}
        stage.agents.ready.clear()

    async def open(self, step: str) -> None:
        """Let a step happen, and all that follows from it."""
        asterisk = self._stage.asterisk
        match step:
            case "media started":
                asterisk.tell("StasisStart of media")
            case "joined":
                asterisk.tell("ChannelEnteredBridge of media")
            case "agent":
                self._stage.agents.ready.set()
            case _:
                self._answers[step].set()
        await self._stage.settle()


@pytest.mark.parametrize("answered", [False, True], ids=["rings", "answered"])
async def test_every_order_of_set_up_leads_to_a_conversation(answered: bool) -> None:
    for order in permutations(Gates.STEPS):
        async with Stage() as stage:
            await leads_to_a_conversation(stage, order, answered=answered)


async def leads_to_a_conversation(stage: Stage, order: tuple[str, ...], *, answered: bool) -> None:
    gates = Gates(stage)
    session = await stage.enter(answered=answered)
    await stage.settle()
    missing = set(Gates.STEPS)
    for step in order:
        missing.remove(step)
        await gates.open(step)
        # That Asterisk has begun to make the channel says nothing; that it has begun says all.
        assert (session.state is State.TALKING) == (missing <= {"media answered"}), order
    asterisk = stage.asterisk
    assert set(asterisk.world.bridges[session.bridge_id].channels) == {
        session.call_id,
        session.media_id,
    }
    asked = [seen.operation for seen in asterisk.seen]
    assert asked.count(ADD_CHANNEL) == 2
    assert asked.count(RING) == asked.count(ANSWER) == (0 if answered else 1)
    assert asked.count(CREATE_BRIDGE) == asked.count(EXTERNAL_MEDIA) == 1
    asterisk.hang_up(session.call_id)
    await session.ended.wait()
    await stage.settle()
    assert stage.left_behind() == [], order


async def test_names_are_known_before_asterisk_hears_of_them(stage: Stage) -> None:
    session = await stage.talk()
    (request,) = stage.asterisk.requests(EXTERNAL_MEDIA)
    assert (
        request.parameters["channelId"]
        == session.media_id
        == f"voice-agent-media-{session.session_id}"
    )
    assert session.bridge_id == f"voice-agent-bridge-{session.session_id}"
    assert request.parameters["external_host"] == stage.target
    assert (request.parameters["format"], request.parameters["encapsulation"]) == (
        "slin",
        "audiosocket",
    )
    (made,) = stage.asterisk.requests(CREATE_BRIDGE)
    assert made.parameters == {"type": "mixing", "name": bridge_name(session.call_id)}


async def test_an_answer_that_only_the_event_reports_counts(stage: Stage) -> None:
    stage.asterisk.after[ANSWER] = never
    session = await stage.talk()
    assert session.state is State.TALKING


async def test_the_agent_gets_the_variables_and_the_handler(stage: Stage) -> None:
    session = await stage.talk("agent_id=agent_7", "customer_name=Jane")
    agent = stage.agent()
    assert agent.agent_id == session.agent_id == "agent_7"
    assert agent.briefing.variables == {
        "call_sid": session.call_id,
        "customer_name": "Jane",
    }
    assert session.conversation_id == "conv_of_agent_7"
    assert stage.notes.connected == [0.0]


async def test_what_others_see_of_a_call(stage: Stage) -> None:
    def seen() -> tuple[str, bool, bool, bool, bool]:
        held, decided = session.line.held, session.outcome is not None
        return (
            session.record.status,
            session.counts,
            held.caller_expected,
            held.media_expected,
            decided,
        )

    stage.agents.ready.clear()
    session = await stage.enter()
    assert seen() == ("initializing", True, True, False, False)
    assert (session.record.caller_number, session.record.called_number) == ("493023125001", "100")
    stage.agents.ready.set()
    await stage.until(session, State.TALKING)
    assert seen() == ("active", True, True, True, False)
    await asyncio.sleep(3)
    assert session.call.context.duration() == pytest.approx(3, abs=0.01)
    stage.asterisk.hang_up(session.call_id)
    assert seen() == ("active", False, False, False, True), "it is being released"
    await session.ended.wait()
    assert seen() == ("ended", False, False, False, True)
    lasted = session.call.context.duration()
    await asyncio.sleep(5)
    assert session.call.context.duration() == lasted
    assert session.outcome == Outcome(Status.COMPLETED, "caller_hung_up")
    record = session.record
    assert record.answered_at is not None and record.ended_at is not None
    assert record.started_at <= record.answered_at <= record.ended_at <= datetime.now(UTC)
    assert stage.notes.states == [State.CONNECTING, State.JOINING, State.TALKING, *RELEASED]


# --- the caller is gone


@pytest.mark.parametrize(("operation", "number"), [(ANSWER, 1), (ADD_CHANNEL, 2)])
async def test_a_refusal_that_comes_before_the_hang_up_is_told(
    stage: Stage, operation: Operation[Any], number: int
) -> None:
    asterisk = stage.asterisk
    asterisk.withheld = {"ChannelHangupRequest of caller", "StasisEnd of caller"}
    asterisk.before[operation] = nth(number, lambda: asterisk.hang_up(session.call_id))
    session = await stage.enter()
    await session.ended.wait()
    assert session.outcome == Outcome(Status.COMPLETED, "caller_hung_up")
    await stage.settle()
    assert stage.left_behind() == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("operation", "number"),
    [(SET_VARIABLE, 1), (SET_VARIABLE, 4), (CONTINUE, 1), (HANGUP, 1), (DESTROY_BRIDGE, 1)],
    ids=str,
)
async def test_the_caller_hangs_up_while_being_given_back(
    stage: Stage, operation: Operation[Any], number: int, when: str
) -> None:
    session = await stage.talk()

    def hang_up() -> None:
        stage.asterisk.hang_up(session.call_id)

    getattr(stage.asterisk, when)[operation] = nth(number, hang_up)
    with capture_logs() as logs:
        stage.agent().closes()
        await session.ended.wait()
    await stage.settle()
    assert session.outcome == Outcome(Status.COMPLETED, "agent_ended")
    assert stage.left_behind() == []
    assert [entry for entry in logs if entry["log_level"] in ("warning", "error")] == []


async def test_a_caller_who_is_taken_away_is_not_sent_on(stage: Stage) -> None:
    session = await stage.talk()
    stage.asterisk.take_away(session.call_id)
    await session.ended.wait()
    assert session.outcome == Outcome(Status.COMPLETED, "caller_left")
    assert stage.left_behind() == []
    told = [each.parameters["variable"] for each in stage.asterisk.requests(SET_VARIABLE)]
    assert told == ["__AGENT_SESSION_ID"], "as it came, and nothing since"
