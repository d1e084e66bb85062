"""A sound card that records and plays what a test says; its blocks come when `beat` is called."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ari_app.errors import ConfigError
from ari_app.line.microphone import Callback

BLOCK_SECONDS = 0.02


class FakeCard:
    """A card with one microphone and one loudspeaker.

    Attributes:
        works: Rates that it knows; none: there is no device.
        played: The blocks that were played.
        begun: Called when a stream is started, in the thread that starts it.
        open_streams: How many are open.
    """

    def __init__(self, *works: int) -> None:
        self.works = works
        self.played: list[bytes] = []
        self.begun: Callable[[], None] = lambda: None
        self.open_streams = 0
        self._callback: Callback | None = None
        self._block = 0

    # --- ari_app.line.microphone.SoundCard

    def rate_hz(self, wanted: int) -> int:
        if not self.works:
            raise ConfigError("this machine has no sound device that can be used")
        return wanted if wanted in self.works else self.works[0]

    def open(self, rate_hz: int, block: int, callback: Callback) -> FakeCard:
        if rate_hz not in self.works:
            raise ConfigError("this machine has no sound device that can be used")
        self._callback, self._block = callback, block
        self.open_streams += 1
        return self

    # --- ari_app.line.microphone.Stream

    def start(self) -> None:
        self.begun()

    def abort(self) -> None:
        self._callback = None

    def close(self) -> None:
        self.open_streams -= 1

    # --- what the hardware does

    def beat(self, level: int = 0) -> None:
        """A block has passed: this was recorded, and something was played."""
        if self._callback is not None:
            recorded = np.full(self._block, level, "<i2").tobytes()
            played = bytearray(len(recorded))
            self._callback(recorded, played, self._block, None, None)
            self.played.append(bytes(played))
