"""What a dialer and we say to each other on a call's WebSocket. Pure.

Binary messages are sound, text messages are JSON objects with a `type`.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ari_app.line.interface import CallEnd, Outcome
from ari_app.line.websocket_input import BadInput

FRAME_MS: Final = 20
MAX_MESSAGE_BYTES: Final = 64_000
"""Two seconds of `pcm_16000`, the widest format."""


# --- what the dialer says


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DigitSaid(_Said):
    """The caller has pressed a key."""

    type: Literal["digit"]
    digit: Annotated[str, Field(pattern=r"^[0-9*#A-D]$")]


class HoldSaid(_Said):
    """The caller does not hear us until `unhold`, and need not send sound."""

    type: Literal["hold"]


class UnholdSaid(_Said):
    """The caller is back."""

    type: Literal["unhold"]


class MarkSaid(_Said):
    """The caller has heard all that was sent before this mark of ours."""

    type: Literal["mark"]
    name: Annotated[str, Field(max_length=32)]


class HangUpSaid(_Said):
    """The caller has gone."""

    type: Literal["hang_up"]
    reason: Annotated[str, Field(max_length=200)] = ""


class TargetSaid(_Said):
    """What becomes of the target of an attended transfer, which `transfer` has named by its `id`.

    Attributes:
        result: Why it is lost.
    """

    type: Literal["target"]
    id: Annotated[str, Field(max_length=32)]
    state: Literal["ringing", "answered", "lost"]
    result: Literal[
        "busy", "no_answer", "rejected", "unreachable", "invalid_number", "failed", "hung_up"
    ] = "failed"


Said = DigitSaid | HoldSaid | UnholdSaid | MarkSaid | TargetSaid | HangUpSaid
_SAID: Final[TypeAdapter[Said]] = TypeAdapter(Annotated[Said, Field(discriminator="type")])


def read_text(text: str) -> Said:
    """Return what a text message says.

    Raises:
        BadInput: It is not JSON, or says nothing that we know.
    """
    try:
        return _SAID.validate_python(orjson.loads(text))
    except (orjson.JSONDecodeError, ValidationError):
        raise BadInput(
            "malformed", "A text message is no JSON that docs/custom-dialer.md describes."
        ) from None


# --- what we say


def ready(session_id: str, audio_format: str, *, theirs: bool) -> str:
    """Say that caller and agent are together, and in which form sound goes both ways."""
    return _text(
        "ready",
        session_id=session_id,
        format=audio_format,
        frame_ms=FRAME_MS,
        pacing="theirs" if theirs else "ours",
    )


def clear() -> str:
    """Say that what has not been heard yet must not be."""
    return _text("clear")


def mark(name: str) -> str:
    """Ask to be told when all that was sent before has been heard."""
    return _text("mark", name=name)


def send_digits(digits: str) -> str:
    """Have keys pressed towards the caller."""
    return _text("send_digits", digits=digits)


def hold() -> str:
    """Let the caller hear music instead of us."""
    return _text("hold")


def unhold() -> str:
    """Let the caller and us hear each other again."""
    return _text("unhold")


def consult(target: str, name: str, ring_seconds: float) -> str:
    """Have a target called, who hears us then, while the caller is on hold."""
    return _text("transfer", to=target, mode="attended", id=name, ring_seconds=ring_seconds)


def bring_in(target: str, name: str, ring_seconds: float) -> str:
    """Have a supervisor called while the caller and we go on, who then speaks with the caller."""
    return _text("transfer", to=target, mode="take_over", id=name, ring_seconds=ring_seconds)


def drop_target(name: str) -> str:
    """Give the target of an attended transfer up; the caller stays on hold."""
    return _text("drop_target", id=name)


def hand_over(name: str) -> str:
    """Join the caller and the target, without us."""
    return _text("hand_over", id=name)


def error(code: str, message: str) -> str:
    """Tell what is wrong with what came, for whoever writes the dialer."""
    return _text("error", code=code, message=message)


def last_words(outcome: Outcome, end: CallEnd) -> list[str]:
    """Say what is to become of the caller, once all that was sent before has been heard."""
    said = []
    if outcome.transfer_to is not None:
        said.append(_text("transfer", to=outcome.transfer_to, mode="blind"))
    said.append(
        _text(
            "hang_up",
            status=outcome.status.value,
            reason=outcome.reason,
            session_id=end.session_id,
            conversation_id=end.conversation_id,
        )
    )
    return said


def _text(kind: str, **parts: object) -> str:
    return orjson.dumps({"type": kind, **parts}).decode()
