"""The errors of the agent's side; each says whether another attempt may help.

::

    AgentError
    ├── MalformedMessage       one message could not be understood; the conversation goes on
    ├── UnsupportedFormat      the agent announced an audio format that nobody documented
    └── ConnectError           no conversation came about
        ├── AgentUnauthorized  the key, or the agent's allow-list, refused us
        ├── AgentNotFound      no such agent
        ├── AgentRejected      the request itself was refused
        ├── AgentRateLimited   too many requests, or conversations at once (`agent_limit`)
        ├── AgentQuotaUsedUp   the workspace's credits are used up
        ├── AgentUnavailable   unreachable, failing, or its answer makes no sense
        ├── AgentTimeout       no conversation within the deadline
        └── AgentRefused       the socket was closed before the conversation began (`close`)

No message of these exceptions holds a key, a signed URL or a caller's data.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ari_app.errors import AgentError
from ari_app.process.network import why_untrusted

if TYPE_CHECKING:
    from ari_app.agent.elevenlabs.closing import AgentClose


class MalformedMessage(AgentError):
    """A message from the agent could not be decoded. `reason` is a short slug."""

    default_code = "agent_malformed_message"

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"malformed message from the agent: {detail or reason}")
        self.reason = reason


class UnsupportedFormat(AgentError):
    """The agent announced an audio format that the protocol does not document."""

    default_code = "agent_unsupported_format"


class ConnectError(AgentError):
    """No conversation came about.

    `http_status` is the answer's, where there was one. `retry_after` is what the service asked for
    (`Retry-After`), in seconds; None when it did not.
    """

    default_code = "agent_connect"
    http_status: int | None = None
    retry_after: float | None = None


class AgentUnauthorized(ConnectError):
    """HTTP 401 or 403: the API key is wrong, or may not use this agent."""

    default_code = "agent_unauthorized"


class AgentNotFound(ConnectError):
    """HTTP 404: there is no such agent, or it belongs to another workspace."""

    default_code = "agent_not_found"


class AgentRejected(ConnectError):
    """Any other HTTP 4xx: the request is not acceptable and will not become so."""

    default_code = "agent_rejected"


class AgentRateLimited(ConnectError):
    """HTTP 429: too many requests or conversations at once."""

    default_code = "agent_rate_limited"
    default_retryable = True


class AgentQuotaUsedUp(ConnectError):
    """The workspace's credits are used up; the service says so with HTTP 401, of all things."""

    default_code = "agent_quota"


class AgentUnavailable(ConnectError):
    """The service cannot be reached, fails (HTTP 5xx) or answers with something else."""

    default_code = "agent_unavailable"
    default_retryable = True


class AgentTimeout(ConnectError):
    """The conversation did not begin within the deadline."""

    default_code = "agent_timeout"
    default_retryable = True


class AgentRefused(ConnectError):
    """The agent closed the socket before the conversation began; `close` says why.

    `code` is `agent_` and the kind of the close: `agent_quota`, `agent_override_error`, …
    """

    def __init__(self, close: AgentClose) -> None:
        super().__init__(
            f"the agent closed the socket at once ({close.code} {close.kind}): {close.reason_text}",
            code=f"agent_{close.kind}",
            retryable=close.retryable,
        )
        self.close = close


def untrusted(error: BaseException) -> AgentUnavailable:
    """Return the error for a certificate that does not hold, `agent_untrusted`."""
    return AgentUnavailable(
        f"the certificate of the agent's service is not trusted: {why_untrusted(error)}",
        code="agent_untrusted",
        retryable=False,
    )


_STATUS_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")


def error_from_status(
    status: int, word: object = None, *, retry_after: str | None = None
) -> ConnectError:
    """Return the error for an HTTP `status` other than success, from REST or from the handshake.

    `word` is `detail.status` of the answer's JSON; it is quoted when it is a plain slug.
    `retry_after` is the header of that name; only its form in seconds counts (RFC 9110, 10.2.3).
    """
    error = _error(status, word)
    error.http_status = status
    if retry_after is not None and retry_after.isascii() and retry_after.isdigit():
        error.retry_after = float(retry_after)
    return error


def _error(status: int, word: object) -> ConnectError:
    said = f", {word}" if isinstance(word, str) and _STATUS_WORD.fullmatch(word) else ""
    http = f"(HTTP {status}{said})"
    if said and "quota_exceeded" in str(word):
        return AgentQuotaUsedUp(f"the quota at the agent's service is used up {http}")
    match status:
        case 401 | 403:
            return AgentUnauthorized(f"the agent's service refused the credentials {http}")
        case 404:
            return AgentNotFound(f"the agent does not exist or is not visible to this key {http}")
        case 408:
            return AgentTimeout(f"the agent's service gave up waiting {http}")
        case 429 if said and "concurrent" in str(word):
            return AgentRateLimited(
                f"more conversations are held at once than the plan allows {http}",
                code="agent_limit",
            )
        case 429:
            return AgentRateLimited(f"the agent's service takes no more requests now {http}")
        case _ if 400 <= status < 500:
            return AgentRejected(f"the agent's service rejected the request {http}")
        case _:
            return AgentUnavailable(f"the agent's service failed {http}")
