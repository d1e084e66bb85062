"""The yardstick itself: it must find what is known to be wrong."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from benchmarks.engines import ENGINES, linear, ours, soxr_hq, soxr_vr
from benchmarks.quality import held_back_ms, measure_quality, stream, tone


def test_ours_keeps_what_is_promised() -> None:
    for from_hz, to_hz in ((8000, 16000), (16000, 8000)):
        quality = measure_quality(partial(ours, from_hz, to_hz), from_hz, to_hz)
        assert min(quality.sinad_300_db, quality.sinad_1000_db) >= 80
        assert quality.pass_band_db <= 0.5
        assert quality.stop_band_db <= -70
        assert quality.held_back_max_ms <= 5


def test_straight_lines_are_found_out() -> None:
    up = measure_quality(lambda: linear(8000, 16000), 8000, 16000)
    down = measure_quality(lambda: linear(16000, 8000), 16000, 8000)

    assert up.sinad_1000_db < 30
    assert up.pass_band_db > 1
    assert down.stop_band_db == pytest.approx(0.0, abs=0.1)
    assert up.held_back_max_ms == 0


def test_what_a_stream_holds_back_is_measured() -> None:
    least, most = held_back_ms(soxr_hq(8000, 16000), 8000, 16000)
    assert most - least > 50
    assert held_back_ms(soxr_vr(8000, 16000), 8000, 16000) == (30.0, 30.0)


def test_a_tone_goes_through_in_frames() -> None:
    given = tone(8000, 1000.0, 0.1)

    assert stream(lambda pcm: pcm, given, 8000).tobytes() == (
        np.frombuffer(given, "<i2").astype(np.float64).tobytes()
    )


def test_every_engine_gives_about_as_much_as_it_gets() -> None:
    for new in ENGINES.values():
        out = stream(new(8000, 16000), tone(8000, 400.0, 2.0), 8000)
        assert 28000 <= len(out) <= 32000
