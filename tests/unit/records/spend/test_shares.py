"""What a process counts arrives at the others, told bit by bit."""

from __future__ import annotations

from datetime import date

import orjson
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ari_app.control.workers.messages import Spending, as_message
from ari_app.records.spend import shares
from ari_app.records.spend.ledger import AgentTime, Ledger
from ari_app.records.spend.limits import Spent
from ari_app.records.spend.shares import Change, Share, Telling

TODAY, TOMORROW = date(2026, 11, 29), date(2026, 11, 30)


def test_each_piece_is_small_whatever_there_is_to_tell() -> None:
    ledger = Ledger[int](lambda key: AgentTime(123456.789), lambda: 0.0)
    for key in range(40_000):
        ledger.enters(key, f"{key:064}", TODAY, f"{key % 1000:0128}")
        ledger.leaves(key, key)
    pieces = Telling(ledger).news(TODAY, anew=False)
    assert len(pieces) == 200
    assert max(len(orjson.dumps(as_message(Spending.of(1, each)))) for each in pieces) < 1 << 16
    share = Share()
    assert [share.take(each) for each in pieces] == [[]] * 199 + [pieces]
    assert share.spent == ledger.here(TODAY)
    assert list(share.ended) == ledger.ended(TODAY, 0)
    assert share.whole() == pieces


def test_nothing_holds_of_what_is_told_in_part() -> None:
    share = Share()
    share.take(Change("2026-11-29", {"a": (1, 1.0)}, ["s1"], anew=True))
    share.take(Change("2026-11-29", {"a": (2, 2.0)}, ["s2"], more=True))
    assert (share.spent, list(share.ended)) == ({"a": Spent(1, 1.0)}, ["s1"])
    # The line was cut, and all is told again.
    again = Change("2026-11-29", {"a": (3, 3.0)}, ["s1", "s2", "s3"], anew=True)
    assert share.take(again) == [again]
    assert (share.spent, list(share.ended)) == ({"a": Spent(3, 3.0)}, ["s1", "s2", "s3"])
    assert share.losses == 0


def test_who_has_missed_the_beginning_knows_nothing() -> None:
    share = Share()
    share.take(Change("2026-11-29", {"a": (1, 1.0)}, ["s1"]))
    assert (share.spent, list(share.ended), share.whole()) == ({}, [], [])


class Told(RuleBasedStateMachine):
    """Whatever happens, both know the same once all is told, and a loss is known as one."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[int, float] = {}
        self.ledger = Ledger[int](lambda key: AgentTime(self.seconds[key]), lambda: 0.0)
        self.telling, self.share = Telling(self.ledger), Share()
        self.day = TODAY
        self.known: set[str] = set()
        self.calls = self.places = 0

    @rule(agent=st.sampled_from("abcd"), day=st.sampled_from([TODAY, TODAY, TOMORROW]))
    def begins(self, agent: str, day: date) -> None:
        self.calls += 1
        self.seconds[self.calls] = float(self.calls)
        self.ledger.enters(self.calls, f"s{self.calls}", day, agent)

    @rule(count=st.integers(1, 4))
    def end(self, count: int) -> None:
        for key in list(self.seconds)[:count]:
            self.places += 1
            self.ledger.leaves(key, self.places)
            del self.seconds[key]

    @rule(back=st.integers(0, 5))
    def is_written(self, back: int) -> None:
        but = self.ledger.counted_here(self.day, self.places - back)
        self.ledger.log_says(self.day, self.places - back, but, {})

    @rule()
    def midnight(self) -> None:
        self.day = TOMORROW

    @rule(anew=st.booleans())
    def is_told(self, anew: bool) -> None:
        losses, before = self.share.losses, self.share.day
        pieces = self.telling.news(self.day, anew=anew)
        # Of a line that is cut between two of them.
        if anew:
            for piece in pieces[:-1]:
                self.share.take(piece)
            pieces = self.telling.news(self.day, anew=True)
        for piece in pieces:
            self.share.take(piece)
        ended = self.ledger.ended(self.day, 0)
        assert self.share.spent == self.ledger.here(self.day)
        assert list(self.share.ended) == ended
        if self.share.day == before:
            assert (self.share.losses > losses) is bool(self.known - set(ended))
        self.known = set(ended)

    @invariant()
    def all_of_it_is_as_much(self) -> None:
        """Who comes later, and is told by another."""
        late = Share()
        for piece in self.share.whole():
            late.take(piece)
        assert (late.day, late.spent, late.ended) == (
            self.share.day,
            self.share.spent,
            self.share.ended,
        )


class ToldInSmallPieces(Told):
    def __init__(self) -> None:
        super().__init__()
        self.piece, shares._PIECE = shares._PIECE, 2  # type: ignore[misc]

    def teardown(self) -> None:
        shares._PIECE = self.piece  # type: ignore[misc]


TestTold = ToldInSmallPieces.TestCase
TestTold.settings = settings(max_examples=200, stateful_step_count=40)
