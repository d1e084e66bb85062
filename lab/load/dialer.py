"""`python -m lab.load.dialer`: a dialer of one's own with any number of calls; see
docs/custom-dialer.md.

Each call has a bare socket, so that the kernel can say when each frame arrived, as in
`lab.load.line`.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import os
import socket
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import uvloop
from aiohttp import web

from lab.kernel_time import arrival_ns, ask_for_times
from lab.load.generator import SPREAD_STEP, summed
from lab.load.steering import Steering
from lab.load.ticker import Ticker
from lab.load.voice import TalkPattern, render_frames
from lab.web import serving

FORMAT, RATE_HZ, FRAME_BYTES = "pcm_8000", 8000, 320
_READ_BYTES = 65536
_HANDSHAKE_SECONDS = 5.0
_BINARY, _PING, _PONG, _TEXT, _CLOSE = 2, 9, 10, 1, 8
_NO_MASK = bytes(4)
"""A mask of zeros is a mask (RFC 6455, section 5.3), and costs nothing."""


def message(opcode: int, payload: bytes) -> bytes:
    """Write a message as a client does, of up to 65,535 bytes."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    return bytes([0x80 | opcode]) + length + _NO_MASK + payload


class DialerLine:
    """Says one of `messages` at each `tick` from `ready` on, in turn and again and again.

    Args:
        messages: A period of the caller's, as WebSocket messages.
        offset: The one to begin with.
        on_closed: Called with the reason when the line ends.

    Attributes:
        arrivals: When each frame came, in ns on the wall clock.
        voiced_frames, frames_sent: Frames heard that were not silence, and frames said.
        talking: Caller and agent are together.
    """

    def __init__(
        self, messages: Sequence[bytes], offset: int, on_closed: Callable[[str], None]
    ) -> None:
        self.arrivals = array("q")
        self.voiced_frames = self.frames_sent = 0
        self.talking = False
        self._messages, self._next, self._quiet = messages, offset % len(messages), False
        self._on_closed = on_closed
        self._silence = bytes(FRAME_BYTES)
        self._came = bytearray()
        self._over = self._hung_up = False
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask_for_times(self._socket)

    async def connect(self, url: str) -> None:
        """Bring the sound there. Raises OSError or TimeoutError when it is not taken."""
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None, "it is our own service's"
        key = base64.b64encode(os.urandom(16)).decode()
        request = (
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n"
        )
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            await self._loop.sock_connect(self._socket, (parts.hostname, parts.port))
            await self._loop.sock_sendall(self._socket, request.encode())
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := await self._loop.sock_recv(self._socket, _READ_BYTES)):
                    raise ConnectionResetError("the service closed in the handshake")
                head += piece
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            raise ConnectionRefusedError(head.split(b"\r\n", 1)[0].decode(errors="replace"))
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._take(head.partition(b"\r\n\r\n")[2], 0)

    def talk(self) -> None:
        """Do nothing: `ready` begins it."""

    def be_quiet(self) -> None:
        """Say the pause only, from the next frame on."""
        self._quiet = True

    def begin_window(self) -> None:
        """Forget what was heard so far: what counts begins now."""
        self.arrivals = array("q")

    def tick(self) -> None:
        """Say a frame."""
        if not self.talking:
            return
        self._say(self._messages[0 if self._quiet else self._next])
        self._next = (self._next + 1) % len(self._messages)
        self.frames_sent += 1

    def close(self) -> None:
        """Hang up. May be called twice.

        The service closes then: our socket, closed with frames unread, would throw away what it
        has not read yet either.
        """
        if not (self._over or self._hung_up):
            self._say(message(_TEXT, b'{"type": "hang_up"}'))
            self._hung_up, self.talking = True, False

    def drop(self) -> None:
        """Close without a word. May be called twice."""
        self._end("closed")

    def _say(self, data: bytes) -> None:
        try:
            whole = self._socket.send(data) == len(data)
        except OSError:
            whole = False
        if not whole:
            self._end("not_reading")

    def _readable(self) -> None:
        try:
            data, ancillary, _, _ = self._socket.recvmsg(_READ_BYTES, 64)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._end("eof")
        else:
            self._take(data, arrival_ns(ancillary))

    def _take(self, data: bytes, at: int) -> None:
        came = self._came
        came += data
        while len(came) >= 2 and not self._over:
            size, start = came[1], 2
            if size == 126:
                if len(came) < 4:
                    return
                size, start = int.from_bytes(came[2:4], "big"), 4
            if len(came) < start + size:
                return
            opcode, payload = came[0] & 0x0F, bytes(came[start : start + size])
            del came[: start + size]
            self._handle(opcode, payload, at)

    def _handle(self, opcode: int, payload: bytes, at: int) -> None:
        if opcode == _BINARY:
            self.arrivals.append(at)
            self.voiced_frames += payload != self._silence
        elif opcode == _PING:
            self._say(message(_PONG, payload))
        elif opcode == _CLOSE:
            self._end("closed_by_service")
        elif opcode == _TEXT and json.loads(payload)["type"] == "ready":
            self.talking = True

    def _end(self, reason: str) -> None:
        if self._over:
            return
        self._over, self.talking = True, False
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()
        self._on_closed("closed" if self._hung_up else reason)


class DialerLoad:
    """Any number of calls of a dialer's at one service; `lab.load.steering` drives it."""

    def __init__(self, *, pattern: TalkPattern | None = None) -> None:
        pattern = pattern or TalkPattern()
        self._messages = [message(_BINARY, frame) for frame in render_frames(pattern, RATE_HZ)]
        self._lines: dict[str, DialerLine] = {}
        # Those that have hung up, until the service closes.
        self._leaving: dict[str, DialerLine] = {}
        self._closed: Counter[str] = Counter()
        self._asked = 0
        self._session: aiohttp.ClientSession | None = None
        self._ticker = Ticker()
        self._ticker.start()

    def meet(self, api_url: str) -> None:
        """Say where the service is."""
        self._session = aiohttp.ClientSession(api_url)

    async def start_calls(self, count: int, per_second: float, args: tuple[str, ...] = ()) -> None:
        """Let callers arrive at an even rate."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as arriving:
            for number in range(count):
                await asyncio.sleep(max(0.0, start + number / per_second - loop.time()))
                arriving.create_task(self._arrive())

    async def _arrive(self) -> None:
        assert self._session is not None, "see `meet`"
        self._asked += 1
        offset = int(self._asked * SPREAD_STEP % 1 * len(self._messages))
        body = {"call_id": f"load-{self._asked}", "audio": {"format": FORMAT}}
        async with self._session.post("/webhook/initiate-call", json=body) as response:
            answer = await response.json()
        if response.status != 200:
            self._closed[answer["code"]] += 1
            return
        # As the agent knows it: `call_sid`.
        name = f"dialer-{answer['session_id']}"
        line = DialerLine(self._messages, offset, lambda reason: self._ended(name, reason))
        self._lines[name] = line
        self._ticker.add(name, line.tick)
        try:
            await line.connect(answer["audio_url"])
        except OSError as error:
            self._ended(name, type(error).__name__)

    def _ended(self, name: str, reason: str) -> None:
        if reason != "closed":
            self._closed[reason] += 1
        self._ticker.remove(name)
        for lines in (self._lines, self._leaving):
            lines.pop(name, None)

    def end_calls(self, count: int | None = None) -> None:
        """Let that many callers hang up, or all of them."""
        for name in list(self._lines)[:count]:
            line = self._leaving[name] = self._lines.pop(name)
            line.close()

    def be_quiet(self) -> None:
        """Let every caller say nothing more."""
        for line in self._lines.values():
            line.be_quiet()

    def begin_window(self) -> None:
        """Begin to measure."""
        self._ticker.late_us = array("L")
        for line in self._lines.values():
            line.begin_window()

    def report(self) -> Callable[[], dict[str, Any]]:
        """What was heard since `begin_window`: what does the sums, which take a while."""
        return summed(dict(self._lines), self._ticker, len(self._lines), self._closed)

    async def close(self) -> None:
        """End everything."""
        self._ticker.stop()
        self.end_calls()
        for line in list(self._leaving.values()):
            line.drop()
        if self._session is not None:
            await self._session.close()


async def serve() -> None:
    """Say where we listen, and be steered until our input ends."""
    load = DialerLoad()
    steering = Steering(lambda: load)

    async def meet(request: web.Request) -> web.Response:
        load.meet(request.query["api"])
        return web.Response(status=204)

    app = web.Application()
    app.add_routes([*steering.routes, web.post("/load/meet", meet)])
    async with serving(app) as url:
        # A collection would hold up every line; this process lives for one benchmark.
        gc.collect()
        gc.freeze()
        gc.disable()
        sys.stdout.write(json.dumps({"url": url, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        try:
            await asyncio.to_thread(sys.stdin.read)
        finally:
            await steering.close()
            await load.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as main:
        main.run(serve())
