"""What can go wrong on an AudioSocket connection.

AudioSocketError
├── ProtocolError         the peer broke the protocol; `reason` is a stable slug
│   ├── UnknownKind       unknown_kind
│   ├── WrongLength       wrong_length
│   ├── InvalidDigit      invalid_digit
│   ├── NotIdentified     not_identified
│   └── UnexpectedKind    unexpected_kind
└── FrameSizeError        we did: an audio source gave something else than one frame

Arguments that make no sense are our own fault too, and raise `ValueError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from audiosocket.frames import Message


class AudioSocketError(Exception):
    """Base of everything that this package raises on its own account."""


class ProtocolError(AudioSocketError):
    """The peer sent bytes that are no AudioSocket.

    `before` holds the messages that were complete before the fault in the same call of
    `Decoder.feed`, so that nothing is lost however the stream was cut.
    """

    reason: ClassVar[str] = "protocol_error"

    def __init__(self, detail: str, before: tuple[Message, ...] = ()) -> None:
        super().__init__(detail)
        self.before = before


class UnknownKind(ProtocolError):
    """A kind byte that `res_audiosocket.h` does not define."""

    reason = "unknown_kind"


class WrongLength(ProtocolError):
    """A length that its kind does not allow."""

    reason = "wrong_length"


class InvalidDigit(ProtocolError):
    """A DTMF message whose byte is no key of a telephone."""

    reason = "invalid_digit"


class NotIdentified(ProtocolError):
    """The first message was not the UUID."""

    reason = "not_identified"


class UnexpectedKind(ProtocolError):
    """A well-formed message that has no business here, such as a second UUID."""

    reason = "unexpected_kind"


class FrameSizeError(AudioSocketError):
    """A source of audio gave something else than exactly one 20 ms frame."""
