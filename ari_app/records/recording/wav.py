"""WAV files that can be played at any moment while they grow; those that a lost process left."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from ari_app.audio.formats import SAMPLE_BYTES
from ari_app.records.recording.names import FORMATS, numbered

PART: Final = ".part"
"""What a file's name ends with while it is written."""

_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
_PCM: Final = 1
# Both sizes of the header have 32 bits.
_MAX_DATA_BYTES: Final = 2**32 - 1 - _HEADER.size


class GrowingWav:
    """A new file of 16-bit PCM, which only its owner may read.

    Until `finish` it is named `NAME.wav.part`, and locked. Where there is a `NAME.wav` already, or
    one that grows, it becomes `NAME.2.wav` and so on: nothing is ever overwritten.

    Args:
        path: The name that it is to have, in a folder that exists.
        channels: How many voices are interleaved.
        rate_hz: Their rate.

    Raises:
        OSError: It cannot be created.

    Attributes:
        path: The name that it gets.
        part: The name that it has until then.
        found: The one of these that it has now.
    """

    def __init__(self, path: Path, channels: int, rate_hz: int) -> None:
        self._channels = channels
        self._rate_hz = rate_hz
        self._data_bytes = 0
        self.path, self.part, self._file = _create(path)
        self.found = self.part
        try:
            self._write_header()
        except OSError:
            # A full disk, or one of which this user may have no more.
            with suppress(OSError):
                self.part.unlink()
            self.close()
            raise

    @property
    def frames(self) -> int:
        """How many samples of each voice the file holds."""
        return self._data_bytes // (self._channels * SAMPLE_BYTES)

    @property
    def size(self) -> int:
        """How long the file is, in bytes."""
        return _HEADER.size + self._data_bytes

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

    def finish(self, *, through: bool = False) -> None:
        """Close the file and give it its name; one that holds nothing goes.

        Args:
            through: Write it through to the disk before, so that a loss of power does not take it.

        Raises:
            OSError: It keeps the name that it has.
        """
        if not self.frames:
            self.part.unlink()
        else:
            if through:
                os.fsync(self._file)
            self.part.rename(self.path)
            self.found = self.path
        self.close()

    def close(self) -> None:
        """Close the file and leave it as it is. May be called twice."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _write_header(self) -> None:
        _write_header(self._file, self._channels, self._rate_hz, self.frames)


def mend(part: Path) -> tuple[Path, float] | None:
    """Finish what a process that is no more has left.

    Args:
        part: A file that ends with `.wav.part`.

    Returns:
        Its path now, and how many seconds it holds; None where somebody is writing it, or nothing
        was in it, and it has been removed.

    Raises:
        OSError: It cannot be read or written, or is no such file.
    """
    file = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not _locked(file):
            return None
        head = os.pread(file, _HEADER.size, 0)
        length = os.fstat(file).st_size - _HEADER.size
        if length <= 0 and head[:4] in (b"", b"RIFF"):
            part.unlink()
            return None
        if length <= 0:
            raise OSError(errno.EINVAL, "it is no recording of ours")
        riff, _, wave, fmt, _, coding, channels, rate_hz, _, _, bits, data, _ = _HEADER.unpack(head)
        known = (riff, wave, fmt, coding, bits, data)
        if known != (b"RIFF", b"WAVE", b"fmt ", _PCM, SAMPLE_BYTES * 8, b"data") or not (
            channels and rate_hz
        ):
            raise OSError(errno.EINVAL, "it is no recording of ours")
        frames = length // (channels * SAMPLE_BYTES)
        os.ftruncate(file, _HEADER.size + frames * channels * SAMPLE_BYTES)
        _write_header(file, channels, rate_hz, frames)
        os.fsync(file)
        path = next(each for each in numbered(part.with_suffix("")) if not _is_taken(each))
        part.rename(path)
        return path, frames / rate_hz
    finally:
        os.close(file)


def remove_unless_written(part: Path) -> bool:
    """Remove what a process that is no more has left; whether it is gone.

    Raises:
        OSError: It cannot be removed.
    """
    file = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not _locked(file):
            return False
        part.unlink()
        return True
    finally:
        os.close(file)


def lock(file: int) -> None:
    """Tell others that a file is being written, for as long as it is open."""
    # Some file systems cannot: nobody else writes there, or it is known who does.
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)


def _locked(file: int) -> bool:
    """Lock a file that nobody writes; whether nobody does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _create(path: Path) -> tuple[Path, Path, int]:
    for wanted in numbered(path):
        part = wanted.with_name(wanted.name + PART)
        try:
            file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        lock(file)
        # Before it was locked, somebody may have taken it for a lost one, and removed it.
        if os.fstat(file).st_nlink:
            # Only now: whoever else was writing this one may just have finished it.
            if not _is_taken(wanted):
                return wanted, part, file
            part.unlink()
        os.close(file)
    raise AssertionError("names do not end")


def _is_taken(path: Path) -> bool:
    """Whether there is a recording of this name, or one that has been encoded since."""
    return any(path.with_suffix(f".{kind}").exists() for kind in FORMATS)


def _write_header(file: int, channels: int, rate_hz: int, frames: int) -> None:
    frame_bytes = channels * SAMPLE_BYTES
    size = frames * frame_bytes
    header = _HEADER.pack(
        b"RIFF",
        _HEADER.size - 8 + size,
        b"WAVE",
        b"fmt ",
        16,
        _PCM,
        channels,
        rate_hz,
        rate_hz * frame_bytes,
        frame_bytes,
        SAMPLE_BYTES * 8,
        b"data",
        size,
    )
    if os.pwrite(file, header, 0) != len(header):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
