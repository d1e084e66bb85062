"""Errors of the HTTP interface as problem details (RFC 9457), each with a stable ``code``."""

from __future__ import annotations

from http import HTTPStatus

import orjson
from aiohttp import web


def problem(
    status: HTTPStatus, code: str, detail: str, *, headers: dict[str, str] | None = None
) -> web.Response:
    """An ``application/problem+json`` answer.

    Args:
        status: The HTTP status.
        code: A stable slug that programs can go by.
        detail: A sentence for people.
        headers: More headers.
    """
    body = {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": detail,
        "code": code,
    }
    return web.Response(
        status=status.value,
        body=orjson.dumps(body),
        content_type="application/problem+json",
        headers=headers,
    )
