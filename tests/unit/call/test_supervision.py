"""A supervisor takes a whole call over: what caller and agent notice of it, and what is kept."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.call.signals import TakeOverRequested
from ari_app.call.states import State
from ari_app.control.refusals import NotPossible
from ari_app.line.interface import (
    Ability,
    Arrival,
    Connected,
    Ended,
    PhoneHeld,
    TargetConnected,
    TargetLost,
)
from ari_app.records.document import call_document
from ari_app.records.findings import findings
from tests.unit.call.test_any_line import House, audible, flows, house
from tests.unit.line.fake_line import FakeLine

NUMBER = "+493023125004"
LOUD = np.full(160, 3000, "<i2").tobytes()


async def rings(home: House, line: FakeLine) -> str:
    """A call in which a supervisor's phone rings; its name."""
    await home.talks(line)
    name = home.record.session_id
    await home.control.take_over(name, NUMBER, "lea")
    assert line.asked[-1] == f"bring_in {NUMBER}"
    return name


async def taken(home: House, line: FakeLine) -> str:
    name = await rings(home, line)
    line.tells(TargetConnected())
    assert home.record.state == State.TAKEN_OVER
    return name


def slow(**details: Any) -> FakeLine:
    return FakeLine(slow=frozenset({"bring_in"}), **details)


def notes(home: House) -> list[str]:
    return [line.text for line in home.record.transcript if line.who == "note"]


async def test_the_agent_goes_on_until_the_phone_is_answered() -> None:
    async with house() as home:
        line = slow()
        await rings(home, line)
        home.agent.says(200, final=True)
        await flows(line, 0.5, LOUD)
        assert audible(line) == 10
        assert any(map(any, home.agent.heard))


async def test_it_is_silent_and_hears_nothing_at_once() -> None:
    async with house() as home:
        line = slow()
        await rings(home, line)
        home.agent.says(5000, event_id=1)
        home.agent.handler.agent_response("one two three four five six seven eight", 1)
        await flows(line, 2)
        line.ahead_ms = 60
        line.tells(TargetConnected())
        assert line.ahead_ms == 0, "what was taken ahead is not heard either"
        before, heard = audible(line), len(home.agent.heard)
        home.agent.says(1000, event_id=1, final=True)
        home.agent.says(1000, event_id=2)
        home.agent.handler.agent_response("Nobody hears this.", 2)
        await flows(line, 10, LOUD)
        assert audible(line) <= before + 1, "but for what fades out"
        later = home.agent.heard[heard + 1 :]
        assert sum(map(len, later)) >= 9.7 * 16_000, "time goes on for it"
        assert not any(map(any, later))
        assert home.agent.told.count(("activity", "")) >= 3, "it does not ask who is there"
        home.agent.handler.interruption(2)
        assert home.calls.record(home.record.session_id).sound.interruptions == 0  # type: ignore[union-attr]
        line.tells(Ended("caller_hung_up"))
        await home.until(State.ENDED)
        first, second = call_document(home.record)["turns"]
        assert first["interrupted"] and first["heard"] == "one two three …"
        assert (second["interrupted"], second["heard"]) == (True, "")


async def test_it_is_told_of_its_colleague_and_goes_on() -> None:
    async with house() as home:
        line = slow()
        name = await taken(home, line)
        home.agent.says(1000, event_id=7)
        await flows(line, 65, LOUD)
        told = len(home.agent.told)
        await home.control.give_back(name)
        assert line.asked[-1] == "drop_target"
        assert home.record.state == State.TALKING
        (how, context), (way, prompt) = home.agent.told[told:]
        assert (how, way) == ("context", "text")
        assert "spoke with the caller for 1 minute and 5 seconds" in context
        assert "for 1 minute and 5 seconds" in prompt
        home.agent.says(1000, event_id=7, final=True)
        await flows(line, 0.5, LOUD)
        assert audible(line) == 0, "of what it began to say before nothing is heard"
        heard = len(home.agent.heard)
        home.agent.says(200, event_id=8, final=True)
        await flows(line, 0.5, LOUD)
        assert audible(line) == 10
        assert any(map(any, home.agent.heard[heard:]))
        assert home.record.response_times == [], "nobody has waited for this answer"


async def test_a_supervisor_who_hangs_up_gives_back() -> None:
    async with house() as home:
        line = slow()
        await taken(home, line)
        line.tells(TargetLost("hung_up"))
        assert home.record.state == State.TALKING
        assert "spoke with the caller for 1 second" in home.agent.told[0][1]


@pytest.mark.parametrize("result", ["busy", "rejected", "no_answer", "unreachable"])
async def test_one_who_is_not_reached_leaves_the_call_as_it_was(result: str) -> None:
    async with house() as home:
        line = slow()
        await rings(home, line)
        line.tells(TargetLost(result))
        await flows(line, 0.1)
        assert home.record.state == State.TALKING
        assert home.agent.told == []
        (attempt,) = call_document(home.record)["take_overs"]
        assert (attempt["failed"], attempt["from"], attempt["until"]) == (result, None, None)
        assert notes(home)[-1] == f"lea did not take the call over ({result.replace('_', ' ')})"
        leg = home.record.legs[-1]
        assert (leg.kind, leg.number, leg.result) == ("supervisor", NUMBER, result)
        assert home.record.take_over is None


async def test_one_who_lets_it_ring_is_given_up() -> None:
    async with house() as home:
        line = slow()
        await rings(home, line)
        await flows(line, 31)
        assert line.asked[-1] == "drop_target"
        assert home.record.take_overs[0].failed == "no_answer"


@pytest.mark.parametrize("kind", [CloseKind.LOST, CloseKind.AGENT_ENDED])
async def test_an_agent_that_has_gone_meanwhile_is_another_one_afterwards(kind: CloseKind) -> None:
    async with house() as home:
        line = slow()
        name = await taken(home, line)
        home.agent.closes(kind, 1006)
        await flows(line, 3)
        assert home.record.state == State.TAKEN_OVER, "the two speak on"
        assert len(home.agents.conversations) == 1, "none is held for nothing"
        await home.control.give_back(name)
        await flows(line, 0.1)
        assert len(home.agents.conversations) == 2
        told = [text for way, text in home.agent.told if way == "context"]
        assert any("spoke with the caller for 3 seconds" in text for text in told)
        assert "colleague" in home.agent.told[-1][1]
        home.agent.says(200, final=True)
        await flows(line, 0.5)
        assert home.record.state == State.TALKING
        assert audible(line) == 10
        line.tells(Ended("caller_hung_up"))
        await home.until(State.ENDED)
        document = call_document(home.record)
        assert document["take_overs"][0]["renewed"]
        assert not any("lost" in reason for reason in document["score"]["reasons"])


async def test_its_own_limits_do_not_count_meanwhile() -> None:
    async with house() as home:
        line = slow()
        name = await taken(home, line)
        await asyncio.sleep(700)
        assert home.record.state == State.TAKEN_OVER, "CALL_TIMEOUT_SECONDS is the agent's"
        await home.control.give_back(name)
        await asyncio.sleep(590)
        assert home.record.state == State.TALKING
        await asyncio.sleep(20)
        assert home.record.end_reason == "call_timeout"


async def test_a_phone_that_holds_is_between_the_two() -> None:
    async with house() as home:
        line = slow()
        name = await taken(home, line)
        line.tells(PhoneHeld(on=True))
        assert home.agent.told == []
        await home.control.give_back(name)
        assert home.agent.told[-1] == (
            "context",
            "The caller has put you on hold and hears nothing until they come back.",
        )


async def test_a_tool_that_needs_the_caller_is_refused_meanwhile() -> None:
    async with house() as home:
        await taken(home, slow())
        for number, (tool, arguments) in enumerate(
            [
                ("hang_up", {}),
                ("transfer_call", {"to": "2000"}),
                ("transfer_call", {"to": NUMBER, "mode": "attended"}),
                ("send_dtmf", {"digits": "1"}),
                ("hold", {}),
            ]
        ):
            home.agent.handler.tool_call(tool, str(number), arguments, True)
        await asyncio.sleep(0.1)
        assert [is_error for _, _, is_error in home.agent.results] == [True] * 5
        assert home.record.state == State.TAKEN_OVER


async def test_who_took_over_and_who_listened_is_kept() -> None:
    async with house() as home:
        line = slow()
        await home.talks(line)
        name = home.record.session_id
        with home.control.listen(name, "tom") as ear:
            assert home.record.listening == ["tom"]
            await flows(line, 1)
            await home.control.take_over(name, NUMBER, "lea")
            await flows(line, 2)
            line.tells(TargetConnected())
            await flows(line, 3, LOUD)
            heard = np.frombuffer(ear.take(60), "<i2").reshape(-1, 2)
            assert heard[:, 0].max() == 3000, "who listens hears it, too"
            await home.control.give_back(name)
        line.tells(Ended("caller_hung_up"))
        await home.until(State.ENDED)
        document = call_document(home.record, {"numbers"})
        (over,), (listener,) = document["take_overs"], document["listeners"]
        assert (over["who"], over["number"]) == ("lea", document["legs"][1]["number"])
        assert NUMBER not in str(document)
        assert over["until"] - over["from"] == pytest.approx(3, abs=0.05)
        assert over["from"] - over["asked"] == pytest.approx(2, abs=0.05)
        assert listener["who"] == "tom"
        assert listener["until"] - listener["from"] == pytest.approx(6, abs=0.05)
        told = [finding.text for finding in findings(document) if finding.well]
        assert "lea spoke with the caller for 3 s, from 0:03.0 on." in told
        assert "tom listened for 6 s, from 0:00.0 on." in told


async def test_two_voices_that_come_apart_are_heard_apart() -> None:
    async with house() as home:
        line = slow()
        await taken(home, line)
        hear = line.hear_target
        assert hear is not None
        with home.control.listen(home.record.session_id, "tom") as ear:
            for _ in range(10):
                hear(np.full(160, -2000, "<i2").tobytes())
                await flows(line, 0.02, LOUD)
            heard = np.frombuffer(ear.take(60), "<i2").reshape(-1, 2)
        assert (heard[:, 0].max(), heard[:, 1].min()) == (3000, -2000)
        assert not any(map(any, home.agent.heard)), "and not by the agent"


async def test_a_caller_who_hangs_up_ends_everything() -> None:
    async with house() as home:
        line = slow()
        await taken(home, line)
        await flows(line, 1)
        line.tells(Ended("caller_hung_up"))
        await home.until(State.ENDED)
        assert line.outcome is not None, "the line gives the supervisor back, too"
        (over,) = home.record.take_overs
        assert over.until is not None
        assert home.record.legs[-1].ended is not None


# --- what is refused


async def refusal(home: House, endpoint: str = NUMBER) -> NotPossible:
    with pytest.raises(NotPossible) as refused:
        await home.control.take_over(home.record.session_id, endpoint, "lea")
    return refused.value


async def test_why_it_cannot_be_taken_over_is_a_sentence() -> None:
    async with house() as home:
        line = FakeLine(slow=frozenset({"bring_in", "connect"}))
        home.calls.take(Arrival(line))
        await home.until(State.JOINING)
        assert str(await refusal(home)) == "Caller and agent are not together yet."
        line.tells(Connected())
        assert (await refusal(home, "x&y")).code == "bad_target"
        await home.control.hold(home.record.session_id, on=True)
        assert (await refusal(home)).code == "busy"
        await home.control.hold(home.record.session_id, on=False)
        line.reachable = False
        assert (await refusal(home)).code == "line"
        line.reachable = True
        with pytest.raises(NotPossible, match="Nobody has taken this call over"):
            await home.control.give_back(home.record.session_id)
        await home.control.take_over(home.record.session_id, NUMBER, "lea")
        assert str(await refusal(home)) == "A supervisor is being called already."
        with pytest.raises(NotPossible, match="A supervisor is being called already"):
            await home.control.transfer(home.record.session_id, NUMBER, "attended")
        line.tells(TargetConnected())
        assert str(await refusal(home)) == "Somebody speaks with the caller already."
        with pytest.raises(NotPossible, match="is not heard"):
            await home.control.say_to_agent(home.record.session_id, "user", "Hello?")
        await home.control.say_to_agent(home.record.session_id, "context", "He is angry.")
        assert home.agent.told[-1] == ("context", "He is angry.")


async def test_a_line_that_cannot_says_so() -> None:
    async with house() as home:
        line = FakeLine(abilities=~Ability.BRING_IN)
        await home.talks(line)
        assert str(await refusal(home)) == "This line cannot do that."


async def test_who_asks_late_changes_nothing() -> None:
    async with house() as home:
        line = slow()
        name = await rings(home, line)
        call = home.calls.call(name)
        assert call is not None
        call.take_over("+493023125005", "tom")
        call.context.post(TakeOverRequested("+493023125005"))
        assert line.asked[-1] == f"bring_in {NUMBER}"
        assert len(home.record.take_overs) == 1
        await home.control.give_back(name)
        assert line.asked[-1] == "drop_target"
        assert home.record.take_overs[0].failed == "given_up"
