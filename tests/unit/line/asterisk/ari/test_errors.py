from __future__ import annotations

import pytest

from ari_app.errors import AgentError, AppError, ConfigError, ControlError, LineError
from ari_app.line.asterisk.ari.errors import (
    AriBadRequest,
    AriConflict,
    AriError,
    AriMalformed,
    AriNotFound,
    AriServerError,
    AriUnauthorized,
    AriUnavailable,
    error_for_status,
)


@pytest.mark.parametrize(
    ("status", "kind", "code", "retryable"),
    [
        (302, AriMalformed, "ari_malformed", False),
        (400, AriBadRequest, "ari_bad_request", False),
        (401, AriUnauthorized, "ari_unauthorized", False),
        (403, AriUnauthorized, "ari_forbidden", False),
        (404, AriNotFound, "ari_not_found", False),
        (409, AriConflict, "ari_conflict", False),
        (412, AriConflict, "ari_conflict", False),
        (418, AriBadRequest, "ari_bad_request", False),
        (422, AriConflict, "ari_conflict", False),
        (500, AriServerError, "ari_server_error", True),
        (501, AriServerError, "ari_server_error", True),
        (503, AriUnavailable, "ari_unavailable", True),
    ],
)
def test_statuses(status: int, kind: type[AriError], code: str, retryable: bool) -> None:
    error = error_for_status(status, "why", method="POST", path="/channels")
    assert type(error) is kind
    assert (error.code, error.retryable, error.status) == (code, retryable, status)
    assert str(error) == f"POST /channels: {status} why"


def test_without_a_request_the_reason_stands_alone() -> None:
    assert str(AriMalformed("event has no type")) == "event has no type"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (AppError, "internal"),
        (ConfigError, "config"),
        (LineError, "line"),
        (ControlError, "control"),
        (AgentError, "agent"),
    ],
)
def test_each_class_has_a_code_and_an_instance_may_have_its_own(
    kind: type[AppError], code: str
) -> None:
    assert (kind("x").code, kind("x").retryable) == (code, False)
    own = kind("x", code="busy", retryable=True)
    assert (own.code, own.retryable, str(own)) == ("busy", True, "x")
