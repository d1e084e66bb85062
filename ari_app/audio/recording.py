"""Recording a call to a stereo WAV file without ever making the call wait for the disk."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import wave
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from ari_app.audio.formats import SAMPLE_BYTES
from ari_app.audio.timeline import Side, StereoTimeline

_log = structlog.get_logger(__name__)

_BATCH_SECONDS: Final = 1.0
"""Audio, both voices added up, that is collected before the writer is woken."""

_Batch = list[tuple[Side, bytes, float]]


@dataclass(frozen=True, slots=True)
class RecordingResult:
    """How a recording ended."""

    path: Path
    seconds: float
    """Length of the file."""
    dropped_seconds: float
    """Audio, both voices added up, that the disk did not take; silence in the file."""
    failure: str | None
    """What the file system said, if it failed. The file then ends early or does not exist."""


class StereoRecorder:
    """Writes the caller (left) and the agent (right) to a new 16-bit WAV file.

    Adding a frame appends to a list. A thread of its own places the frames on the time line and
    writes them. While the disk stalls, up to `backlog_seconds` of audio wait for it; what comes
    beyond that is dropped and counted, and everything after it is still at its right place.

    The file holds what people said, so only its owner may read it. An existing file is never
    overwritten.

    Args:
        path: the file to create, in a folder that exists.
        rate_hz: rate of both voices, 16-bit mono PCM.
        started_at: the time (seconds, monotonic) of the file's first sample.
        backlog_seconds: bound of what waits for the disk, both voices added up.
    """

    def __init__(
        self, path: Path, rate_hz: int, started_at: float, *, backlog_seconds: int = 60
    ) -> None:
        self._path = path
        self._rate_hz = rate_hz
        self._batch_bytes = int(_BATCH_SECONDS * rate_hz) * SAMPLE_BYTES
        self._batch: _Batch = []
        self._batched_bytes = 0
        self._dropped_bytes = 0
        # Only `_hand_over` adds to it, and it keeps the bound. The end mark has to fit always.
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._max_batches = max(1, round(backlog_seconds / _BATCH_SECONDS))
        self._writer = _Writer(path, rate_hz, StereoTimeline(rate_hz, started_at), self._queue)
        # A disk that never answers again must not keep the program from ending.
        self._thread = threading.Thread(
            target=self._writer.run, name=f"record-{path.stem}", daemon=True
        )
        self._is_closed = False
        self._thread.start()

    def add_caller(self, pcm: bytes, now: float) -> None:
        """Adds what the caller said up to `now` (seconds, monotonic). Does nothing once closed."""
        self._add(Side.CALLER, pcm, now)

    def add_agent(self, pcm: bytes, now: float) -> None:
        """Adds what the caller hears of the agent from `now` on. Does nothing once closed."""
        self._add(Side.AGENT, pcm, now)

    async def close(self, timeout_seconds: float = 5.0) -> RecordingResult:
        """Writes what is left and finishes the file; waits for the disk for so long at most.

        May be called again, and then waits again for a writer that did not finish in time.
        """
        if not self._is_closed:
            self._is_closed = True
            self._hand_over()
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join, timeout_seconds)
        writer = self._writer
        return RecordingResult(
            path=self._path,
            seconds=writer.frames / self._rate_hz,
            dropped_seconds=(self._dropped_bytes + writer.lost_bytes)
            / (SAMPLE_BYTES * self._rate_hz),
            failure="the disk did not answer in time"
            if self._thread.is_alive()
            else writer.failure,
        )

    def _add(self, side: Side, pcm: bytes, now: float) -> None:
        if self._is_closed:
            return
        self._batch.append((side, pcm, now))
        self._batched_bytes += len(pcm)
        if self._batched_bytes >= self._batch_bytes:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._queue.qsize() < self._max_batches:
            self._queue.put(self._batch)
        else:
            self._dropped_bytes += self._batched_bytes
        self._batch = []
        self._batched_bytes = 0


class _Writer:
    """What runs in the thread: from the queue, over the time line, to the file."""

    def __init__(
        self,
        path: Path,
        rate_hz: int,
        timeline: StereoTimeline,
        batches: queue.SimpleQueue[_Batch | None],
    ) -> None:
        self._path = path
        self._rate_hz = rate_hz
        self._timeline = timeline
        self._batches = batches
        self.frames = 0
        self.lost_bytes = 0
        self.failure: str | None = None

    def run(self) -> None:
        batch: _Batch | None = []
        try:
            with open(self._path, "xb", opener=_private) as file, wave.open(file, "wb") as wav:
                wav.setparams((len(Side), SAMPLE_BYTES, self._rate_hz, 0, "NONE", ""))
                while (batch := self._batches.get()) is not None:
                    self._write(wav, batch)
                self._write_blocks(wav, self._timeline.finish())
        except OSError as error:
            self.failure = str(error)
            _log.error("recording failed", path=str(self._path), error=self.failure)
            while batch is not None:
                self.lost_bytes += sum(len(pcm) for _, pcm, _ in batch)
                batch = self._batches.get()

    def _write(self, wav: wave.Wave_write, batch: _Batch) -> None:
        for side, pcm, now in batch:
            self._timeline.add(side, pcm, now)
        if batch:
            self._write_blocks(wav, self._timeline.take(batch[-1][2]))

    def _write_blocks(self, wav: wave.Wave_write, blocks: Iterable[bytes]) -> None:
        for block in blocks:
            wav.writeframesraw(block)
            self.frames += len(block) // (len(Side) * SAMPLE_BYTES)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
