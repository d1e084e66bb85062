"""Carries one conversation over one WebSocket: the shell around the pure parts."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import Any, Literal

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from lab.practice_agent.conversation import Conversation
from lab.practice_agent.effects import Close, Drop, Effect, Freeze, Render, Report, Send, SendRaw
from lab.practice_agent.faults import DROPPED, FaultyWire
from lab.practice_agent.profile import AgentProfile
from lab.practice_agent.record import Closing, ConversationRecord, Observer
from lab.practice_agent.rendering import Renderer

MAX_REASON_BYTES = 123
"""RFC 6455, 5.5: a control frame holds 125 bytes, two of them the code."""
NO_STATUS = 1005
LEAST_WAIT_S = 0.0005
FROZEN_LOOK_S = 0.05


class Connection:
    """Reads, waits and writes in one task, so that the conversation sees one thing at a time.

    What arrives while speech is being rendered waits in the socket's buffer.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse[Literal[False]],
        transport: asyncio.Transport | None,
        profile: AgentProfile,
        record: ConversationRecord,
        renderer: Renderer,
        observer: Observer | None,
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._output = profile.formats.agent_output
        self._record = record
        self._renderer = renderer
        self._observer = observer
        self._conversation = Conversation(profile, record, now=record.opened_at)
        self._wire = FaultyWire(profile.faults, now=record.opened_at)
        self._is_over = False

    async def run(self) -> None:
        """Hold the conversation until either side ends it."""
        while not self._is_over:
            wait_s = self._until_next_timer()
            if wait_s is not None and wait_s <= 0:
                await self._handle_timers()
                continue
            try:
                # aiohttp takes a time-out of 0 for none at all.
                timeout = None if wait_s is None else max(wait_s, LEAST_WAIT_S)
                message = await self._socket.receive(timeout)
            except TimeoutError:
                continue
            await self._received(message.type, message.data, message.extra)

    def _until_next_timer(self) -> float | None:
        timers = (self._conversation.next_timer(), self._wire.next_timer())
        at = min((timer for timer in timers if timer is not None), default=None)
        return None if at is None else at - time.monotonic()

    async def _handle_timers(self) -> None:
        now = time.monotonic()
        await self._carry_out(self._wire.handle_timer(now))
        await self._perform(self._conversation.handle_timer(now))

    async def _received(self, kind: WSMsgType, data: Any, extra: str | None) -> None:
        now = time.monotonic()
        match kind:
            case WSMsgType.TEXT:
                await self._perform(self._conversation.receive(data, now))
            case WSMsgType.BINARY:
                await self._perform(self._conversation.receive_binary(now))
            case WSMsgType.CLOSE:
                self._end(Closing(data or NO_STATUS, extra or "", "client"))
            case WSMsgType.CLOSING:
                # Closed by the server, from another task.
                self._end(Closing(WSCloseCode.GOING_AWAY, "", "agent"))
            case _:
                self._end(Closing(DROPPED, "", "lost"))

    async def _perform(self, effects: list[Effect]) -> None:
        await self._carry_out(self._wire.outgoing(effects, time.monotonic()))

    async def _carry_out(self, effects: list[Effect]) -> None:
        queue = deque(effects)
        while queue and not self._is_over:
            match queue.popleft():
                case Send(message=message):
                    await self._send(orjson.dumps(message), WSMsgType.TEXT)
                    self._record.sent[message["type"]] += 1
                case SendRaw(payload=str(text)):
                    await self._send(text.encode(), WSMsgType.TEXT)
                case SendRaw(payload=bytes(payload)):
                    await self._send(payload, WSMsgType.BINARY)
                case Report(line=line):
                    if self._observer is not None:
                        self._observer(line)
                case Render(text=text):
                    audio = await self._renderer.render(text, self._output)
                    now = time.monotonic()
                    spoken = self._conversation.rendered(text, audio, now)
                    queue.extend(self._wire.outgoing(spoken, now))
                case Close(code=code, reason=reason):
                    self._end(Closing(code, reason, "agent"))
                    cut = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
                    await self._socket.close(code=code, message=cut.encode())
                case Freeze():
                    self._end(Closing(DROPPED, "", "agent"))
                    await self._freeze()
                case Drop():
                    self._end(Closing(DROPPED, "", "agent"))
                    transport = self._transport
                    if transport is not None:
                        transport.abort()

    async def _freeze(self) -> None:
        # The transport has no event for its end that would do without reading.
        while self._transport is not None and not self._transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(FROZEN_LOOK_S)

    async def _send(self, frame: bytes, kind: Literal[WSMsgType.TEXT, WSMsgType.BINARY]) -> None:
        # A client that has gone is noticed, with its close code, by the next receive.
        with suppress(ConnectionError):
            await self._socket.send_frame(frame, kind)

    def _end(self, closing: Closing) -> None:
        self._is_over = True
        self._record.closing = closing
