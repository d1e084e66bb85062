"""The errors with which call control refuses a request."""

from __future__ import annotations

from ari_app.errors import AppError


class ControlRefused(AppError):
    """A request for a call was refused.

    Attributes:
        code: `capacity`, `draining`, `rate_limited`, `queue_timeout`, `invalid_number`,
            `invalid_session_id`, `no_agent_id`, `no_such_channel`, `no_such_way`,
            `session_exists`, `not_connected`, `audio_url`, `bad_variable`, `quota`, or a code of
            `ari_app.agent.precall.PreCallError`.
        retry_after: Seconds after which another attempt may help; None: none will.
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message, code=code, retryable=retry_after is not None)
        self.retry_after = retry_after


class SessionNotFound(AppError):
    """There is no such session, or it ended more than 60 seconds ago."""

    default_code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__("There is no such session; an ended one is kept for 60 seconds.")
        self.session_id = session_id


class NotPossible(AppError):
    """The call is not in a state for this, or its line refused it.

    Attributes:
        code: `not_talking`, `already_transferring`, `busy`, `bad_target`, `bad_digits`,
            `not_recorded`, `asterisk`, or `line` where the call came in by another way.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message, code=code)
