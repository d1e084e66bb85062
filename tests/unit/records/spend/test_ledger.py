from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ari_app.records.spend.ledger import AgentTime, Ledger
from ari_app.records.spend.limits import Spent

Key = TypeVar("Key")

CALLS = st.integers(1, 4)
TODAY, TOMORROW = date(2026, 11, 29), date(2026, 11, 30)


def ledger_of(seconds: Mapping[Key, float]) -> Ledger[Key]:
    """A ledger of calls whose agents have gone after so many seconds."""
    return Ledger(lambda key: AgentTime(seconds[key]), lambda: 0.0)


def empty() -> Ledger[str]:
    return ledger_of(defaultdict(float))


def test_a_call_belongs_to_the_day_on_which_it_began() -> None:
    now = 1000.0
    ledger = Ledger[str](lambda key: AgentTime(100.0, 1000.0), lambda: now)
    ledger.enters("late", "s1", TODAY, "a")
    assert ledger.spent(TODAY) == {"a": Spent(1, 100.0)}
    now = 5900.0  # midnight has passed
    assert ledger.spent(TODAY) == {"a": Spent(1, 5000.0)}
    assert ledger.spent(TOMORROW) == {}
    ledger.leaves("late", 1)
    assert (ledger.spent(TODAY), ledger.spent(TOMORROW)) == ({"a": Spent(1, 5000.0)}, {})


def test_a_call_that_may_get_an_agent_counts_until_it_is_over_without_one() -> None:
    ledger = empty()
    ledger.enters("rings", "s1", TODAY, "a")
    ledger.enters("rings", "s1", TODAY, "b")
    assert ledger.spent(TODAY) == {"b": Spent(1, 0.0)}
    ledger.leaves("rings", 1)
    ledger.leaves("refused", 1)
    assert ledger.spent(TODAY) == {}


def test_what_was_deleted_is_spent_all_the_same() -> None:
    ledger = empty()
    ledger.log_says(TODAY, 0, [], {"a": Spent(5, 50.0), "b": Spent(1, 1.0)})
    ledger.log_says(TODAY, 0, [], {"a": Spent(3, 60.0)})
    assert ledger.spent(TODAY) == {"a": Spent(5, 60.0), "b": Spent(1, 1.0)}


def test_old_days_are_forgotten_and_a_clock_may_go_back() -> None:
    ledger = empty()
    days = [date(2026, 11, day) for day in range(1, 10)]
    for day in days:
        ledger.log_says(day, 0, [], {"a": Spent(day.day, 0.0)})
    assert [day.day for day in days if ledger.knows(day)] == [7, 8, 9]
    assert ledger.spent(date(2026, 11, 8)) == {"a": Spent(8, 0.0)}


class EachCallOnce(RuleBasedStateMachine):
    """Whatever the call log has, and whenever it is asked, each call counts exactly once.

    The log's own calls and those of this process end up in one database, some time after they were
    told; between the question and its answer anything may happen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[int, float] = {}
        self.ledger = ledger_of(self.seconds)
        self.truth: dict[str, Spent] = defaultdict(Spent)
        self.running: dict[int, str] = {}
        self.told: list[tuple[str, str, float]] = []
        self.database: dict[str, tuple[str, float]] = {}
        self.settled = 0
        self.asked: tuple[int, list[str]] | None = None
        self.calls = 0

    @rule(agent=st.sampled_from("ab"), seconds=st.sampled_from([0.0, 1.0, 2.5]))
    def enters(self, agent: str, seconds: float) -> None:
        self.calls += 1
        self.seconds[self.calls] = seconds
        self.running[self.calls] = agent
        self.ledger.enters(self.calls, f"s{self.calls}", TODAY, agent)

    @rule()
    def leaves(self) -> None:
        if self.running:
            key, agent = self.running.popitem()
            self.told.append((f"s{key}", agent, self.seconds[key]))
            self.ledger.leaves(key, len(self.told))

    @rule(counted=st.booleans())
    def is_written(self, counted: bool) -> None:
        """The database has one more; that this is known comes with it or later."""
        written = len(self.database)
        if written < len(self.told):
            session_id, agent, seconds = self.told[written]
            self.database[session_id] = (agent, seconds)
        if counted:
            self.settled = len(self.database)

    @rule()
    def asks(self) -> None:
        self.asked = (self.settled, self.ledger.counted_here(TODAY, self.settled))

    @rule()
    def is_answered(self) -> None:
        if self.asked is None:
            return
        (settled, but), self.asked = self.asked, None
        found: dict[str, Spent] = defaultdict(Spent)
        for session_id, (agent, seconds) in self.database.items():
            if seconds > 0 and session_id not in but:
                found[agent] += Spent(1, seconds)
        self.ledger.log_says(TODAY, settled, but, found)

    @invariant()
    def all_are_counted_once(self) -> None:
        wanted: dict[str, Spent] = defaultdict(Spent)
        for _, agent, seconds in self.told:
            if seconds > 0:
                wanted[agent] += Spent(1, seconds)
        for key, agent in self.running.items():
            wanted[agent] += Spent(1, self.seconds[key])
        assert self.ledger.spent(TODAY) == wanted


class SumsOfWhatRuns(RuleBasedStateMachine):
    """The sums of calls that run are those of the calls, one by one, whatever happens to them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.times: dict[int, AgentTime] = defaultdict(lambda: AgentTime(0.0))
        self.ledger = Ledger[int](self.times.__getitem__, lambda: self.now)
        self.running: dict[int, tuple[date, str]] = {}
        self.ended: list[tuple[date, str, float]] = []

    @rule(key=CALLS, day=st.sampled_from([TODAY, TOMORROW]), agent=st.sampled_from("ab"))
    def enters(self, key: int, day: date, agent: str) -> None:
        self.running[key] = (day, agent)
        self.ledger.enters(key, f"s{key}", day, agent)

    @rule(key=CALLS)
    def an_agent_comes(self, key: int) -> None:
        """What happens next to it is told before or after it."""
        self.ledger.changes(key)
        self.times[key] = AgentTime(self.times[key].until(self.now), self.now)

    @rule(key=CALLS)
    def the_agent_goes(self, key: int) -> None:
        self.times[key] = AgentTime(self.times[key].until(self.now))
        self.ledger.changes(key)

    @rule(key=CALLS)
    def leaves(self, key: int) -> None:
        """Perhaps once more, or without having come."""
        self.ledger.leaves(key, 1)
        if (call := self.running.pop(key, None)) is not None:
            self.ended.append((*call, self.times[key].until(self.now)))
        self.times.pop(key, None)

    @rule(seconds=st.sampled_from([0.1, 1 / 3, 86400.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def looks(self) -> None:
        for day in (TODAY, TOMORROW):
            wanted: dict[str, Spent] = defaultdict(Spent)
            for of, agent, seconds in self.ended:
                if of == day and seconds > 0:
                    wanted[agent] += Spent(1, seconds)
            for key, (of, agent) in self.running.items():
                if of == day:
                    wanted[agent] += Spent(1, self.times[key].until(self.now))
            found = self.ledger.spent(day)
            assert found.keys() == wanted.keys()
            for agent, spent in found.items():
                assert spent.calls == wanted[agent].calls
                assert spent.seconds == pytest.approx(wanted[agent].seconds, abs=1e-4)

    def teardown(self) -> None:
        self.looks()
        for key in tuple(self.running):
            self.leaves(key)
        self.looks()
        assert self.ledger._sums == {}, "nothing is left of calls that are over"


TestSumsOfWhatRuns = SumsOfWhatRuns.TestCase
TestSumsOfWhatRuns.settings = settings(max_examples=200, stateful_step_count=40)
TestEachCallOnce = EachCallOnce.TestCase
TestEachCallOnce.settings = settings(max_examples=300, stateful_step_count=30)
