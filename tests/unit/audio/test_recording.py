from __future__ import annotations

import asyncio
import os
import stat
import threading
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ari_app.audio import recording
from ari_app.audio.recording import StereoRecorder

RATE_HZ = 8000
START = 50.0
FRAME_SECONDS = 0.02


def frame(level: int) -> bytes:
    return np.full(RATE_HZ // 50, level, "<i2").tobytes()


def read(path: Path) -> npt.NDArray[np.int16]:
    with wave.open(str(path), "rb") as wav:
        assert (wav.getnchannels(), wav.getsampwidth(), wav.getframerate()) == (2, 2, RATE_HZ)
        return np.frombuffer(wav.readframes(wav.getnframes()), "<i2").reshape(-1, 2)


def speak(recorder: StereoRecorder, seconds: float, begin: float = START) -> None:
    for index in range(round(seconds / FRAME_SECONDS)):
        now = begin + index * FRAME_SECONDS
        recorder.add_caller(frame(100), now + FRAME_SECONDS)
        recorder.add_agent(frame(200), now)


@pytest.fixture
def stalled_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A disk on which opening a file waits for the event. Set at the end of the test at last."""
    disk = threading.Event()
    really_open = recording._private

    def open_later(path: str, flags: int) -> int:
        disk.wait()
        return really_open(path, flags)

    monkeypatch.setattr(recording, "_private", open_later)
    yield disk
    disk.set()


async def test_both_voices_are_written_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    recorder = StereoRecorder(path, RATE_HZ, START)
    speak(recorder, 3)
    result = await recorder.close()
    assert result == recording.RecordingResult(path, 3.0, 0.0, None)
    recorded = read(path)
    assert len(recorded) == 3 * RATE_HZ
    assert set(recorded[:, 0]) == {100}
    assert set(recorded[:, 1]) == {200}


async def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    await StereoRecorder(path, RATE_HZ, START).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_call_without_a_sound_is_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    result = await StereoRecorder(path, RATE_HZ, START).close()
    assert result.seconds == 0
    assert len(read(path)) == 0


async def test_closing_twice_and_adding_after_it_do_nothing(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    recorder = StereoRecorder(path, RATE_HZ, START)
    speak(recorder, 0.1)
    first = await recorder.close()
    speak(recorder, 2)
    assert await recorder.close() == first
    assert len(read(path)) == RATE_HZ // 10


async def test_a_stalled_disk_loses_only_what_exceeds_the_bound(
    tmp_path: Path, stalled_disk: threading.Event
) -> None:
    path = tmp_path / "call.wav"
    recorder = StereoRecorder(path, RATE_HZ, START, backlog_seconds=2)
    # Two voices: two seconds of backlog are one second of the call.
    speak(recorder, 3)
    stalled_disk.set()
    await asyncio.to_thread(wait_until_empty, recorder)
    speak(recorder, 1, begin=START + 3)
    result = await recorder.close()
    assert result.failure is None
    assert result.dropped_seconds == 4
    assert result.seconds == 4
    recorded = read(path)
    loud = recorded[:, 1] == 200
    assert loud[:RATE_HZ].all()
    assert not loud[RATE_HZ : 3 * RATE_HZ].any()
    assert loud[3 * RATE_HZ :].all()


def wait_until_empty(recorder: StereoRecorder) -> None:
    while not recorder._queue.empty():
        pass


async def test_a_disk_that_does_not_answer_is_given_up(
    tmp_path: Path, stalled_disk: threading.Event
) -> None:
    recorder = StereoRecorder(tmp_path / "call.wav", RATE_HZ, START)
    speak(recorder, 0.1)
    result = await recorder.close(timeout_seconds=0.01)
    assert result.failure == "the disk did not answer in time"
    stalled_disk.set()
    result = await recorder.close()
    assert result.failure is None
    assert result.seconds == pytest.approx(0.1)


async def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(b"precious")
    recorder = StereoRecorder(path, RATE_HZ, START)
    speak(recorder, 2)
    result = await recorder.close()
    assert result.failure is not None
    assert "exists" in result.failure
    assert result.seconds == 0
    assert result.dropped_seconds == 4
    assert path.read_bytes() == b"precious"


async def test_a_full_disk_ends_the_recording_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        recording, "_private", lambda _path, _flags: os.open("/dev/full", os.O_WRONLY)
    )
    recorder = StereoRecorder(tmp_path / "call.wav", RATE_HZ, START)
    speak(recorder, 3)
    result = await recorder.close()
    assert result.failure is not None
    assert "No space left" in result.failure
    assert result.dropped_seconds > 0
