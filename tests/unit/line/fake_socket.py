"""A dialer's WebSocket in memory."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import WebSocketError, WSMessage, WSMsgType

from ari_app.line.dialer.protocol import clear


class FakeSocket:
    """Our end of a WebSocket, with what a test has the dialer do.

    Attributes:
        got: What the dialer was sent, in order.
        close_code: Why it was closed; None while it is open.
        reads: The dialer reads; otherwise nothing can be sent.

    It is its own transport, too.
    """

    def __init__(self) -> None:
        self.got: list[bytes | str] = []
        self.close_code: int | None = None
        self.reads = asyncio.Event()
        self.reads.set()
        self._messages: asyncio.Queue[WSMessage | None] = asyncio.Queue()

    # --- ari_app.line.dialer.line.Socket

    async def send_str(self, data: str) -> None:
        await self._send(data)

    async def send_bytes(self, data: bytes) -> None:
        await self._send(data)

    async def _send(self, data: bytes | str) -> None:
        await self.reads.wait()
        if self.close_code is not None:
            raise ConnectionResetError
        self.got.append(data)

    async def close(self, *, code: int = 1000, message: bytes = b"") -> bool:
        await self.reads.wait()
        self.drops(code)
        return True

    # --- ari_app.line.dialer.line.Transport

    @property
    def transport(self) -> FakeSocket:
        return self

    @property
    def closed(self) -> bool:
        return self.close_code is not None

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is buffered."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def abort(self) -> None:
        self.drops(1006)

    async def __aiter__(self) -> AsyncIterator[WSMessage]:
        while (message := await self._messages.get()) is not None:
            yield message

    # --- the dialer

    def sends(self, data: bytes | str) -> None:
        """Send a message."""
        kind = WSMsgType.BINARY if isinstance(data, bytes) else WSMsgType.TEXT
        self._messages.put_nowait(WSMessage(kind, data, None))

    def says(self, kind: str, **parts: object) -> None:
        """Send a text message as the protocol wants it."""
        self.sends(json.dumps({"type": kind, **parts}))

    def breaks(self, code: int) -> None:
        """Send what aiohttp cannot read, and therefore closes."""
        self._messages.put_nowait(WSMessage(WSMsgType.ERROR, WebSocketError(code, ""), None))
        self.drops(code)

    def drops(self, code: int) -> None:
        """Close it."""
        if self.close_code is None:
            self.close_code = code
            self._messages.put_nowait(None)

    def told(self, kind: str = "") -> list[dict[str, Any]]:
        """The text messages that came, all or of a kind."""
        texts = [json.loads(piece) for piece in self.got if isinstance(piece, str)]
        return [text for text in texts if kind in ("", text["type"])]

    @property
    def frames(self) -> list[bytes]:
        """The sound that came."""
        return [piece for piece in self.got if isinstance(piece, bytes)]


class Player:
    """A dialer that sends silence, plays what it is sent, and pays heed to `clear` and `mark`.

    Args:
        theirs: It plays a frame a beat; otherwise whatever has come.

    Attributes:
        heard: The frames that it has played.
    """

    def __init__(self, *, theirs: bool) -> None:
        self.socket = FakeSocket()
        self.heard: list[bytes] = []
        self._theirs = theirs
        self._taken = 0
        self._ahead: deque[bytes | str] = deque()

    def beat(self, pcm: bytes) -> None:
        """Let 20 ms pass."""
        if self.socket.close_code is None and self.socket.told("ready"):
            self.socket.sends(pcm)
        new, self._taken = self.socket.got[self._taken :], len(self.socket.got)
        for piece in new:
            if piece == clear() and self._theirs:
                self._ahead.clear()
            else:
                self._ahead.append(piece)
        played = 0
        while self._ahead and not (self._theirs and played and isinstance(self._ahead[0], bytes)):
            piece = self._ahead.popleft()
            if isinstance(piece, bytes):
                self.heard.append(piece)
                played += 1
            elif (said := json.loads(piece))["type"] == "mark":
                self.socket.says("mark", name=said["name"])
