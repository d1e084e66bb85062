"""The service's own HTTP interface: health, metrics and the calls."""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import Protocol

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel

from ari_app.api.metrics import CONTENT_TYPE, Metrics
from ari_app.api.models import Readiness, SessionList, detail, summary
from ari_app.api.problems import problem
from ari_app.call.manager import SessionManager

log = structlog.get_logger(__name__)

_OPEN_PATHS = frozenset({"/health/live", "/health/ready", "/metrics"})
_MAX_BODY_BYTES = 64 * 1024
# Spelled out, for Python renames statuses now and then (413 in 3.13), and these codes are stable.
_CODES = {
    HTTPStatus.BAD_REQUEST: "bad_request",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
}


class ServiceView(Protocol):
    """What the interface shows of the service."""

    @property
    def manager(self) -> SessionManager:
        """The calls."""
        ...

    @property
    def metrics(self) -> Metrics:
        """The metrics."""
        ...

    def readiness(self) -> Readiness:
        """Whether new calls are taken."""
        ...


def build_web_app(service: ServiceView, *, api_key: str | None) -> web.Application:
    """The aiohttp application.

    Args:
        service: What is shown.
        api_key: Asked for on everything but health and metrics; None asks for nothing.
    """
    routes = _Routes(service)
    app = web.Application(
        middlewares=[_problems, _authentication(api_key)], client_max_size=_MAX_BODY_BYTES
    )
    app.router.add_get("/health/live", routes.live)
    app.router.add_get("/health/ready", routes.ready)
    app.router.add_get("/metrics", routes.metrics)
    app.router.add_get("/sessions", routes.sessions)
    app.router.add_get("/sessions/{session_id}", routes.session)
    return app


class _Routes:
    def __init__(self, service: ServiceView) -> None:
        self._service = service

    async def live(self, request: web.Request) -> web.Response:
        """The process turns."""
        return web.json_response({"status": "live"})

    async def ready(self, request: web.Request) -> web.Response:
        """New calls are taken."""
        readiness = self._service.readiness()
        ok = not readiness.problems
        return _json(readiness, HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE)

    async def metrics(self, request: web.Request) -> web.Response:
        """Prometheus' text format."""
        return web.Response(
            body=self._service.metrics.render(), headers={"Content-Type": CONTENT_TYPE}
        )

    async def sessions(self, request: web.Request) -> web.Response:
        """All calls."""
        manager = self._service.manager
        return _json(
            SessionList(
                active_sessions=manager.get_active_sessions_count(),
                max_concurrent_calls=manager.max_concurrent_calls,
                sessions=[summary(session) for session in manager.sessions.values()],
            )
        )

    async def session(self, request: web.Request) -> web.Response:
        """One call."""
        session = self._service.manager.get_session(request.match_info["session_id"])
        if session is None:
            return problem(
                HTTPStatus.NOT_FOUND,
                "session_not_found",
                "There is no such session; an ended one is kept for 60 seconds.",
            )
        return _json(detail(session))


def _json(model: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(
        status=status.value, text=model.model_dump_json(), content_type="application/json"
    )


def _authentication(api_key: str | None) -> Middleware:
    wanted = None if api_key is None else api_key.encode()

    @web.middleware
    async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
        if wanted is None or request.path in _OPEN_PATHS:
            return await handler(request)
        given = request.headers.get("X-API-Key", "")
        authorization = request.headers.get("Authorization", "")
        if not given and authorization.lower().startswith("bearer "):
            given = authorization[7:].strip()
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted):
            return problem(
                HTTPStatus.UNAUTHORIZED,
                "unauthorized",
                "Send the key in X-API-Key, or as Authorization: Bearer.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return await handler(request)

    return authenticate


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        status = HTTPStatus(error.status)
        if status < HTTPStatus.BAD_REQUEST:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        code = _CODES.get(status, f"http_{status.value}")
        return problem(status, code, f"{status.phrase}.", headers=headers)
    except Exception:
        log.exception("http_request_failed", path=request.path)
        return problem(
            HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The request failed; the log says why."
        )
