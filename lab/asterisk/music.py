"""Music on hold that a test can recognise."""

from __future__ import annotations

import math
import struct
import wave
from pathlib import Path

MUSIC_HZ = 440
_SECONDS = 10
_RATE_HZ = 8000
_PEAK = 6000


def write_music(path: Path) -> None:
    """Write a tone of 440 Hz, ten seconds that repeat without a click, as 8 kHz mono wav."""
    samples = [
        round(_PEAK * math.sin(2 * math.pi * MUSIC_HZ * n / _RATE_HZ))
        for n in range(_RATE_HZ * _SECONDS)
    ]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE_HZ)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
