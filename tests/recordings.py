"""Recordings of calls, read."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt


def sides_of(path: Path) -> npt.NDArray[np.int16]:
    """The samples of a stereo recording at 8 kHz: a row each, caller left and agent right."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
