"""The handlers of the call log: calls that have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import orjson
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from ari_app.control.control import CallControl
from ari_app.control.http.call_models import (
    CSV,
    JSON,
    JSON_LINES,
    TEXT,
    VTT,
    CallsQuery,
    ExportQuery,
    TranscriptQuery,
)
from ari_app.control.http.models import ActionResponse
from ari_app.control.http.problems import Problem
from ari_app.control.http.requests import read_nothing, validate
from ari_app.control.refusals import SessionNotFound
from ari_app.process.loop import compute
from ari_app.records.rows import csv_head, csv_row, summary
from ari_app.records.store.log import CallLog, CallLogUnavailable
from ari_app.records.transcript import as_json, as_text, as_vtt

log = structlog.get_logger(__name__)

_FORMATS: Final = {"json": JSON, "txt": TEXT, "vtt": VTT, "csv": CSV, "jsonl": JSON_LINES}
_MAX_EXPORTS: Final = 4
_PIECE_BYTES: Final = 32 * 1024
"""So much is written at once; calls that run have their turn in between."""

Document = dict[str, Any]
Query = TypeVar("Query", bound=BaseModel)


class LogView(Protocol):
    """The parts of the service that these handlers need."""

    @property
    def call_log(self) -> CallLog | None:
        """What is kept of calls; None: nothing is."""
        ...

    @property
    def control(self) -> CallControl:
        """Knows the calls that run."""
        ...

    async def deliveries(self, session_id: str) -> list[dict[str, Any]]:
        """Return what others were told of a call, and whether they have it."""
        ...


class CallHandlers:
    """One method for each operation on the call log.

    Args:
        service: Whose call log.
    """

    def __init__(self, service: LogView) -> None:
        self._service = service
        self._exports = 0

    def by_name(self) -> Mapping[str, Handler]:
        """Return the handlers by the names of `ari_app.control.http.operations.OPERATIONS`."""
        return {
            "list_calls": self.list_calls,
            "export_calls": self.export_calls,
            "get_call": self.get_call,
            "get_transcript": self.get_transcript,
            "delete_call": self.delete_call,
        }

    async def list_calls(self, request: web.Request) -> web.Response:
        """List calls, a page at a time."""
        query = read_query(request, CallsQuery)
        page = await self._log().page(query.wanted(), query.limit, query.cursor)
        return _json({"calls": [summary(call) for call in page.calls], "cursor": page.cursor})

    async def get_call(self, request: web.Request) -> web.Response:
        """Show all that is kept of a call."""
        session_id = request.match_info["session_id"]
        document = await self._find(session_id)
        return _json({**document, "webhooks": await self._service.deliveries(session_id)})

    async def get_transcript(self, request: web.Request) -> web.Response:
        """Show what was said in a call."""
        query = read_query(request, TranscriptQuery)
        kind = _media_type(request, query.format, (JSON, TEXT, VTT))
        document = await self._find(request.match_info["session_id"])
        if kind == JSON:
            return _json(as_json(document))
        # Hours of talk take longer than a frame may wait.
        text = await compute(as_text if kind == TEXT else as_vtt, document)
        return web.Response(text=text, content_type=kind, charset="utf-8")

    async def delete_call(self, request: web.Request) -> web.Response:
        """Remove all that is kept of a call."""
        await read_nothing(request)
        session_id = request.match_info["session_id"]
        call_log = self._log()
        if self._has_ended(session_id) is False:
            raise Problem("call_running", _STILL_RUNS)
        if not await call_log.delete(session_id):
            raise Problem("call_not_found")
        log.info("call_deleted", session=session_id)
        told = ActionResponse(
            success=True, session_id=session_id, message="Nothing is kept of the call any more."
        )
        return web.Response(text=told.model_dump_json(), content_type=JSON)

    async def export_calls(self, request: web.Request) -> web.StreamResponse:
        """Stream all calls that fit."""
        query = read_query(request, ExportQuery)
        kind = _media_type(request, query.format, (CSV, JSON_LINES))
        call_log = self._log()
        if self._exports >= _MAX_EXPORTS:
            raise Problem("too_many_exports")
        self._exports += 1
        calls = call_log.export(query.wanted())
        try:
            # What cannot be read at all is said before the answer begins.
            first = await anext(calls, None)
            return await _stream(request, kind, first, calls)
        finally:
            self._exports -= 1
            await _close(calls)

    def _log(self) -> CallLog:
        call_log = self._service.call_log
        if call_log is None:
            raise Problem("no_call_log")
        return call_log

    async def _find(self, session_id: str) -> Document:
        call_log = self._log()
        document = await call_log.find(session_id)
        if document is not None:
            return document
        match self._has_ended(session_id):
            case False:
                raise Problem("call_running", _STILL_RUNS)
            case True:
                # It may be on its way.
                await call_log.settle()
                document = await call_log.find(session_id)
        if document is None:
            raise Problem("call_not_found")
        return document

    def _has_ended(self, session_id: str) -> bool | None:
        """Return whether a call of the last minute has ended; None: there is none."""
        try:
            return self._service.control.record(session_id).ended_at is not None
        except SessionNotFound:
            return None


_STILL_RUNS: Final = "The call has not ended yet; /sessions shows it."


def read_query(request: web.Request, model: type[Query]) -> Query:
    """Return what stands after a path's question mark; what has no value is not there.

    Raises:
        Problem: `invalid_request`, which names what is wrong.
    """
    given: dict[str, str] = {}
    for name, value in request.query.items():
        if name in given:
            raise Problem("invalid_request", f"{name[:64]} is there twice.")
        given[name] = value
    known = {field.alias or name for name, field in model.model_fields.items()}
    return validate(
        {name: value for name, value in given.items() if value or name not in known}, model
    )


def _media_type(request: web.Request, wanted: str | None, offered: tuple[str, ...]) -> str:
    """Return what to answer with: what was named, or the first that is accepted."""
    if wanted is not None:
        return _FORMATS[wanted]
    accepted = [_accepted(part) for part in request.headers.get("Accept", "*/*").split(",")]
    for quality, kind in sorted(accepted, key=lambda each: -each[0]):
        for each in offered:
            if quality > 0 and kind in (each, "*/*", each.partition("/")[0] + "/*"):
                return each
    raise Problem("not_acceptable", f"It can be had as {', '.join(offered)}.")


def _accepted(part: str) -> tuple[float, str]:
    kind, _, parameters = part.partition(";")
    quality = 1.0
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
    return quality, kind.strip().lower()


async def _stream(
    request: web.Request, kind: str, first: Document | None, rest: AsyncIterator[Document]
) -> web.StreamResponse:
    ending = "csv" if kind == CSV else "jsonl"
    response = web.StreamResponse(
        headers={
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Disposition": f'attachment; filename="calls.{ending}"',
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(request)
    write: Callable[[Document], bytes] = _csv_line if kind == CSV else _json_line
    piece = bytearray(csv_head().encode() if kind == CSV else b"")
    try:
        if first is not None:
            piece += write(first)
            async for document in rest:
                piece += write(document)
                if len(piece) >= _PIECE_BYTES:
                    await response.write(bytes(piece))
                    piece.clear()
                    await asyncio.sleep(0)
        await response.write(bytes(piece))
        await response.write_eof()
    except CallLogUnavailable as error:
        # Without the last piece whoever reads knows that something is missing.
        log.warning("export_broken_off", error=str(error))
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        log.info("export_not_read_to_its_end")
    return response


def _csv_line(document: Document) -> bytes:
    return csv_row(document).encode()


def _json_line(document: Document) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


async def _close(calls: AsyncIterator[Document]) -> None:
    close = getattr(calls, "aclose", None)
    if close is not None:
        await close()


def _json(value: object) -> web.Response:
    return web.Response(body=orjson.dumps(value), content_type=JSON)
