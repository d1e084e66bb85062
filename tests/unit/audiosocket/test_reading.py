"""When a line is read, against a peer whose frames come by a clock of its own."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import pytest

from audiosocket.connection import Reading
from linekit.clock import SLOTS

PERIOD = 0.02
AGAIN = 0.006


@dataclass
class Line:
    """A line whose ticks and frames are events on one time scale.

    Attributes:
        at_once: So many frames are read in one go.
        heard: For each frame: when it came, and when it was read.
        asked: How often something was read.
        woken: How often a frame had to wake us.
    """

    every: int = 2
    at_once: int = 1000
    now: float = 0.0
    offset: float = 0.0
    there: list[float] = field(default_factory=list)
    heard: list[tuple[float, float]] = field(default_factory=list)
    asked: int = 0
    woken: int = 0
    is_reading: bool = True

    def __post_init__(self) -> None:
        self.reading = Reading(self, self.shift, PERIOD / SLOTS, lambda: self.now)
        self.reading.every = self.every

    # --- as a transport

    def read_now(self) -> None:
        self.asked += 1
        came, self.there = self.there[: self.at_once], self.there[self.at_once :]
        if came:
            self.heard += [(at, self.now) for at in came]
            self.reading.frames_came(len(came))

    def resume_reading(self) -> None:
        self.is_reading = True

    def pause_reading(self) -> None:
        self.is_reading = False

    # --- as a place on the clock

    def shift(self, slots: int) -> None:
        self.offset += slots * PERIOD / SLOTS

    def run(self, frames: list[float], until: float) -> None:
        """Let frames come at these times, and tick meanwhile."""
        coming = sorted(frames)
        tick, again = self.now + PERIOD, math.inf
        while min([tick, again, *coming[:1]]) < until:
            if again <= min([tick, *coming[:1]]):
                self.now, again = again, math.inf
                self.reading.look_again()
            elif coming and coming[0] <= tick:
                self.now = heapq.heappop(coming)
                self.there.append(self.now)
                if self.is_reading:
                    self.woken += 1
                    self.read_now()
            else:
                self.now = tick
                before = self.offset
                self.reading.tick()
                if self.reading.late:
                    again = tick + AGAIN
                tick += PERIOD + self.offset - before
            while self.is_reading and self.there:
                self.read_now()
            # A shift that a frame has brought about, too.
            tick, self.offset = tick + self.offset, 0.0

    def waits(self, since: float) -> list[float]:
        return [read - came for came, read in self.heard if came >= since]


def frames(number: int, begin: float = 0.013, pace: float = PERIOD) -> list[float]:
    return [begin + n * pace for n in range(number)]


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("begin", [0.0, 0.0051, 0.0101, 0.0155, 0.0199])
def test_a_steady_peer_is_read_seldom_and_soon(every: int, begin: float) -> None:
    line = Line(every)
    line.run(frames(1000, begin), 20.0)

    assert len(line.heard) >= 1000 - every
    assert line.asked < 1000 / every + 40
    assert line.woken < 40
    # The last of each `every` frames is read at once, the others wait for it.
    last = [read - came for came, read in line.heard[50:] if read - came < PERIOD - 0.005]
    assert len(last) >= 900 // every
    assert max(last) < 0.005
    assert max(line.waits(since=1.0)) < (every - 1) * PERIOD + 0.005


def test_a_late_frame_is_awaited_and_the_next_is_read_in_time() -> None:
    line = Line()
    came = frames(200)
    late = [100, 101, 140]
    for number in late:
        came[number] += 0.009
    line.run(came, 3.9)

    assert len(line.heard) >= 190
    for number in late:
        at, read = line.heard[number]
        assert read - at < PERIOD + 0.005, "it does not wait for another round"
    assert max(line.waits(since=1.0)) < PERIOD + 0.005


def test_a_peer_that_falls_silent_is_heard_again_at_once() -> None:
    line = Line()
    line.run(frames(100), 2.0)
    line.run([], 10.0)
    asked = line.asked
    line.run(frames(100, 10.0071), 12.0)

    assert asked < 70, "nothing is read while nothing comes"
    assert max(line.waits(since=2.5)) < PERIOD + 0.01


def test_a_peer_whose_clock_drifts_is_followed() -> None:
    for pace in (PERIOD * 1.0002, PERIOD * 0.9998):
        line = Line()
        line.run(frames(6000, pace=pace), 119.0)

        assert len(line.heard) > 5900
        pairs = [read - came for came, read in line.heard[1000:] if read - came < 0.015]
        assert max(pairs) < 0.012
        assert sum(pairs) / len(pairs) < 0.005
        assert line.woken < 1000


def test_more_than_was_due_is_read_to_its_end() -> None:
    line = Line()
    line.run(frames(100), 2.0)
    line.run([2.001 + n * 0.004 for n in range(250)], 3.0)
    assert len(line.there) <= 3
    assert not line.there or line.now - line.there[0] < 0.041


def test_what_was_held_up_is_read_at_once_however_little_fits_into_one_go() -> None:
    line = Line(every=3, at_once=8)
    line.run(frames(100), 2.0)
    line.run(sorted([*[3.0] * 50, *frames(150, 3.013)]), 6.0)
    waits = line.waits(since=2.5)
    assert len(waits) > 190
    assert max(waits) < 3 * PERIOD + 0.011
    assert line.woken < 120, "and then it is left to the ticks again"


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("apart", [0.00001, 0.001, 0.003])
def test_what_was_held_up_is_read_as_it_comes(every: int, apart: float) -> None:
    line = Line(every)
    line.run(frames(100), 2.0)
    line.run(sorted([*[3.0 + n * apart for n in range(50)], *frames(150, 3.213)]), 6.0)
    assert max(read - at for at, read in line.heard if 3.0 <= at < 3.15) < 0.001
    assert line.woken < 120, "and then it is left to the ticks again"
