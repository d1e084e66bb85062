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

from collections.abc import Mapping
from typing import Any, ClassVar


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


def in_words(problem: Mapping[str, Any]) -> str:
    """Say what pydantic found wrong with a value that a person wrote, to follow the value's name.

    Args:
        problem: One of `ValidationError.errors()`, with its input, which is not repeated.
    """
    allowed = problem.get("ctx", {})
    words: str
    match problem["type"]:
        case "value_error":
            words = problem["msg"].removeprefix("Value error, ").rstrip(".")
        case _ if problem.get("input") == "":
            words = "is empty"
        case "missing":
            words = "is missing"
        case "extra_forbidden":
            words = "is not known here"
        case "int_parsing" | "int_type" | "int_from_float":
            words = "must be a whole number"
        case "float_parsing" | "float_type" | "finite_number":
            words = "must be a number"
        case "bool_parsing" | "bool_type":
            words = "must be true or false"
        case "string_type":
            words = "must be a text"
        case "dict_type":
            words = "must be names with values"
        case "list_type":
            words = "must be a list"
        case "greater_than_equal":
            words = f"must be at least {allowed['ge']:g}"
        case "greater_than":
            words = f"must be more than {allowed['gt']:g}"
        case "less_than_equal":
            words = f"must be at most {allowed['le']:g}"
        case "multiple_of":
            words = f"must be a multiple of {allowed['multiple_of']:g}"
        case "string_too_long":
            words = f"must be at most {allowed['max_length']} characters long"
        case "literal_error" | "enum":
            words = f"must be {allowed['expected'].replace(chr(39), '')}"
        case "string_pattern_mismatch":
            words = f"does not have the form {allowed['pattern']}"
        case _:
            words = str(problem["msg"]).rstrip(".")
    return words


def forget_frames(error: BaseException) -> None:
    """Remove traceback, context and cause from an error that is kept.

    Its frames hold whatever was in use when it was raised, often the very object that keeps the
    error: such a cycle would stay in memory until a garbage collection.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
