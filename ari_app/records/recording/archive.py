"""All recordings of a service: begun, kept, compressed, found again, removed."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import stat
import wave
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final

import structlog

from ari_app.process.files import keep_from_others, nearest, sync_folder
from ari_app.records.record import CallRecord
from ari_app.records.recording.encoder import Encoded, Encoder
from ari_app.records.recording.names import (
    FORMATS,
    for_log,
    has_all,
    in_a_name,
    is_day,
    name_of,
    numbered,
    recording_name,
    session_of,
)
from ari_app.records.recording.wav import PART, mend, remove_unless_written
from ari_app.records.recording.writer import Recordings, RecordingStats, StereoRecorder, Written

log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 30.0
_LONGEST_PAUSE_SECONDS: Final = 3600.0
"""What cannot be finished is tried again after so long at most: it may be another user's."""
_FLOOR_BYTES: Final = 100_000_000
_KEPT_CALLS: Final = 1000
"""Of so many calls it is known without a call log what was recorded."""
_DAYS: Final = 2
"""Of so many days what was not encoded is looked for at the start."""
_ENDS: Final = tuple(f".{kind}" for kind in FORMATS)
_PARTS: Final = tuple(f".{kind}{PART}" for kind in FORMATS)


@dataclass(frozen=True, slots=True)
class RecordingPart:
    """One file of a call's recording.

    Attributes:
        path: Below the folder of all.
        seconds: How long it is.
        size: In bytes.
        complete: Nothing is missing.
        begins: At which second of the call; None: not known.
        pauses: From when to when, in seconds of the file, it is silent on purpose.
    """

    path: PurePosixPath
    seconds: float
    size: int
    complete: bool
    begins: float | None
    pauses: tuple[tuple[float, float], ...] = ()

    def document(self) -> dict[str, Any]:
        """Return it as a call's document has it."""
        found: dict[str, Any] = {
            "path": str(self.path),
            "format": self.path.suffix.removeprefix("."),
            "seconds": round(self.seconds, 3),
            "bytes": self.size,
            "complete": self.complete,
            "from": None if self.begins is None else round(self.begins, 3),
        }
        if self.pauses:
            found["pauses"] = [[round(since, 3), round(until, 3)] for since, until in self.pauses]
        return found


def merge_parts(
    known: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return a call's recordings from what its document has and what was found on the disk.

    A process that finds what another has left knows the file, and not when in the call it began,
    what is missing in it, or which other recordings there are.
    """
    merged = {_stem(part): dict(part) for part in known}
    for part in found:
        before = merged.get(_stem(part))
        now = {name: part[name] for name in ("path", "format", "bytes")}
        merged[_stem(part)] = dict(part) if before is None else {**before, **now}
    return list(merged.values())


def _stem(part: Mapping[str, Any]) -> str:
    return str(PurePosixPath(part["path"]).with_suffix(""))


def _seconds_of(path: Path) -> float:
    """Return how long a recording is.

    Raises:
        OSError, wave.Error, EOFError, RuntimeError: It cannot be read.
    """
    if path.suffix == ".wav":
        with wave.open(str(path)) as file:
            return float(file.getnframes() / file.getframerate())
    # Read for a call that two processes have recorded, and else never.
    import soundfile

    seconds: float = soundfile.info(path).duration
    return seconds


@dataclass(slots=True)
class _Call:
    """What is known of a call's recordings.

    Attributes:
        began: When it began, on the event loop's clock; None: before this process.
        parts: What was written.
        busy: How many files are being written or encoded.
        told: Of these files it has been told that they are ready.
        deleted: What was written, or will be, is to go.
        lost: Of a call whose process was lost: when each recording of before began, in seconds of
            the call, by its name without what tells the format.
    """

    began: float | None
    parts: list[RecordingPart] = field(default_factory=list)
    busy: int = 0
    told: set[PurePosixPath] = field(default_factory=set)
    deleted: bool = False
    lost: dict[str, float] = field(default_factory=dict)
    names: Sequence[PurePosixPath] = ()


OnChange = Callable[[str, list[dict[str, Any]], list[dict[str, Any]]], None]
"""Told of a call's id, its recordings as its document has them, and those that are ready only now
and stay so."""


async def keep_recorded(session_id: str, document: Mapping[str, Any]) -> None:
    """Have a call stay that has recordings, where nobody knows their folder; a hook of the call
    log's. Without the call nothing would tell how old they are, or that they are there.

    Raises:
        OSError: It has some.
    """
    if document.get("recordings"):
        raise OSError(
            errno.ENOENT,
            "it has recordings, and RECORDINGS_DIR is not set; name their folder, and "
            "RECORD_CALLS=none to make no more, or an empty folder where they are gone",
        )


class RecordingArchive:
    """The folder of all recordings, and what is done with them.

    Args:
        folder: Where they are; it exists.
        kind: What they are in the end: `wav`, `flac` or `opus`.
        on_change: See `OnChange`; called on the event loop.
        hides_numbers: Files are not named by whole numbers.
        warn_below_bytes: With less room than that there is a warning.
        floor_bytes: With less room than that nothing is recorded.

    Attributes:
        folder: As given.
        writer: Writes them.
        encoder: Compresses them; None: they stay WAV.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kind: str = "wav",
        on_change: OnChange = lambda session_id, parts, ready: None,
        hides_numbers: bool = False,
        warn_below_bytes: int = 0,
        floor_bytes: int = _FLOOR_BYTES,
    ) -> None:
        self.folder = folder
        self._on_change = on_change
        self._hides_numbers = hides_numbers
        self._warn_below_bytes = warn_below_bytes
        self._loop = asyncio.get_running_loop()
        self.writer = Recordings(
            folder=folder, floor_bytes=floor_bytes, on_written=self._from_thread(self._written)
        )
        self.encoder = None if kind == "wav" else Encoder(kind, self._from_thread(self._encoded))
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        # Where all was looked into and finished; None: it could not be.
        self._place: tuple[int, int] | None = None
        self._last_place: tuple[int, int] | None = None
        self._has_unnamed = False
        self._tasks: set[asyncio.Task[None]] = set()

    def _from_thread(self, take: Callable[[Any], None]) -> Callable[[Any], None]:
        def told(what: Any) -> None:
            # The loop has ended where a disk stalled longer than anybody waits.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(take, what)

        return told

    @property
    def stats(self) -> RecordingStats:
        """What has become of them."""
        return self.writer.stats

    # --- a call

    def start(self, record: CallRecord, rate_hz: int, now: float) -> StereoRecorder | None:
        """Begin a recording of a call.

        Args:
            record: The call.
            rate_hz: Rate of both voices, 16-bit mono PCM.
            now: The time (seconds, monotonic) of the first sample.

        Returns:
            None when there is no room, or the disk is too far behind; that is logged and counted.
        """
        session_id = record.session_id
        path = self.folder / self._name(record)
        recorder = self.writer.start(path, rate_hz, now, session_id=session_id)
        if recorder is not None:
            self._call(session_id, record.began).busy += 1
        return recorder

    def _name(self, record: CallRecord) -> PurePosixPath:
        number = record.called_number if record.placed else record.caller_number
        number = in_a_name(number, self._hides_numbers)
        return recording_name(record.started_at.astimezone(), number, record.session_id)

    def goes_on(self, record: CallRecord, begins: Sequence[float]) -> None:
        """Take note that a call is gone on with whose process was lost.

        Args:
            record: The call.
            begins: When each of its recordings began, in seconds of the call.
        """
        call = self._call(record.session_id)
        call.began = record.began
        names = list(islice(numbered(self._name(record)), len(begins)))
        call.lost = {each.stem: begin for each, begin in zip(names, begins, strict=True)}
        call.names = names
        call.parts = [self._dated(call, part) for part in call.parts]
        self._do(self._find_parts(record.session_id))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _find_parts(self, session_id: str) -> None:
        """Find what other processes have finished of a call's recordings."""
        names = self._call(session_id).names
        found = await asyncio.to_thread(self._finished, session_id, names)
        call = self._call(session_id)
        known = {part.path.stem for part in call.parts}
        before = [self._dated(call, part) for part in found if part.path.stem not in known]
        # Perhaps nobody has been told of them: they are told again, under the same path.
        call.parts[:0] = before

    def _finished(self, session_id: str, names: Sequence[PurePosixPath]) -> list[RecordingPart]:
        paths = [found[0] for each in names if (found := self.find(str(each))) is not None]
        measured = self._measured([(session_id, path) for path in paths if path.suffix != PART])
        # The last one was being written when its process was lost.
        return [replace(part, complete=part.path.stem != names[-1].stem) for _, part in measured]

    async def _find_and_tell(self, session_id: str) -> None:
        await self._find_parts(session_id)
        self._tell_of(session_id)

    @staticmethod
    def _dated(call: _Call, part: RecordingPart) -> RecordingPart:
        begins = call.lost.get(part.path.stem) if part.begins is None else part.begins
        return replace(part, begins=begins)

    def is_busy(self, session_id: str) -> bool:
        """Whether a recording of this call is being written, or encoded."""
        return (call := self._calls.get(session_id)) is not None and call.busy > 0

    def parts(self, session_id: str) -> list[dict[str, Any]]:
        """Return what is known of a call's recordings without asking the call log."""
        call = self._calls.get(session_id)
        return [] if call is None else [part.document() for part in call.parts]

    def _call(self, session_id: str, began: float | None = None) -> _Call:
        """Return what is known of a call, also where that is nothing yet."""
        call = self._calls.get(session_id)
        # Another call may take a name.
        if call is None or (began is not None and call.began != began):
            call = self._calls[session_id] = _Call(began)
        self._calls.move_to_end(session_id)
        while len(self._calls) > _KEPT_CALLS:
            # The oldest may last for a day, with thousands that come and go meanwhile; one that is
            # gone on with, and pauses, knows what nobody else does.
            known = self._calls.items()
            idle = next(
                (n for n, each in known if not (each.busy or each.lost or each is call)), None
            )
            if idle is None:
                break
            del self._calls[idle]
        return call

    def _written(self, written: Written) -> None:
        session_id, path = written.session_id, written.path
        call = self._call(session_id)
        if path is None:
            self._done(session_id)
            return
        if path.suffix == PART:
            # It could not be given its name, and can be when the disk is back.
            self._has_unnamed = True
        begins = None if call.began is None else written.began - call.began
        part = RecordingPart(
            # As the next start names it.
            self._relative(path.with_name(path.name.removesuffix(PART))),
            written.seconds,
            written.size,
            written.complete,
            begins,
            written.pauses,
        )
        call.parts.append(part)
        self._encode_or_done(session_id, path)

    def _encode_or_done(self, session_id: str, path: Path) -> None:
        if self.encoder is not None and path.suffix == ".wav" and self.encoder.put(path):
            self._tell(session_id)
        else:
            self._done(session_id)

    def _encoded(self, encoded: Encoded) -> None:
        session_id = session_of(encoded.wav.name) or ""
        was, call = self._relative(encoded.wav), self._call(session_id)
        if call.deleted:
            # It may have been made of a file that was removed meanwhile.
            call.parts.append(RecordingPart(was, 0.0, 0, False, None))
        elif encoded.path is not None:
            now, parts = self._relative(encoded.path), call.parts
            for at, part in enumerate(parts):
                if part.path == was:
                    parts[at] = replace(part, path=now, size=encoded.size)
        self._done(session_id)

    def _done(self, session_id: str) -> None:
        """Note that a file of a call stays as it is."""
        self._call(session_id).busy -= 1
        self._tell(session_id)

    def _tell(self, session_id: str) -> None:
        call = self._call(session_id)
        if call.deleted:
            # That was said while it was being written.
            self._do(self._delete_at_last(session_id))
        elif call.lost.keys() - {part.path.stem for part in call.parts}:
            # Whichever process began first has mended what all that were lost have left.
            self._do(self._find_and_tell(session_id))
        else:
            self._tell_of(session_id)

    def _tell_of(self, session_id: str) -> None:
        call = self._call(session_id)
        if call.parts:
            ready = [] if call.busy > 0 else [p for p in call.parts if p.path not in call.told]
            call.told.update(part.path for part in ready)
            told = [part.document() for part in ready]
            self._on_change(session_id, self.parts(session_id), told)

    def _relative(self, path: Path) -> PurePosixPath:
        return PurePosixPath(path.relative_to(self.folder))

    # --- what is there

    def find(self, path: str) -> tuple[Path, os.stat_result] | None:
        """Find a file of the archive; it asks the disk, so call it in a thread.

        Args:
            path: As a call's document has it. One that has been encoded since is found, too.

        Returns:
            None where there is none, or it is not a file of this folder, or cannot be looked at.
        """
        with suppress(OSError):
            return self._find(path)
        return None

    def _find(self, path: str) -> tuple[Path, os.stat_result] | None:
        # The last is one that could not be given its name when it was finished.
        return next(self._there(path, *_ENDS, f".wav{PART}"), None)

    def _there(self, path: str, *ends: str) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the files of a recording that are there: its path, and others that end so."""
        named = PurePosixPath(path.removesuffix(PART))
        if named.is_absolute() or ".." in named.parts or session_of(named.name) is None:
            return
        wanted = self.folder / named
        for each in dict.fromkeys((wanted, *map(wanted.with_suffix, ends))):
            with suppress(FileNotFoundError, NotADirectoryError):
                found = each.lstat()
                inside = each.resolve().is_relative_to(self.folder.resolve())
                if stat.S_ISREG(found.st_mode) and inside:
                    yield each, found

    def is_bare(self) -> bool:
        """Return whether there is no day of recordings; it asks the disk, so call it in a thread.

        Raises:
            OSError: The folder cannot be looked into.
        """
        return not self._days()

    async def delete(self, session_id: str, document: Mapping[str, Any] | None = None) -> None:
        """Remove all recordings of a call, also one that is only now being finished.

        Args:
            session_id: The call.
            document: Its document, which names them; those that it does not have are found by what
                it says of the call.

        Raises:
            OSError: One cannot be removed.
        """
        call = self._call(session_id)
        call.deleted = True
        parts, document = tuple(call.parts), document or {}
        told = {str(part["path"]) for part in document.get("recordings") or ()}
        known = told | {str(part.path) for part in parts}
        await asyncio.to_thread(self._remove, known, name_of(document))
        # Not before: where that fails, it is tried again. What has come meanwhile goes by itself.
        call.parts = [part for part in call.parts if part not in parts]

    async def _delete_at_last(self, session_id: str) -> None:
        """Remove what has come of a call after it was deleted, however long its disk is away."""
        while True:
            try:
                await self.delete(session_id)
            except OSError as error:
                why = error.strerror or type(error).__name__
                log.error("recording_not_deleted", session=session_id, error=why)
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                return

    def _remove(self, paths: set[str], first: PurePosixPath | None) -> None:
        if paths or first is not None:
            # On a disk that is away none is found, and all are there when it is back.
            os.scandir(self.folder).close()
        changed: set[Path] = set()
        for path in paths:
            changed |= self._remove_one(path)
        if first is not None:
            # What a lost process has left is in no record until it is finished, which may be never.
            for each in numbered(first):
                if not (found := self._remove_one(str(each))):
                    break
                changed |= found
        for folder in {nearest(each) for each in changed}:
            # The call goes for good now: after a loss of power nobody would remove it again.
            sync_folder(folder)

    def _remove_one(self, path: str) -> set[Path]:
        """Remove all files of a recording but one that is being written, whose process removes it;
        the folders where there was any."""
        found = [each for each, _ in self._there(path, *_ENDS, *_PARTS)]
        for each in found:
            with suppress(FileNotFoundError):
                if each.suffix == PART:
                    remove_unless_written(each)
                else:
                    each.unlink()
            if each.parent != self.folder:
                # The day's last one; or there are others.
                with suppress(OSError):
                    each.parent.rmdir()
        return {each.parent for each in found}

    # --- in the background

    async def run(self) -> None:
        """Finish what a lost process, or a disk that was away, has left, and watch the room on the
        disk, until cancelled."""
        again_at, pause, was_told = 0.0, _LOOK_SECONDS, False
        while True:
            if self._loop.time() >= again_at:
                try:
                    is_done = await self._recover()
                except OSError as error:
                    # The next time: there is nothing to be seen before the disk is back.
                    self._place = None
                    if not was_told:
                        why = error.strerror or type(error).__name__
                        log.error("recordings_not_mended", error=why)
                    was_told = True
                else:
                    was_told = False
                    again_at = math.inf if is_done else self._loop.time() + pause
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            self.writer.look()
            await asyncio.sleep(_LOOK_SECONDS)
            if self._has_unnamed or self.stats.place != self._place:
                again_at, pause = 0.0, _LOOK_SECONDS

    async def _recover(self) -> bool:
        """Finish what is left; whether nothing is."""
        before, self._has_unnamed = self._last_place, False
        self._place = self._last_place = await asyncio.to_thread(self._where)
        if before not in (None, self._place):
            # As where a disk was mounted only now: what was recorded until then is below it.
            log.warning("recordings_folder_is_another")
        mended, to_encode, is_done = await asyncio.to_thread(self._mend_all)
        known = {self.folder / part.path for _, part in mended}
        # What is busy waits for the encoder of this process already.
        to_encode = [each for each in to_encode if each[1] in known or not self.is_busy(each[0])]
        waited = await asyncio.to_thread(
            self._measured, [each for each in to_encode if each[1] not in known]
        )
        for session_id, part in mended:
            if self._add_found(session_id, part):
                log.warning("recording_mended", session=session_id, file=for_log(part.path.name))
        for session_id, part in waited:
            self._add_found(session_id, part)
        for session_id, _ in to_encode:
            self._call(session_id).busy += 1
        for session_id, path in to_encode:
            self._encode_or_done(session_id, path)
        for session_id in {session_id for session_id, _ in mended}:
            if not self.is_busy(session_id):
                self._tell(session_id)
        return is_done

    def _where(self) -> tuple[int, int]:
        found = self.folder.stat()
        return found.st_dev, found.st_ino

    def _add_found(self, session_id: str, part: RecordingPart) -> bool:
        """Add what was found of a call's recordings; whether it is new."""
        call = self._call(session_id)
        if any(each.path.stem == part.path.stem for each in call.parts):
            return False
        call.parts.append(self._dated(call, part))
        return True

    def _mend_all(self) -> tuple[list[tuple[str, RecordingPart]], list[tuple[str, Path]], bool]:
        """Return what was finished; what is to be encoded, for it was not; and whether that is all
        that there is."""
        keep_from_others(*self._days())
        mended: list[tuple[str, RecordingPart]] = []
        to_encode: list[tuple[str, Path]] = []
        is_all = True
        for part in self._lost():
            session_id = session_of(part.name)
            if session_id is None or self.writer.writes(part):
                continue
            try:
                if part.name.endswith(f".wav{PART}"):
                    if (found := mend(part)) is None:
                        continue
                    path, seconds = found
                    size = path.stat().st_size
                    mended.append(
                        (
                            session_id,
                            RecordingPart(self._relative(path), seconds, size, False, None),
                        )
                    )
                elif remove_unless_written(part):
                    path = part.with_suffix("").with_suffix(".wav")
                else:
                    continue
            except FileNotFoundError:
                continue  # another process has just done it
            except OSError as error:
                # One that is none of ours never will be.
                is_all = is_all and error.errno == errno.EINVAL
                log.error(
                    "recording_not_mended",
                    file=for_log(part.name),
                    error=error.strerror or type(error).__name__,
                )
                continue
            if self.encoder is not None and path.exists():
                to_encode.append((session_id, path))
        if self.encoder is not None:
            known = {path for _, path in to_encode}
            to_encode += [each for each in self._not_encoded() if each[1] not in known]
        return mended, to_encode, is_all

    def _measured(self, waited: Sequence[tuple[str, Path]]) -> list[tuple[str, RecordingPart]]:
        """Return what is known of recordings that were finished, and whose call is not."""
        parts = []
        for session_id, path in waited:
            with suppress(OSError, wave.Error, EOFError, RuntimeError):
                seconds, size = _seconds_of(path), path.stat().st_size
                part = RecordingPart(self._relative(path), seconds, size, True, None)
                parts.append((session_id, part))
        return parts

    def _not_encoded(self) -> list[tuple[str, Path]]:
        """Return what waited for the encoder of the last process, as far as it is new."""
        waited = [path for day in self._days()[-_DAYS:] for path in sorted(day.glob("*.wav"))]
        return [(session_of(path.name) or "", path) for path in waited if has_all(path.name)]

    def _days(self) -> list[Path]:
        with os.scandir(self.folder) as entries:
            days = [each for each in entries if each.is_dir(follow_symlinks=False)]
        return sorted(Path(each.path) for each in days if is_day(each.name))

    def _lost(self) -> Iterator[Path]:
        """Give the files that are not finished, of this folder and of its days."""
        for folder in (self.folder, *self._days()):
            with suppress(OSError), os.scandir(folder) as entries:
                yield from [Path(each.path) for each in entries if each.name.endswith(_PARTS)]

    def warnings(self) -> list[str]:
        """Say what will go wrong, or does, with recordings; no call is refused for it."""
        free, away = self.stats.free_bytes, self.stats.away
        if away is not None:
            return [f"calls are not recorded: RECORDINGS_DIR cannot be used: {away}"]
        if free is None or free >= self._warn_below_bytes:
            return []
        left = f"{free / 1e9:.1f} GB are left in RECORDINGS_DIR"
        if self.writer.no_room:
            return [f"calls are not recorded: {left}"]
        return [f"recordings will end soon: {left}"]

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Wait until all is written, for so long at most. May be called twice."""
        await self.writer.close(timeout_seconds)
        if self.encoder is not None:
            await asyncio.to_thread(self.encoder.close)
        # What the threads have told last.
        await asyncio.sleep(0)
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=timeout_seconds)
            for task in stuck:
                task.cancel()
