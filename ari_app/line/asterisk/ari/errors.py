"""The errors between this application and Asterisk.

::

    AriError (a ControlError: Asterisk's side, or the way to it)
    ├── AriUnavailable     no connection, or 503: not booted yet, shutting down
    │   ├── AriUnreached   no connection came about: Asterisk knows nothing of the request
    │   └── AriUntrusted   its certificate does not hold
    ├── AriTimeout         no answer within the deadline
    ├── AriUnauthorized    401: wrong user or password; 403: the user may not do this
    ├── AriNotFound        404: no such channel, bridge, application, variable or module
    ├── AriConflict        409, 412, 422: it exists, but not in a state that allows this
    ├── AriBadRequest      400 and every other 4xx: the request itself is wrong
    ├── AriServerError     500 and above
    └── AriMalformed       an answer or an event that cannot be understood

The same status means different things to different operations (`addChannel` answers 400 for a
channel that does not exist, and 422 for one that is not in Stasis); the resource methods say so.
"""

from __future__ import annotations

from ari_app.errors import ControlError
from ari_app.process.network import why_untrusted


class AriError(ControlError):
    """A request to Asterisk, or its event socket, failed.

    Attributes:
        method: The HTTP method; empty when no request was involved.
        path: The path below `/ari`, without query and therefore without values.
        status: The HTTP status, or None when there was no answer.
        reason: Asterisk's own words where it gave any. Never a credential.
    """

    default_code = "ari_error"

    def __init__(
        self,
        reason: str,
        *,
        method: str = "",
        path: str = "",
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        said = reason if status is None else f"{status} {reason}".rstrip()
        super().__init__(f"{method} {path}: {said}" if path else said, code=code)
        self.method = method
        self.path = path
        self.status = status
        self.reason = reason


class AriUnavailable(AriError):
    """Asterisk cannot be reached, closed the connection, or is not ready (503).

    Attributes:
        may_be_done: Asterisk may have done what was asked, or may yet do it.
    """

    default_code = "ari_unavailable"
    default_retryable = True
    may_be_done = True


class AriUntrusted(AriUnavailable):
    """Whoever answers over https has no certificate that shows it to be Asterisk."""

    default_code = "ari_untrusted"
    default_retryable = False
    may_be_done = False


class AriUnreached(AriUnavailable):
    """No connection to Asterisk came about: it knows nothing of what was asked."""

    may_be_done = False


class AriTimeout(AriError):
    """There was no answer in time. Asterisk may still have done, or may yet do, what was asked."""

    default_code = "ari_timeout"
    default_retryable = True


class AriUnauthorized(AriError):
    """401: unknown user or wrong password. 403: a read-only user, or an ACL."""

    default_code = "ari_unauthorized"


class AriNotFound(AriError):
    """404: what the path names does not exist (any more)."""

    default_code = "ari_not_found"


class AriConflict(AriError):
    """409: not in Stasis, or the id is taken. 412: not answered yet. 422: not in Stasis."""

    default_code = "ari_conflict"


class AriBadRequest(AriError):
    """400, or another 4xx that has no class of its own: Asterisk did not accept the parameters."""

    default_code = "ari_bad_request"


class AriServerError(AriError):
    """500 or above: Asterisk tried and failed."""

    default_code = "ari_server_error"
    default_retryable = True


class AriMalformed(AriError):
    """Asterisk sent something that is not what its own API describes."""

    default_code = "ari_malformed"


def untrusted(error: BaseException, *, method: str, path: str) -> AriUntrusted:
    """Return the exception for what a handshake failed with."""
    why = why_untrusted(getattr(error, "certificate_error", error))
    return AriUntrusted(f"its certificate is not trusted: {why}", method=method, path=path)


def error_for_status(status: int, reason: str, *, method: str, path: str) -> AriError:
    """Return the exception that stands for an HTTP status.

    Below 400 it is one that ARI has no use for: a redirection, or no WebSocket where one was asked.
    """
    kind: type[AriError]
    match status:
        case 401 | 403:
            kind = AriUnauthorized
        case 404:
            kind = AriNotFound
        case 409 | 412 | 422:
            kind = AriConflict
        case 503:
            kind = AriUnavailable
        case _ if status >= 500:
            kind = AriServerError
        case _ if status < 400:
            kind = AriMalformed
        case _:
            kind = AriBadRequest
    code = "ari_forbidden" if status == 403 else None
    return kind(reason, method=method, path=path, status=status, code=code)
