"""What the applications of all our processes have in common: the one that is alone, the front, its
workers, and what other machines ask."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from ari_app.control.http.access import Access
from ari_app.control.http.audit import AuditLog, audit
from ari_app.control.http.keys import Keys, Scope
from ari_app.control.http.middleware import OnRefused, problems, rate_limits, request_ids
from ari_app.control.http.models import Liveness
from ari_app.control.http.openapi import Description, docs_page, sign_in
from ari_app.control.http.operations import OPEN_PATHS, OPERATIONS
from ari_app.control.http.page import PAGE_CHANGES, PAGE_PATHS
from ari_app.control.http.rates import RequestRates
from ari_app.control.http.server import mark_heads

_MAX_BODY_BYTES: Final = 64 * 1024


def new_app(door: Middleware, audited: Middleware, *inner: Middleware) -> web.Application:
    """Make an application that serves nothing yet.

    Args:
        door: Names the request, and says who asks, or leaves that to one of `inner`.
        audited: See `audit_changes`.
        inner: What else stands before the handlers, outermost first; problems that these raise are
            answered as such.
    """
    return web.Application(
        middlewares=[mark_heads, door, audited, problems, *inner], client_max_size=_MAX_BODY_BYTES
    )


def new_public_app(
    keys: Keys,
    audited: Middleware,
    *inner: Middleware,
    checked_paths: frozenset[str],
    rates: RequestRates,
    on_refused: OnRefused,
    sign_in_seconds: float,
) -> tuple[web.Application, Access]:
    """Make an application that serves nothing yet and that anybody can reach.

    Args:
        keys: One of them is asked for on everything but health, metrics and the page's files; none
            asks for nothing.
        audited: See `audit_changes`.
        inner: What else stands before the handlers.
        checked_paths: Where ways in check by themselves who comes.
        rates: How often each address may ask.
        on_refused: Told of each request that is refused.
        sign_in_seconds: How long a browser stays signed in to the page.

    Returns:
        The application, and who may ask.
    """
    access = Access(
        keys,
        open_paths=OPEN_PATHS | PAGE_PATHS,
        checked_paths=checked_paths,
        needs={(each.method, each.path): each.needs for each in OPERATIONS},
        page=sign_in,
        on_refused=on_refused,
        sign_in_seconds=sign_in_seconds,
    )
    limited = rate_limits(rates, on_refused, keyless=not keys, checked_paths=checked_paths)
    return new_app(request_ids, audited, limited, access.middleware(), *inner), access


def audit_changes(file: AuditLog | None, hidden: Collection[str]) -> Middleware:
    """Return what writes down each change that somebody asks for.

    Args:
        file: Where to; None: in the log alone.
        hidden: What must not be kept, as `RECORDS_HIDE` says.
    """
    return audit(
        file,
        names={(each.method, each.path): each.name for each in OPERATIONS} | PAGE_CHANGES,
        also=[(each.method, each.path) for each in OPERATIONS if each.needs > Scope.READ],
        hidden=hidden,
    )


def serve_operations(app: web.Application, handlers: Mapping[str, Handler]) -> None:
    """Add the routes of all operations.

    Args:
        app: Where.
        handlers: By the names of the operations.
    """
    for operation in OPERATIONS:
        app.router.add_route(operation.method, operation.path, handlers[operation.name])
        if operation.is_open or operation.has_head:
            # What watches a service often asks so.
            app.router.add_route(hdrs.METH_HEAD, operation.path, handlers[operation.name])


def of_itself(*, keyed: bool, number_pattern: str | None) -> dict[str, Handler]:
    """Return the handlers, by the names of their operations, of what every process says of itself
    alike.

    Args:
        keyed: The service asks for an API key.
        number_pattern: What a number to call must match as a whole; None is E.164.
    """
    description = Description(keyed=keyed, number_pattern=number_pattern)

    async def live(request: web.Request) -> web.Response:
        return web.json_response(Liveness().model_dump())

    async def openapi(request: web.Request) -> web.Response:
        return await description.answer()

    async def docs(request: web.Request) -> web.Response:
        return docs_page()

    return {"live": live, "openapi": openapi, "docs": docs}
