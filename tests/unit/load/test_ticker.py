from __future__ import annotations

from collections import Counter
from functools import partial

from lab.load.ticker import Ticker
from tests.unit.linekit.manual_loop import ManualLoop


def test_every_member_ticks_every_20_ms_in_a_phase_of_its_own() -> None:
    loop = ManualLoop()
    ticker = Ticker(loop)
    ticks: Counter[int] = Counter()
    first: dict[int, float] = {}

    def tick(name: int) -> None:
        ticks[name] += 1
        first.setdefault(name, loop.now)

    for name in range(40):
        ticker.add(name, partial(tick, name))
    ticker.start()
    loop.advance(1.0)

    assert set(ticks.values()) <= {49, 50, 51}
    assert len(ticks) == 40
    assert len({round(at * 1000) for at in first.values()}) >= 19
    ticker.stop()


def test_one_who_is_removed_ticks_no_more() -> None:
    loop = ManualLoop()
    ticker = Ticker(loop)
    ticks: list[str] = []
    ticker.add("a", lambda: ticks.append("a"))
    ticker.start()
    loop.advance(0.1)
    ticker.remove("a")
    ticker.remove("unknown")
    count = len(ticks)
    loop.advance(0.1)

    assert count == len(ticks) > 0


def test_what_a_hold_up_has_missed_is_made_good_and_told() -> None:
    loop = ManualLoop()
    ticker = Ticker(loop)
    ticks: list[float] = []
    ticker.add("a", lambda: ticks.append(loop.now))
    ticker.start()
    loop.advance(0.1)
    loop.stall(0.1)
    loop.advance(0.1)

    assert 14 <= len(ticks) <= 16
    assert max(ticker.late_us) > 60_000


def test_a_ticker_that_was_not_started_may_be_stopped() -> None:
    Ticker(ManualLoop()).stop()
