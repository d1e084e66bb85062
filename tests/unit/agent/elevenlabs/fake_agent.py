"""A scripted agent on loopback: the signed URL's endpoint and the WebSocket, on one port."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

API_KEY = "sk_secret_of_the_tests"
SIGNATURE = "cvtkn_secret_of_the_tests"

METADATA = {
    "type": "conversation_initiation_metadata",
    "conversation_initiation_metadata_event": {
        "conversation_id": "conv_fake",
        "agent_output_audio_format": "pcm_16000",
        "user_input_audio_format": "pcm_16000",
    },
}


class FakeConversation:
    """One connection, from the agent's end."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.frames: list[str | bytes] = []

    async def receive(self) -> dict[str, Any]:
        """The next message from the client; binary frames are a failure."""
        frame = await self.socket.recv()
        self.frames.append(frame)
        assert isinstance(frame, str)
        message = json.loads(frame)
        assert isinstance(message, dict)
        return message

    async def send(self, *messages: dict[str, Any] | str | bytes) -> None:
        for message in messages:
            await self.socket.send(json.dumps(message) if isinstance(message, dict) else message)

    async def begin(self) -> dict[str, Any]:
        """Take the initiation and answer with the metadata."""
        initiation = await self.receive()
        await self.send(METADATA)
        return initiation

    async def say(self, pcm: bytes, event_id: int = 1) -> None:
        """Speak, in the format of the metadata."""
        sound = base64.b64encode(pcm).decode()
        event = {"audio_base_64": sound, "event_id": event_id}
        await self.send({"type": "audio", "audio_event": event})

    async def until_closed(self) -> None:
        """Take whatever comes until the client is gone."""
        try:
            while True:
                await self.receive()
        except ConnectionClosed:
            pass


Script = Callable[[FakeConversation], Awaitable[None]]


async def quiet(conversation: FakeConversation) -> None:
    """An agent that begins and then only listens."""
    await conversation.begin()
    await conversation.until_closed()


class FakeAgent:
    """Runs `script` for every connection. `signed` replaces the answer of the signed-URL call."""

    def __init__(
        self, script: Script = quiet, *, tls: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        self.script = script
        self.signed: Callable[[], Awaitable[tuple[int, str]]] | None = None
        self.user: tuple[int, str] | None = None
        self.retry_after: str | None = None
        self.upgrade_status: int | None = None
        self.requests: list[tuple[str, dict[str, list[str]], Headers]] = []
        self.conversations: list[FakeConversation] = []
        self.failures: list[BaseException] = []
        self._tls = tls
        self._port = port
        self._server: Server | None = None
        self._scripts: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"{'localhost' if self._tls else '127.0.0.1'}:{port}"

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.address}"

    @property
    def socket_url(self) -> str:
        return f"{'wss' if self._tls else 'ws'}://{self.address}/v1/convai/conversation"

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._run,
            "127.0.0.1",
            self._port,
            process_request=self._process_request,
            ssl=self._tls,
            close_timeout=0.2,
            max_size=None,
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        for script in self._scripts:
            script.cancel()
        for conversation in self.conversations:
            conversation.socket.transport.abort()
        self._server.close()
        await self._server.wait_closed()
        if exc is None:
            assert self.failures == []

    async def _run(self, socket: ServerConnection) -> None:
        conversation = FakeConversation(socket)
        self.conversations.append(conversation)
        script = asyncio.ensure_future(self.script(conversation))
        self._scripts.add(script)
        try:
            await asyncio.wait([script])
        finally:
            self._scripts.discard(script)
        error = None if script.cancelled() else script.exception()
        if error is not None and not isinstance(error, ConnectionClosed):
            self.failures.append(error)

    async def _process_request(self, socket: ServerConnection, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        self.requests.append((parts.path, parse_qs(parts.query), request.headers))
        if parts.path == "/v1/convai/conversation":
            if self.upgrade_status is None:
                return None
            return self._with_header(socket.respond(HTTPStatus(self.upgrade_status), "no"))
        if parts.path == "/v1/user":
            status, body = (404, "{}") if self.user is None else self.user
            return socket.respond(HTTPStatus(status), body)
        assert parts.path == "/v1/convai/conversation/get-signed-url"
        if self.signed is not None:
            status, body = await self.signed()
        elif request.headers.get("xi-api-key") != API_KEY:
            status, body = 401, json.dumps({"detail": {"status": "invalid_api_key"}})
        else:
            url = f"{self.socket_url}?agent_id=a&conversation_signature={SIGNATURE}"
            status, body = 200, json.dumps({"signed_url": url})
        response = socket.respond(HTTPStatus(status), body)
        if status in (301, 302):
            response.headers["Location"] = f"{self.base_url}/elsewhere"
        return self._with_header(response)

    def _with_header(self, response: Response) -> Response:
        if self.retry_after is not None:
            response.headers["Retry-After"] = self.retry_after
        return response
