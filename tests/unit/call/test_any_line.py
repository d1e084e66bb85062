"""Whole calls over a line that is no Asterisk: nothing of it is even imported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.call.calls import Calls
from ari_app.call.plan import Services
from ari_app.call.states import State
from ari_app.control.control import CallControl
from ari_app.control.planner import Planner, PlannerOptions, Wish
from ari_app.control.refusals import ControlRefused, NotPossible
from ari_app.errors import LineError
from ari_app.line.interface import (
    Ability,
    Arrival,
    CallEnd,
    Connected,
    Ended,
    Gateway,
    KeyPressed,
    Outcome,
    Result,
    Status,
    TargetLost,
)
from ari_app.line.microphone import MicrophoneGateway
from ari_app.records.events import CallEnded, CallEvent, StateChanged
from ari_app.records.journal import Journal
from ari_app.records.record import CallRecord
from tests.unit.call.fake_agents import FakeAgent, FakeAgents
from tests.unit.line.fake_card import FakeCard
from tests.unit.line.fake_line import FRAME, FakeGateway, FakeLine
from tests.waiting import until


class House:
    """Calls, agents, and a way in."""

    def __init__(self, gateway: Gateway) -> None:
        self.agents = FakeAgents()
        options = PlannerOptions("agent_default", 600, 8, lambda active: 40)
        planner = Planner(options, self.agents, None, lambda: self.calls.count())
        self.journal = Journal()
        services = Services(agents=self.agents, journal=self.journal)
        self.calls = Calls(services, planner, max_concurrent_calls=2)
        now = asyncio.get_running_loop().time
        self.control = CallControl(self.calls, [gateway], planner, services.policy, now)

    @property
    def agent(self) -> FakeAgent:
        return self.agents.conversations[-1]

    @property
    def record(self) -> CallRecord:
        return list(self.calls.records.values())[-1]

    async def until(self, state: State) -> None:
        await until(lambda: self.calls.records and self.record.state == state)

    async def talks(self, line: FakeLine) -> None:
        self.calls.take(Arrival(line))
        await self.until(State.TALKING)


@asynccontextmanager
async def house(
    gateway: Gateway | None = None,
) -> AsyncIterator[House]:
    made = House(gateway or FakeGateway())
    raised: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context))
    yield made
    assert raised == []
    await made.calls.drain(0)
    await made.calls.close()


async def flows(line: FakeLine, seconds: float, pcm: bytes = FRAME) -> None:
    """Time passes, and sound with it."""
    for _ in range(round(seconds * 50)):
        line.beats(1, pcm)
        await asyncio.sleep(0.02)


def audible(line: FakeLine) -> int:
    """How many frames the caller heard."""
    return sum(frame is not None and any(frame) for frame in line.heard)


async def test_a_whole_call() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        home.agent.says(200, final=True)
        await flows(line, 0.52, np.full(160, 1000, "<i2").tobytes())
        assert audible(line) == 10
        assert sum(map(len, home.agent.heard)) == 26 * 320, "to the last sample"
        home.agent.closes(CloseKind.AGENT_ENDED)
        await flows(line, 0.02)
        await home.until(State.ENDED)
        assert line.outcome == Outcome(Status.COMPLETED, "agent_ended")
        assert line.end == CallEnd(line.session_id, "conv_of_agent_default")
        assert line.asked == ["ring", "open", "connect"]
        assert home.agent.briefing.variables == {
            "caller_id": "+15550100001",
            "called_number": "8500",
            "call_sid": "line-1",
        }


async def test_a_caller_who_hangs_up_leaves_no_agent_behind() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        line.tells(Ended("caller_hung_up"))
        await home.until(State.ENDED)
        assert home.agent.end is CloseKind.LOCAL
        assert line.outcome == Outcome(Status.COMPLETED, "caller_hung_up")


async def test_a_waiting_caller_is_planned_for_under_the_name_of_the_request() -> None:
    async with house() as home:
        home.agents.ready.clear()
        home.calls.take(Arrival(FakeLine(), wait_seconds=60))
        await asyncio.sleep(0.01)
        wish = Wish(reference="line-1", session_id="crm-17", caller_number="+15550100009")
        record = await home.control.initiate(wish)
        call = home.calls.call("crm-17")
        assert call is not None
        assert call.plan.briefing.variables["caller_id"] == "+15550100009"
        assert record.caller_number == "+15550100001", "who is on the line stays the same"


async def test_nobody_begins_to_wait_for_a_service_that_stops() -> None:
    async with house() as home:
        await home.calls.drain(0)
        line = FakeLine()
        home.calls.take(Arrival(line, wait_seconds=60))
        await home.until(State.ENDED)
        assert line.outcome == Outcome(Status.REJECTED, "draining")
        assert line.asked == []


async def test_who_had_gone_before_they_waited_is_told_of_in_order() -> None:
    async with house() as home:
        states: list[str] = []

        def heard(record: CallRecord, event: CallEvent) -> None:
            if isinstance(event, StateChanged):
                states.append(event.state)

        home.journal.listen(heard)
        line = FakeLine()
        line.tells(Ended("caller_hung_up"))
        home.calls.take(Arrival(line, wait_seconds=60))
        await home.until(State.ENDED)
        assert states == ["waiting", "releasing", "ended"]
        assert line.asked == []


async def test_a_call_is_looked_at_in_the_moment_of_its_end() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        call = home.calls.call(home.record.session_id)
        assert call is not None
        seen: list[CallRecord | None] = []

        def look() -> None:
            seen.append(home.calls.record(call.record.session_id))

        def heard(record: CallRecord, event: CallEvent) -> None:
            if isinstance(event, CallEnded):
                asyncio.get_running_loop().call_soon(look)

        call.services.journal.listen(heard)
        line.tells(Ended("caller_hung_up"))
        await home.until(State.ENDED)
        await asyncio.sleep(0)
        assert seen == [call.record]


async def test_a_transfer_that_was_asked_for_waits_for_nobody_who_has_gone() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        home.agent.says(10_000)
        asked = asyncio.create_task(
            home.control.transfer(home.record.session_id, "+15550100003", "attended")
        )
        await asyncio.sleep(0.1)
        line.tells(Ended("caller_hung_up"))
        with pytest.raises(NotPossible):
            await asyncio.wait_for(asked, 3)


async def test_a_call_that_we_place() -> None:
    gateway = FakeGateway()
    async with house(gateway) as home:
        await home.control.initiate(Wish(called_number="+15550100002"))
        await home.until(State.TALKING)
        (line,) = gateway.lines
        assert line.asked == ["dial", "open", "connect"]
        assert home.record.result == "answered", "whoever looks at the record meanwhile is told"
        line.tells(Ended("caller_hung_up"))
        await home.until(State.ENDED)
        assert home.record.result == "answered"


async def test_a_call_that_nobody_answers() -> None:
    gateway = FakeGateway()
    gateway.slow = frozenset({"dial"})
    async with house(gateway) as home:
        await home.control.initiate(Wish(called_number="+15550100002"))
        gateway.lines[0].tells(Ended("busy", Result.BUSY))
        await home.until(State.ENDED)
        assert (home.record.result, home.agents.dialled) == ("busy", [])


async def test_two_wishes_for_one_caller_who_waits() -> None:
    async with house() as home:
        line = FakeLine()
        home.calls.take(Arrival(line, wait_seconds=30))
        await asyncio.sleep(0)
        record = home.record
        assert record.agent_id == "agent_default", "whoever asks sees which agent it would be"
        wishes = [
            Wish(reference=line.id, session_id=name, caller_number=number)
            for name, number in (("crm-1", "+15550100007"), ("crm-2", "+15550100008"))
        ]
        first, second = await asyncio.gather(
            *map(home.control.initiate, wishes), return_exceptions=True
        )
        assert first is record
        assert isinstance(second, ControlRefused)
        assert second.code == "no_such_channel"
        assert (record.session_id, record.caller_number) == ("crm-1", "+15550100001")
        call = home.calls.call("crm-1")
        assert call is not None
        assert call.plan.briefing.variables["caller_id"] == "+15550100007"
        await home.control.end("crm-1")


async def test_what_was_taken_ahead_counts_as_unheard() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        home.agent.says(2000)
        await flows(line, 1)
        line.ahead_ms = 60
        home.agent.handler.interruption(1)
        (said,) = (each.text for each in home.record.transcript if each.who == "interruption")
        # It fades out for 2 ms.
        assert said == "after 942 ms, 1058 ms unheard"


async def test_the_caller_is_held_and_presses_keys() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        for key in "42#":
            line.tells(KeyPressed(key))
        assert home.agent.told == [("dtmf", "42")]
        await home.control.hold(home.record.session_id, on=True)
        await home.control.send_dtmf(home.record.session_id, "1")
        await home.control.hold(home.record.session_id, on=False)
        assert line.asked[3:] == ["music", "keys 1", "connect"]


async def holds_by_tool(home: House) -> None:
    """The agent has the caller hear music until it speaks."""
    home.agent.handler.tool_call("hold", "1", {}, False)
    await home.until(State.HOLDING)


async def test_an_agents_word_ends_no_hold_of_somebody_else_after_its_own() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        await holds_by_tool(home)
        await home.control.hold(home.record.session_id, on=False)
        await home.control.hold(home.record.session_id, on=True)
        home.agent.says(20, final=True)
        assert home.record.state == State.HOLDING
        await home.control.hold(home.record.session_id, on=False)
        await holds_by_tool(home)
        home.agent.says(20, final=True)
        assert home.record.state == State.TALKING, "its own it ends"


async def test_an_agents_word_ends_no_hold_that_was_there_before_its_own() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        home.agent.handler.tool_call("hold", "1", {}, False)
        await asyncio.sleep(1)
        await home.control.hold(home.record.session_id, on=True)
        await asyncio.sleep(10)
        home.agent.says(20, final=True)
        assert home.record.state == State.HOLDING


async def test_a_message_without_sound_ends_no_hold() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        await holds_by_tool(home)
        home.agent.says(0, final=True)
        assert home.record.state == State.HOLDING
        home.agent.says(20, final=True)
        assert home.record.state == State.TALKING


async def test_whom_the_agent_holds_stays_on_hold_where_somebody_else_wants_it_too() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        await holds_by_tool(home)
        await home.control.hold(home.record.session_id, on=True)
        home.agent.says(20, final=True)
        assert home.record.state == State.HOLDING
        await home.control.hold(home.record.session_id, on=False)
        assert line.asked[3:] == ["music", "connect"]


async def says_good_bye_out_of_its_own_hold(home: House, line: FakeLine) -> int:
    """And closes at once, while the line brings the caller back; frames heard until then."""
    home.calls.take(Arrival(line))
    await home.until(State.JOINING)
    line.tells(Connected())
    await home.until(State.TALKING)
    await holds_by_tool(home)
    before = audible(line)
    home.agent.says(1000, final=True)
    home.agent.closes(CloseKind.AGENT_ENDED)
    assert home.record.state == State.DRAINING
    return before


async def test_a_good_bye_out_of_hold_waits_until_the_caller_is_back() -> None:
    async with house() as home:
        line = FakeLine(slow=frozenset({"connect"}))
        before = await says_good_bye_out_of_its_own_hold(home, line)
        await flows(line, 1)
        assert audible(line) == before, "the caller still hears music"
        line.tells(Connected())
        await flows(line, 1.02)
        await home.until(State.ENDED)
        assert audible(line) - before == 50
        assert line.outcome == Outcome(Status.COMPLETED, "agent_ended")


async def test_what_is_complete_before_the_caller_is_back_is_not_mixed_with_what_follows() -> None:
    async with house() as home:
        line = FakeLine(slow=frozenset({"connect"}))
        home.calls.take(Arrival(line))
        await home.until(State.JOINING)
        line.tells(Connected())
        await home.until(State.TALKING)
        # It is one that says where its responses end.
        home.agent.handler.response_complete(1)
        await holds_by_tool(home)
        before = audible(line)
        home.agent.says(100, event_id=2)
        home.agent.handler.response_complete(2)
        line.tells(Connected())
        await flows(line, 1)
        home.agent.says(100, event_id=3, final=True)
        await flows(line, 1)
        assert audible(line) - before == 10
        call = home.calls.call(home.record.session_id)
        assert call is not None
        assert call.sound.report().underruns == 0


async def test_a_good_bye_waits_for_no_caller_who_cannot_be_brought_back() -> None:
    async with house() as home:
        line = FakeLine(slow=frozenset({"connect"}))
        await says_good_bye_out_of_its_own_hold(home, line)
        await home.until(State.ENDED)
        assert line.outcome == Outcome(Status.COMPLETED, "agent_ended")


async def test_a_good_bye_waits_for_no_caller_who_hangs_up() -> None:
    async with house() as home:
        line = FakeLine(slow=frozenset({"connect"}))
        await says_good_bye_out_of_its_own_hold(home, line)
        line.tells(Ended("caller_hung_up"))
        await asyncio.sleep(0.1)
        assert home.record.state == State.ENDED
        assert line.outcome == Outcome(Status.COMPLETED, "caller_hung_up")


@pytest.mark.parametrize(
    ("way", "code", "words"),
    [
        ("asterisk", "asterisk", "Asterisk refused it (busy)."),
        ("custom", "line", "The far end of the line refused it (busy)."),
    ],
)
async def test_who_refuses_is_named_as_what_it_is(way: str, code: str, words: str) -> None:
    async def refuse(keys: str) -> None:
        raise LineError("not now", code="busy")

    async with house() as home:
        line = FakeLine()
        line.way = way
        line.send_keys = refuse  # type: ignore[method-assign]
        await home.talks(line)
        with pytest.raises(NotPossible) as refusal:
            await home.control.send_dtmf(home.record.session_id, "1")
        assert (refusal.value.code, str(refusal.value)) == (code, words)


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("hold", {"on": True}),
        ("send_dtmf", {"digits": "1"}),
        ("transfer", {"to": "+15550100003"}),
    ],
)
async def test_what_the_line_cannot_do_is_refused(what: str, arguments: dict[str, Any]) -> None:
    async with house() as home:
        line = FakeLine(abilities=Ability.NOTHING)
        await home.talks(line)
        with pytest.raises(NotPossible, match="This line cannot do that"):
            await getattr(home.control, what)(home.record.session_id, **arguments)
        assert line.asked == ["ring", "open", "connect"]


async def test_who_comes_back_from_a_transfer_hears_nothing_of_what_its_target_was_told() -> None:
    async with house() as home:
        line = FakeLine()
        await home.talks(line)
        await home.control.transfer(home.record.session_id, "+15550100003", "attended")
        await home.until(State.BRIEFING)
        home.agent.says(3000, event_id=2)
        await flows(line, 0.5)
        line.tells(TargetLost("hung_up"))
        before = audible(line)
        home.agent.says(1000, event_id=2, final=True)
        await flows(line, 1)
        assert audible(line) <= before + 1, "it is faded out"
        home.agent.says(200, event_id=3, final=True)
        await flows(line, 1)
        assert audible(line) >= before + 10


async def test_a_talk_at_the_microphone_outlives_its_agent() -> None:
    card = FakeCard(16000)
    gateway = MicrophoneGateway(card)

    async def beats() -> None:
        while True:
            await asyncio.sleep(0.02)
            card.beat()

    async with house(gateway) as home:
        tasks = [asyncio.create_task(beats()), asyncio.create_task(gateway.run(home.calls.take))]
        line = await gateway.talk()
        await home.until(State.TALKING)
        home.agents.ready.clear()
        home.agent.closes(CloseKind.LOST, 1006)
        await asyncio.sleep(2)
        home.agents.ready.set()
        await asyncio.sleep(0.1)
        before = len(card.played)
        home.agent.says(200, event_id=1, final=True)
        await asyncio.sleep(1)
        assert home.record.state == State.TALKING
        assert sum(any(block) for block in card.played[before:]) >= 10, "and is heard"
        line.hang_up()
        await home.until(State.ENDED)
        assert line.outcome == Outcome(Status.COMPLETED, "caller_hung_up")
        assert card.open_streams == 0
        for task in tasks:
            task.cancel()


def test_nothing_of_asterisk_is_imported() -> None:
    code = (
        f"import sys, {__name__}\n"
        "print([name for name in sys.modules if 'asterisk' in name or 'audiosocket' in name])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
