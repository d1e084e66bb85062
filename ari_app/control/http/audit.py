"""Who has asked for what change, and what became of it: for the log, and for the audit file."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel

from ari_app.control.http.middleware import (
    IS_LOGGED,
    KEY_NAME,
    PROBLEM_CODE,
    READING,
    REQUEST_ID,
    address_of,
    path_served,
)
from ari_app.control.http.server import ClientGone
from ari_app.process.logs import mask_number
from ari_app.records.hiding import NUMBERS, hide_numbers

log = structlog.get_logger(__name__)

_ASKED: Final = web.RequestKey("asked", BaseModel)
CALL: Final = web.RequestKey("call", str)
"""Which call it has begun."""

_NUMBERS: Final = frozenset({"called_number", "caller_number", "to", "endpoint"})
_TOLD: Final = _NUMBERS | {
    *("agent_id", "call_id", "mode", "reason", "on", "muted", "kind", "amd", "record"),
}
"""The fields of a body that are written down. Words, keys, variables, and fields of the future are
not: they may be secret."""


PASSED_ON: Final = web.RequestKey("passed_on", bool)
"""Set where another process of ours answers the request, and writes it down."""


def note_asked(request: web.Request, body: BaseModel) -> None:
    """Keep a request's body with it, once that has been read."""
    request[_ASKED] = body


class AuditLog(Protocol):
    """The file that entries are written to."""

    def write(self, entry: Mapping[str, Any]) -> None:
        """Write an entry; never waits, never raises."""
        ...


def audit(
    file: AuditLog | None,
    *,
    names: Mapping[tuple[str, str], str],
    also: Collection[tuple[str, str]] = (),
    hidden: Collection[str] = (),
) -> Middleware:
    """Return a middleware that writes down each change that a known key has asked for.

    It comes before the one that answers failures, so it sees the outcome of each request.

    Args:
        file: The audit file; None: only the log is written.
        names: The operations' names, by method and path as registered.
        also: Operations that are written down though they only read.
        hidden: What must not be kept, as `RECORDS_HIDE` says.
    """

    @web.middleware
    async def written_down(request: web.Request, handler: Handler) -> web.StreamResponse:
        clock = asyncio.get_running_loop().time
        began, status, result = clock(), 0, "broken_off"
        try:
            response = await handler(request)
            status = response.status
            result = request.get(PROBLEM_CODE, "ok")
            return response
        except ClientGone:
            result = "client_gone"
            raise
        finally:
            path = path_served(request)
            where = (request.method, path or "")
            is_told = request.method not in READING or where in also
            known = KEY_NAME in request and PASSED_ON not in request
            if known and is_told and path is not None:
                tell(request, where, status, result, round(clock() - began, 3))

    def tell(
        request: web.Request, where: tuple[str, str], status: int, result: str, seconds: float
    ) -> None:
        operation = " ".join(where)
        body = request.get(_ASKED)
        asked = {} if body is None else body.model_dump(include=set(_TOLD), exclude_none=True)
        session_id = request.get(CALL) or request.match_info.get("session_id")
        if result == "ok":
            # The request's id is in the same line.
            which = {} if session_id is None else {"session": session_id}
            log.info(
                "http_change", key=request[KEY_NAME], operation=operation, status=status, **which
            )
            request[IS_LOGGED] = True
        if file is not None:
            entry = {
                "key": request[KEY_NAME],
                "address": address_of(request),
                "action": names.get(where, operation),
                "session_id": session_id or getattr(body, "session_id", None),
                "asked": _without_numbers(asked) if NUMBERS in hidden else asked,
                "result": result,
                "status": status,
                "seconds": seconds,
                "operation": operation,
                "request_id": request[REQUEST_ID],
            }
            file.write(entry)

    return written_down


def _without_numbers(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: mask_number(value) if name in _NUMBERS else hide_numbers(value)
        for name, value in asked.items()
    }
