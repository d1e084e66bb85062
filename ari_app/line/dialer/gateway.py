"""The way in for dialers of one's own: who may come to which call."""

from __future__ import annotations

import asyncio
import socket as socket_module
from collections.abc import Callable
from typing import Final

import structlog
from aiohttp import hdrs, web

from ari_app.line.dialer.line import DialerLine
from ari_app.line.dialer.protocol import CODINGS, FRAME_MS, MAX_MESSAGE_BYTES
from ari_app.line.interface import Arrival, OwnAudio, Placing
from linekit.clock import FrameClock

log = structlog.get_logger(__name__)

_HEARTBEAT_SECONDS: Final = 4.0
_CLOSE_SECONDS: Final = 0.5
_UNREAD_FRAMES: Final = 3
_SEND_BUFFER_BYTES: Final = 8192
_KEEP_USED: Final = 1000


class DialerGateway:
    """The way in and out for dialers of one's own.

    Args:
        clock: Gives out the frames of all calls.
        on_refused: Called with a reason for each WebSocket that is refused or closed for what it
            has sent.

    Attributes:
        routes: What it serves on the HTTP server, where it checks by itself who comes.
    """

    name = "custom"
    connected = True

    def __init__(
        self, clock: FrameClock, on_refused: Callable[[str], None] = lambda reason: None
    ) -> None:
        self._clock = clock
        self._on_refused = on_refused
        self._expected: dict[str, DialerLine] = {}
        self._used: dict[str, None] = {}
        self.routes = [web.get(OwnAudio.PATH, self.serve)]

    # --- ari_app.line.interface.Gateway

    async def run(self, take: Callable[[Arrival], None]) -> None:
        """Run until cancelled: every call of a dialer's is asked for, none comes by itself."""
        await asyncio.get_running_loop().create_future()

    def serves(self, how: Placing) -> bool:
        """Whether the sound is brought to us."""
        return how.audio is not None

    def place(self, session_id: str, number: str, how: Placing) -> DialerLine:
        """Make a line for whom the dialer has called."""
        assert how.audio is not None, "see `serves`"
        return DialerLine(
            f"dialer-{session_id}",
            number,
            how,
            how.audio,
            clock=self._clock,
            expect=self._expect,
            forget=self._forget,
            on_refused=self._on_refused,
        )

    def problems(self) -> list[str]:
        """Say nothing: where HTTP answers, dialers can come."""
        return []

    async def mend(self, *, expected: bool) -> None:
        """Do nothing: nothing of it outlives its process."""

    async def close(self) -> None:
        """Do nothing: nothing runs in the background."""

    # --- who comes

    @property
    def expected(self) -> int:
        """How many calls wait for their dialer."""
        return len(self._expected)

    def _expect(self, line: DialerLine) -> None:
        self._expected[line.audio.token] = line

    def _forget(self, line: DialerLine) -> None:
        if self._expected.pop(line.audio.token, None) is not None:
            self._used[line.audio.token] = None
            while len(self._used) > _KEEP_USED:
                del self._used[next(iter(self._used))]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve the WebSocket of one call."""
        token = request.match_info["token"]
        line = self._expected.get(token)
        if line is None:
            self._on_refused("token_used" if token in self._used else "unknown_token")
            raise web.HTTPNotFound
        coding = CODINGS[line.audio.format]
        # Deflate would cost more than it saves: sound does not get smaller.
        socket = web.WebSocketResponse(
            timeout=_CLOSE_SECONDS,
            heartbeat=_HEARTBEAT_SECONDS,
            compress=False,
            max_msg_size=MAX_MESSAGE_BYTES,
            writer_limit=1,
        )
        if hdrs.SEC_WEBSOCKET_VERSION not in request.headers or not socket.can_prepare(request).ok:
            self._on_refused("no_websocket")
            raise web.HTTPBadRequest
        # From here on nobody else can come for it.
        self._forget(line)
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the dialer has gone")
        # What a dialer does not read must not be heard late: little of it lies anywhere.
        frame_bytes = coding.rate_hz * coding.sample_bytes * FRAME_MS // 1000
        transport.set_write_buffer_limits(high=_UNREAD_FRAMES * frame_bytes)
        transport.get_extra_info("socket").setsockopt(
            socket_module.SOL_SOCKET, socket_module.SO_SNDBUF, _SEND_BUFFER_BYTES
        )
        await line.serve(socket, transport.abort)
        return socket
