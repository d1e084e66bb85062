from __future__ import annotations

from pathlib import Path

import numpy as np

from ari_app.records.recording.writer import Recordings, StereoRecorder, Written
from tests.recordings import sides_of

RATE_HZ = 8000
START = 50.0
FRAME_SECONDS = 0.02


def frame(level: int) -> bytes:
    return np.full(RATE_HZ // 50, level, "<i2").tobytes()


def speak(recorder: StereoRecorder, since: float, until: float, level: int) -> None:
    """Both speak, from one second of the recording to another."""
    for index in range(round(since * 50), round(until * 50)):
        now = START + index * FRAME_SECONDS
        recorder.add_agent(frame(level), now)
        recorder.add_caller(frame(level), now + FRAME_SECONDS)


async def recorded(folder: Path, *, ends_in_the_pause: bool = False) -> Written:
    told: list[Written] = []
    recordings = Recordings(on_written=told.append)
    recorder = recordings.start(folder / "call.wav", RATE_HZ, START, session_id="s1")
    assert recorder is not None
    speak(recorder, 0, 2, 100)
    recorder.pause(START + 2)
    recorder.pause(START + 2.5)
    speak(recorder, 2, 5, 666)
    if not ends_in_the_pause:
        recorder.resume(START + 5)
        recorder.resume(START + 5)
        speak(recorder, 5, 7, 200)
    recorder.finish(START + 7)
    await recordings.close()
    (written,) = told
    return written


async def test_a_pause_is_silence_of_its_length(tmp_path: Path) -> None:
    written = await recorded(tmp_path)
    assert written.complete
    assert (written.session_id, written.seconds) == ("s1", 7.0)
    assert list(written.pauses) == [(2, 5)]
    assert written.size == (tmp_path / "call.wav").stat().st_size
    for side in sides_of(tmp_path / "call.wav").T:
        assert set(side[: 2 * RATE_HZ]) == {100}
        assert set(side[2 * RATE_HZ : 5 * RATE_HZ]) == {0}
        assert set(side[5 * RATE_HZ :]) == {200}


async def test_a_call_that_ends_in_a_pause_is_as_long_as_it_was(tmp_path: Path) -> None:
    written = await recorded(tmp_path, ends_in_the_pause=True)
    assert (written.seconds, written.pauses) == (7, ((2, 7),))
    sides = sides_of(tmp_path / "call.wav")
    assert len(sides) == 7 * RATE_HZ
    assert not sides[2 * RATE_HZ :].any()


async def test_what_was_said_in_the_pause_and_comes_after_it_is_not_kept(tmp_path: Path) -> None:
    recordings = Recordings()
    recorder = recordings.start(tmp_path / "call.wav", RATE_HZ, START)
    assert recorder is not None
    recorder.pause(START)
    recorder.resume(START + 1)
    recorder.add_caller(frame(666), START + 1.01)
    recorder.add_caller(frame(100), START + 1.03)
    recorder.finish(START + 2)
    await recordings.close()
    assert set(sides_of(tmp_path / "call.wav")[:, 0]) == {0, 100}


async def test_a_long_pause_is_written_as_it_goes(tmp_path: Path) -> None:
    recordings = Recordings(max_waiting_bytes=4 * RATE_HZ)
    recorder = recordings.start(tmp_path / "call.wav", RATE_HZ, START)
    assert recorder is not None
    recorder.pause(START)
    speak(recorder, 0, 600, 666)
    assert recordings._given_bytes == 0, "silence waits for no room"
    recorder.finish(START + 600)
    await recordings.close()
    sides = sides_of(tmp_path / "call.wav")
    assert len(sides) == 600 * RATE_HZ
    assert not sides.any()
