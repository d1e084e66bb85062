from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from ari_app.records.recording.wav import mend
from ari_app.records.recording.writer import (
    Recordings,
    RecordingStats,
    StereoRecorder,
    Written,
)
from tests.recordings import sides_of

RATE_HZ = 8000
START = 50.0
FRAME_SECONDS = 0.02
PATIENCE_SECONDS = 30.0


def frame(level: int) -> bytes:
    return np.full(RATE_HZ // 50, level, "<i2").tobytes()


def begin(recordings: Recordings, path: Path) -> StereoRecorder:
    recorder = recordings.start(path, RATE_HZ, START, session_id="s-1")
    assert recorder is not None
    return recorder


def speak(recorder: StereoRecorder, seconds: float, begin: float = START) -> None:
    for index in range(round(seconds / FRAME_SECONDS)):
        now = begin + index * FRAME_SECONDS
        recorder.add_caller(frame(100), now + FRAME_SECONDS)
        recorder.add_agent(frame(200), now)


async def caught_up(recordings: Recordings) -> None:
    """Wait until the writer has nothing more to do."""
    done = threading.Event()
    recordings._work.put(done.set)
    assert await asyncio.to_thread(done.wait, PATIENCE_SECONDS)


class Disk:
    """Writing waits while it does not turn, and fails with its `fault`."""

    def __init__(self) -> None:
        self.turns = threading.Event()
        self.turns.set()
        self.fault: OSError | None = None
        self._write = os.pwrite

    def write(self, descriptor: int, data: bytes, offset: int) -> int:
        self.turns.wait()
        if self.fault is not None and offset > 0:
            raise self.fault
        return self._write(descriptor, data, offset)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "pwrite", disk.write)
    yield disk
    disk.turns.set()


async def test_both_voices_are_written_side_by_side(tmp_path: Path) -> None:
    recordings = Recordings()
    recorder = begin(recordings, tmp_path / "call.wav")
    speak(recorder, 3)
    recorder.finish()
    with capture_logs() as logs:
        await recordings.close()
    assert recordings.stats == RecordingStats(saved=1)
    assert recordings.unfinished == 0
    recorded = sides_of(tmp_path / "call.wav")
    assert len(recorded) == 3 * RATE_HZ
    assert set(recorded[:, 0]) == {100}
    assert set(recorded[:, 1]) == {200}
    assert logs == [
        {
            "event": "recording_saved",
            "log_level": "info",
            "session": "s-1",
            "file": "call.wav",
            "seconds": 3.0,
        }
    ]


async def test_a_call_without_a_sound_leaves_no_file(tmp_path: Path) -> None:
    written: list[Written] = []
    recordings = Recordings(on_written=written.append)
    begin(recordings, tmp_path / "call.wav").finish()
    await recordings.close()
    assert os.listdir(tmp_path) == []
    assert [(each.path, each.complete) for each in written] == [(None, True)]


async def test_what_has_ended_is_written_through_unless_much_waits(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    through: list[int] = []
    monkeypatch.setattr(os, "fsync", through.append)
    monkeypatch.setattr("ari_app.records.recording.writer._BUSY", 5)
    recordings = Recordings()
    disk.turns.clear()
    recorders = [begin(recordings, tmp_path / f"{number}.wav") for number in range(9)]
    for recorder in recorders:
        speak(recorder, 1)
    for recorder in recorders:
        recorder.finish()
    disk.turns.set()
    await recordings.close()
    assert recordings.stats.saved == 9
    # Two pieces for each; where the order to end waits already, it counts as well.
    assert len(through) in (2, 3)


async def test_many_calls_share_one_thread(tmp_path: Path) -> None:
    recordings = Recordings()
    before = threading.active_count()
    recorders = [begin(recordings, tmp_path / f"{number}.wav") for number in range(20)]
    assert threading.active_count() == before + 1
    for recorder in recorders:
        speak(recorder, 1)
        recorder.finish()
    await recordings.close()
    assert recordings.stats == RecordingStats(saved=20)
    for number in range(20):
        assert len(sides_of(tmp_path / f"{number}.wav")) == RATE_HZ


async def test_finishing_twice_and_adding_after_it_do_nothing(tmp_path: Path) -> None:
    recordings = Recordings()
    recorder = begin(recordings, tmp_path / "call.wav")
    speak(recorder, 0.1)
    recorder.finish()
    speak(recorder, 2)
    recorder.finish()
    await recordings.close()
    await recordings.close()
    assert recordings.stats == RecordingStats(saved=1)
    assert len(sides_of(tmp_path / "call.wav")) == RATE_HZ // 10


async def test_a_stalled_disk_holds_up_nobody_and_loses_only_what_exceeds_the_bound(
    tmp_path: Path, disk: Disk
) -> None:
    recordings = Recordings(max_waiting_bytes=2 * RATE_HZ * 2)
    recorder = begin(recordings, tmp_path / "call.wav")
    disk.turns.clear()
    # Two voices: two seconds of what may wait are one second of the call.
    speak(recorder, 3)
    assert recordings.start(tmp_path / "next.wav", RATE_HZ, START) is None
    disk.turns.set()
    await caught_up(recordings)
    speak(recorder, 1, begin=START + 3)
    recorder.finish()
    await recordings.close()
    assert recordings.stats == RecordingStats(saved=0, incomplete=2, lost_seconds=4)
    recorded = sides_of(tmp_path / "call.wav")
    assert len(recorded) == 4 * RATE_HZ
    loud = recorded[:, 1] == 200
    assert loud[:RATE_HZ].all()
    assert not loud[RATE_HZ : 3 * RATE_HZ].any()
    assert loud[3 * RATE_HZ :].all()


async def test_no_more_recordings_are_begun_than_may_be_unfinished(
    tmp_path: Path, disk: Disk
) -> None:
    disk.turns.clear()
    recordings = Recordings(max_unfinished=2)
    for number in range(2):
        begin(recordings, tmp_path / f"{number}.wav").finish()
    assert recordings.start(tmp_path / "3.wav", RATE_HZ, START) is None
    disk.turns.set()
    await caught_up(recordings)
    assert recordings.unfinished == 0
    begin(recordings, tmp_path / "3.wav").finish()
    await recordings.close()
    assert recordings.stats == RecordingStats(saved=3, incomplete=1)


async def test_the_end_of_the_process_waits_only_so_long(tmp_path: Path, disk: Disk) -> None:
    disk.turns.clear()
    recordings = Recordings()
    recorder = begin(recordings, tmp_path / "call.wav")
    speak(recorder, 0.1)
    recorder.finish()
    with capture_logs() as logs:
        await recordings.close(timeout_seconds=0.01)
    assert [entry["event"] for entry in logs] == ["recordings_unfinished"]
    assert recordings.unfinished == 1
    disk.turns.set()
    await recordings.close(PATIENCE_SECONDS)
    assert recordings.unfinished == 0


async def test_a_full_disk_ends_one_recording_and_nothing_else(tmp_path: Path, disk: Disk) -> None:
    recordings = Recordings()
    recorder = begin(recordings, tmp_path / "call.wav")
    speak(recorder, 2)
    await caught_up(recordings)
    disk.fault = OSError(28, "No space left on device")
    speak(recorder, 2, begin=START + 2)
    await caught_up(recordings)
    disk.fault = None
    recorder.finish()
    other = begin(recordings, tmp_path / "other.wav")
    speak(other, 1)
    other.finish()
    with capture_logs() as logs:
        await recordings.close()
    assert recordings.stats.saved == 1
    assert recordings.stats.incomplete == 1
    assert recordings.stats.lost_seconds == pytest.approx(4, abs=1)
    (told,) = (entry for entry in logs if entry["event"] == "recording_incomplete")
    assert told["failure"] == "No space left on device"
    assert told["file"] == "call.wav"
    assert len(sides_of(tmp_path / "call.wav")) / RATE_HZ == pytest.approx(told["seconds"], 0.1)
    assert len(sides_of(tmp_path / "other.wav")) == RATE_HZ


async def test_a_folder_that_goes_away_in_the_middle(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    recordings = Recordings()
    recorder = begin(recordings, folder / "day" / "call.wav")
    speak(recorder, 1)
    await caught_up(recordings)
    shutil.rmtree(folder)
    speak(recorder, 1, begin=START + 1)
    recorder.finish()
    begin(recordings, folder / "day" / "next.wav").finish()
    await recordings.close()
    assert recordings.stats.incomplete == 2


async def test_a_fault_of_ours_in_one_recording_does_not_end_the_others(
    tmp_path: Path,
) -> None:
    recordings = Recordings()
    recorder = begin(recordings, tmp_path / "call.wav")
    recorder._file._timeline = None  # type: ignore[assignment]
    speak(recorder, 1)
    recorder.finish()
    other = begin(recordings, tmp_path / "other.wav")
    other.finish()
    with capture_logs() as logs:
        await recordings.close()
    assert recordings.unfinished == 0
    assert (recordings.stats.saved, recordings.stats.incomplete) == (1, 1)
    assert "recording_writer_failed" in [entry["event"] for entry in logs]


def test_a_process_that_is_killed_leaves_what_can_be_played(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from tests.unit.records.test_recording import *\n"
        "recorder = begin(Recordings(), pathlib.Path(sys.argv[1]))\n"
        "speak(recorder, 10)\n"
        "time.sleep(60)\n"
    )
    path = tmp_path / "call.wav"
    process = subprocess.Popen([sys.executable, "-c", program, str(path)])
    part = path.with_name("call.wav.part")
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not part.exists() or part.stat().st_size < 9 * RATE_HZ * 4:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    recorded = sides_of(part)
    assert len(recorded) >= 8 * RATE_HZ
    assert set(recorded[:, 1]) == {200}
    assert not path.exists()


def test_a_process_that_is_killed_at_any_moment_loses_a_second_at_most(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys; from tests.unit.records.test_recording import *\n"
        "recordings, out = Recordings(), sys.stdout\n"
        "recorders = [begin(recordings, pathlib.Path(sys.argv[1], f'{n}.wav')) for n in range(4)]\n"
        "for second in range(100_000):\n"
        "    for recorder in recorders:\n"
        "        speak(recorder, 1, begin=START + second)\n"
        "    os.sched_yield(); time.sleep(0.0005)\n"
        "    print(second + 1 - recordings._work.qsize(), flush=True)\n"
    )
    random = np.random.default_rng()
    for attempt in range(8):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(int(random.integers(2, 60))):
            process.stdout.readline()
        time.sleep(random.uniform(0, 0.02))
        process.kill()
        told = [int(line) for line in process.stdout.read().split()]
        process.wait()
        process.stdout.close()
        for number in range(4):
            part = folder / f"{number}.wav.part"
            held = sides_of(part)
            assert set(held[:, 1]) <= {200}
            mended = mend(part)
            assert mended is not None
            path, seconds = mended
            whole = sides_of(path)
            assert seconds == len(whole) / RATE_HZ
            assert len(held) <= len(whole) <= len(held) + RATE_HZ
            assert np.array_equal(whole[: len(held)], held)
            assert seconds >= max([0, *told[-1:]]) - 3
