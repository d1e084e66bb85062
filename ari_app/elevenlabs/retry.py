"""Whether to try once more after a conversation did not come about, and when. Pure."""

from __future__ import annotations

from typing import Final

from ari_app.elevenlabs.errors import AgentRateLimited, ConnectError

_AT_ONCE_SECONDS: Final = 0.2
_RATE_LIMITED_SECONDS: Final = 1.0
_ATTEMPT_SECONDS: Final = 0.5
"""What is left for less than this is no attempt."""


def wait_before_retry(error: ConnectError, seconds_left: float) -> float | None:
    """Seconds to wait before the second attempt; None when there is to be none.

    A wait that the service asked for is kept to, or the attempt is left out where that does not
    fit into what is left of the deadline: asking earlier would only be refused again, and the
    caller rings on for nothing.

    Args:
        error: Why the first attempt failed.
        seconds_left: Until the deadline.
    """
    if not error.retryable:
        return None
    if error.retry_after is not None:
        wait = error.retry_after
    elif isinstance(error, AgentRateLimited):
        wait = _RATE_LIMITED_SECONDS
    else:
        wait = _AT_ONCE_SECONDS
    return wait if wait + _ATTEMPT_SECONDS <= seconds_left else None
