"""The practice agent's server: HTTP for the signed URL, WebSocket for the agent, on one port.

Anything that speaks to ElevenLabs can speak to it instead: give it `PracticeAgent.base_url`.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, NoReturn, Self
from urllib.parse import urlencode

import orjson
import structlog
from aiohttp import WSCloseCode, web
from pydantic import ValidationError

from lab.practice_agent import post_call
from lab.practice_agent.config import PracticeConfig
from lab.practice_agent.connection import Connection
from lab.practice_agent.profile import AgentProfile, Faults
from lab.practice_agent.record import Closing, ConversationRecord, Observer
from lab.practice_agent.rendering import Renderer
from lab.practice_agent.signatures import Signatures
from lab.practice_agent.voice import BuiltInVoice, Voice, find_voice

logger = structlog.get_logger(__name__)

CONVERSATION_PATH = "/v1/convai/conversation"
SUBPROTOCOL = "convai"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
ABNORMAL = 1006
CLOSE_TIMEOUT_S = 2.0
SHUTDOWN_TIMEOUT_S = 3.0

Authorization = Literal["public", "signed_url", "authorization_header"]
Socket = web.WebSocketResponse


class PracticeAgent:
    """A server that plays ElevenLabs agents; an async context manager.

    ``voice`` goes before the one that the settings name. ``observer`` is told every line of every
    conversation as it happens. With ``ssl_context`` it speaks https and wss.
    """

    def __init__(
        self,
        config: PracticeConfig | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        observer: Observer | None = None,
        voice: Voice | None = None,
    ) -> None:
        self.config = config or PracticeConfig()
        self.conversations: deque[ConversationRecord] = deque(maxlen=self.config.keep_conversations)
        """Records in the order in which the sockets opened; the oldest go first."""
        self._ssl_context = ssl_context
        self._observer = observer
        if voice is None:
            voice = find_voice() if self.config.voice == "auto" else BuiltInVoice()
        self._renderer = Renderer(voice)
        self._profiles: dict[str, AgentProfile] = {}
        self._gone_wrong: Counter[tuple[str, str]] = Counter()
        self._signatures = Signatures(self.config.signed_url_seconds)
        self._sockets: set[Socket[Literal[False]]] = set()
        self._changed = asyncio.Condition()
        self._telling: set[asyncio.Task[int | None]] = set()
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin to listen. Raises ``OSError`` when the address is taken."""
        app = web.Application()
        app.router.add_get(CONVERSATION_PATH, self._converse)
        # The second spelling is the older one of the same call.
        app.router.add_get(f"{CONVERSATION_PATH}/get-signed-url", self._sign_url)
        app.router.add_get(f"{CONVERSATION_PATH}/get_signed_url", self._sign_url)
        app.router.add_get(f"{CONVERSATION_PATH}s/{{conversation_id}}", self._describe)
        app.router.add_get("/practice/conversations", self._list_conversations)
        app.router.add_put("/practice/agents/{agent_id}", self._put_agent)
        app.on_shutdown.append(self._close_sockets)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        site = web.TCPSite(
            runner, self.config.host, self.config.port, ssl_context=self._ssl_context
        )
        try:
            await site.start()
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]
        logger.info("practice agent listens", url=self.base_url)

    async def stop(self) -> None:
        """Close every socket with 1001 and stop listening. May be called twice."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()
            await asyncio.gather(*self._telling, return_exceptions=True)
            logger.info("practice agent stopped", conversations=len(self.conversations))

    @property
    def base_url(self) -> str:
        """What a client takes for ``https://api.elevenlabs.io``."""
        scheme = "https" if self._ssl_context else "http"
        return f"{scheme}://{self.config.host}:{self._port}"

    @property
    def socket_url(self) -> str:
        """The agent's WebSocket, without its query."""
        return self.base_url.replace("http", "ws", 1) + CONVERSATION_PATH

    def set_profile(self, agent_id: str, profile: AgentProfile) -> None:
        """Add an agent or replace one; conversations that run already are not touched."""
        self._profiles[agent_id] = profile
        for counted in list(self._gone_wrong):
            if counted[0] == agent_id:
                del self._gone_wrong[counted]

    def profile(self, agent_id: str) -> AgentProfile | None:
        """Return what is played for an id; None when it is unknown."""
        return self._profiles.get(agent_id) or self.config.book.find(agent_id)

    async def conversation(self, index: int = 0, *, ended: bool = False) -> ConversationRecord:
        """Wait until the conversation at ``index`` has begun, or has ended; return its record."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: (
                    len(self.conversations) > index
                    and (not ended or self.conversations[index].closing is not None)
                )
            )
            return self.conversations[index]

    async def _sign_url(self, request: web.Request) -> web.Response:
        self._demand_key(request)
        agent_id = request.query.get("agent_id", "")
        if not agent_id:
            _refuse(422, "missing_fields", "The query parameter agent_id is missing.")
        profile = self._demand_profile(agent_id)
        faults = self._faults(agent_id, profile, "signed_url")
        await asyncio.sleep(faults.signed_url_delay_ms / 1000)
        if faults.signed_url_status is not None:
            text = "The signed URL was refused."
            _refuse(faults.signed_url_status, "practice_fault", text, faults.retry_after_seconds)
        query = {"agent_id": agent_id}
        if request.query.get("include_conversation_id") == "true":
            query["conversation_id"] = _new_conversation_id()
        query["conversation_signature"] = self._signatures.issue(
            agent_id,
            conversation_id=query.get("conversation_id"),
            now=time.monotonic(),
        )
        scheme = "wss" if request.secure else "ws"
        url = f"{scheme}://{request.host}{CONVERSATION_PATH}?{urlencode(query)}"
        return web.json_response({"signed_url": url})

    async def _converse(self, request: web.Request) -> web.StreamResponse:
        agent_id = request.query.get("agent_id", "")
        if not agent_id:
            _refuse(400, "missing_fields", "The query parameter agent_id is missing.")
        profile = self._demand_profile(agent_id)
        faults = self._faults(agent_id, profile, "handshake")
        await asyncio.sleep(faults.handshake_delay_ms / 1000)
        if faults.handshake_status is not None:
            text = "The socket was refused."
            _refuse(faults.handshake_status, "practice_fault", text, faults.retry_after_seconds)
        faults = self._faults(agent_id, profile, "conversation")
        profile = profile.model_copy(update={"faults": faults})
        authorization, conversation_id = self._admit(request, agent_id, profile)

        socket: Socket[Literal[False]] = Socket(
            protocols=(SUBPROTOCOL,),
            compress=False,
            max_msg_size=MAX_MESSAGE_BYTES,
            timeout=CLOSE_TIMEOUT_S,
            decode_text=False,
        )
        await socket.prepare(request)
        record = ConversationRecord(
            conversation_id,
            agent_id,
            time.monotonic(),
            authorization=authorization,
            query={
                key: value
                for key, value in request.query.items()
                if key != "conversation_signature"
            },
            subprotocol=socket.ws_protocol,
            keep_audio_seconds=self.config.keep_audio_seconds,
        )
        async with self._attended(socket, record):
            transport = request.transport
            await Connection(
                socket, transport, profile, record, self._renderer, self._observer
            ).run()
        return socket

    @asynccontextmanager
    async def _attended(
        self, socket: Socket[Literal[False]], record: ConversationRecord
    ) -> AsyncIterator[None]:
        log = logger.bind(conversation_id=record.conversation_id, agent_id=record.agent_id)
        log.info("conversation opened", authorization=record.authorization)
        self._sockets.add(socket)
        self.conversations.append(record)
        await self._tell_change()
        try:
            yield
        finally:
            self._sockets.discard(socket)
            closing = record.closing = record.closing or Closing(ABNORMAL, "", "lost")
            log.info(
                "conversation ended",
                code=closing.code,
                by=closing.by,
                error=record.error,
                heard_s=round(record.user_audio_seconds, 1),
                spoken_s=round(record.agent_audio_seconds, 1),
            )
            self._tell_afterwards(record)
            await self._tell_change()

    def _tell_afterwards(self, record: ConversationRecord) -> None:
        """Send the post-call webhook."""
        config = self.config
        if config.post_call_url is None:
            return
        data = post_call.conversation(record, time.monotonic())
        body = post_call.event(data, config.post_call_form, int(time.time()))
        secret = config.post_call_secret.get_secret_value()
        task = asyncio.create_task(post_call.send(config.post_call_url, secret, body))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _describe(self, request: web.Request) -> web.Response:
        self._demand_key(request)
        wanted = request.match_info["conversation_id"]
        found = [each for each in self.conversations if each.conversation_id == wanted]
        if not found:
            _refuse(404, "document_not_found", "There is no such conversation.")
        described = post_call.conversation(found[0], time.monotonic())
        return web.Response(body=orjson.dumps(described), content_type="application/json")

    def _admit(
        self, request: web.Request, agent_id: str, profile: AgentProfile
    ) -> tuple[Authorization, str]:
        token = request.query.get("conversation_signature")
        if token is not None:
            now = time.monotonic()
            admission = self._signatures.redeem(token, agent_id, now)
            if admission is None:
                _refuse(401, "invalid_signature", "The signed URL is not valid, or no longer.")
            return "signed_url", admission.conversation_id or _new_conversation_id()
        if "xi-api-key" in request.headers:
            self._demand_key(request)
            return "authorization_header", _new_conversation_id()
        if profile.requires_auth:
            _refuse(401, "needs_authorization", "This agent is private.")
        return "public", _new_conversation_id()

    def _faults(self, agent_id: str, profile: AgentProfile, step: str) -> Faults:
        """What goes wrong at one more step of this kind with an agent."""
        if profile.faults.times is None:
            return profile.faults
        self._gone_wrong[agent_id, step] += 1
        over = self._gone_wrong[agent_id, step] > profile.faults.times
        return Faults() if over else profile.faults

    def _demand_profile(self, agent_id: str) -> AgentProfile:
        profile = self.profile(agent_id)
        if profile is None:
            _refuse(404, "agent_not_found", "There is no such agent.")
        return profile

    def _demand_key(self, request: web.Request) -> None:
        given = request.headers.get("xi-api-key", "")
        wanted = self.config.api_key
        good = bool(given) if wanted is None else _same(given, wanted.get_secret_value())
        if not good:
            _refuse(401, "invalid_api_key", "The xi-api-key is missing or wrong.")

    async def _list_conversations(self, request: web.Request) -> web.Response:
        self._demand_key_if_set(request)
        summaries = [record.summary() for record in self.conversations]
        return web.Response(
            body=orjson.dumps({"conversations": summaries}), content_type="application/json"
        )

    async def _put_agent(self, request: web.Request) -> web.Response:
        self._demand_key_if_set(request)
        try:
            profile = AgentProfile.model_validate_json(await request.read())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "body"
            _refuse(422, "invalid_profile", f"{place}: {first['msg']}")
        self.set_profile(request.match_info["agent_id"], profile)
        return web.Response(status=204)

    def _demand_key_if_set(self, request: web.Request) -> None:
        if self.config.api_key is not None:
            self._demand_key(request)

    async def _close_sockets(self, _: web.Application) -> None:
        closing = (socket.close(code=WSCloseCode.GOING_AWAY) for socket in list(self._sockets))
        await asyncio.gather(*closing, return_exceptions=True)

    async def _tell_change(self) -> None:
        async with self._changed:
            self._changed.notify_all()


async def serve(
    config: PracticeConfig,
    *,
    stop: asyncio.Event,
    ready: asyncio.Future[PracticeAgent] | None = None,
    observer: Observer | None = None,
) -> None:
    """Run a practice agent until ``stop`` is set; ``ready`` gets the agent once it listens."""
    async with PracticeAgent(config, observer=observer) as agent:
        if ready is not None:
            ready.set_result(agent)
        await stop.wait()


def _refuse(status: int, name: str, text: str, retry_after_seconds: int | None = None) -> NoReturn:
    """Answer with an error in ElevenLabs' shape."""
    body = orjson.dumps({"detail": {"status": name, "message": text}}).decode()
    error = web.HTTPException(text=body, content_type="application/json")
    error.set_status(status)
    if retry_after_seconds is not None:
        error.headers["Retry-After"] = str(retry_after_seconds)
    raise error


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode(), wanted.encode())


def _new_conversation_id() -> str:
    return f"conv_{secrets.token_hex(12)}"
