"""What is done in C is the same as what Python does (`ARI_APP_COMPILED=1`)."""

from __future__ import annotations

import numpy as np
import pytest

from ari_app.audio.resample import Resampler, _Room
from ari_app.call.hearing import _some_of
from tests.unit.audio.test_resample import EVERY_PAIR

native = pytest.importorskip("linekit._native", reason="it is not compiled here")


def hiss(samples: int) -> bytes:
    """Some of it is louder than 16 bits can hold once it is resampled."""
    loud = np.random.default_rng(samples).standard_normal(samples) * 20_000
    return np.clip(loud, -32768, 32767).astype("<i2").tobytes()


@EVERY_PAIR
@pytest.mark.parametrize("skip", [0, 1, 7])
def test_outputs_of_a_filter(from_hz: int, to_hz: int, skip: int) -> None:
    bank = Resampler(from_hz, to_hz)._bank
    pcm = hiss(from_hz // 100 + 2 * bank.lookahead)
    end = (from_hz // 100) * bank.up // bank.down
    ours = native.filtered(pcm, bank.taps, bank.up, bank.down, skip, end)
    theirs = _Room(bank).outputs(pcm, skip, end)
    apart = np.abs(np.frombuffer(ours, "<i2").astype(int) - np.frombuffer(theirs, "<i2"))
    assert apart.size == end - skip
    # They add up in another order.
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= 2


def test_outputs_that_are_not_determined_are_refused() -> None:
    bank = Resampler(8000, 16000)._bank
    pcm = hiss(100)
    last = (100 - 2 * bank.lookahead) * 2 + 2
    assert len(native.filtered(pcm, bank.taps, 2, 1, 0, last)) == 2 * last
    for up, down, start, end in (
        (2, 1, 0, last + 1),
        (2, 1, -1, 10),
        (0, 1, 0, 10),
        (2, 0, 0, 10),
        (len(bank.taps), 1, 0, 1),
    ):
        with pytest.raises(ValueError, match="do not determine"):
            native.filtered(pcm, bank.taps, up, down, start, end)
    assert native.filtered(pcm, bank.taps, 2, 1, 10, 10) == b""


def test_the_swing_of_a_frame() -> None:
    for samples in range(500):
        pcm = hiss(samples)
        some = _some_of(len(pcm)).unpack_from(pcm)
        assert native.swing(pcm, 0, len(pcm)) == (max(some) - min(some) if some else 0)
    two = hiss(160) + bytes(320)
    assert native.swing(two, 320, 320) == 0 < native.swing(two, 0, 320)


@pytest.mark.parametrize(("start", "size"), [(-2, 2), (0, 322), (2, 320), (0, -2)])
def test_a_frame_that_is_not_there_has_no_swing(start: int, size: int) -> None:
    with pytest.raises(ValueError, match="beyond its PCM"):
        native.swing(bytes(320), start, size)
