"""Recording calls to stereo WAV files without ever making a call wait for the disk."""

from __future__ import annotations

import asyncio
import enum
import errno
import os
import queue
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import structlog

from ari_app.audio.formats import SAMPLE_BYTES

_Samples = npt.NDArray[np.int16]

_SLACK_MS: Final = 60
"""A frame up to this much later than the end of the last one follows it without a hole."""
_HOLD_MS: Final = 200
"""How far behind the newest frame the time line is settled; more than slack and a frame."""
_BLOCK_MS: Final = 1000


class Side(enum.IntEnum):
    """A voice; the value is its channel."""

    CALLER = 0
    AGENT = 1


class StereoTimeline:
    """Places frames by their time and gives out what is settled.

    Within one voice frames never overlap and never change order: one that comes early is played
    after the last. A burst of late packets is therefore complete, and as long as it is.

    Args:
        rate_hz: Rate of both voices, 16-bit mono PCM.
        started_at: The time (seconds, monotonic) of the first sample.
    """

    def __init__(self, rate_hz: int, started_at: float) -> None:
        self._rate_hz = rate_hz
        self._started_at = started_at
        self._slack = rate_hz * _SLACK_MS // 1000
        self._hold = rate_hz * _HOLD_MS // 1000
        self._block = rate_hz * _BLOCK_MS // 1000
        self._given = 0
        self._ends = [0, 0]
        self._waiting: tuple[deque[tuple[int, _Samples]], ...] = (deque(), deque())

    def add(self, side: Side, pcm: bytes, now: float) -> None:
        """Place PCM that ended at `now` (the caller's) or begins at `now` (the agent's)."""
        samples = np.frombuffer(pcm, "<i2", len(pcm) // SAMPLE_BYTES)
        position = round((now - self._started_at) * self._rate_hz)
        if side is Side.CALLER:
            position -= len(samples)
        end = self._ends[side]
        start = max(position if position - end > self._slack else end, self._given)
        self._ends[side] = start + len(samples)
        self._waiting[side].append((start, samples))

    def take(self, now: float) -> Iterator[bytes]:
        """Yield stereo PCM, in blocks of up to a second, as far as no frame after `now` can change
        it."""
        return self._give(round((now - self._started_at) * self._rate_hz) - self._hold)

    def finish(self) -> Iterator[bytes]:
        """Yield all the rest, up to the end of the last frame."""
        return self._give(max(self._ends))

    def _give(self, until: int) -> Iterator[bytes]:
        while self._given < until:
            start = self._given
            self._given = end = min(until, start + self._block)
            stereo = np.zeros((end - start, len(self._waiting)), "<i2")
            for side, waiting in enumerate(self._waiting):
                _lay(stereo[:, side], waiting, start)
            yield stereo.tobytes()


def _lay(channel: _Samples, waiting: deque[tuple[int, _Samples]], start: int) -> None:
    """Move samples from `waiting` to their places in a `channel` that begins at `start`."""
    end = start + len(channel)
    while waiting and waiting[0][0] < end:
        position, samples = waiting.popleft()
        fits = samples[: end - position]
        channel[position - start : position - start + len(fits)] = fits
        if len(fits) < len(samples):
            waiting.appendleft((end, samples[len(fits) :]))


_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
_PCM: Final = 1
# Both sizes of the header have 32 bits.
_MAX_DATA_BYTES: Final = 2**32 - 1 - _HEADER.size


class GrowingWav:
    """A new file of 16-bit PCM, which only its owner may read.

    Until `finish` it is named `NAME.wav.part`. Where there is a `NAME.wav` already, or one
    that grows, it becomes `NAME-2.wav` and so on: nothing is ever overwritten.

    Args:
        path: The name that it is to have, in a folder that exists.
        channels: How many voices are interleaved.
        rate_hz: Their rate.

    Raises:
        OSError: It cannot be created.
    """

    def __init__(self, path: Path, channels: int, rate_hz: int) -> None:
        self._channels = channels
        self._rate_hz = rate_hz
        self._data_bytes = 0
        self.path, self.part, self._file = _create(path)
        self._write_header()

    @property
    def frames(self) -> int:
        """How many samples of each voice the file holds."""
        return self._data_bytes // (self._channels * SAMPLE_BYTES)

    def append(self, pcm: bytes) -> None:
        """Add whole frames.

        Raises:
            OSError: They were not written, or not all of them; the file is as long as `frames`
                says, and can still be played.
        """
        if self._data_bytes + len(pcm) > _MAX_DATA_BYTES:
            raise OSError(errno.EFBIG, "a WAV file holds 4 GiB at most")
        rest = memoryview(pcm)
        try:
            while rest:
                written = os.pwrite(self._file, rest, _HEADER.size + self._data_bytes)
                self._data_bytes += written
                rest = rest[written:]
        finally:
            self._write_header()

    def finish(self) -> None:
        """Close the file and give it its name.

        Raises:
            OSError: It keeps the name that it has.
        """
        self.close()
        self.part.rename(self.path)

    def close(self) -> None:
        """Close the file and leave it as it is. May be called twice."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _write_header(self) -> None:
        frame_bytes = self._channels * SAMPLE_BYTES
        size = self.frames * frame_bytes
        header = _HEADER.pack(
            b"RIFF",
            _HEADER.size - 8 + size,
            b"WAVE",
            b"fmt ",
            16,
            _PCM,
            self._channels,
            self._rate_hz,
            self._rate_hz * frame_bytes,
            frame_bytes,
            SAMPLE_BYTES * 8,
            b"data",
            size,
        )
        if os.pwrite(self._file, header, 0) != len(header):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _create(path: Path) -> tuple[Path, Path, int]:
    number = 1
    while True:
        wanted = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        part = wanted.with_name(f"{wanted.name}.part")
        number += 1
        try:
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        # Only now: whoever else was writing this one may just have finished it.
        if not wanted.exists():
            return wanted, part, file
        os.close(file)
        part.unlink()


_log = structlog.get_logger(__name__)

_BATCH_SECONDS: Final = 1.0
"""Audio, both voices added up, that is collected before it is handed to the writer."""

_Batch = list[tuple[Side, bytes, float]]
_Work = Callable[[], None]


@dataclass(slots=True)
class RecordingStats:
    """Counters of a process's recordings.

    Attributes:
        saved: Complete and under their own name.
        incomplete: Something of them is missing, or all.
        lost_seconds: Audio, of both voices added up, that is in no file.
    """

    saved: int = 0
    incomplete: int = 0
    lost_seconds: float = 0.0


class Recordings:
    """All recordings of a process, and the one thread that writes them.

    While the disk stalls, a bounded amount of audio waits for it; what comes beyond that is dropped
    and counted, everything after it is still at its right place, and no further recording begins.
    A disk that never answers again holds up nothing but the thread.

    Args:
        max_waiting_bytes: Audio that may wait for the disk, of all calls.
        max_unfinished: How many recordings may be under way.

    Attributes:
        stats: What has become of them. The thread writes it; read it from anywhere.
    """

    def __init__(
        self, *, max_waiting_bytes: int = 64 * 1024 * 1024, max_unfinished: int = 2000
    ) -> None:
        self.stats = RecordingStats()
        self._max_waiting_bytes = max_waiting_bytes
        self._max_unfinished = max_unfinished
        # Bounded by the two limits: of each recording there is a beginning, an end, and its audio.
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        # Each is counted by one side only, so that neither needs a lock.
        self._given_bytes = self._taken_bytes = 0
        self._begun = self._ended = 0
        self._thread: threading.Thread | None = None

    @property
    def unfinished(self) -> int:
        """How many have begun and are not yet in order on the disk."""
        return self._begun - self._ended

    @property
    def _full(self) -> bool:
        return self._given_bytes - self._taken_bytes >= self._max_waiting_bytes

    def start(
        self, path: Path, rate_hz: int, now: float, *, session_id: str = ""
    ) -> StereoRecorder | None:
        """Begin a recording.

        Args:
            path: The file, see `GrowingWav`.
            rate_hz: Rate of both voices, 16-bit mono PCM.
            now: The time (seconds, monotonic) of the file's first sample.
            session_id: For the log.

        Returns:
            None when the disk is too far behind; that is logged and counted.
        """
        if self._full or self.unfinished >= self._max_unfinished:
            self.stats.incomplete += 1
            _log.error("recording_not_begun", session=session_id, waiting=self.unfinished)
            return None
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="recordings", daemon=True)
            self._thread.start()
        self._begun += 1
        file = _File(path, rate_hz, now, session_id)
        self._work.put(file.open)
        return StereoRecorder(self, file, rate_hz)

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Wait until all is written, for so long at most. May be called twice."""
        if self._thread is not None:
            self._work.put(None)
            await asyncio.to_thread(self._thread.join, timeout_seconds)
        if self.unfinished:
            _log.error("recordings_unfinished", recordings=self.unfinished)

    def _take(self, file: _File, batch: _Batch, size: int) -> bool:
        """Hand a batch to the writer; False when there is no room for it."""
        if self._full:
            return False
        self._given_bytes += size
        self._work.put(lambda: self._write(file, batch, size))
        return True

    def _finish(self, file: _File, dropped_bytes: int) -> None:
        self._work.put(lambda: self._end(file, dropped_bytes))

    # --- in the thread

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                # One recording's fault is not the others'.
                _log.exception("recording_writer_failed")

    def _write(self, file: _File, batch: _Batch, size: int) -> None:
        try:
            file.write(batch, size)
        except Exception:
            file.lost_bytes += size
            raise
        finally:
            self._taken_bytes += size

    def _end(self, file: _File, dropped_bytes: int) -> None:
        try:
            file.finish(dropped_bytes)
        finally:
            if file.is_complete:
                self.stats.saved += 1
            else:
                self.stats.incomplete += 1
                self.stats.lost_seconds += file.lost_seconds
            self._ended += 1


class StereoRecorder:
    """Takes the caller (left) and the agent (right). Adding a frame appends to a list."""

    def __init__(self, recordings: Recordings, file: _File, rate_hz: int) -> None:
        self._recordings = recordings
        self._file = file
        self._batch_bytes = int(_BATCH_SECONDS * rate_hz) * SAMPLE_BYTES
        self._batch: _Batch = []
        self._batched_bytes = 0
        self._dropped_bytes = 0
        self._finished = False

    def add_caller(self, pcm: bytes, now: float) -> None:
        """Add what the caller said up to `now` (seconds, monotonic). Nothing once finished."""
        self._add(Side.CALLER, pcm, now)

    def add_agent(self, pcm: bytes, now: float) -> None:
        """Add what the caller hears of the agent from `now` on. Nothing once finished."""
        self._add(Side.AGENT, pcm, now)

    def finish(self) -> None:
        """End it: no more will come. Waits for nothing: the writer does the rest. May be called
        twice."""
        if not self._finished:
            self._finished = True
            self._hand_over()
            self._recordings._finish(self._file, self._dropped_bytes)

    def _add(self, side: Side, pcm: bytes, now: float) -> None:
        if self._finished:
            return
        self._batch.append((side, pcm, now))
        self._batched_bytes += len(pcm)
        if self._batched_bytes >= self._batch_bytes:
            self._hand_over()

    def _hand_over(self) -> None:
        batch, size = self._batch, self._batched_bytes
        self._batch, self._batched_bytes = [], 0
        if not self._recordings._take(self._file, batch, size):
            self._dropped_bytes += size


class _File:
    """One recording as the writer sees it: from batches, over the time line, to the file."""

    def __init__(self, path: Path, rate_hz: int, started_at: float, session_id: str) -> None:
        self._path = path
        self._rate_hz = rate_hz
        self._timeline = StereoTimeline(rate_hz, started_at)
        self._log = _log.bind(session=session_id)
        self._wav: GrowingWav | None = None
        self.lost_bytes = 0
        self.failure: str | None = None

    @property
    def is_complete(self) -> bool:
        return self.failure is None and not self.lost_bytes

    @property
    def lost_seconds(self) -> float:
        return self.lost_bytes / (SAMPLE_BYTES * self._rate_hz)

    def open(self) -> None:
        try:
            self._wav = GrowingWav(self._path, len(Side), self._rate_hz)
        except OSError as error:
            self._fail(error)

    def write(self, batch: _Batch, size: int) -> None:
        if self.failure is not None:
            self.lost_bytes += size
            return
        for side, pcm, now in batch:
            self._timeline.add(side, pcm, now)
        if batch and not self._append(self._timeline.take(batch[-1][2])):
            self.lost_bytes += size

    def finish(self, dropped_bytes: int) -> None:
        self.lost_bytes += dropped_bytes
        self._append(self._timeline.finish())
        wav = self._wav
        if wav is not None:
            try:
                if self.failure is None:
                    wav.finish()
            except OSError as error:
                self._fail(error)
            finally:
                wav.close()
        self._report(wav)

    def _append(self, blocks: Iterable[bytes]) -> bool:
        if self._wav is None or self.failure is not None:
            return False
        try:
            for block in blocks:
                self._wav.append(block)
        except OSError as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error: OSError) -> None:
        self.failure = error.strerror or str(error)
        self._log.error("recording_failed", file=self._path.name, error=self.failure)

    def _report(self, wav: GrowingWav | None) -> None:
        seconds = 0.0 if wav is None else wav.frames / self._rate_hz
        if self.is_complete:
            name = self._path.name if wav is None else wav.path.name
            self._log.info("recording_saved", file=name, seconds=round(seconds, 1))
            return
        self._log.error(
            "recording_incomplete",
            file=None if wav is None else (wav.part if self.failure else wav.path).name,
            failure=self.failure,
            seconds=round(seconds, 1),
            lost_seconds=round(self.lost_seconds, 1),
        )
