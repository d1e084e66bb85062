"""Figures from the times at which frames came. Pure.

A server writes a frame every 20 ms from the moment that it knows the call. So on each line the
n-th frame belongs at `start + n * 20 ms`, where `start` is where the earliest of them puts it. What
a frame comes after that is its lateness; a frame that never came makes all later ones late, and
is counted as missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from audiosocket.frames import FRAME_MS

Times = npt.NDArray[np.float64]

_EDGE_FRAMES = 50
_COUNTS = 0.75
"""So much of a frame counts as one. A line moves its frames by up to 0.6 at once, where it learns
the phone's rhythm and while nobody speaks (`audiosocket.connection`): nobody lacks anything then.
"""
_STEP_MS = 5.0
_AROUND_FRAMES = 10


@dataclass(frozen=True, slots=True)
class Spread:
    """A distribution, in milliseconds."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class HeardReport:
    """What all lines heard in one stretch of time."""

    lines: int = 0
    frames: int = 0
    seconds: float = 0.0
    """How long the longest line was listened to."""
    gaps: Spread = Spread()
    """Between one frame and the next on the same line."""
    lateness: Spread = Spread()
    missing_frames: int = 0
    """Frames fewer than the time asks for, over all lines."""
    surplus_frames: int = 0
    """Frames more than that."""
    drift_ppm: float = 0.0
    """How far the worst line's pace is off 20 ms; positive is slow."""


def spread(values_ms: Times) -> Spread:
    """The distribution of some values; all zero when there are none."""
    if not len(values_ms):
        return Spread()
    p50, p99, p999 = np.percentile(values_ms, (50, 99, 99.9))
    return Spread(
        round(float(p50), 3),
        round(float(p99), 3),
        round(float(p999), 3),
        round(float(values_ms.max()), 3),
    )


def lateness_ms(times_ms: Times) -> Times:
    """How late each frame of one line came against the line's own schedule."""
    offsets = times_ms - np.arange(len(times_ms)) * FRAME_MS
    late: Times = offsets - offsets.min()
    return late


def missing_frames(times_ms: Times) -> int:
    """Frames that one line lacks at its end; negative when there are too many.

    Moves that come to a frame together are none. One that hides what is missing is not found.
    """
    # The edges' medians: a single late frame at either end is no missing one.
    offsets = times_ms - np.arange(len(times_ms)) * FRAME_MS
    edge = min(_EDGE_FRAMES, len(offsets))
    frames = float(np.median(offsets[-edge:]) - np.median(offsets[:edge])) / FRAME_MS
    if not _whole(frames):
        return 0
    return _whole(frames - sum(step for step in _steps(offsets, edge // 2) if not _whole(step)))


def _steps(offsets: Times, edge: int) -> Iterator[float]:
    """Yield by how many frames a line is later, or earlier, after each disturbance, but for those
    so near an end that its median does not tell of them."""
    jumps = np.flatnonzero(np.abs(np.diff(offsets)) > _STEP_MS)
    jumps = jumps[(jumps >= edge) & (jumps < len(offsets) - edge)]
    for together in np.split(jumps, np.flatnonzero(np.diff(jumps) > _AROUND_FRAMES) + 1):
        if len(together):
            first, last = together[0] + 1, together[-1] + 1
            before = np.median(offsets[max(0, first - _AROUND_FRAMES) : first])
            yield float(np.median(offsets[last : last + _AROUND_FRAMES]) - before) / FRAME_MS


def _whole(frames: float) -> int:
    return int(math.copysign(math.floor(abs(frames) + 1 - _COUNTS), frames))


def drift_ppm(times_ms: Times) -> float:
    """The slope of one line's pace against 20 ms a frame, by least squares."""
    if len(times_ms) < 2 * _EDGE_FRAMES:
        return 0.0
    slope = np.polyfit(np.arange(len(times_ms)), times_ms - times_ms[0], 1)[0]
    return float((slope / FRAME_MS - 1) * 1e6)


def summarise(lines: Sequence[npt.NDArray[np.int64]]) -> HeardReport:
    """Put together what lines heard: for each, the arrival times of its frames in ns."""
    times = [(line - line[0]) / 1e6 for line in lines if len(line) > 1]
    if not times:
        return HeardReport()
    missing = [missing_frames(line) for line in times]
    drifts = np.array([drift_ppm(line) for line in times])
    return HeardReport(
        lines=len(times),
        frames=sum(map(len, times)),
        seconds=round(max(float(line[-1]) for line in times) / 1000, 2),
        gaps=spread(np.concatenate([np.diff(line) for line in times])),
        lateness=spread(np.concatenate([lateness_ms(line) for line in times])),
        missing_frames=sum(max(0, count) for count in missing),
        surplus_frames=sum(max(0, -count) for count in missing),
        drift_ppm=round(float(drifts[np.argmax(np.abs(drifts))]), 1),
    )
