"""The middleware of every request: request ids, problem details, limits of rates."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from ari_app.control.http.problems import Problem
from ari_app.control.http.rates import RequestRates
from ari_app.control.http.server import ClientGone, opens_connection
from ari_app.control.refusals import ControlRefused, NotPossible, SessionNotFound
from ari_app.errors import forget_frames
from ari_app.process.addresses import is_loopback
from ari_app.records.store.log import CallLogUnavailable
from ari_app.records.store.query import BadCursor
from linekit.listener import counted_as

log = structlog.get_logger(__name__)

REQUEST_ID_HEADER: Final = "X-Request-ID"
REQUEST_ID: Final = web.RequestKey("request_id", str)
KEY_NAME: Final = web.RequestKey("key_name", str)
"""Whose key a request came with, once it is known."""
PROBLEM_CODE: Final = web.RequestKey("problem_code", str)
"""Why a request has failed, once it has."""
FOREIGN_PAGE: Final = web.RequestKey("foreign_page", bool)
IS_LOGGED: Final = web.RequestKey("is_logged", bool)
"""The log has a line that says more of the request than what every request gets."""

OnRefused = Callable[[str], None]
"""Called with the code of what was refused."""

READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD})
_USABLE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}\Z")
_TOKEN: Final = "{token}"
_OF_PROXIES: Final = (hdrs.FORWARDED, hdrs.X_FORWARDED_FOR, hdrs.X_FORWARDED_HOST, hdrs.VIA)
# Asked every few seconds by machines, and the page's files: fifteen of them whenever it is opened.
_QUIET_PATHS: Final = frozenset({"/health/live", "/health/ready", "/metrics", "/", "/page/{file}"})


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
        quiet = (
            path_served(request) in _QUIET_PATHS
            # Whoever asks too often would fill the log as well; the metrics count it.
            or response.status == HTTPStatus.TOO_MANY_REQUESTS
            or IS_LOGGED in request
        )
        write = log.debug if quiet else log.info
        who = {"key": request[KEY_NAME]} if KEY_NAME in request else {}
        path = path_told(request)
        write("http_request", method=request.method, path=path, status=response.status, **who)
    return response


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers of every answer; a signal, because a stream's are sent before its handler
    ends."""
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
    except CallLogUnavailable as error:
        found = Problem(error.code, str(error))
    except (BadCursor, SessionNotFound, NotPossible) as error:
        found = Problem(error.code, str(error))
    except ClientGone:
        log.info("http_client_gone", method=request.method, path=path_told(request))
        raise
    except web.HTTPException as error:
        status = HTTPStatus(error.status)
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        code = _CODES.get(status, f"http_{status.value}")
        found = Problem(code, status=status, headers=headers)
        # aiohttp keeps with the request what it raises where nothing is served.
        forget_frames(error)
    except Exception:
        log.exception("http_request_failed", method=request.method, path=path_told(request))
        found = Problem("internal")
    request[PROBLEM_CODE] = found.code
    try:
        return found.response(request[REQUEST_ID])
    finally:
        # It knows this frame from its traceback: with it the frame would keep the request, and the
        # connection, until a collector comes.
        del found


def rate_limits(
    rates: RequestRates,
    on_refused: OnRefused,
    *,
    keyless: bool,
    checked_paths: frozenset[str],
) -> Middleware:
    """Refuse what comes too often from one address, and close its connection.

    A page of another site, in a browser at that address, is somebody else: whatever it does uses
    up nothing of what the programs there may ask.

    Args:
        rates: How often is too often.
        on_refused: Told of each.
        keyless: Only programs of this machine are to ask.
        checked_paths: Where whoever serves them checks by itself who comes. Only those who are
            refused there are limited: behind a proxy they have the address of those who are not.
    """

    def limit_refused(request: web.Request, status: int) -> None:
        if not _is_refusal(status):
            return
        now = asyncio.get_running_loop().time()
        if (wait := rates.take(f"{counted_address(request)} refused", now, changes=True)) > 0:
            raise too_often(wait, on_refused)

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        now, changes = asyncio.get_running_loop().time(), request.method not in READING
        request[FOREIGN_PAGE] = foreign = _is_foreign_page(request, keyless=keyless)
        if foreign and opens_connection(request):
            # It was taken for one of the address' own when it connected.
            rates.give_back(counted_address(request))
        if path_served(request) in checked_paths:
            try:
                response = await handler(request)
            except (web.HTTPException, Problem) as refusal:
                limit_refused(request, refusal.status)
                raise
            # A worker's answer, which the front passes on.
            if not response.prepared:
                limit_refused(request, response.status)
            return response
        if (wait := rates.take(client_of(request), now, changes=changes)) > 0:
            raise too_often(wait, on_refused)
        return await handler(request)

    return limit


def _is_refusal(status: int) -> bool:
    """Return whether what came was wrong; there being no room for what may be right is another
    matter."""
    return 400 <= status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS


def too_often(wait: float, on_refused: OnRefused) -> Problem:
    on_refused("rate_limited")
    # It comes back through the door, where turning it away costs next to nothing.
    return Problem("rate_limited", retry_after=wait, closes=True)


ADDRESS: Final = web.RequestKey("address", str)
"""Where a request came from that another process of ours has passed on."""


def address_of(request: web.Request) -> str:
    """Return the address that a request came from: the last one, which cannot be made up."""
    return request.get(ADDRESS) or request.remote or ""


def client_of(request: web.Request) -> str:
    """Say who asks, as it is limited: what an address counts as, or the foreign pages in the
    browsers there."""
    counted = counted_address(request)
    return f"{counted} page" if request.get(FOREIGN_PAGE) else counted


def counted_address(request: web.Request) -> str:
    """Return what the address of a request counts as where each has a limit."""
    return counted_as(address_of(request))


def path_served(request: web.Request) -> str | None:
    """Return the path as it was registered, with the names of its parts; None: there is none."""
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical


def path_told(request: web.Request) -> str:
    """Return the path that a request came with, as the log may have it.

    A token is a secret for as long as nobody has come for it, also where it came by a method, or
    behind or before something, that is served nowhere.
    """
    path = request.path
    for resource in request.app.router.resources():
        before, token, _ = resource.canonical.partition(_TOKEN)
        if token and (at := path.find(before)) >= 0:
            return path[:at] + before + token
    return path


def _is_foreign_page(request: web.Request, *, keyless: bool) -> bool:
    """Return whether a page of another site asks, through a browser.

    The browser says so itself (`Sec-Fetch-Site`), to every address of this machine and to every
    `https` one. Where only this machine is to ask, it also shows in an `Origin`, or in a
    `Host` that is not this machine, and what a proxy has passed on counts as much. Elsewhere those
    two may be a proxy's, so there they count only for a WebSocket of which the browser says
    nothing else: a page of another port of this host has our cookie sent with it (RFC 6265, 8.5),
    and may read it.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site in ("cross-site", "same-site"):
        return not _is_visit(request)
    if keyless:
        return not _is_from_here(request)
    is_socket = request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"
    return is_socket and site is None and not _is_of_this_host(request)


def _is_visit(request: web.Request) -> bool:
    """Return whether somebody follows a link to here: nothing of the answer reaches the page
    before."""
    return (
        request.method in READING
        and request.headers.get("Sec-Fetch-Mode") == "navigate"
        and request.headers.get("Sec-Fetch-Dest") == "document"
        and "Origin" not in request.headers
    )


def _is_from_here(request: web.Request) -> bool:
    try:
        host = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return False
    return _is_of_this_host(request) and is_loopback(host) and not was_passed_on(request)


def was_passed_on(request: web.Request) -> bool:
    """Return whether a proxy, or a tunnel, says that it has passed this on: then it may be from
    anywhere, whatever its `Host` was changed to."""
    return any(name in request.headers for name in _OF_PROXIES)


def _is_of_this_host(request: web.Request) -> bool:
    """Return whether the page that asks, if it is one, is of the host and port that it asks."""
    origin = request.headers.get(hdrs.ORIGIN)
    try:
        return origin is None or urlsplit(origin).netloc == request.host
    except ValueError:
        return False
