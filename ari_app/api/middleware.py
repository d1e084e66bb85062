"""What every request passes: a request id, problem details, and who may ask."""

from __future__ import annotations

import asyncio
import hmac
import re
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from ari_app.addresses import is_loopback
from ari_app.api.problems import Problem
from ari_app.api.rates import RequestRates, WrongKeys
from ari_app.call.control import ControlRefused, NotPossible, SessionNotFound

log = structlog.get_logger(__name__)

REQUEST_ID_HEADER: Final = "X-Request-ID"
REQUEST_ID: Final = web.RequestKey("request_id", str)

OnRefused = Callable[[str], None]
"""Called with the code of what was refused."""

_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_USABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
# Asked every few seconds by machines.
_QUIET_PATHS: Final = frozenset({"/health/live", "/health/ready", "/metrics"})


# Spelled out, for Python renames statuses now and then (413 in 3.13), and these codes are stable.
_CODES = {
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
}


@web.middleware
async def request_ids(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every request an id, the client's own where it is usable, and log the request."""
    given = request.headers.get(REQUEST_ID_HEADER, "")
    request_id = given if _USABLE_ID.match(given) else uuid.uuid4().hex
    request[REQUEST_ID] = request_id
    with structlog.contextvars.bound_contextvars(request=request_id):
        response = await handler(request)
        # Whoever asks too often would fill the log as well; the metrics count it.
        quiet = request.path in _QUIET_PATHS or response.status == HTTPStatus.TOO_MANY_REQUESTS
        write = log.debug if quiet else log.info
        write("http_request", method=request.method, path=request.path, status=response.status)
    return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer; a signal, because a stream's are sent before its handler ends."""
    # A request that was not even HTTP has passed no middleware.
    response.headers[REQUEST_ID_HEADER] = request.get(REQUEST_ID) or uuid.uuid4().hex
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every failure with problem details."""
    try:
        return await handler(request)
    except Problem as problem:
        found = problem
    except ControlRefused as error:
        found = Problem(error.code, str(error), retry_after=error.retry_after)
    except (SessionNotFound, NotPossible) as error:
        found = Problem(error.code, str(error))
    except web.HTTPException as error:
        status = HTTPStatus(error.status)
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        code = _CODES.get(status, f"http_{status.value}")
        found = Problem(code, status=status, headers=headers)
    except Exception:
        log.exception("http_request_failed", method=request.method, path=request.path)
        found = Problem("internal")
    return found.response(request[REQUEST_ID])


def rate_limits(rates: RequestRates, on_refused: OnRefused) -> Middleware:
    """Refuse what comes too often from one address, and close its connection.

    Args:
        rates: How often is too often.
        on_refused: Told of each.
    """

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        now, changes = asyncio.get_running_loop().time(), request.method not in _READING
        if (wait := rates.take(client_of(request), now, changes=changes)) > 0:
            raise _too_often(wait, on_refused)
        return await handler(request)

    return limit


def _too_often(wait: float, on_refused: OnRefused) -> Problem:
    on_refused("rate_limited")
    # It comes back through the door, where turning it away costs next to nothing.
    return Problem("rate_limited", retry_after=wait, closes=True)


def client_of(request: web.Request) -> str:
    """The address that a request came from: the last one, which cannot be made up."""
    return request.remote or ""


def authentication(
    api_key: str | None,
    open_paths: frozenset[str],
    sign_in: Callable[[web.Request], web.Response | None],
    on_refused: OnRefused,
) -> Middleware:
    """Ask for the key, compared in constant time, on all but ``open_paths``.

    Without a key only programs of this machine can ask, but so can every page in its browser:
    those are recognised by ``Origin``, or by a ``Host`` that is not this machine, on every path.

    Args:
        api_key: The key; None asks for none.
        open_paths: Where none is asked for.
        sign_in: What a browser is answered that has brought no key; None answers as to everybody.
        on_refused: Told of each that is refused.
    """
    wanted = None if api_key is None else api_key.encode()
    wrong_keys = WrongKeys()

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if wanted is None:
            if not _is_from_here(request):
                on_refused("forbidden_origin")
                raise Problem("forbidden_origin")
        elif request.path not in open_paths:
            client, now = client_of(request), asyncio.get_running_loop().time()
            given = given_key(request)
            if given and (wait := wrong_keys.wait(client, now)) > 0:
                raise _too_often(wait, on_refused)
            if not hmac.compare_digest(given, wanted):
                if (page := sign_in(request)) is not None:
                    return page
                on_refused("unauthorized")
                if given:
                    wrong_keys.wrong(client, now)
                raise Problem(
                    "unauthorized",
                    "Send the API key as X-API-Key, or as Authorization: Bearer.",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            wrong_keys.right(client)
        return await handler(request)

    return authenticate


def given_key(request: web.Request) -> bytes:
    """The key that a request brings; empty when it brings none."""
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = request.headers.get("X-API-Key") or (bearer if scheme.lower() == "bearer" else "")
    return given.strip().encode("utf-8", "surrogateescape")


def _is_from_here(request: web.Request) -> bool:
    origin = request.headers.get("Origin")
    try:
        host = urlsplit(f"//{request.host}").hostname or ""
        same = origin is None or urlsplit(origin).netloc == request.host
    except ValueError:
        return False
    return same and is_loopback(host)
