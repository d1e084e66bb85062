"""The exceptions of the application, arranged by whose fault it is.

::

    AppError
    ├── ConfigError        ours: a setting is missing or wrong
    ├── LineError          the line: the AudioSocket connection or its audio
    ├── ControlError       Asterisk: its REST interface or its event socket
    │   └── AriError       (see ari_app.line.asterisk.ari.errors)
    └── AgentError         the agent: ElevenLabs' service or its WebSocket

Every exception carries a stable `code`, which logs, metrics and HTTP answers use, and
`retryable`, which says whether the same step may succeed when it is tried again.
"""

from __future__ import annotations

from typing import ClassVar


class AppError(Exception):
    """The root of every failure that this application can name.

    `code` is a short slug (`"busy"`, `"not_found"`) that never changes once released. A class
    gives the default for `code` and `retryable`; an instance can be told otherwise.
    """

    default_code: ClassVar[str] = "internal"
    default_retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, code: str | None = None, retryable: bool | None = None
    ) -> None:
        super().__init__(message)
        self.code: str = self.default_code if code is None else code
        self.retryable: bool = self.default_retryable if retryable is None else retryable


class ConfigError(AppError):
    """A setting is missing, contradicts another one or cannot be used."""

    default_code = "config"


class LineError(AppError):
    """The AudioSocket connection of a call failed or carried something unusable."""

    default_code = "line"


class ControlError(AppError):
    """Asterisk refused or failed a request, or could not be reached."""

    default_code = "control"


class AgentError(AppError):
    """The agent's service refused, failed or went away."""

    default_code = "agent"
