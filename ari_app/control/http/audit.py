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
"""What is told of a body. Words, keys, variables and whatever comes later are not: they may be
secret."""


PASSED_ON: Final = web.RequestKey("passed_on", bool)
"""Another process of ours has the request, and tells."""


def note_asked(request: web.Request, body: BaseModel) -> None:
    """Take down what a request has in its body, once that was read."""
    request[_ASKED] = body


class AuditLog(Protocol):
    """Where entries are kept."""

    def write(self, entry: Mapping[str, Any]) -> None:
        """Keep one; never waits, never raises."""
        ...


def audit(
    file: AuditLog | None,
    *,
    names: Mapping[tuple[str, str], str],
    also: Collection[tuple[str, str]] = (),
    hidden: Collection[str] = (),
) -> Middleware:
    """Return what writes down each change that a known key has asked for.

    It stands outside of what answers failures, so it sees what became of each.

    Args:
        file: Where to; None: in the log alone.
        names: What operations are called, by method and path as registered.
        also: Which of them are told though they only read.
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
            log.info(
                "http_change",
                key=request[KEY_NAME],
                operation=operation,
                session=session_id,
                status=status,
            )
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
