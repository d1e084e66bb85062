"""What a dialer and we say to each other on a call's WebSocket. Pure.

Binary messages are sound, text messages are JSON objects with a `type`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Final, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ari_app.audio.g711 import alaw_to_pcm, pcm_to_alaw, pcm_to_ulaw, ulaw_to_pcm
from ari_app.line.interface import CallEnd, Outcome

FRAME_MS: Final = 20
MAX_MESSAGE_BYTES: Final = 64_000
"""Two seconds of `pcm_16000`, the widest format."""
_HEADERS: Final = (b"RIFF", b"OggS", b"fLaC", b"ID3", b".snd")


class BadInput(Exception):
    """A dialer has sent what cannot be used.

    Attributes:
        reason: A stable slug.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


# --- sound


def _same(data: bytes) -> bytes:
    return data


@dataclass(frozen=True, slots=True)
class Coding:
    """How sound is written on the WebSocket.

    Attributes:
        rate_hz: Samples a second, as on the line.
        sample_bytes: Of one sample as it is written.
        decode, encode: To 16-bit linear PCM, and from it.
    """

    rate_hz: int
    sample_bytes: int
    decode: Callable[[bytes], bytes]
    encode: Callable[[bytes], bytes]

    def read(self, data: bytes) -> bytes:
        """Return what a binary message holds, as 16-bit linear PCM.

        Raises:
            BadInput: It is not in this format.
        """
        if data.startswith(_HEADERS):
            raise BadInput(
                "audio_with_header", "That is a sound file: send bare samples, without a header."
            )
        if not data or len(data) % self.sample_bytes:
            raise BadInput(
                "audio_length",
                f"{len(data)} bytes of sound: a sample has {self.sample_bytes} bytes.",
            )
        return self.decode(data)


CODINGS: Final = MappingProxyType(
    {
        "pcm_16000": Coding(16000, 2, _same, _same),
        "pcm_8000": Coding(8000, 2, _same, _same),
        "ulaw_8000": Coding(8000, 1, ulaw_to_pcm, pcm_to_ulaw),
        "alaw_8000": Coding(8000, 1, alaw_to_pcm, pcm_to_alaw),
    }
)


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


Said = DigitSaid | HoldSaid | UnholdSaid | MarkSaid | HangUpSaid
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


# --- how far the caller has heard


class Lead:
    """What a dialer that paces by itself was sent, and has not played yet.

    Every 40 ms we send a mark. Its answer says that the caller has heard all up to there;
    that is also what makes room for more.
    """

    _MARK_FRAMES: Final = 2
    _MOST_FRAMES: Final = 50

    def __init__(self) -> None:
        self._sent = self._heard = self._marked = self._cleared = 0

    @property
    def frames(self) -> int:
        """How many frames are not known to have been heard."""
        return self._sent - self._heard

    @property
    def has_room(self) -> bool:
        """Whether one more may be sent."""
        return self.frames < self._MOST_FRAMES

    def sent(self, *, last: bool) -> str | None:
        """Note a frame that is sent, or with `last` that there is none; the mark to follow."""
        if not last:
            self._sent += 1
        unmarked = self._sent - self._marked
        if not unmarked or (unmarked < self._MARK_FRAMES and not last):
            return None
        self._marked = self._sent
        return str(self._sent)

    def heard(self, name: str) -> None:
        """Note that a mark has been answered. One that was sent before a `clear` says nothing.

        Raises:
            BadInput: No mark of this name was sent.
        """
        if not (name.isascii() and name.isdigit()) or not 0 < int(name) <= self._marked:
            raise BadInput("unknown_mark", "A mark is answered that was not sent.")
        if int(name) > self._cleared:
            self._heard = max(self._heard, int(name))

    def clear(self) -> int:
        """Note that what lies ahead will not be heard; how many frames."""
        lost = self.frames
        self._heard = self._marked = self._cleared = self._sent
        return lost
