"""`python -m benchmarks.flood_process`: strangers in a crowd, in a process of their own."""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from uuid import uuid4

from audiosocket.frames import Identify, encode

_GARBAGE_BYTES = 64 * 1024
_READ_BYTES = 65536


def _http(path: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: no\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}".encode()


KINDS: dict[str, Callable[[], bytes]] = {
    "silent": lambda: b"",
    "garbage": lambda: os.urandom(_GARBAGE_BYTES),
    "unknown": lambda: encode(Identify(uuid4())),
    "header": lambda: b"\x01\x00",
    "http-silent": lambda: b"GET / HTTP/1.1\r\nHost: ",
    "http-garbage": lambda: os.urandom(_GARBAGE_BYTES),
    "http-keys": lambda: _http("/webhook/initiate-call"),
}
"""What a stranger says when it has connected; those of HTTP say it again at each answer."""


class Flood:
    """Keeps so many connections open for some time; one that is closed is opened anew."""

    def __init__(self, kind: str, address: tuple[str, int], crowd: int) -> None:
        self.counts: Counter[str] = Counter()
        self._say = KINDS[kind]
        self._repeats = kind.startswith("http")
        self._address = address
        self._crowd = crowd
        self._selector = selectors.DefaultSelector()
        self._open: set[socket.socket] = set()

    def run(self, seconds: float) -> None:
        """Push for so long, then leave."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            for _ in range(min(100, self._crowd - len(self._open))):
                self._dial()
            for key, events in self._selector.select(min(0.01, end - now)):
                assert isinstance(key.fileobj, socket.socket)
                if events & selectors.EVENT_READ:
                    self._read(key.fileobj)
                else:
                    self._connected(key.fileobj)
        self.counts["open_at_the_end"] = len(self._open)
        for sock in tuple(self._open):
            self._close(sock)

    def _dial(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        self._open.add(sock)
        sock.connect_ex(self._address)
        self._selector.register(sock, selectors.EVENT_WRITE)

    def _connected(self, sock: socket.socket) -> None:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.counts["failed"] += 1
            self._close(sock)
            return
        self.counts["connected"] += 1
        self._selector.modify(sock, selectors.EVENT_READ)
        self._speak(sock)

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self.counts["closed"] += 1
            self._close(sock)
        elif self._repeats:
            self.counts["answers"] += 1
            self._speak(sock)

    def _speak(self, sock: socket.socket) -> None:
        try:
            sock.send(self._say())
        except OSError:
            self.counts["closed"] += 1
            self._close(sock)

    def _close(self, sock: socket.socket) -> None:
        self._open.discard(sock)
        self._selector.unregister(sock)
        sock.close()


def _yield_to_others() -> None:
    """Take what is left of the core: a load generator that is held up sees its frames in bunches,
    and would blame the service."""
    os.nice(10)
    if hasattr(os, "SCHED_BATCH"):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main() -> None:
    """Flood, and print what became of it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flood_process")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--crowd", type=int, default=5000, help="connections at once")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    _yield_to_others()
    flood = Flood(options.kind, (options.host, options.port), options.crowd)
    flood.run(options.seconds)
    sys.stdout.write(json.dumps(dict(flood.counts)) + "\n")


if __name__ == "__main__":
    main()
