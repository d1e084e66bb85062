"""The events of a session as server-sent events and as WebSocket messages."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Coroutine, Iterator
from datetime import datetime
from functools import reduce
from http import HTTPStatus
from operator import or_
from typing import Annotated, Any, Final, Literal, get_args, get_type_hints

import orjson
import structlog
from aiohttp import WSCloseCode, web
from pydantic import BaseModel, Field, TypeAdapter, create_model

from ari_app.control.http.problems import Problem
from ari_app.process.loop import cancelled
from ari_app.process.network import let_go
from ari_app.records.events import CallEvent, told_fields
from ari_app.records.journal import UNTOLD, Entry, Follower, Journal, TooManyFollowers
from ari_app.records.record import CallRecord

log = structlog.get_logger(__name__)


def _on_the_wire(event: type[Any]) -> type[BaseModel]:
    """Return the JSON of an entry of the journal: its number, its time, its kind, then what it
    holds."""
    held: dict[str, Any] = {field.name: (hint, ...) for field, hint in _fields(event)}
    held["type"] = (Literal[event.kind], event.kind)
    model: type[BaseModel] = create_model(
        event.__name__,
        __doc__=event.__doc__,
        seq=(int, ...),
        at=(datetime, ...),
        **held,
    )
    return model


def _fields(event: type[Any]) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    hints = get_type_hints(event)
    return ((field, hints[field.name]) for field in told_fields(event))


_WIRE: Final = {event: _on_the_wire(event) for event in get_args(CallEvent) if event not in UNTOLD}
_NAMES: Final = {event: [field.name for field in told_fields(event)] for event in _WIRE}
_ANY: Any = reduce(or_, _WIRE.values())
EVENT: Final[TypeAdapter[Any]] = TypeAdapter(Annotated[_ANY, Field(discriminator="type")])
"""Whatever an event stream tells."""


def as_json(entry: Entry) -> bytes:
    """Return an entry of the journal as the event streams tell it."""
    event = entry.event
    told = {"seq": entry.seq, "at": entry.at, "type": event.kind}
    held = {name: getattr(event, name) for name in _NAMES[type(event)]}
    return orjson.dumps(told | held, option=orjson.OPT_UTC_Z)


EVENT_STREAM: Final = "text/event-stream"
LAST_EVENT_ID: Final = "Last-Event-ID"

# Proxies close a connection on which nothing comes for a minute.
_KEEP_ALIVE_SECONDS = 15.0
# A client that reads nothing for so long is gone.
_WRITE_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_MAX_MESSAGE_BYTES = 4096


async def stream_events(
    request: web.Request, journal: Journal, record: CallRecord
) -> web.StreamResponse:
    """Follow a call until it has ended, in the form that the request asks for.

    Raises:
        Problem: `not_acceptable`, `invalid_header` or `too_many_streams`.
    """
    after = _last_event_id(request)
    try:
        follower = journal.follow(record, after)
    except TooManyFollowers as error:
        raise Problem(error.code, str(error)) from None
    with follower:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await _web_socket(request, follower)
        if not _accepts_event_stream(request):
            raise Problem(
                "not_acceptable", f"Events come as {EVENT_STREAM}, or through a WebSocket."
            )
        if not follower.has_more:
            # What tells an EventSource not to come back.
            return web.Response(status=HTTPStatus.NO_CONTENT)
        return await _server_sent(request, follower)


def _last_event_id(request: web.Request) -> int:
    text = request.headers.get(LAST_EVENT_ID) or request.query.get("last_event_id") or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Problem(
            "invalid_header", f"{LAST_EVENT_ID} must be the number of an event of this stream."
        )
    return int(text)


def _accepts_event_stream(request: web.Request) -> bool:
    accept = request.headers.get("Accept") or "*/*"
    kinds = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return not kinds.isdisjoint({EVENT_STREAM, "text/*", "*/*"})


async def _server_sent(request: web.Request, follower: Follower) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": f"{EVENT_STREAM}; charset=utf-8",
            # nginx gathers a response otherwise.
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(request)
    with contextlib.suppress(ConnectionError, TimeoutError):
        while (piece := await _next_piece(follower)) is not None:
            async with asyncio.timeout(_WRITE_SECONDS):
                await response.write(piece)
        async with asyncio.timeout(_WRITE_SECONDS):
            await response.write_eof()
    return response


def _as_sse(entry: Entry) -> bytes:
    head = f"id: {entry.seq}\nevent: {entry.event.kind}\ndata: ".encode()
    return head + as_json(entry) + b"\n\n"


async def _next_piece(follower: Follower) -> bytes | None:
    """Return the next event, a comment when nothing has come for a while, None after the last
    one."""
    try:
        async with asyncio.timeout(_KEEP_ALIVE_SECONDS):
            entry = await anext(follower, None)
    except TimeoutError:
        return b": keep-alive\n\n"
    return None if entry is None else _as_sse(entry)


def one_way_socket(request: web.Request) -> web.WebSocketResponse:
    """Make a WebSocket on which we alone speak.

    Raises:
        Problem: The request is no handshake.
    """
    # Permessage deflate would cost 300 KiB a client for a few hundred bytes a second.
    socket = web.WebSocketResponse(
        timeout=_CLOSE_SECONDS,
        heartbeat=_KEEP_ALIVE_SECONDS,
        compress=False,
        max_msg_size=_MAX_MESSAGE_BYTES,
    )
    if not socket.can_prepare(request).ok:
        raise Problem("bad_request", "The request is no WebSocket handshake (RFC 6455).")
    return socket


async def send_while_there(
    socket: web.WebSocketResponse, sends: Coroutine[Any, Any, None], name: str
) -> None:
    """Send until all has been sent and the socket is closed, or the client goes.

    Args:
        sends: Sends, and then closes the socket.
        name: Of its task.
    """
    sending = asyncio.create_task(sends, name=name)
    try:
        # Reading is what answers pings and sees the client go; what it says means nothing here.
        async for _ in socket:
            pass
    finally:
        await cancelled(sending)
        let_go(socket)


async def _web_socket(request: web.Request, follower: Follower) -> web.StreamResponse:
    socket = one_way_socket(request)
    await socket.prepare(request)
    await send_while_there(socket, _send_events(socket, follower), "session-events")
    return socket


async def _send_events(socket: web.WebSocketResponse, follower: Follower) -> None:
    try:
        async for entry in follower:
            async with asyncio.timeout(_WRITE_SECONDS):
                await socket.send_str(as_json(entry).decode())
        await socket.close()
    except (ConnectionError, TimeoutError):
        await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, drain=False)
