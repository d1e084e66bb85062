from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from linekit.clock import LATE_BOUNDS_SECONDS, FrameClock, Membership
from tests.unit.linekit.manual_loop import ManualLoop
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def clock(manual: ManualLoop) -> FrameClock:
    clock = FrameClock(loop=manual)
    clock.start()
    return clock


def fail(frames: int) -> None:
    raise RuntimeError("callback fails")


def test_every_callback_runs_each_period(clock: FrameClock, manual: ManualLoop) -> None:
    first: list[int] = []
    second: list[int] = []
    clock.add(first.append)
    clock.add(second.append)
    manual.advance(1.0)
    assert first == second == [1] * 50
    assert len(manual.waiting) == 1


def test_no_timer_without_callbacks(clock: FrameClock, manual: ManualLoop) -> None:
    assert manual.waiting == []
    remove = clock.add(lambda frames: None)
    assert clock.ticking
    assert manual.waiting == [manual.now + 0.02]
    remove()
    remove()
    assert manual.waiting == []


def test_it_waits_for_start_and_goes_on_after_stop(manual: ManualLoop) -> None:
    clock = FrameClock(loop=manual)
    ticks: list[int] = []
    clock.add(ticks.append)
    manual.advance(0.1)
    assert ticks == []
    clock.start()
    clock.start()
    manual.advance(0.1)
    assert ticks == [1] * 5
    clock.stop()
    clock.stop()
    manual.advance(0.1)
    assert ticks == [1] * 5
    clock.start()
    manual.advance(0.1)
    assert ticks == [1] * 10


def test_idle_time_is_no_stall(clock: FrameClock, manual: ManualLoop) -> None:
    ticks: list[int] = []
    clock.add(ticks.append)()
    manual.advance(60.0)
    clock.add(ticks.append)
    manual.advance(0.04)
    assert ticks == [1, 1]


def test_stalls_reach_callbacks_and_are_counted(clock: FrameClock, manual: ManualLoop) -> None:
    ticks: list[int] = []
    clock.add(ticks.append)
    manual.advance(0.02)
    manual.stall(0.05)
    manual.stall(0.215)
    assert ticks == [1, 2, 1]
    assert manual.waiting == [pytest.approx(1000.0 + 0.02 * 15)]
    late = dict(zip((*LATE_BOUNDS_SECONDS, 9), clock.stats.late, strict=True))
    assert {bound: number for bound, number in late.items() if number} == {
        0.0005: 1,
        0.05: 1,
        0.5: 1,
    }
    assert clock.stats.late_seconds == pytest.approx(0.235)
    assert clock.stats.skipped == 10


def test_an_early_wake_up_waits_for_its_deadline(clock: FrameClock, manual: ManualLoop) -> None:
    ticks: list[int] = []
    clock.add(ticks.append)
    manual.advance(0.01)
    manual.fire_early()
    assert ticks == []
    assert manual.waiting == [pytest.approx(1000.02)]
    manual.advance(0.01)
    assert ticks == [1]


@pytest.mark.parametrize("place", [0, 1])
def test_a_failing_callback_stops_no_other(
    clock: FrameClock, manual: ManualLoop, place: int
) -> None:
    ticks: list[int] = []
    callbacks = [ticks.append]
    callbacks.insert(place, fail)
    for callback in callbacks:
        clock.add(callback)
    manual.advance(0.06)
    assert ticks == [1, 1, 1]


def test_callbacks_come_and_go_within_a_tick(clock: FrameClock, manual: ManualLoop) -> None:
    log: list[str] = []

    def first(frames: int) -> None:
        log.append("first")
        remove_second()
        clock.add(lambda frames: log.append("third"))
        remove_first()

    remove_first = clock.add(first)
    remove_second = clock.add(lambda frames: log.append("second"))
    manual.advance(0.02)
    assert log == ["first"]
    manual.advance(0.02)
    assert log == ["first", "third"]


def test_the_last_callback_may_leave_within_a_tick(clock: FrameClock, manual: ManualLoop) -> None:
    def once(frames: int) -> None:
        remove()

    remove = clock.add(once)
    manual.advance(0.02)
    assert manual.waiting == []


def test_it_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        FrameClock().start()


async def test_on_a_real_loop() -> None:
    clock = FrameClock(period=0.005)
    clock.start()
    done = asyncio.Event()
    frames = 0

    def tick(due: int) -> None:
        nonlocal frames
        frames += due
        if frames >= 4:
            done.set()

    remove = clock.add(tick)
    await asyncio.wait_for(done.wait(), PATIENCE_SECONDS)
    remove()
    assert not clock.ticking
    clock.stop()


def test_a_tick_can_be_moved_and_its_pace_stays(clock: FrameClock, manual: ManualLoop) -> None:
    stays: list[float] = []
    moves: list[float] = []
    began = manual.now
    clock.add(lambda frames: stays.append(manual.now - began))
    moving = clock.add(lambda frames: moves.append(manual.now - began))
    manual.advance(0.02)
    moving.shift(3)
    manual.advance(0.09)
    moving.shift(-5)
    manual.advance(0.11)

    assert stays == pytest.approx([0.02 * n for n in range(1, 12)])
    later = [0.046 + 0.02 * n for n in range(4)]
    assert moves == pytest.approx([0.02, *later, *(0.116 + 0.02 * n for n in range(6))])
    moving()
    moving.shift(2)
    manual.advance(0.1)
    assert len(moves) == 11


def test_a_tick_that_is_moved_between_ticks_passes_over_none(
    clock: FrameClock, manual: ManualLoop
) -> None:
    ticks: list[float] = []
    began = manual.now
    moving = clock.add(lambda frames: ticks.append(manual.now - began))
    manual.advance(0.035)
    moving.shift(2)
    manual.advance(0.065)
    assert ticks == pytest.approx([0.02, 0.044, 0.064, 0.084])


def test_a_stall_is_made_good_in_every_slot(clock: FrameClock, manual: ManualLoop) -> None:
    first: list[int] = []
    second: list[int] = []
    clock.add(first.append)
    clock.add(second.append).shift(4)
    manual.advance(0.1)
    assert (sum(first), sum(second)) == (5, 4), "the first is later, too"
    manual.stall(0.045)
    manual.advance(0.055)
    assert (sum(first), sum(second)) == (10, 9)
    clock.stop()
    clock.start()
    manual.advance(0.2)
    assert sum(first) == 20


class Paced:
    """Whoever is on the clock, beside a clock of its own that is moved as often."""

    def __init__(self, clock: FrameClock, manual: ManualLoop) -> None:
        self._manual = manual
        self._deadline = manual.now + clock.period
        self._slots = 0
        self.frames = 0
        self.due = 0
        self.place: Membership = clock.add(self._tick)

    def _tick(self, frames: int) -> None:
        self.frames += frames
        slots, self._slots = self._slots, 0
        if slots:
            self._move(slots)

    def shift(self, slots: int, *, in_tick: bool) -> None:
        if in_tick:
            self._slots = slots
        else:
            self._move(slots)

    def _move(self, slots: int) -> None:
        self.count()
        self.place.shift(slots)
        self._deadline += slots * 0.002

    def count(self) -> None:
        while self._deadline <= self._manual.now + 1e-9:
            self.due += 1
            self._deadline += 0.02


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("passes"), st.floats(0.001, 0.05)),
            st.tuples(st.just("stalls"), st.floats(0.001, 0.035)),
            st.tuples(st.integers(0, 2), st.integers(-9, 9), st.booleans()),
        ),
        max_size=40,
    )
)
@example([(0, 2, True), ("passes", 0.115), (1, 2, True), ("stalls", 0.035)])
def test_whoever_is_moved_between_slots_gets_each_period_once(
    course: list[tuple[str, float] | tuple[int, int, bool]],
) -> None:
    manual = ManualLoop()
    clock = FrameClock(loop=manual)
    clock.start()
    lines = [Paced(clock, manual) for _ in range(3)]
    for step in course:
        match step:
            case "passes", float(seconds):
                manual.advance(seconds)
            case "stalls", float(seconds):
                manual.stall(seconds)
            case int(number), int(slots), bool(in_tick):
                lines[number].shift(slots, in_tick=in_tick)
                if not in_tick:
                    manual.advance(0.02)
        for line in lines:
            line.count()
            assert line.frames <= line.due, "a burst"
    manual.advance(0.1)
    for line in lines:
        line.count()
        assert line.frames == line.due


def test_a_place_that_was_moved_while_nothing_ticked_ticks_at_once(manual: ManualLoop) -> None:
    clock = FrameClock(loop=manual)
    ticks: list[int] = []
    clock.start()
    moving = clock.add(ticks.append)
    manual.advance(10.0)
    clock.stop()
    moving.shift(3)
    clock.start()
    manual.advance(0.1)
    assert len(ticks) == 500 + 5
