"""What a call's record keeps of its course: when each side was heard, by the line's own time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from ari_app.call.keypad import DigitMode
from ari_app.call.signals import ConsultRequested
from ari_app.call.states import State
from ari_app.line.asterisk.ari.resources import RTP_STATISTICS
from ari_app.line.interface import EndCause, KeyPressed, LineEvent, TargetConnected, TargetLost
from ari_app.records.bounded import MAX_LINE_BYTES
from ari_app.records.chronicle import Keys, ToolUse, Turn
from ari_app.records.document import call_document
from ari_app.tools.tool import ToolAnswer
from audiosocket.frames import SLIN
from lab.softphone.sounds import babble
from tests.session_view import Session
from tests.unit.audiosocket.client import pcm_source
from tests.unit.call.fake_ari import never
from tests.unit.call.stage import Stage, now

WORDS = "one two three four five six seven eight nine ten"


def soon(seconds: float) -> Any:
    return pytest.approx(seconds, abs=0.05)


def turns(session: Session) -> list[Turn]:
    return [each for each in session.record.chronicle if isinstance(each, Turn)]


async def test_both_sides_at_the_times_at_which_they_were_heard(stage: Stage) -> None:
    session = await stage.talk()
    began, agent, media = session.record.began, stage.agent(), stage.media(session)
    await asyncio.sleep(2)
    greeted = now() - began
    agent.says(1500, event_id=1, final=True)
    agent.handler.agent_response("Hello.", 1)
    await asyncio.sleep(4)
    spoke = now() - began
    media.source = pcm_source(SLIN, babble(1000))
    await asyncio.sleep(1.8)
    agent.handler.user_transcript("Tell me.", 2)
    agent.handler.agent_response(WORDS, 2)
    answered = now() - began
    agent.says(3000, event_id=2)
    agent.says(3000, event_id=2)
    await asyncio.sleep(3)
    agent.handler.interruption(2)
    await asyncio.sleep(1)
    greeting, question, answer = turns(session)
    assert (greeting.at, greeting.until) == (soon(greeted), soon(greeted + 1.5))
    assert (question.who, question.at, question.until) == ("caller", soon(spoke), soon(spoke + 1))
    assert (answer.at, answer.until) == (soon(answered), soon(answered + 3))
    assert (answer.interrupted, answer.heard) == (True, "one two three four five …")
    assert not greeting.interrupted
    document = call_document(session.refresh())
    assert document["sound"]["barge_in_ms"][0] <= 60


async def test_a_greeting_that_waits_for_the_caller(stage: Stage) -> None:
    session = await stage.enter()
    stage.asterisk.withheld.add("ChannelEnteredBridge of caller")
    await stage.until(session, State.JOINING)
    stage.agent().says(1000, event_id=1, final=True)
    stage.agent().handler.agent_response("Hello.", 1)
    await asyncio.sleep(2)
    stage.asterisk.tell("ChannelEnteredBridge of caller")
    await stage.until(session, State.TALKING)
    there = now() - session.record.began
    await asyncio.sleep(2)
    (greeting,) = turns(session)
    assert there == soon(2)
    assert (greeting.at, greeting.until) == (soon(there), soon(there + 1))


async def test_a_tool_takes_its_time(stage: Stage) -> None:
    stage.with_policy(settable_variables=frozenset({"TOPIC"}))
    session = await stage.talk()
    arguments = {"name": "TOPIC", "value": "\ud800"}
    began = now() - session.record.began
    stage.agent().handler.tool_call("set_variable", "1", arguments, True)
    await asyncio.sleep(0.1)
    (used,) = session.record.chronicle
    assert isinstance(used, ToolUse)
    assert (used.at, used.name, used.is_error) == (soon(began), "set_variable", True)
    assert used.arguments == {"name": "TOPIC", "value": "\N{REPLACEMENT CHARACTER}"}


async def test_secret_keys_stand_nowhere(stage: Stage) -> None:
    stage.with_policy(digits_are_sensitive=True)
    session = await stage.talk()
    for digit in "4929123#":
        session.tells(KeyPressed(digit))
    await asyncio.sleep(0.1)
    agent = stage.agent()
    assert agent.told[-1] == ("dtmf", "4929123"), "the agent is told"
    agent.handler.tool_call("check", "1", {"pin": "4929123", "as number": 4929123}, True)
    agent.handler.agent_response("You typed 49 29 123.", 3)
    agent.handler.user_transcript("4929123", 4)
    await asyncio.sleep(0.1)
    keys, said, heard, used = session.record.chronicle
    assert keys == Keys(keys.at, "[digits]") if isinstance(keys, Keys) else False
    assert isinstance(used, ToolUse)
    assert used.arguments == {"pin": "[digits]", "as number": "[digits]"}
    assert [each.text for each in (said, heard) if isinstance(each, Turn)] == [
        "You typed [digits].",
        "[digits]",
    ]
    assert "4929123" not in str([line.text for line in session.transcript])


async def test_secret_keys_are_looked_for_in_as_much_of_an_answer_as_is_kept(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.with_policy(digits_are_sensitive=True)
    session = await stage.talk()
    for digit in "4929123#":
        session.tells(KeyPressed(digit))
    secrets, lengths = session.call.context.secrets, list[int]()
    out_of = secrets.out_of

    async def answer(*args: object, **kwargs: object) -> ToolAnswer:
        return ToolAnswer("4929123 and more " * 50_000)

    def looked_through(value: object) -> object:
        lengths.append(len(str(value)))
        return out_of(value)

    monkeypatch.setattr(secrets, "out_of", looked_through)
    monkeypatch.setattr(session.call.side._tools, "run", answer)
    stage.agent().handler.tool_call("check", "1", {}, True)
    await asyncio.sleep(0.1)
    assert max(lengths) <= MAX_LINE_BYTES
    (tool,) = [line.text for line in session.transcript if line.who == "tool"]
    assert tool.startswith("check: [digits] and more [digits]")
    assert "4929123" not in tool


async def test_secret_keys_that_are_told_one_by_one(stage: Stage) -> None:
    """The agent repeats them before all are there, and later than some of those have come."""
    stage.with_policy(digits_are_sensitive=True, digit_mode=DigitMode.EACH)
    session = await stage.talk()
    card, agent = "4111222233334444", stage.agent()
    for count, digit in enumerate(card, 1):
        session.tells(KeyPressed(digit))
        if count == 9:
            agent.handler.agent_response("So far 4111 2222.", 1)
        await asyncio.sleep(1)
    assert [("dtmf", digit) for digit in card] == [each for each in agent.told if "dtmf" in each]
    agent.handler.tool_call("check", "1", {"card": int(card)}, True)
    agent.handler.agent_response("You have entered 4111 2222 3333 4444.", 2)
    await asyncio.sleep(10)
    for digit in "987#":
        session.tells(KeyPressed(digit))
    agent.handler.agent_response("And 987 for 4111-2222-3333-4444.", 3)
    await asyncio.sleep(0.1)
    assert [each.text for each in session.record.chronicle if isinstance(each, Turn)] == [
        "So far [digits].",
        "You have entered [digits].",
        "And [digits] for [digits].",
    ]
    (used,) = [each for each in session.record.chronicle if isinstance(each, ToolUse)]
    assert used.arguments == {"card": "[digits]"}
    assert {line.text for line in session.transcript if line.who == "dtmf"} == {"[digits]"}


async def test_the_legs_of_a_call(stage: Stage) -> None:
    session = await stage.talk()
    began = session.record.began
    await asyncio.sleep(1)
    attempts: list[tuple[list[LineEvent], str]] = [
        ([TargetLost("busy", EndCause(17, 486))], "busy"),
        ([TargetConnected(), TargetLost("hung_up", EndCause(16))], "answered"),
    ]
    for events, result in attempts:
        at = now() - began
        session.post(ConsultRequested("2000"))
        for event in events:
            await asyncio.sleep(1)
            session.tells(event)
        leg = session.record.legs[-1]
        assert (leg.kind, leg.number, leg.result) == ("target", "2000", result)
        assert (leg.began, leg.ended) == (soon(at), soon(now() - began))
        assert leg.answered == (None if result == "busy" else soon(at + 1))
        await asyncio.sleep(1)
    assert [(leg.cause, leg.sip_code) for leg in session.record.legs[1:]] == [(17, 486), (16, None)]
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()
    caller = session.record.legs[0]
    assert (caller.kind, caller.began, caller.answered) == ("caller", 0.0, soon(0))
    assert caller.ended == soon(now() - began)
    document = call_document(replace(session.record))
    assert [leg["kind"] for leg in document["legs"]] == ["caller", "target", "target"]


# What Asterisk has received is uneven by 2.1 ms, and the telephone reports nothing: the names of
# the two jitters are the wrong way round in Asterisk.
RTP = {"rxcount": 500, "txcount": 510, "rxploss": 3, "txploss": 0, "txjitter": 0.0021}


async def test_rtp_is_known_though_the_caller_hangs_up(stage: Stage) -> None:
    stage.asterisk.rtp = RTP
    session = await stage.talk()
    await asyncio.sleep(7)
    stage.asterisk.rtp = {**RTP, "rxcount": 9999, "rtt": 0.05}
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()
    assert call_document(session.record)["sound"]["rtp"] == {
        "received": 500,
        "sent": 510,
        "received_lost": 3,
        "received_jitter_ms": 2.1,
        "final": False,
        "rtcp": False,
        "sent_lost": None,
        "sent_jitter_ms": None,
        "round_trip_ms": None,
    }
    assert len(stage.asterisk.requests(RTP_STATISTICS)) == 1


async def test_rtp_is_read_last_where_we_end_the_call(stage: Stage) -> None:
    stage.asterisk.rtp = RTP
    session = await stage.talk()
    await asyncio.sleep(30)
    reported = {"rtt": 0.05, "txploss": 2, "rxjitter": 0.1}
    stage.asterisk.rtp = {**RTP, "rxcount": 100, "rxploss": 0, **reported}
    await stage.calls.end(session.session_id)
    rtp = call_document(session.record)["sound"]["rtp"]
    assert (rtp["received"], rtp["received_lost"], rtp["final"]) == (100, None, True)
    assert (rtp["rtcp"], rtp["sent_lost"], rtp["round_trip_ms"]) == (True, 2, 50.0)
    assert (rtp["received_jitter_ms"], rtp["sent_jitter_ms"]) == (2.1, 100.0)
    assert len(stage.asterisk.requests(RTP_STATISTICS)) == 3


async def test_no_end_waits_for_rtp(stage: Stage) -> None:
    session = await stage.talk()
    await asyncio.sleep(60)
    assert len(stage.asterisk.requests(RTP_STATISTICS)) == 1, "who has none is not asked again"
    stage.asterisk.before[RTP_STATISTICS] = never
    began = now()
    await stage.calls.end(session.session_id)
    assert now() - began < 0.3
    assert stage.landed(session).status == "COMPLETED"


async def test_how_a_callee_was_reached(stage: Stage) -> None:
    session = stage.place("+15550100001")
    await asyncio.sleep(3)
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()
    document = call_document(session.record)
    (leg,) = document["legs"]
    assert (leg["kind"], leg["number"], leg["answered"]) == ("callee", "+15550100001", None)
    assert leg["result"] == document["result"]
    assert leg["ended"] == soon(3)
    assert document["score"]["value"] is None
