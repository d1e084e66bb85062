"""The ways in which a dialer of one's own and we come together: it comes to us, or we go to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from aiohttp import hdrs, web

from ari_app.errors import LineError
from ari_app.line.dialer.api import HEARTBEAT_SECONDS, DialerApi, DialerError
from ari_app.line.dialer.line import DialerLine, Meeting
from ari_app.line.dialer.protocol import MAX_MESSAGE_BYTES
from ari_app.line.interface import Arrival, CallEnd, Outcome, OwnAudio, Placing
from ari_app.process.network import let_go
from linekit.clock import FrameClock

log = structlog.get_logger(__name__)

_CLOSE_SECONDS: Final = 0.5
_KEEP_USED: Final = 1000
_AGAIN_SECONDS: Final = 5.0
_NO_SERVICE: Final = (
    "A call without a format for its sound is asked for at the dialer's service, and "
    "DIALER_API_URL is not set."
)
_NO_REFERENCE: Final = (
    "A call without a format for its sound is asked for at the dialer's service by its call_id, "
    "and there is none."
)


class DialerGateway:
    """The way in and out for dialers of one's own.

    Args:
        clock: Gives out the frames of all calls.
        api: The dialer's own service, and its WebSockets to which we connect; it is open.
        on_refused: Called with a reason for each WebSocket that is refused, closed or warned for
            what it has sent.

    Attributes:
        routes: What it serves on the HTTP server, where it checks by itself who comes.
    """

    name = "custom"
    connected = True

    def __init__(
        self,
        clock: FrameClock,
        api: DialerApi,
        on_refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._clock = clock
        self._api = api
        self._on_refused = on_refused
        self._door = _Door()
        self.routes = [web.get(OwnAudio.PATH, self.serve)]

    # --- ari_app.line.interface.Gateway

    async def run(self, take: Callable[[Arrival], object]) -> None:
        """Run until cancelled: every call is asked for, none comes by itself.

        The dialer's service is looked at first, and again while it is known to be away.
        """
        while True:
            if self._api.is_there:
                await self._look()
            if self._api.problem is None:
                await self._api.ails.wait()
            await asyncio.sleep(_AGAIN_SECONDS)

    async def _look(self) -> None:
        before = self._api.problem
        with contextlib.suppress(DialerError):
            await self._api.probe()
        if self._api.problem != before:
            log.warning("dialer_service", problem=self._api.problem or "none: it answers")

    def serves(self, how: Placing) -> bool:
        """Whether there is a dialer that has the call."""
        return how.audio is not None and not how.needs_channel

    def place(self, session_id: str, number: str, how: Placing) -> DialerLine:
        """Make a line for whom the dialer has called.

        Raises:
            LineError: Its sound may not be fetched from there, or nobody can be asked for it.
        """
        audio = how.audio
        assert audio is not None, "see `serves`"
        meeting: Meeting = self._door
        if not audio.is_brought:
            self._check(audio, how.reference)
            meeting = _Visit(self._api, audio, how.reference)
        return DialerLine(
            f"dialer-{session_id}",
            number,
            how,
            audio,
            clock=self._clock,
            meeting=meeting,
            on_refused=self._on_refused,
        )

    def _check(self, audio: OwnAudio, reference: str) -> None:
        if audio.url is not None:
            self._api.audio_url(audio.url)
        elif not self._api.is_there:
            raise LineError(_NO_SERVICE, code="no_such_way")
        elif not reference:
            raise LineError(_NO_REFERENCE, code="invalid_request")

    def problems(self) -> list[str]:
        """Say why the dialer's service cannot be used; where it has none, nothing can be wrong."""
        return [] if self._api.problem is None else [self._api.problem]

    def adopt(self, session_id: str, kept: Mapping[str, Any], begin: Callable[[], None]) -> None:
        """Adopt none: their sound ended with the process that they came to."""

    async def mend(self, *, expected: bool, adopting: bool = False) -> None:
        """Do nothing: nothing of it outlives its process."""

    async def close(self) -> None:
        """Close what is open towards the dialer."""
        await self._api.close()

    # --- who comes

    @property
    def expected(self) -> int:
        """How many calls wait for their dialer."""
        return self._door.expected

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve the WebSocket of one call."""
        token = request.match_info["token"]
        line = self._door.line(token)
        if line is None:
            self._on_refused("token_used" if self._door.was_used(token) else "unknown_token")
            raise web.HTTPNotFound
        # Deflate would cost more than it saves: sound does not get smaller.
        socket = web.WebSocketResponse(
            timeout=_CLOSE_SECONDS,
            heartbeat=HEARTBEAT_SECONDS,
            compress=False,
            max_msg_size=MAX_MESSAGE_BYTES,
            writer_limit=1,
        )
        if hdrs.SEC_WEBSOCKET_VERSION not in request.headers or not socket.can_prepare(request).ok:
            self._on_refused("no_websocket")
            raise web.HTTPBadRequest
        # From here on nobody else can come for it.
        self._door.stop(line)
        try:
            await socket.prepare(request)
            transport = request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the dialer has gone")
        except BaseException:
            line.vanished()
            raise
        try:
            await line.serve(socket, transport)
        finally:
            let_go(socket)
        return socket


class _Door:
    """Where dialers come in: which line waits for which token."""

    def __init__(self) -> None:
        self._lines: dict[str, DialerLine] = {}
        self._used: dict[str, None] = {}

    @property
    def expected(self) -> int:
        return len(self._lines)

    def line(self, token: str) -> DialerLine | None:
        return self._lines.get(token)

    def was_used(self, token: str) -> bool:
        return token in self._used

    # --- ari_app.line.dialer.line.Meeting

    async def audio(self) -> OwnAudio:
        raise AssertionError("whoever brings sound has said what it is")

    def begin(self, line: DialerLine) -> None:
        self._lines[line.audio.token] = line

    def stop(self, line: DialerLine) -> None:
        if self._lines.pop(line.audio.token, None) is not None:
            self._used[line.audio.token] = None
            while len(self._used) > _KEEP_USED:
                del self._used[next(iter(self._used))]

    async def over(self, outcome: Outcome, end: CallEnd) -> None:
        """Do nothing: it was told on its WebSocket."""


class _Visit:
    """Where we go to: one call's sound at its dialer.

    Args:
        api: The dialer.
        audio: What is known of the sound.
        reference: The dialer's name for the call; empty: it gave none.
    """

    def __init__(self, api: DialerApi, audio: OwnAudio, reference: str) -> None:
        self._api, self._audio, self._reference = api, audio, reference
        self._task: asyncio.Task[None] | None = None
        self._is_there = False

    async def audio(self) -> OwnAudio:
        return await self._api.audio(self._reference)

    def begin(self, line: DialerLine) -> None:
        self._task = asyncio.create_task(self._hold(line), name=f"call {line.id} connects")

    def stop(self, line: DialerLine) -> None:
        if self._task is not None and not self._is_there:
            self._task.cancel()

    async def over(self, outcome: Outcome, end: CallEnd) -> None:
        if self._task is not None:
            await asyncio.wait({self._task})
        if self._reference:
            await self._api.hung_up(self._reference, outcome, end)

    async def _hold(self, line: DialerLine) -> None:
        assert line.audio.url is not None, "the line has been prepared"
        try:
            socket = await self._api.connect(self._api.audio_url(line.audio.url))
        except DialerError as error:
            line.failed(error)
            return
        self._is_there = True
        try:
            await line.serve(socket, socket.transport)
        except BaseException:
            # Where it only ends, it has been closed, or the line is just doing so.
            socket.transport.abort()
            raise
        finally:
            socket.let_go()
