"""Recording calls to stereo WAV files without ever making a call wait for the disk."""

from __future__ import annotations

import asyncio
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from ari_app.audio.formats import SAMPLE_BYTES
from ari_app.records.recording.names import for_log
from ari_app.records.recording.timeline import Side, StereoTimeline
from ari_app.records.recording.wav import GrowingWav

_log = structlog.get_logger(__name__)

_BATCH_SECONDS: Final = 1.0
"""Audio, both voices added up, that is collected before it is handed to the writer."""

_LOOK_SECONDS: Final = 5.0
"""How often the room on the disk is looked at while something is written."""

_BUSY: Final = 50
"""With so much work that waits, what has ended is not written through to the disk: it has enough to
do, and the system does that in its own time."""

_TINY_SECONDS: Final = 1e-6

_Batch = list[tuple[Side, bytes, float]]
"""Frames, or no sound at all: silence up to then."""
_Work = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Written:
    """A recording that has ended.

    Attributes:
        session_id: The call.
        path: The file; None: there is none, for nothing was to be kept, or could be.
        seconds: How much is in it.
        size: In bytes.
        complete: Nothing is missing.
        began: The time (seconds, monotonic) of its first sample.
        pauses: From when to when, in seconds of the file, it is silent on purpose.
    """

    session_id: str
    path: Path | None
    seconds: float
    size: int
    complete: bool
    began: float
    pauses: tuple[tuple[float, float], ...] = ()


@dataclass(slots=True)
class RecordingStats:
    """Counters of a process's recordings.

    Attributes:
        saved: Complete and under their own name.
        incomplete: Something of them is missing, or all.
        lost_seconds: Audio, of both voices added up, that is in no file.
        free_bytes: The room on the disk, when it was last looked at; None: never.
        away: Why the folder could not be looked at then; None: it could.
        place: Which folder it was then, of whichever disk; None: it could not be looked at.
    """

    saved: int = 0
    incomplete: int = 0
    lost_seconds: float = 0.0
    free_bytes: int | None = None
    away: str | None = None
    place: tuple[int, int] | None = None


class Recordings:
    """All recordings of a process, and the one thread that writes them.

    While the disk stalls, a bounded amount of audio waits for it; what comes beyond that is dropped
    and counted, everything after it is still at its right place, and no further recording begins.
    A disk that never answers again holds up nothing but the thread.

    A disk that is nearly full ends recordings before it is full, for others need it too.

    Args:
        max_waiting_bytes: Audio that may wait for the disk, of all calls.
        max_unfinished: How many recordings may be under way.
        folder: Where they are, for the room there; None does not look.
        floor_bytes: With less room than that nothing is written.
        on_written: Told, in the thread, of each recording that has ended.

    Attributes:
        stats: What has become of them. The thread writes it; read it from anywhere.
    """

    def __init__(
        self,
        *,
        max_waiting_bytes: int = 64 * 1024 * 1024,
        max_unfinished: int = 2000,
        folder: Path | None = None,
        floor_bytes: int = 0,
        on_written: Callable[[Written], None] = lambda written: None,
    ) -> None:
        self.stats = RecordingStats()
        self._max_waiting_bytes = max_waiting_bytes
        self._max_unfinished = max_unfinished
        self._folder = folder
        self._floor_bytes = floor_bytes
        self._on_written = on_written
        self._looks = False
        self._looked = 0.0
        # Bounded by the two limits: of each recording there is a beginning, an end, and its audio.
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        # Each is counted by one side only, so that neither needs a lock.
        self._given_bytes = self._taken_bytes = 0
        self._begun = self._ended = 0
        self._parts: set[Path] = set()
        self._thread: threading.Thread | None = None

    @property
    def unfinished(self) -> int:
        """How many have begun and are not yet in order on the disk."""
        return self._begun - self._ended

    @property
    def no_room(self) -> bool:
        """Whether the disk had less room than the floor, when it was last looked at."""
        free = self.stats.free_bytes
        return free is not None and free < self._floor_bytes

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
            None when the disk is full, or too far behind; that is logged and counted.
        """
        if self.no_room or self._full or self.unfinished >= self._max_unfinished:
            self.stats.incomplete += 1
            _log.error(
                "recording_not_begun",
                session=session_id,
                waiting=self.unfinished,
                disk_is_full=self.no_room,
            )
            return None
        self._start_thread()
        self._begun += 1
        file = _File(path, rate_hz, now, session_id)
        self._work.put(lambda: self._open(file))
        return StereoRecorder(self, file, rate_hz)

    def writes(self, part: Path) -> bool:
        """Return whether a file is being written here; ask from anywhere."""
        return part in self._parts

    def look(self) -> None:
        """Look at the room on the disk, some time soon; a disk that stalls is asked once."""
        if self._folder is not None and not self._looks:
            self._looks = True
            self._start_thread()
            self._work.put(self._look)

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="recordings", daemon=True)
            self._thread.start()

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

    def _finish(
        self, file: _File, dropped_bytes: int, pauses: tuple[tuple[float, float], ...]
    ) -> None:
        self._work.put(lambda: self._end(file, dropped_bytes, pauses))

    # --- in the thread

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                # One recording's fault is not the others'.
                _log.exception("recording_writer_failed")

    def _look(self) -> None:
        assert self._folder is not None, "nobody asks where there is no folder"
        self._looks = False
        self._looked = time.monotonic()
        try:
            found = self._folder.stat()
            self.stats.free_bytes = shutil.disk_usage(self._folder).free
            self.stats.place = found.st_dev, found.st_ino
            self.stats.away = None
        except OSError as error:
            self.stats.free_bytes = self.stats.place = None
            self.stats.away = error.strerror or type(error).__name__

    def _open(self, file: _File) -> None:
        file.open()
        if file.part is not None:
            self._parts.add(file.part)

    def _write(self, file: _File, batch: _Batch, size: int) -> None:
        if self._folder is not None and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._look()
        try:
            if self.no_room:
                file.fail("the disk is nearly full")
            file.write(batch, size)
        except Exception:
            file.lost_bytes += size
            raise
        finally:
            self._taken_bytes += size

    def _end(
        self, file: _File, dropped_bytes: int, pauses: tuple[tuple[float, float], ...]
    ) -> None:
        try:
            file.finish(dropped_bytes, through=self._work.qsize() < _BUSY)
        finally:
            if file.part is not None:
                self._parts.discard(file.part)
            self._on_written(file.written(pauses))
            if file.is_complete:
                self.stats.saved += 1
            else:
                self.stats.incomplete += 1
                self.stats.lost_seconds += file.lost_seconds
            self._ended += 1


class StereoRecorder:
    """Takes the caller (left) and the agent (right). Adding a frame appends to a list.

    Attributes:
        paused: What comes now is not kept: there is silence in its place.
    """

    def __init__(self, recordings: Recordings, file: _File, rate_hz: int) -> None:
        self._recordings = recordings
        self._file = file
        self._rate_hz = rate_hz
        self._batch_bytes = int(_BATCH_SECONDS * rate_hz) * SAMPLE_BYTES
        self._batch: _Batch = []
        self._batched_bytes = 0
        self._dropped_bytes = 0
        self._finished = False
        self._began = self._marked = file.started_at
        self._resumed = 0.0
        self._paused_at = 0.0
        self._pauses: list[tuple[float, float]] = []
        self.paused = False

    @property
    def lives(self) -> bool:
        """Whether what it is given is written; otherwise it has ended, or the disk has failed."""
        return not self._finished and self._file.failure is None

    def add_caller(self, pcm: bytes, now: float) -> None:
        """Add what the caller said up to `now` (seconds, monotonic). Nothing once finished."""
        if self._resumed and self._before_resumed(pcm, now):
            return
        self._add(Side.CALLER, pcm, now)

    def add_agent(self, pcm: bytes, now: float) -> None:
        """Add what the caller hears of the agent from `now` on. Nothing once finished."""
        self._add(Side.AGENT, pcm, now)

    def pause(self, now: float) -> None:
        """Keep nothing from now on; there is silence instead. May be said twice."""
        if not (self.paused or self._finished):
            self.paused, self._paused_at, self._marked = True, now, now
            self._hand_over()

    def resume(self, now: float) -> None:
        """Keep what comes again. May be said twice."""
        if self.paused:
            self.paused, self._resumed = False, now
            self._pauses.append((self._paused_at - self._began, now - self._began))

    def finish(self, now: float | None = None) -> None:
        """End it: no more will come. Waits for nothing: the writer does the rest. May be called
        twice.

        Args:
            now: The time; it ends then, where nothing sounds any more. None: with its last sound.
        """
        if self._finished:
            return
        if now is not None:
            self._batch.append((Side.AGENT, b"", now))
            self.resume(now)
        self._finished = True
        self._hand_over()
        self._recordings._finish(self._file, self._dropped_bytes, tuple(self._pauses))

    def _before_resumed(self, pcm: bytes, now: float) -> bool:
        """Whether it was said, in part, before the last pause was over."""
        began = now - len(pcm) / (SAMPLE_BYTES * self._rate_hz)
        return began + _TINY_SECONDS < self._resumed

    def _add(self, side: Side, pcm: bytes, now: float) -> None:
        if self.paused:
            self._pass(now)
        elif not self._finished:
            self._batch.append((side, pcm, now))
            self._batched_bytes += len(pcm)
            if self._batched_bytes >= self._batch_bytes:
                self._hand_over()

    def _pass(self, now: float) -> None:
        """Let the file grow by silence as it goes, so that a long pause is not written at once."""
        if now - self._marked >= _BATCH_SECONDS:
            self._marked = now
            self._batch.append((Side.AGENT, b"", now))
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
        self._session_id = session_id
        self.started_at = started_at
        self._timeline = StereoTimeline(rate_hz, started_at)
        self._log = _log.bind(session=session_id)
        self._wav: GrowingWav | None = None
        self.lost_bytes = 0
        self.failure: str | None = None

    @property
    def part(self) -> Path | None:
        return None if self._wav is None else self._wav.part

    @property
    def is_complete(self) -> bool:
        return self.failure is None and not self.lost_bytes

    @property
    def lost_seconds(self) -> float:
        return self.lost_bytes / (SAMPLE_BYTES * self._rate_hz)

    def open(self) -> None:
        try:
            try:
                self._wav = self._create()
            except FileNotFoundError:
                # The day's last recording may just have been deleted, and the day with it.
                self._wav = self._create()
        except OSError as error:
            self.fail(error.strerror or type(error).__name__)

    def _create(self) -> GrowingWav:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        return GrowingWav(self._path, len(Side), self._rate_hz)

    def write(self, batch: _Batch, size: int) -> None:
        if self.failure is not None:
            self.lost_bytes += size
            return
        timeline = self._timeline
        for side, pcm, now in batch:
            if pcm:
                timeline.add(side, pcm, now)
            else:
                timeline.reach(now)
        if batch and not self._append(self._timeline.take(batch[-1][2])):
            self.lost_bytes += size

    def finish(self, dropped_bytes: int, *, through: bool) -> None:
        self.lost_bytes += dropped_bytes
        self._append(self._timeline.finish())
        wav = self._wav
        if wav is not None:
            try:
                # Also what a full disk has cut: that it lacks something is in the record.
                wav.finish(through=through)
            except OSError as error:
                self.fail(error.strerror or type(error).__name__)
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
            self.fail(error.strerror or type(error).__name__)
            return False
        return True

    def fail(self, why: str) -> None:
        """End it here: the file stays as it is, and what comes is lost."""
        if self.failure is None:
            self.failure = why
            self._log.error("recording_failed", file=for_log(self._path.name), error=why)

    def written(self, pauses: tuple[tuple[float, float], ...]) -> Written:
        """Say what has become of it."""
        wav = self._wav
        return Written(
            self._session_id,
            None if wav is None or not wav.frames else wav.found,
            0.0 if wav is None else wav.frames / self._rate_hz,
            0 if wav is None else wav.size,
            self.is_complete,
            self.started_at,
            pauses,
        )

    def _report(self, wav: GrowingWav | None) -> None:
        seconds = 0.0 if wav is None else wav.frames / self._rate_hz
        if self.is_complete:
            name = self._path.name if wav is None else wav.path.name
            self._log.info("recording_saved", file=for_log(name), seconds=round(seconds, 1))
            return
        self._log.error(
            "recording_incomplete",
            file=None if wav is None else for_log(wav.found.name),
            failure=self.failure,
            seconds=round(seconds, 1),
            lost_seconds=round(self.lost_seconds, 1),
        )
