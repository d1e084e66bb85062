from __future__ import annotations

import pytest

from ari_app.agent.elevenlabs import errors
from ari_app.agent.elevenlabs.closing import classify
from ari_app.errors import AgentError


@pytest.mark.parametrize(
    ("status", "kind", "code", "retryable"),
    [
        (401, errors.AgentUnauthorized, "agent_unauthorized", False),
        (403, errors.AgentUnauthorized, "agent_unauthorized", False),
        (404, errors.AgentNotFound, "agent_not_found", False),
        (400, errors.AgentRejected, "agent_rejected", False),
        (422, errors.AgentRejected, "agent_rejected", False),
        (408, errors.AgentTimeout, "agent_timeout", True),
        (429, errors.AgentRateLimited, "agent_rate_limited", True),
        (500, errors.AgentUnavailable, "agent_unavailable", True),
        (503, errors.AgentUnavailable, "agent_unavailable", True),
        (302, errors.AgentUnavailable, "agent_unavailable", True),
    ],
)
def test_http_statuses(status: int, kind: type[AgentError], code: str, retryable: bool) -> None:
    error = errors.error_from_status(status)
    assert type(error) is kind
    assert (error.code, error.retryable) == (code, retryable)
    assert f"HTTP {status})" in str(error)


@pytest.mark.parametrize(
    ("word", "quoted"),
    [("invalid_api_key", True), ("Key sk_123 is wrong", False), (7, False), ("a" * 65, False)],
)
def test_only_a_plain_slug_of_the_answer_is_quoted(word: object, quoted: bool) -> None:
    assert (str(word) in str(errors.error_from_status(401, word))) is quoted


def test_a_refusal_takes_code_and_hope_from_the_close() -> None:
    error = errors.AgentRefused(classify(3008, "too many concurrent connections"))
    assert (error.code, error.retryable) == ("agent_limit", True)
    assert error.close.code == 3008
    assert "too many concurrent connections" in str(error)


@pytest.mark.parametrize(
    ("status", "word", "kind", "code", "retryable"),
    [
        # https://help.elevenlabs.io/hc/en-us/articles/19572237925521 and 19571824571921
        (401, "quota_exceeded", errors.AgentQuotaUsedUp, "agent_quota", False),
        (429, "too_many_concurrent_requests", errors.AgentRateLimited, "agent_limit", True),
        (429, "system_busy", errors.AgentRateLimited, "agent_rate_limited", True),
        (401, "invalid_api_key", errors.AgentUnauthorized, "agent_unauthorized", False),
        (401, "missing_permissions", errors.AgentUnauthorized, "agent_unauthorized", False),
    ],
)
def test_a_quota_or_a_limit_is_told_from_a_wrong_key(
    status: int, word: str, kind: type[AgentError], code: str, retryable: bool
) -> None:
    error = errors.error_from_status(status, word)
    assert type(error) is kind
    assert (error.code, error.retryable) == (code, retryable)
    assert word in str(error)
