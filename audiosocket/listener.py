"""Accepts connections, a few at a time, so that a flood of them holds up nothing else.

asyncio and uvloop accept all that waits at once: hundreds of connections in one turn of the loop,
each some 0.1 ms of work, while the frames of running calls are due.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from typing import Final

Accepted = Callable[[socket.socket, str, int], None]
"""Called with a new connection, which is non-blocking and is the callee's to close, and with its
other end's address and port."""

BACKLOG: Final = 1024
"""How many the kernel holds until we accept them: at our pace all of them within 0.3 s."""
_BATCH: Final = 16
_PAUSE_SECONDS: Final = 0.004
"""After a full batch: at most 4000 connections a second are accepted."""
_EXHAUSTED_PAUSE_SECONDS: Final = 1.0
_DRAIN_BYTES: Final = 65536
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Listener:
    """Listens on one address, which may be a name with several."""

    def __init__(
        self,
        accepted: Accepted,
        *,
        exhausted: Callable[[OSError], None],
        backlog: int = BACKLOG,
        batch: int = _BATCH,
    ) -> None:
        """`exhausted`: called when this process or machine has no descriptor or memory left for
        another connection, at most once a second; those that come meanwhile wait in the kernel.
        `batch`: how many are accepted in one turn of the loop.
        """
        self._accepted = accepted
        self._exhausted = exhausted
        self._backlog = backlog
        self._batch = batch
        self._sockets: list[socket.socket] = []
        self._pauses: dict[socket.socket, asyncio.TimerHandle] = {}

    @property
    def listening(self) -> bool:
        """Whether connections are accepted."""
        return bool(self._sockets)

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; the first address, with the port that port 0 turned into.

        Raises OSError when an address cannot be had, RuntimeError when already started.
        """
        if self._sockets:
            raise RuntimeError("it listens already")
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                self._sockets.append(_bound(family, (address[0], port, *address[2:])))
                port = self._sockets[-1].getsockname()[1]
                self._sockets[-1].listen(self._backlog)
        except OSError:
            self.close()
            raise
        for sock in self._sockets:
            self._resume(sock)
        bound: tuple[str, int] = self._sockets[0].getsockname()[:2]
        return bound

    def close(self) -> None:
        """Accept no more. May be called twice."""
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            if (pause := self._pauses.pop(sock, None)) is not None:
                pause.cancel()
            else:
                asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()

    def _resume(self, sock: socket.socket) -> None:
        self._pauses.pop(sock, None)
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept, sock)

    def _pause(self, sock: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock.fileno())
        self._pauses[sock] = loop.call_later(seconds, self._resume, sock)

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(self._batch):
            try:
                connection, (host, port, *_) = sock.accept()
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(error)
                    self._pause(sock, _EXHAUSTED_PAUSE_SECONDS)
                # Otherwise none waits, or one has gone away while it waited (accept(2)).
                return
            connection.setblocking(False)
            self._accepted(connection, host, port)
            if not self._sockets:
                return
        self._pause(sock, _PAUSE_SECONDS)


def _bound(family: int, address: tuple[str | int, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # A name may have an address of each kind; each gets a socket of its own.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def turn_away(sock: socket.socket, last_words: bytes) -> None:
    """Send something short and close. What has arrived is read before, or closing would reset the
    connection, and the reset could overtake what was sent."""
    with contextlib.suppress(OSError):
        sock.recv(_DRAIN_BYTES)
    with contextlib.suppress(OSError):
        sock.send(last_words)
    sock.close()
