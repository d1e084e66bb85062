from __future__ import annotations

import os
import stat
import threading
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from ari_app.records.recording import encode as program
from ari_app.records.recording.encode import NotTheSame, check, encode
from ari_app.records.recording.encoder import Encoded, Encoder
from ari_app.records.recording.wav import lock
from tests.waiting import wait_until

RATES = (8000, 16000, 24000)


def talk(rate_hz: int, seconds: float = 12.0, seed: int = 1) -> npt.NDArray[np.int16]:
    """Two who take turns: syllables of noise through which a voice's tone is heard."""
    random = np.random.default_rng(seed)
    count = int(seconds * rate_hz)
    at = np.arange(count) / rate_hz
    sides = []
    for side in (0, 1):
        pitch = 120 + 80 * side
        tone = sum(np.sin(2 * np.pi * pitch * k * at) / k for k in range(1, 12))
        steps = random.uniform(0, 1, int(seconds * 6) + 2) ** 2
        syllables = np.interp(at * 6, np.arange(len(steps)), steps)
        turn = (at // 3).astype(int) % 2 == side
        noise = random.normal(0, 0.2, count)
        sides.append(6000 * (tone + noise) * syllables * turn)
    stereo: npt.NDArray[np.int16] = np.clip(np.stack(sides, axis=1), -32000, 32000).astype("<i2")
    return stereo


def write(path: Path, rate_hz: int, pcm: npt.NDArray[np.int16]) -> Path:
    with wave.open(str(path), "wb") as wav:
        wav.setnchannels(2)
        wav.setsampwidth(2)
        wav.setframerate(rate_hz)
        wav.writeframes(pcm.tobytes())
    return path


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("kind", ["flac", "opus"])
def test_the_encoded_file_takes_the_place_of_the_wav(
    tmp_path: Path, kind: str, rate_hz: int
) -> None:
    pcm = talk(rate_hz)
    wav = write(tmp_path / "153012-+49-a.2.wav", rate_hz, pcm)
    made = encode(wav, kind)
    assert os.listdir(tmp_path) == [f"153012-+49-a.2.{kind}"]
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert made.stat().st_size < pcm.nbytes * (0.9 if kind == "flac" else 0.25)
    decoded, rate = soundfile.read(made, dtype="int16")
    assert (rate, decoded.shape) == (rate_hz, pcm.shape)
    if kind == "flac":
        assert np.array_equal(decoded, pcm)
        return
    for was, now in zip(pcm.T.astype(float), decoded.T.astype(float), strict=True):
        spectrum = np.fft.rfft(was, 2 * len(was)).conj() * np.fft.rfft(now, 2 * len(was))
        lag = int(np.argmax(np.fft.irfft(spectrum)))
        assert min(lag, 2 * len(was) - lag) < rate_hz * 0.02


@pytest.mark.parametrize(
    "pcm",
    [
        np.zeros((1, 2), "<i2"),
        np.zeros((8000 * 3, 2), "<i2"),
        np.random.default_rng(1).normal(0, 3000, (8000 * 4, 2)).astype("<i2"),
        np.random.default_rng(1).normal(0, 12, (8000 * 4, 2)).astype("<i2"),
        np.stack([talk(8000)[:, 0], np.zeros(96000, "<i2")], axis=1),
    ],
    ids=["a sample", "silence", "noise", "faint noise", "one side"],
)
@pytest.mark.parametrize("kind", ["flac", "opus"])
def test_whatever_was_recorded(tmp_path: Path, kind: str, pcm: npt.NDArray[np.int16]) -> None:
    made = encode(write(tmp_path / "a.wav", 8000, pcm), kind)
    assert soundfile.info(made).frames == len(pcm)


CHANGES: dict[str, Callable[[npt.NDArray[np.int16]], Any]] = {
    "late": lambda pcm: np.roll(pcm, 8000 * 40 // 1000, axis=0),
    "exchanged": lambda pcm: pcm[:, ::-1],
    "silent": lambda pcm: pcm * 0,
    "one side silent": lambda pcm: pcm * [1, 0],
    "shorter": lambda pcm: pcm[:-1],
    "cut": lambda pcm: np.concatenate([pcm[: len(pcm) // 2], pcm[: len(pcm) // 2] * 0]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_the_same_is_found(tmp_path: Path, change: str) -> None:
    wav = write(tmp_path / "a.wav", 8000, talk(8000))
    other = CHANGES[change](talk(8000)).astype("<i2")
    soundfile.write(tmp_path / "a.opus", other, 8000, format="OGG", subtype="OPUS")
    with pytest.raises(NotTheSame):
        check(wav, tmp_path / "a.opus", exact=False)
    with pytest.raises(NotTheSame):
        encode(wav, "opus")
    assert sorted(os.listdir(tmp_path)) == ["a.opus", "a.wav"], "both stay for somebody to look"


def test_one_other_sample_in_a_flac_is_found(tmp_path: Path) -> None:
    pcm = talk(8000)
    wav = write(tmp_path / "a.wav", 8000, pcm)
    pcm[70_000, 1] ^= 1
    soundfile.write(tmp_path / "a.flac", pcm, 8000, subtype="PCM_16")
    with pytest.raises(NotTheSame):
        check(wav, tmp_path / "a.flac", exact=True)


def test_one_that_a_killed_process_has_made_is_taken(tmp_path: Path) -> None:
    wav = write(tmp_path / "a.wav", 8000, talk(8000))
    soundfile.write(tmp_path / "a.flac", talk(8000), 8000, subtype="PCM_16")
    assert encode(wav, "flac") == tmp_path / "a.flac"
    assert os.listdir(tmp_path) == ["a.flac"]


def test_one_that_another_process_has_just_made_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = write(tmp_path / "a.wav", 8000, talk(8000))
    first = program._write

    def late(wav: Path, target: Path, kind: str) -> bool:
        monkeypatch.setattr(program, "_write", first)
        encode(wav, kind)
        return first(wav, target, kind)

    monkeypatch.setattr(program, "_write", late)
    assert encode(wav, "flac") == tmp_path / "a.flac"
    assert os.listdir(tmp_path) == ["a.flac"]


@pytest.mark.parametrize("succeeds", [True, False])
def test_one_that_another_process_is_at_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, succeeds: bool
) -> None:
    wav = write(tmp_path / "a.wav", 8000, talk(8000))
    part = tmp_path / "a.flac.part"

    def waits(file: int) -> None:
        monkeypatch.setattr(program, "lock", lock)
        if succeeds:
            # The other one has yet to remove the WAV file.
            soundfile.write(part, talk(8000), 8000, subtype="PCM_16", format="FLAC")
            part.rename(tmp_path / "a.flac")
        else:
            part.unlink()

    monkeypatch.setattr(program, "lock", waits)
    assert encode(wav, "flac") == tmp_path / "a.flac"
    assert os.listdir(tmp_path) == ["a.flac"]


def test_one_without_a_sound_stays(tmp_path: Path) -> None:
    with pytest.raises(NotTheSame, match="there is nothing in it"):
        encode(write(tmp_path / "a.wav", 8000, np.zeros((0, 2), "<i2")), "flac")
    assert os.listdir(tmp_path) == ["a.wav"]


def test_a_rate_that_opus_has_not(tmp_path: Path) -> None:
    wav = write(tmp_path / "a.wav", 11025, talk(11025, 2))
    with pytest.raises(NotTheSame, match="no rate of 11025 Hz"):
        encode(wav, "opus")
    assert os.listdir(tmp_path) == ["a.wav"]


def test_a_file_that_is_not_the_same_when_it_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(*_: object, **__: object) -> None:
        raise NotTheSame("it has other samples")

    monkeypatch.setattr(program, "check", differs)
    with pytest.raises(NotTheSame):
        encode(write(tmp_path / "a.wav", 8000, talk(8000, 1)), "flac")
    assert os.listdir(tmp_path) == ["a.wav"]


# --- the queue and its program


class Told:
    """What the encoder has told."""

    def __init__(self) -> None:
        self.all: list[Encoded] = []
        self._news = threading.Condition()

    def __call__(self, encoded: Encoded) -> None:
        with self._news:
            self.all.append(encoded)
            self._news.notify_all()

    def wait(self, count: int) -> list[Path | None]:
        with self._news:
            assert self._news.wait_for(lambda: len(self.all) >= count, 60)
            return [each.path for each in self.all]


def test_files_are_encoded_one_after_the_other(tmp_path: Path) -> None:
    told = Told()
    encoder = Encoder("flac", told)
    for name in ("a", "b"):
        encoder.put(write(tmp_path / f"{name}.wav", 8000, talk(8000, 2)))
    (tmp_path / "c.wav").write_bytes(b"RIFF")
    encoder.put(tmp_path / "c.wav")
    encoder.put(tmp_path / "gone.wav")
    encoder.put(write(tmp_path / "d.wav", 8000, talk(8000, 2)))
    made = [tmp_path / "a.flac", tmp_path / "b.flac", None, None, tmp_path / "d.flac"]
    assert told.wait(5) == made
    assert told.all[0].size == (tmp_path / "a.flac").stat().st_size
    process = encoder._process
    assert process is not None
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
    encoder.close()
    assert (encoder.failed, encoder.waiting) == (2, 0)
    assert process.returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["a.flac", "b.flac", "c.wav", "d.flac"]


def test_a_program_that_is_killed_leaves_the_wav_and_another_takes_its_place(
    tmp_path: Path,
) -> None:
    told = Told()
    encoder = Encoder("opus", told)
    long = write(tmp_path / "a.wav", 24000, np.tile(talk(24000, 12), (50, 1)))
    encoder.put(long)
    wait_until((tmp_path / "a.opus.part").exists)
    assert encoder._process is not None
    encoder._process.kill()
    assert told.wait(1) == [None]
    encoder.put(write(tmp_path / "b.wav", 8000, talk(8000, 2)))
    assert told.wait(2) == [None, tmp_path / "b.opus"]
    encoder.close()
    with wave.open(str(long)) as wav:
        assert wav.getnframes() == 600 * 24000
    assert sorted(os.listdir(tmp_path)) == ["a.opus.part", "a.wav", "b.opus"]


def test_one_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    told = Told()
    encoder = Encoder("flac", told, program=("sleep", "60"), max_seconds=0.1)
    encoder.put(write(tmp_path / "a.wav", 8000, talk(8000, 1)))
    assert told.wait(1) == [None]
    encoder.close()
    assert (encoder.failed, os.listdir(tmp_path)) == (1, ["a.wav"])


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    told = Told()
    encoder = Encoder("flac", told, program=("/nonexistent/encoder",))
    encoder.put(tmp_path / "a.wav")
    assert told.wait(1) == [None]
    encoder.close()


def test_more_than_may_wait_stay_as_they_are(tmp_path: Path) -> None:
    told = Told()
    encoder = Encoder("flac", told, program=("sleep", "60"), max_waiting=1)
    taken = [encoder.put(tmp_path / f"{number}.wav") for number in range(4)]
    assert taken.count(False) >= 2
    encoder.close(0.1)
    assert encoder._process is None
