"""A WAV file that grows: its header is right after every write, so that whatever ends the program
leaves a file that can be played.

Source: RIFF WAVE, the `fmt ` chunk of PCM (Microsoft/IBM, Multimedia Programming Interface 1.0).
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Final

from ari_app.audio.formats import SAMPLE_BYTES

_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
_PCM: Final = 1
# Both sizes of the header have 32 bits.
_MAX_DATA_BYTES: Final = 2**32 - 1 - _HEADER.size


class GrowingWav:
    """A new file of 16-bit PCM, which only its owner may read.

    Until :meth:`finish` it is named `NAME.wav.part`. Where there is a `NAME.wav` already, or one
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
