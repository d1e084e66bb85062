"""A bad network, on purpose: loss, repetition and jitter of the packets that the phone sends.

Pure, and the same seed does the same harm.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Impairment:
    """How bad the network is. `loss` and `duplicate` are probabilities from 0 to 1."""

    loss: float = 0.0
    duplicate: float = 0.0
    jitter_ms: float = 0.0
    """Each packet is late by up to this much; beyond a ptime packets overtake each other."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.loss <= 1 and 0 <= self.duplicate <= 1 and self.jitter_ms >= 0):
            raise ValueError("loss and duplicate lie between 0 and 1, jitter is not negative")


class ImpairedLine:
    """Decides what becomes of each packet."""

    def __init__(self, impairment: Impairment) -> None:
        self._impairment = impairment
        self._rng = random.Random(impairment.seed)

    def delays_ms(self) -> list[float]:
        """The delay of each copy of the next packet: none when it is lost."""
        harm, rng = self._impairment, self._rng
        if rng.random() < harm.loss:
            return []
        copies = 2 if rng.random() < harm.duplicate else 1
        return [rng.uniform(0, harm.jitter_ms) for _ in range(copies)]
