"""The service's own HTTP interface: calls, health and metrics."""

from __future__ import annotations

from aiohttp import hdrs, web

from ari_app.api.connections import mark_heads
from ari_app.api.docs_page import sign_in
from ari_app.api.handlers import Handlers, ServiceView
from ari_app.api.middleware import (
    add_headers,
    authentication,
    problems,
    rate_limits,
    request_ids,
)
from ari_app.api.operations import OPEN_PATHS, OPERATIONS
from ari_app.api.rates import RequestRates

_MAX_BODY_BYTES = 64 * 1024


def build_web_app(
    service: ServiceView,
    *,
    api_key: str | None,
    public_url: str | None = None,
    number_pattern: str | None = None,
    rates: RequestRates | None = None,
) -> web.Application:
    """The aiohttp application.

    Args:
        service: What is shown and acted on.
        api_key: Asked for on everything but health and metrics; None asks for nothing.
        public_url: How others reach the interface, for the URLs in its answers; None: as the
            request at hand did.
        number_pattern: What a number to call must match as a whole; None is E.164.
        rates: How often each address may ask; None is any number of times.
    """
    on_refused = service.metrics.http_was_refused
    app = web.Application(
        middlewares=[
            mark_heads,
            request_ids,
            problems,
            rate_limits(rates or RequestRates(), on_refused),
            authentication(api_key, OPEN_PATHS, sign_in, on_refused),
        ],
        client_max_size=_MAX_BODY_BYTES,
    )
    app.on_response_prepare.append(add_headers)

    async def end_streams(_: web.Application) -> None:
        service.feed.close()

    app.on_shutdown.append(end_streams)
    handlers = Handlers(
        service,
        keyed=api_key is not None,
        public_url=public_url,
        number_pattern=number_pattern,
    ).by_name()
    for operation in OPERATIONS:
        app.router.add_route(operation.method, operation.path, handlers[operation.name])
        if operation.is_open:
            # What watches a service often asks so.
            app.router.add_route(hdrs.METH_HEAD, operation.path, handlers[operation.name])
    return app
