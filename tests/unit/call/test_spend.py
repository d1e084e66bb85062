"""The limits of a day, held against calls: which may begin, what is counted, who is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import cast
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.call.states import State
from ari_app.control.planner import Wish
from ari_app.control.refusals import ControlRefused
from ari_app.line.interface import Arrival, Ended, Outcome, Status, TargetConnected
from ari_app.records.document import call_document
from ari_app.records.events import AgentClosed, CallEnded, CallEvent, StateChanged
from ari_app.records.record import CallRecord
from ari_app.records.spend.guard import SpendGuard
from ari_app.records.spend.limits import Limit, SpendAlert, SpendLimits, Spent, Use
from ari_app.records.spend.shares import Change
from ari_app.records.store.log import CallLog, CallLogUnavailable
from ari_app.records.store.spool import Counts
from tests.unit.call.test_any_line import House, house
from tests.unit.line.fake_line import FakeLine

NUMBER = "+493023125001"


class FakeLog:
    """A call log that has what a test says; what it is told it never writes."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.has: dict[str, tuple[int, float]] = {}
        self.away = False
        self.asked: list[tuple[datetime, datetime, Sequence[str]]] = []

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        self.counts.given += isinstance(event, CallEnded)

    async def spent(
        self, begin: datetime, end: datetime, but: Sequence[str] = ()
    ) -> dict[str, tuple[int, float]]:
        self.asked.append((begin, end, but))
        if self.away:
            raise CallLogUnavailable("The database is away.")
        return self.has


class Day:
    """A house with a guard; the time of day goes on with the loop's."""

    def __init__(self, home: House, limits: SpendLimits, noon: datetime) -> None:
        self.home = home
        self.log = FakeLog()
        self.alerts: list[SpendAlert] = []
        self._loop = asyncio.get_running_loop()
        self._noon, self._began = noon, self._loop.time()
        self.guard = SpendGuard(
            limits,
            cast(CallLog, self.log),
            self._loop.time,
            now=self.now,
            tell=self.alerts.append,
        )
        home.journal.listen(self.log.heard)
        home.journal.listen(self.guard.heard)
        home.calls.quota = self.guard.quota
        record = home.calls._record
        # Records are stamped by the real time of day.
        home.calls._record = lambda *args: self._stamped(record(*args))  # type: ignore[method-assign]

    def now(self) -> datetime:
        return self._noon + timedelta(seconds=self._loop.time() - self._began)

    def _stamped(self, record: CallRecord) -> CallRecord:
        record.started_at = self.now()
        return record

    async def talks(self, seconds: float) -> CallRecord:
        """A call in which an agent is there for so long."""
        line = FakeLine()
        record = await self.begins(line)
        await asyncio.sleep(seconds)
        self.home.agent.closes(CloseKind.AGENT_ENDED)
        await self.home.until(State.ENDED)
        return record

    async def begins(self, line: FakeLine) -> CallRecord:
        self.home.calls.records.clear()
        await self.home.talks(line)
        return self.home.record

    async def refused(self) -> Outcome | None:
        """A caller who is given back; how."""
        line = FakeLine()
        dialled = len(self.home.agents.dialled)
        self.home.calls.take(Arrival(line))
        await asyncio.sleep(0.1)
        assert len(self.home.agents.dialled) == dialled
        assert not line.answered
        return line.outcome


@asynccontextmanager
async def day(
    limits: SpendLimits, noon: datetime = datetime(2026, 11, 29, 12, tzinfo=UTC)
) -> AsyncIterator[Day]:
    async with house() as home:
        yield Day(home, limits, noon)


async def test_at_its_limit_of_minutes_no_further_call_begins() -> None:
    async with day(SpendLimits(together=Limit(minutes=5))) as today:
        assert today.guard.quota("agent_default") is None
        record = await today.talks(301)
        assert record.agent_seconds == pytest.approx(301, abs=0.1)
        assert call_document(record)["agent_seconds"] == pytest.approx(301, abs=0.1)
        assert await today.refused() == Outcome(Status.REJECTED, "quota")
        quota = today.guard.quota("agent_default")
        assert quota is not None
        assert "100 % of today's 5 minutes" in quota.text
        # Noon, five minutes and what it took.
        assert quota.seconds == pytest.approx(12 * 3600 - 301, abs=2)


async def test_a_call_that_runs_counts_as_it_goes_and_is_not_cut() -> None:
    async with day(SpendLimits(together=Limit(minutes=5))) as today:
        await today.begins(FakeLine())
        await asyncio.sleep(299)
        assert today.guard.quota("agent_default") is None
        await asyncio.sleep(2)
        assert today.guard.quota("agent_default") is not None
        assert today.home.record.state == "talking"


async def test_calls_that_are_still_set_up_count_so_a_limit_is_never_exceeded() -> None:
    async with day(SpendLimits(agents={"agent_default": Limit(calls=1)})) as today:
        today.home.agents.ready.clear()
        first = FakeLine()
        today.home.calls.take(Arrival(first))
        await asyncio.sleep(0.1)
        assert await today.refused() == Outcome(Status.REJECTED, "quota")
        # It never got an agent, so it costs nothing.
        first.tells(Ended("caller_hung_up"))
        await asyncio.sleep(0.1)
        today.home.agents.ready.set()
        await today.talks(1)
        assert await today.refused() == Outcome(Status.REJECTED, "quota")


async def test_another_agent_has_a_limit_of_its_own() -> None:
    async with day(SpendLimits(agents={"agent_default": Limit(calls=1)})) as today:
        await today.talks(1)
        assert today.guard.quota("agent_default") is not None
        assert today.guard.quota("agent_8") is None


async def test_a_wish_is_refused_with_the_time_until_the_day_is_over() -> None:
    async with day(SpendLimits(together=Limit(calls=1))) as today:
        waiting = FakeLine("waits")
        today.home.calls.take(Arrival(waiting, wait_seconds=60))
        await today.talks(1)
        for wish in (Wish(called_number=NUMBER), Wish(reference="waits")):
            with pytest.raises(ControlRefused) as refused:
                await today.home.control.initiate(wish)
            assert refused.value.code == "quota"
            assert refused.value.retry_after == pytest.approx(12 * 3600, abs=10)
        assert not today.home.calls.admission.full, "the place is given back"


async def test_nobody_waits_for_an_agent_that_none_can_be() -> None:
    async with day(SpendLimits(together=Limit(calls=1))) as today:
        await today.talks(1)
        line = FakeLine()
        today.home.calls.take(Arrival(line, wait_seconds=60))
        await asyncio.sleep(0.1)
        assert (line.outcome, line.asked) == (Outcome(Status.REJECTED, "quota"), [])
        began = asyncio.get_running_loop().time()
        with pytest.raises(ControlRefused, match="100 %"):
            await today.home.control.initiate(Wish(called_number=NUMBER, wait_seconds=300))
        assert asyncio.get_running_loop().time() == began


async def test_whoever_waits_may_still_be_given_another_agent() -> None:
    async with day(SpendLimits(agents={"agent_default": Limit(calls=1)})) as today:
        await today.talks(1)
        waiting = FakeLine("waits")
        today.home.calls.take(Arrival(waiting, wait_seconds=60))
        await asyncio.sleep(0.1)
        await today.home.control.initiate(Wish("agent_8", reference="waits"))
        await today.home.until(State.TALKING)


async def test_at_midnight_all_may_begin_again_and_a_call_stays_with_its_day() -> None:
    late = datetime(2026, 11, 29, 23, 57, tzinfo=ZoneInfo("Europe/Berlin"))
    limits = SpendLimits(together=Limit(minutes=2), zone=ZoneInfo("Europe/Berlin"))
    async with day(limits, late) as today:
        await today.begins(FakeLine())
        await asyncio.sleep(179)
        quota = today.guard.quota("agent_default")
        assert quota is not None and quota.seconds <= 1
        await asyncio.sleep(300)
        # It has had eight minutes, all of them yesterday's.
        assert today.guard.quota("agent_default") is None
        assert [use.used for use in today.guard.uses()] == [0]


async def test_somebody_is_told_once_when_it_is_near_and_once_when_it_is_reached() -> None:
    async with day(SpendLimits(together=Limit(minutes=5))) as today:
        watching = asyncio.create_task(today.guard.run())
        with capture_logs() as logs:
            await today.begins(FakeLine())
            await asyncio.sleep(235)
            assert today.alerts == [] and today.guard.warnings() == []
            await asyncio.sleep(10)
            [near] = today.alerts
            assert (near.reached, near.day, near.use.limit) == (False, "2026-11-29", 5)
            [warning] = today.guard.warnings()
            assert "All agents together have used 81 % of today's 5 minutes" in warning
            await asyncio.sleep(100)
        assert [alert.reached for alert in today.alerts] == [False, True]
        assert "refused as `quota`" in today.guard.warnings()[0]
        told = [line for line in logs if line["event"].startswith("spend_")]
        assert [(line["event"], line["log_level"]) for line in told] == [
            ("spend_near_limit", "warning"),
            ("spend_limit_reached", "error"),
        ]
        assert (told[0]["agent"], told[0]["of"], told[0]["limit"]) == ("all", "minutes", 5)
        assert today.guard.ratio("minutes", together=True) > 1
        assert today.guard.ratio("calls", together=True) == 0
        watching.cancel()


async def test_what_was_spent_before_a_start_and_by_others_comes_from_the_call_log() -> None:
    async with day(SpendLimits(agents={"agent_default": Limit(minutes=10)})) as today:
        today.log.has = {"agent_default": (3, 540.0), "other": (1, 9e9)}
        watching = asyncio.create_task(today.guard.run())
        await asyncio.sleep(0.1)
        assert today.log.asked[0][:2] == (
            datetime(2026, 11, 29, tzinfo=UTC),
            datetime(2026, 11, 30, tzinfo=UTC),
        )
        assert [use.used for use in today.guard.uses()] == [9]
        # Another process has a call meanwhile.
        today.log.has = {"agent_default": (4, 600.0)}
        await asyncio.sleep(20)
        assert await today.refused() == Outcome(Status.REJECTED, "quota")
        watching.cancel()


async def test_while_the_call_log_is_away_calls_begin_and_it_is_said() -> None:
    async with day(SpendLimits(together=Limit(calls=3))) as today:
        today.log.away = True
        with capture_logs() as logs:
            await today.guard.ask()
            await today.guard.ask()
        assert [line["event"] for line in logs] == ["spend_not_read"]
        [warning] = today.guard.warnings()
        assert "not counted yet. The database is away." in warning
        await today.talks(1)
        today.log.away, today.log.has = False, {"agent_default": (2, 10.0)}
        await today.guard.ask()
        # The call of this process is counted here, and the log has been asked to leave it out.
        assert today.log.asked[-1][2] == [today.home.record.session_id]
        assert await today.refused() == Outcome(Status.REJECTED, "quota")


def test_two_agents_of_one_call_are_added_up_and_its_transfer_is_not() -> None:
    """What counts is the time for which agents were there."""
    record = CallRecord("s", "l", 0.0)
    record.converses("conv_1", 1.0)
    assert record.with_agent(5.0) == 4.0
    record.fold(AgentClosed(1006, "lost"), 11.0)
    assert record.with_agent(20.0) == 10.0
    record.converses("conv_2", 21.0)
    record.fold(AgentClosed(1000, "local"), 26.0)
    record.has_ended(100.0)
    assert record.agent_seconds == 15.0


async def test_an_agent_that_comes_unseen_counts_from_its_first_second() -> None:
    """Whoever is dialled anew while a supervisor speaks changes no state of the call."""
    async with day(SpendLimits(together=Limit(minutes=100))) as today:
        home, line = today.home, FakeLine(slow=frozenset({"bring_in"}))
        record = await today.begins(line)
        await home.control.take_over(record.session_id, NUMBER, "lea")
        home.agents.ready.clear()
        steps: list[tuple[float, Callable[[], object]]] = [
            (10, lambda: home.agent.closes(CloseKind.LOST, 1006)),
            (1, lambda: line.tells(TargetConnected())),
            (20, home.agents.ready.set),
            (30, lambda: line.tells(Ended("caller_hung_up"))),
            (40, lambda: None),
        ]
        for seconds, happens in steps:
            await asyncio.sleep(seconds)
            here = asyncio.get_running_loop().time()
            [use] = today.guard.uses()
            assert use.used * 60 == pytest.approx(record.with_agent(record.duration(here)))
            happens()
        assert len(home.agents.conversations) == 2
        assert record.agent_seconds == pytest.approx(40, abs=0.1)


async def test_calls_that_end_together_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Mapping[str, Spent]] = []
    uses = SpendLimits.uses

    def look(limits: SpendLimits, spent: Mapping[str, Spent]) -> list[Use]:
        looks.append(spent)
        return uses(limits, spent)

    monkeypatch.setattr(SpendLimits, "uses", look)
    async with day(SpendLimits(together=Limit(calls=200))) as today:
        guard, now = today.guard, asyncio.get_running_loop().time
        records = [CallRecord(f"s{number}", f"l{number}", now()) for number in range(400)]
        for record in records:
            record.started_at, record.agent_id = today.now(), "agent_default"
            guard.heard(record, StateChanged("connecting", "initializing"))
            record.converses("conv", 0.0)
        await asyncio.sleep(60)
        looks.clear()
        for record in records[:200]:
            record.has_ended(now())
            guard.heard(record, CallEnded("COMPLETED", "caller_hung_up", 60.0))
        assert looks == []
        await asyncio.sleep(0)
        assert len(looks) == 1
        assert [(alert.use.used, alert.reached) for alert in today.alerts] == [(400, True)]
        # Those that ended are told of no more once it is closed.
        guard.heard(records[-1], CallEnded("COMPLETED", "caller_hung_up", 60.0))
        guard.close()
        await asyncio.sleep(0)
        assert len(looks) == 1


def told(
    seconds: float, *ended: str, gone: int = 0, anew: bool = False, day: str = "2026-11-29"
) -> Change:
    """What is new of another worker's one agent: a call that runs, one that is over, or neither."""
    spent = {"agent_default": (int(seconds > 0), seconds)}
    return Change(day, spent, ended, gone, anew=anew)


async def test_what_another_worker_counts_is_spent_once() -> None:
    async with day(SpendLimits(together=Limit(calls=1))) as today:
        guard, log = today.guard, today.log
        guard.elsewhere(2, told(60, anew=True, day="2026-11-28"))
        assert guard.quota("agent_default") is None, "that was yesterday"
        guard.elsewhere(2, told(60, anew=True))
        assert guard.quota("agent_default") is not None
        guard.elsewhere(2, told(0))
        assert guard.quota("agent_default") is None, "it never got an agent"
        guard.elsewhere(2, told(60, "over"))
        # The call log has it, too: it leaves out what the other still counts.
        await guard.ask()
        assert log.asked[-1][2] == ["over"]
        assert [use.used for use in guard.uses()] == [1]
        # The other counts it no more, for the call log has it: so it does until that was asked.
        guard.elsewhere(2, told(0, gone=1))
        assert [use.used for use in guard.uses()] == [1]
        log.has = {"agent_default": (1, 60.0)}
        await guard.ask()
        assert log.asked[-1][2] == []
        assert [use.used for use in guard.uses()] == [1]
        await asyncio.sleep(0)
        assert [(alert.use.of, alert.reached) for alert in today.alerts] == [("calls", True)]


async def test_who_tells_anew_may_count_less_once_the_call_log_was_asked() -> None:
    async with day(SpendLimits(together=Limit(calls=9))) as today:
        guard = today.guard
        guard.elsewhere(2, told(60, "one", "two", anew=True))
        guard.elsewhere(2, told(90, "one", "two", "three", anew=True))
        assert [use.used for use in guard.uses()] == [1], "the front is another one, no more"
        # The worker is another one, and has what its call log does not have yet.
        guard.elsewhere(2, told(0, "four", anew=True))
        guard.elsewhere(2, told(0, "five"))
        assert [use.used for use in guard.uses()] == [1]
        await guard.ask()
        assert today.log.asked[-1][2] == ["four", "five"]
        assert [use.used for use in guard.uses()] == [0]


async def test_the_call_log_is_asked_at_once_only_when_it_has_got_more() -> None:
    """Who asks tells news, too: two that are behind would ask each other's questions for ever."""
    async with day(SpendLimits(together=Limit(calls=9))) as today:
        guard = today.guard
        watching = asyncio.create_task(guard.run())
        guard.elsewhere(2, told(60, "one", "two", anew=True))
        await asyncio.sleep(0.1)
        today.log.away = True
        today.log.asked.clear()
        guard.elsewhere(2, told(30, gone=1))
        await asyncio.sleep(0.1)
        assert len(today.log.asked) == 1
        for _ in range(9):
            guard.elsewhere(2, told(60, "three"))
            await asyncio.sleep(0.1)
        assert len(today.log.asked) == 1
        # It is asked again soon.
        today.log.away = False
        await asyncio.sleep(5)
        assert len(today.log.asked) == 2
        watching.cancel()


async def test_what_is_counted_here_is_told_to_others_as_it_changes() -> None:
    async with day(SpendLimits(together=Limit(calls=9))) as today:
        record = await today.talks(30)
        [own] = today.guard.news()
        assert own.spent == {"agent_default": (1, record.agent_seconds)}
        assert (own.day, own.ended, own.anew) == ("2026-11-29", [record.session_id], True)
        assert today.guard.news() == []
        assert today.guard.news(anew=True) == [own]
        # The call log has it by now.
        today.log.counts.settled = today.log.counts.given
        await today.guard.ask()
        [own] = today.guard.news()
        assert (own.spent, own.ended, own.gone) == ({"agent_default": (0, 0.0)}, [], 1)
