from __future__ import annotations

from collections import defaultdict
from datetime import date

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ari_app.records.spend.ledger import Ledger
from ari_app.records.spend.limits import Spent

TODAY, TOMORROW = date(2026, 11, 29), date(2026, 11, 30)


def test_a_call_belongs_to_the_day_on_which_it_began() -> None:
    seconds = {"late": 100.0}
    ledger = Ledger[str](seconds.__getitem__)
    ledger.enters("late", "s1", TODAY, "a")
    seconds["late"] = 5000.0  # midnight has passed
    assert ledger.spent(TODAY) == {"a": Spent(1, 5000.0)}
    assert ledger.spent(TOMORROW) == {}
    ledger.leaves("late", 1)
    assert (ledger.spent(TODAY), ledger.spent(TOMORROW)) == ({"a": Spent(1, 5000.0)}, {})


def test_a_call_that_may_get_an_agent_counts_until_it_is_over_without_one() -> None:
    ledger = Ledger[str](lambda key: 0.0)
    ledger.enters("rings", "s1", TODAY, "a")
    ledger.enters("rings", "s1", TODAY, "b")
    assert ledger.spent(TODAY) == {"b": Spent(1, 0.0)}
    ledger.leaves("rings", 1)
    ledger.leaves("refused", 1)
    assert ledger.spent(TODAY) == {}


def test_what_was_deleted_is_spent_all_the_same() -> None:
    ledger = Ledger[str](lambda key: 0.0)
    ledger.log_says(TODAY, 0, [], {"a": Spent(5, 50.0), "b": Spent(1, 1.0)})
    ledger.log_says(TODAY, 0, [], {"a": Spent(3, 60.0)})
    assert ledger.spent(TODAY) == {"a": Spent(5, 60.0), "b": Spent(1, 1.0)}


def test_old_days_are_forgotten_and_a_clock_may_go_back() -> None:
    ledger = Ledger[str](lambda key: 0.0)
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
        self.ledger = Ledger[int](self.seconds.__getitem__)
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


TestEachCallOnce = EachCallOnce.TestCase
TestEachCallOnce.settings = settings(max_examples=300, stateful_step_count=30)
