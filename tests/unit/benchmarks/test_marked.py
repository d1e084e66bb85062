from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.audio.g711 import pcm_to_ulaw, ulaw_to_pcm
from ari_app.audio.resample import Resampler
from benchmarks.marked import MarkedVoice, position_seconds, sweep

SECONDS = 4.0
FRAME = 160


def heard_at_8_khz(seconds: float) -> np.ndarray:
    """The sweep as a phone hears it: resampled and compressed."""
    pcm = Resampler(16000, 8000).process(sweep(seconds, 16000).tobytes())
    return np.frombuffer(ulaw_to_pcm(pcm_to_ulaw(pcm)), "<i2").astype(np.int16)


@pytest.mark.parametrize("seconds", [2.0, 4.0, 8.0])
def test_each_frame_tells_its_place(seconds: float) -> None:
    heard = heard_at_8_khz(seconds)

    for number in range(1, len(heard) // FRAME - 1):
        place = position_seconds(heard[number * FRAME :][:FRAME], 8000, seconds)
        assert place == pytest.approx((number + 0.5) * 0.02, abs=0.006)


@given(st.integers(0, 3 * 8000))
def test_any_cut_tells_its_place(start: int) -> None:
    cut = sweep(SECONDS, 8000)[start : start + FRAME]

    assert position_seconds(cut, 8000, SECONDS) == pytest.approx((start + 80) / 8000, abs=0.004)


def test_silence_has_no_place() -> None:
    assert position_seconds(np.zeros(FRAME, np.int16), 8000, SECONDS) is None


def test_the_voice_speaks_as_long_as_the_text_says() -> None:
    voice = MarkedVoice()

    assert len(voice.speak("1.5 seconds", 16000)) == 24000
    assert len(voice.speak("nothing", 16000)) == 0
