"""The page at `/`: its files, and what it asks for beside the interface that everybody has.

Its files lie in `ari_app/control/page`; they are read once, and kept compressed.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import gzip
import hashlib
import math
import mimetypes
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib import resources
from types import MappingProxyType
from typing import Any, Final, Protocol

import orjson
from aiohttp import hdrs, web

from ari_app import __version__
from ari_app.call.call import Call
from ari_app.call.calls import Calls
from ari_app.control.http.access import REQUEST_KEY, SIGNED_IN_SECONDS, Access, who
from ari_app.control.http.models import Readiness, call_id, take_over
from ari_app.control.http.problems import Problem
from ari_app.line.interface import Ability
from ari_app.process.loop import in_turns
from ari_app.records.record import CallRecord

_FILES: Final = "ari_app.control.page"
_INDEX: Final = "index.html"
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; media-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
PAGE_PATHS: Final = frozenset({"/", "/page/{file}", "/page/sign-in", "/page/sign-out"})
"""Where no key is asked for: there is nothing of any call in them."""

PAGE_CHANGES: Final = MappingProxyType(
    {("POST", "/page/sign-in"): "sign_in", ("POST", "/page/sign-out"): "sign_out"}
)
"""What the audit file calls what is done here."""


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the page, as it is sent.

    Attributes:
        packed: With gzip.
        tag: Changes with its content.
    """

    content: bytes
    packed: bytes
    kind: str
    tag: str


@cache
def _kinds() -> Mapping[str, str]:
    """Return what there is to be sent, by name, and of what kind it is.

    A name from outside is only looked for here: it never becomes a path, and is not kept.
    """
    kinds = {
        file.name: mimetypes.guess_type(file.name)[0]
        for file in resources.files(_FILES).iterdir()
        if file.is_file() and not file.name.endswith(".py")
    }
    return {name: kind for name, kind in kinds.items() if kind is not None}


@cache
def _file(name: str) -> _File:
    """Read one of `_kinds` when it is first asked for: to pack all at once would hold up calls."""
    content = resources.files(_FILES).joinpath(name).read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    return _File(content, gzip.compress(content, 9, mtime=0), _kinds()[name], tag)


def _send(request: web.Request, name: str) -> web.Response:
    if name not in _kinds():
        raise web.HTTPNotFound
    file = _file(name)
    headers = {
        hdrs.ETAG: file.tag,
        # Asked for again each time, and answered in a few bytes: an upgrade is seen at once.
        hdrs.CACHE_CONTROL: "no-cache",
        hdrs.VARY: "Accept-Encoding",
        "Content-Security-Policy": _POLICY,
        "Referrer-Policy": "no-referrer",
    }
    if request.headers.get(hdrs.IF_NONE_MATCH) == file.tag:
        return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    content = file.content
    if _accepts_gzip(request):
        headers[hdrs.CONTENT_ENCODING] = "gzip"
        content = file.packed
    headers[hdrs.CONTENT_TYPE] = f"{file.kind}; charset=utf-8"
    return web.Response(body=content, headers=headers)


class Watched(Protocol):
    """The parts of the service that the page shows while they change."""

    @property
    def calls(self) -> Calls:
        """The calls."""
        ...

    def readiness(self) -> Readiness:
        """Say whether new calls are taken."""
        ...


_EVERY_SECONDS: Final = 0.5
_FRESH_SECONDS: Final = 0.9 * _EVERY_SECONDS
"""What one page was told so long ago at most is told to another as it is."""
_WRITE_SECONDS: Final = 10.0
MOST_WATCHERS: Final = 32
_PACK_LEVEL: Final = 1
_PACK_MEMORY: Final = 6
_GZIP: Final = 31


_ACTIONS: Final = MappingProxyType(
    {
        "hold": Ability.MUSIC,
        "blind": Ability.TRANSFER,
        "attended": Ability.CONSULT,
        "take_over": Ability.BRING_IN,
    }
)
"""What the page offers where the line can do it."""


@dataclass(frozen=True, slots=True)
class Look:
    """A snapshot of all calls.

    Attributes:
        at: When, by the loop's clock.
        rows: The rows of the page's list, by session id. A call that has not changed has the very
            object of the last snapshot.
        rest: Fields that are sent each time.
    """

    at: float
    rows: dict[str, dict[str, Any]]
    rest: dict[str, Any]


class Watching(abc.ABC):
    """Tells pages, as server-sent events, what changes among all calls, twice a second.

    Args:
        most: How many may watch at once.
    """

    def __init__(self, most: int = MOST_WATCHERS) -> None:
        self._most = most
        self._watchers = 0
        self._stopping = False

    def stop(self) -> None:
        """End all streams: nothing more will come."""
        self._stopping = True

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Stream until the client hangs up, or its sign-in ends."""
        if self._watchers >= self._most:
            raise Problem(
                "too_many_streams", f"{self._most} pages watch already, which is the limit."
            )
        self._watchers += 1
        try:
            return await self._stream(request)
        finally:
            self._watchers -= 1

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        headers = {
            hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
            hdrs.CACHE_CONTROL: "no-store",
            # nginx gathers a response otherwise.
            "X-Accel-Buffering": "no",
        }
        packed = _accepts_gzip(request)
        if packed:
            headers[hdrs.CONTENT_ENCODING] = "gzip"
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        pack = _packer() if packed else _as_it_is
        seen: dict[str, dict[str, Any]] = {}
        loop = asyncio.get_running_loop()
        # The page then connects again, and is asked for a key.
        until = loop.time() + request.get(SIGNED_IN_SECONDS, math.inf)
        with contextlib.suppress(ConnectionError, TimeoutError):
            while not self._stopping and loop.time() < until:
                news = orjson.dumps(await self._news(seen), option=orjson.OPT_UTC_Z)
                async with asyncio.timeout(_WRITE_SECONDS):
                    await response.write(pack(b"data: " + news + b"\n\n"))
                await asyncio.sleep(_EVERY_SECONDS)
        return response

    async def _news(self, seen: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Return what has changed since `seen`, and update that."""
        look = await self._look()
        changed = [row for key, row in look.rows.items() if seen.get(key) is not row]
        gone = [key for key in seen if key not in look.rows]
        seen.clear()
        seen.update(look.rows)
        return {"calls": changed, "gone": gone, **look.rest}

    @abc.abstractmethod
    async def _look(self) -> Look:
        """Return a snapshot of all calls; see `Look.rows`."""


class Watch(Watching):
    """Watches the calls of this process; one snapshot serves all pages.

    Args:
        service: The service.
        most: How many may watch at once.
    """

    def __init__(self, service: Watched, most: int = MOST_WATCHERS) -> None:
        super().__init__(most)
        self._service = service
        self._last = Look(-math.inf, {}, {})
        self._looking = asyncio.Lock()

    async def _look(self) -> Look:
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if now - self._last.at >= _FRESH_SECONDS:
                self._last = await self._look_again(now)
            return self._last

    async def _look_again(self, now: float) -> Look:
        service, before = self._service, self._last.rows
        rows: dict[str, dict[str, Any]] = {}
        levels: dict[str, tuple[int, int]] = {}
        async for name, record in in_turns(tuple(service.calls.records.items())):
            call = service.calls.call(name)
            row = {**_row(record), "can": _can(call)}
            rows[name] = same if (same := before.get(name)) == row else row
            if call is not None and call.counts:
                levels[name] = call.sound.levels()
        readiness = service.readiness()
        rest = {
            "levels": levels,
            "running": readiness.active_sessions,
            "limit": service.calls.max_concurrent_calls,
            "problems": readiness.problems,
            "warnings": readiness.warnings,
        }
        return Look(now, rows, rest)


def _can(call: Call | None) -> list[str] | None:
    """Return what the page may offer for a call's line; None where there is no line (any more)."""
    if call is None or call.ended.is_set():
        return None
    return [name for name, ability in _ACTIONS.items() if ability in call.line.abilities]


def _accepts_gzip(request: web.Request) -> bool:
    return "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "")


def _packer() -> Callable[[bytes], bytes]:
    """Return a function that compresses a stream piece by piece; each piece can be read at once.

    The names of calls come again in each piece, so little remains of them.
    """
    stream = zlib.compressobj(_PACK_LEVEL, zlib.DEFLATED, _GZIP, _PACK_MEMORY)

    def pack(piece: bytes) -> bytes:
        return stream.compress(piece) + stream.flush(zlib.Z_SYNC_FLUSH)

    return pack


def _as_it_is(piece: bytes) -> bytes:
    return piece


def _row(record: CallRecord) -> dict[str, Any]:
    """Return one call as the list on the page shows it; it changes only when the call does."""
    return {
        "id": record.session_id,
        "call": call_id(record),
        "out": record.placed,
        "caller": record.caller_number,
        "called": record.called_number,
        "agent": record.agent_id,
        "state": record.state,
        "status": record.status,
        "outcome": record.agent_status,
        "reason": record.end_reason,
        "result": record.result,
        "started": record.started_at,
        "seconds": None if record.seconds is None else round(record.seconds, 1),
        "response": record.response_times[-1] if record.response_times else None,
        "muted": record.muted,
        "take_over": None if (taken := take_over(record)) is None else taken.shown,
        "listeners": record.listening,
    }


def page_routes(
    access: Access, watch: Watching, *, features: dict[str, bool], price: str
) -> list[web.RouteDef]:
    """Return what is served for the page.

    Args:
        access: Who may ask.
        watch: What tells it of all calls.
        features: What this service has: `log` and `recordings`.
        price: What a minute with an agent costs: `0.10 EUR`; empty: nobody says.
    """
    amount, _, currency = price.partition(" ")
    about = {
        "version": __version__,
        "features": features,
        "price": {"amount": float(amount), "currency": currency} if price else None,
    }

    async def index(request: web.Request) -> web.Response:
        return _send(request, _INDEX)

    async def file(request: web.Request) -> web.Response:
        return _send(request, request.match_info["file"])

    async def me(request: web.Request) -> web.Response:
        told = who(request[REQUEST_KEY])
        return web.json_response({**told, **about})

    return [
        web.get("/", index),
        web.post("/page/sign-in", access.sign_in),
        web.post("/page/sign-out", access.sign_out),
        web.get("/page/me", me),
        web.get("/page/watch", watch.serve),
        web.get("/page/{file}", file),
    ]
