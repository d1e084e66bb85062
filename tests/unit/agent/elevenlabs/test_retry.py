from __future__ import annotations

import pytest

from ari_app.agent.elevenlabs.client import wait_before_retry
from ari_app.agent.elevenlabs.closing import classify
from ari_app.agent.elevenlabs.errors import AgentRefused, AgentUnavailable, error_from_status


@pytest.mark.parametrize(
    ("status", "retry_after", "left", "wait"),
    [
        (500, None, 8, 0.2),
        (503, "2", 8, 2),
        (503, "7.5", 8, 0.2),
        (429, None, 8, 1),
        (429, "3", 8, 3),
        (429, "8", 8, None),
        (429, "Wed, 21 Oct 2026 07:28:00 GMT", 8, 1),
        (500, None, 0.6, None),
        (401, None, 8, None),
        (403, "1", 8, None),
        (404, None, 8, None),
        (422, None, 8, None),
    ],
)
def test_after_an_answer(
    status: int, retry_after: str | None, left: float, wait: float | None
) -> None:
    error = error_from_status(status, retry_after=retry_after)
    assert error.http_status == status
    assert wait_before_retry(error, left) == wait


def test_after_a_connection_that_broke_or_was_closed_at_once() -> None:
    assert wait_before_retry(AgentUnavailable("reset"), 8) == 0.2
    assert wait_before_retry(AgentUnavailable("not trusted", retryable=False), 8) is None
    assert wait_before_retry(AgentRefused(classify(1006)), 8) == 0.2
    assert wait_before_retry(AgentRefused(classify(1002, "quota")), 8) is None
    assert wait_before_retry(AgentRefused(classify(4300)), 8) is None
