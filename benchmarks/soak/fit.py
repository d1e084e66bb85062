"""How fast something grows: a straight line through samples, and how sure it is. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np

_SHORTEST_RUN_SECONDS = 60.0
"""Of one process; through less there is no line to speak of."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A slope. Two standard errors on either side hold it with about 95 %."""

    percent_per_hour: float
    error_percent_per_hour: float
    """One standard error; infinite where the samples say nothing."""
    mean: float
    samples: int
    hours: float = 0.0
    """How long the longest of the runs was watched."""

    @property
    def lowest(self) -> float:
        """The least growth that the samples allow, in % an hour."""
        return self.percent_per_hour - 2 * self.error_percent_per_hour

    @property
    def highest(self) -> float:
        """The most that they allow."""
        return self.percent_per_hour + 2 * self.error_percent_per_hour

    @property
    def seen_percent(self) -> float:
        """The least that it has grown while it was watched."""
        return self.lowest * self.hours


def growth(runs: Sequence[Sequence[tuple[float, float]]]) -> Growth:
    """One slope through several runs of (seconds, value), each with a level of its own.

    A run is the life of one process, from after its warm-up: a process that took over starts at
    another level, which is no growth. Neighbouring samples are alike, so they count for fewer than
    they are: the error is widened by sqrt((1 + r) / (1 - r)) for their correlation r.
    """
    used = [
        np.array(run, dtype=float)
        for run in runs
        if run and run[-1][0] - run[0][0] >= _SHORTEST_RUN_SECONDS
    ]
    if not used:
        return Growth(0.0, inf, 0.0, 0)
    at = np.concatenate([run[:, 0] - run[:, 0].mean() for run in used])
    values = np.concatenate([run[:, 1] - run[:, 1].mean() for run in used])
    mean = float(np.concatenate([run[:, 1] for run in used]).mean())
    spread = float(at @ at)
    free = len(at) - len(used) - 1
    if spread <= 0 or mean <= 0 or free <= 0:
        return Growth(0.0, inf, mean, len(at))
    slope = float(at @ values) / spread
    residuals = values - slope * at
    error = sqrt(float(residuals @ residuals) / free / spread) * _widening(residuals)
    hours = max(float(run[-1, 0] - run[0, 0]) for run in used) / 3600
    return Growth(slope / mean * 360_000, error / mean * 360_000, mean, len(at), hours)


def _widening(residuals: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    power = float(residuals @ residuals)
    if power <= 0:
        return 1.0
    correlation = min(0.98, max(0.0, float(residuals[1:] @ residuals[:-1]) / power))
    return sqrt((1 + correlation) / (1 - correlation))
