from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from lab.softphone.sounds import (
    FLOOR_DBFS,
    babble,
    level_dbfs,
    read_wav,
    resample,
    silence,
    tone,
    tone_dbfs,
    write_wav,
)


def test_a_tone_has_its_level_and_frequency() -> None:
    pcm = tone(440, 500, -20)
    assert len(pcm) == 8000
    assert level_dbfs(pcm) == pytest.approx(-20, abs=0.05)
    assert tone_dbfs(pcm, 440) == pytest.approx(-20, abs=0.1)
    assert tone_dbfs(pcm, 880) < -60
    assert len(tone(440, 500, rate_hz=16000)) == 16000


def test_silence_measures_the_floor() -> None:
    for pcm in (silence(20), b""):
        assert level_dbfs(pcm) == tone_dbfs(pcm, 440) == FLOOR_DBFS
    assert len(silence(20)) == 320


def test_full_scale_does_not_wrap() -> None:
    samples = np.frombuffer(tone(1000, 100, 6), "<i2")
    assert samples.max() == 32767
    assert samples.min() == -32768


def test_babble_sounds_like_one_turn_of_speech() -> None:
    pcm = babble(2000, -20, seed=3)
    assert len(pcm) == 32000
    assert level_dbfs(pcm) == pytest.approx(-20, abs=0.1)
    assert pcm == babble(2000, -20, seed=3) != babble(2000, -20, seed=4)
    frames = [level_dbfs(pcm[offset : offset + 320]) for offset in range(0, len(pcm), 320)]
    assert min(frames) > -45
    assert max(frames) - min(frames) > 8
    assert babble(0) == b""


@pytest.mark.parametrize("rate_hz", [8000, 16000, 44100, 6000])
def test_resampling_keeps_a_tone(rate_hz: int) -> None:
    pcm = resample(tone(700, 300, -12, rate_hz), rate_hz, 8000)
    assert len(pcm) == 4800
    assert tone_dbfs(pcm, 700) == pytest.approx(-12, abs=0.2)


def test_resampling_lets_nothing_fold_over() -> None:
    assert level_dbfs(resample(tone(5000, 300, -6, 16000), 16000, 8000)) < -50
    assert resample(b"", 8000, 16000) == b""


def test_wav_round_trip(tmp_path: Path) -> None:
    pcm = tone(440, 200)
    write_wav(tmp_path / "a.wav", pcm)
    assert read_wav(str(tmp_path / "a.wav")) == pcm
    assert len(read_wav(tmp_path / "a.wav", 16000)) == 2 * len(pcm)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_width_and_stereo(tmp_path: Path, width: int) -> None:
    at = np.arange(4800) / 16000
    left = np.sin(2 * np.pi * 500 * at) * 0.5
    frames = np.stack([left, np.zeros(4800)], axis=1).reshape(-1)
    if width == 1:
        data = np.rint(frames * 127 + 128).astype(np.uint8).tobytes()
    else:
        wide = np.rint(frames * (2**31 - 1)).astype("<i4").view(np.uint8).reshape(-1, 4)
        data = wide[:, 4 - width :].tobytes()
    with wave.open(str(tmp_path / "b.wav"), "wb") as file:
        file.setparams((2, width, 16000, 4800, "NONE", ""))
        file.writeframes(data)
    pcm = read_wav(tmp_path / "b.wav")
    assert len(pcm) == 4800
    # Half the amplitude of full scale, and half of that by mixing with a silent side.
    assert tone_dbfs(pcm, 500) == pytest.approx(-12.04, abs=0.2)


def test_no_wav(tmp_path: Path) -> None:
    (tmp_path / "c.wav").write_bytes(b"RIFFxxxx")
    with pytest.raises((wave.Error, EOFError)):
        read_wav(tmp_path / "c.wav")
