"""What a phone heard, put to the questions of the benchmarks. Pure; times are monotonic seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from benchmarks.marked import position_seconds

FRAME_SECONDS = 0.02
SOUND_DBFS = -40.0
SILENCE_DBFS = -60.0
AUDIBLE_DBFS = -50.0
"""Of a single sample."""
_FULL_SCALE = 32767.0
_RATE_HZ = 8000
_FLOOR_DBFS = -100.0


@dataclass(frozen=True, slots=True)
class Track:
    """How a sweep came through, frame by frame. Its first and last frames do not count."""

    frames: int = 0
    lost: int = 0
    """Frames of the sweep that were never heard."""
    doubled: int = 0
    """Frames that were heard again."""
    longest_gap_ms: float = 0.0
    """Between the arrivals of two neighbouring frames."""


@dataclass(frozen=True, slots=True)
class Packets:
    """The packets of one call, in order of arrival, as 16-bit PCM at 8 kHz."""

    times: Sequence[float]
    sounds: Sequence[bytes]
    _levels: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._levels.extend(_level_dbfs(sound) for sound in self.sounds)

    def first_sound(self, since: float) -> float | None:
        """When the first packet with sound arrived."""
        pairs = zip(self.times, self._levels, strict=True)
        return next((at for at, level in pairs if at >= since and level >= SOUND_DBFS), None)

    def first_silence(self, since: float) -> float | None:
        """When the first silent packet arrived, none of the sound before it still in it."""
        pairs = zip(self.times, self._levels, strict=True)
        return next((at for at, level in pairs if at >= since and level < SILENCE_DBFS), None)

    def last_audible(self, since: float) -> float | None:
        """When the last audible sample before the first silent packet was played; a packet is
        played as it arrives."""
        silent = self.first_silence(since)
        if silent is None:
            return None
        threshold = _FULL_SCALE * 10 ** (AUDIBLE_DBFS / 20)
        for at, sound in zip(reversed(self.times), reversed(self.sounds), strict=True):
            if at >= silent:
                continue
            samples = np.abs(np.frombuffer(sound, "<i2").astype(np.int32))
            audible = np.flatnonzero(samples > threshold)
            if audible.size:
                return at + (int(audible[-1]) + 1) / _RATE_HZ
        return None

    def track(self, since: float, until: float, sweep_seconds: float) -> Track:
        """Follow the sweep that is heard between two times."""
        heard: list[tuple[float, float]] = []
        for at, sound, level in zip(self.times, self.sounds, self._levels, strict=True):
            if since <= at < until and level >= SOUND_DBFS:
                frame = np.frombuffer(sound, "<i2").astype(np.int16)
                place = position_seconds(frame, _RATE_HZ, sweep_seconds)
                if place is not None:
                    heard.append((at, place))
        inner = heard[1:-1]
        steps = [round((after[1] - before[1]) / FRAME_SECONDS) for before, after in pairwise(inner)]
        gaps = [after[0] - before[0] for before, after in pairwise(inner)]
        return Track(
            frames=len(inner),
            lost=sum(max(0, step - 1) for step in steps),
            doubled=sum(step < 1 for step in steps),
            longest_gap_ms=round(1000 * max(gaps, default=0.0), 2),
        )

    def gaps_ms(self) -> npt.NDArray[np.float64]:
        """From each packet to the next."""
        return np.diff(np.array(self.times)) * 1000


def onset_arrival(arrivals: Sequence[tuple[float, bytes]], since: float) -> float | None:
    """When the message arrived that holds the first sound; messages are (time, 16-bit PCM)."""
    threshold = _FULL_SCALE * 10 ** (SOUND_DBFS / 20)
    for at, payload in arrivals:
        if at >= since and np.abs(np.frombuffer(payload, "<i2").astype(np.int32)).max() > threshold:
            return at
    return None


def uplink_seconds(arrivals: Sequence[tuple[float, bytes]]) -> tuple[float, float]:
    """Sound at 16 kHz that the agent received after its first message, and how long that took."""
    if len(arrivals) < 2:
        return 0.0, 0.0
    received = sum(len(payload) for _, payload in arrivals[1:]) / 2 / 16000
    return received, arrivals[-1][0] - arrivals[0][0]


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum, and how many there are."""
    if not values:
        return {"count": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
    p50, p99 = np.percentile(values, (50, 99))
    return {
        "count": len(values),
        "p50": round(float(p50), 2),
        "p99": round(float(p99), 2),
        "max": round(float(max(values)), 2),
    }


def _level_dbfs(sound: bytes) -> float:
    samples = np.frombuffer(sound, "<i2").astype(np.float64)
    power = float(np.mean(samples**2)) / _FULL_SCALE**2 if len(samples) else 0.0
    return max(_FLOOR_DBFS, 10 * float(np.log10(power))) if power else _FLOOR_DBFS
