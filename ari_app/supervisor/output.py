"""Where the parent writes its log: a stream that never makes it wait."""

from __future__ import annotations

import io
import select
from typing import TextIO

# A pipe that is ready takes so much at once (pipe(7): POLLOUT means room for PIPE_BUF bytes).
_AT_ONCE_BYTES = 4096


class HurriedStream(io.TextIOBase):
    """Writes what the reader has room for, and drops the rest: who reads a log may have stopped.

    Args:
        stream: Where to write; what has no file descriptor is written to as it is.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._poll: select.poll | None = None
        try:
            number = stream.fileno()
        except (OSError, ValueError):
            return
        self._poll = select.poll()
        self._poll.register(number, select.POLLOUT)

    def write(self, text: str) -> int:
        """Write all of it, or nothing."""
        if self._poll is None:
            self._stream.write(text)
        elif len(text.encode()) <= _AT_ONCE_BYTES and self._writable():
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def _writable(self) -> bool:
        assert self._poll is not None
        return any(events & select.POLLOUT for _, events in self._poll.poll(0))
