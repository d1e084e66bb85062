"""Errors of the HTTP interface as problem details (RFC 9457), each with a stable `code`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE: Final = "application/problem+json"

_BAD, _NOT_FOUND, _CONFLICT = (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT)
_UNUSABLE, _LATER = HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE
_UPSTREAM = HTTPStatus.BAD_GATEWAY

CODES: Final[Mapping[str, tuple[HTTPStatus, str]]] = {
    "bad_request": (_BAD, "The request is not well-formed HTTP."),
    "invalid_json": (_BAD, "The body is not JSON."),
    "invalid_header": (_BAD, "A header has a value that cannot be used."),
    "invalid_cursor": (_BAD, "The cursor is none that a page has given."),
    "unauthorized": (HTTPStatus.UNAUTHORIZED, "The API key is missing or wrong."),
    "forbidden": (HTTPStatus.FORBIDDEN, "The API key's scope does not allow this."),
    "forbidden_origin": (HTTPStatus.FORBIDDEN, "A page of another site must not use this."),
    "not_found": (_NOT_FOUND, "There is nothing at this path."),
    "session_not_found": (_NOT_FOUND, "There is no such session, or it ended a minute ago."),
    "call_not_found": (_NOT_FOUND, "The call log has no such call."),
    "no_such_channel": (_NOT_FOUND, "No channel with this id is waiting in the application."),
    "method_not_allowed": (HTTPStatus.METHOD_NOT_ALLOWED, "The path has no such method."),
    "not_acceptable": (HTTPStatus.NOT_ACCEPTABLE, "The service has no answer in that format."),
    "session_exists": (_CONFLICT, "There already is a session with this id."),
    "not_talking": (_CONFLICT, "The call is not in a state in which this is possible."),
    "already_transferring": (_CONFLICT, "The call is already being transferred."),
    "busy": (_CONFLICT, "The call is doing something else that has to end first."),
    "asterisk": (_CONFLICT, "Asterisk refused it."),
    "line": (_CONFLICT, "The far end of a line that is not Asterisk's refused it."),
    "not_recorded": (_CONFLICT, "Calls are not recorded, or there is no room for it."),
    "not_finished": (_CONFLICT, "The call is still going on, or its recording is being finished."),
    "no_recording": (_NOT_FOUND, "There is no recording of such a call."),
    "body_too_large": (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is over 64 KiB."),
    "body_too_late": (HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive within 10 seconds."),
    "head_too_late": (
        HTTPStatus.REQUEST_TIMEOUT,
        "The request's head did not arrive within 10 seconds.",
    ),
    "unsupported_media_type": (
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "The body's content type is not application/json.",
    ),
    "invalid_request": (_UNUSABLE, "Fields are missing, unknown or have values out of range."),
    "invalid_number": (_UNUSABLE, "The number cannot be called."),
    "audio_url": (_UNUSABLE, "The sound of the call may not be fetched from there."),
    "bad_variable": (_UNUSABLE, "The callee's channel may not be given this."),
    "bad_target": (_UNUSABLE, "The call cannot be transferred to this."),
    "bad_digits": (_UNUSABLE, "Keys are 0 to 9, A to D, * and #."),
    "no_agent_id": (_CONFLICT, "No agent is named, and the settings have none."),
    "no_such_way": (_CONFLICT, "None of the service's ways in can do this."),
    "no_call_log": (_CONFLICT, "No calls are kept: DATABASE_URL is empty."),
    "call_running": (_CONFLICT, "The call has not ended yet."),
    "idempotency_mismatch": (_CONFLICT, "The Idempotency-Key was used with another body."),
    "rate_limited": (HTTPStatus.TOO_MANY_REQUESTS, "Too many requests, or calls, per second."),
    "quota": (HTTPStatus.TOO_MANY_REQUESTS, "A limit of today's minutes or calls is reached."),
    "internal": (HTTPStatus.INTERNAL_SERVER_ERROR, "The request failed; the log says why."),
    "capacity": (_LATER, "All places for calls are taken."),
    "queue_timeout": (_LATER, "No place became free within wait_seconds."),
    "precall_timeout": (_LATER, "The pre-call service did not answer in time."),
    "precall_unreachable": (_LATER, "The pre-call service cannot be reached."),
    "precall_status": (_UPSTREAM, "The pre-call service answered with an error."),
    "precall_too_long": (_UPSTREAM, "The pre-call service's answer is too long."),
    "precall_malformed": (_UPSTREAM, "The pre-call service's answer cannot be used."),
    "draining": (_LATER, "The service is stopping."),
    "worker_away": (_LATER, "The process that has the call is being replaced."),
    "not_connected": (_LATER, "The telephone system is not connected."),
    "call_log_unavailable": (_LATER, "The call log cannot be read just now."),
    "too_many_exports": (_LATER, "As many exports run as may at once."),
    "too_many_connections": (_LATER, "All connections that the service allows are open."),
    "too_many_streams": (_LATER, "All streams that a session may have are open."),
}
"""Every code with its HTTP status and what it means.

What the description of the interface forbids is 400 or 422, and stays so however often it is tried.
What it allows, but not as things are now, is 409.
"""

_RETRY_SECONDS: Final = {
    "call_log_unavailable": 5.0,
    "too_many_exports": 10.0,
    "too_many_streams": 5.0,
    "too_many_connections": 5.0,
    "capacity": 5.0,
    "worker_away": 1.0,
    "rate_limited": 1.0,
}


class FieldError(BaseModel):
    """What is wrong with one field."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(description="Its name, with dots to fields within fields.")
    message: str


class ProblemDetails(BaseModel):
    """Why a request failed (RFC 9457)."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="Always about:blank; go by the code.")
    title: str = Field(description="The phrase of the HTTP status.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="A sentence for people.")
    code: str = Field(description="A stable slug that programs can go by.")
    request_id: str = Field(description="As in X-Request-ID and in the log.")
    errors: list[FieldError] | None = Field(
        default=None, description="With invalid_request: what is wrong with which field."
    )


class Problem(Exception):
    """A request cannot be granted.

    Args:
        code: One of `CODES`; any other is answered with `status`.
        detail: A sentence for people; None takes the code's own.
        status: For a code that is not in `CODES`.
        retry_after: Seconds after which it may be granted.
        headers: More headers for the answer.
        errors: What is wrong with which field.
        closes: The connection is closed after the answer.
    """

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        *,
        status: HTTPStatus = HTTPStatus.CONFLICT,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[FieldError] = (),
        closes: bool = False,
    ) -> None:
        self.code = code
        self.status, meaning = CODES.get(code, (status, f"{status.phrase}."))
        self.detail = meaning if detail is None else detail
        self.errors = errors
        self.closes = closes
        self.headers = dict(headers or {})
        if retry_after is None:
            retry_after = _RETRY_SECONDS.get(code)
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
        super().__init__(self.detail)

    def body(self, request_id: str) -> bytes:
        """Return the problem details as JSON."""
        body: dict[str, object] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            body["errors"] = [error.model_dump() for error in self.errors]
        return orjson.dumps(body)

    def response(self, request_id: str) -> web.Response:
        """Return the `application/problem+json` answer."""
        response = web.Response(
            status=self.status.value,
            body=self.body(request_id),
            content_type=MEDIA_TYPE,
            headers=self.headers,
        )
        if self.closes:
            response.force_close()
        return response
