from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from ari_app.audio.sound_file import SoundFile
from lab.softphone.sounds import tone_dbfs, write_wav


def write(
    path: Path, *, rate_hz: int = 44100, channels: int = 1, width: int = 2, seconds: int = 1
) -> Path:
    t = np.arange(rate_hz * seconds) / rate_hz
    tone = (8000 * np.sin(2 * np.pi * 440 * t)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(np.repeat(tone, channels).tobytes())
    return path


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("line_hz", [8000, 16000, 24000, 44100])
def test_a_phrase_sounds_alike_on_every_line(tmp_path: Path, channels: int, line_hz: int) -> None:
    sound = SoundFile.load(write(tmp_path / "one.wav", channels=channels))
    pcm = sound.at(line_hz)
    assert len(pcm) == pytest.approx(2 * line_hz, abs=8)
    assert tone_dbfs(pcm, 440, line_hz) == pytest.approx(20 * np.log10(8000 / 32768), abs=0.3)
    assert sound.at(line_hz) is pcm, "it is converted once"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16 bits"):
        SoundFile.load(write(tmp_path / "wide.wav", width=1))
    with pytest.raises(ValueError, match="longer than 30 s"):
        SoundFile.load(write(tmp_path / "long.wav", rate_hz=8000, seconds=31))


def test_no_wav_at_all(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(ValueError, match="no WAV file"):
        SoundFile.load(tmp_path / "text.wav")
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(ValueError, match="cut short"):
        SoundFile.load(tmp_path / "empty.wav")
    with pytest.raises(OSError):
        SoundFile.load(tmp_path / "missing.wav")


def test_a_file_without_sound(tmp_path: Path) -> None:
    write_wav(tmp_path / "silent.wav", b"")
    with pytest.raises(ValueError, match="no sound"):
        SoundFile.load(tmp_path / "silent.wav")
