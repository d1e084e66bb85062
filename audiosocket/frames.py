"""The messages of AudioSocket, and the audio formats that it carries.

A message is a kind (one byte), a length (two bytes, big endian) and a payload: see
`include/asterisk/res_audiosocket.h` and `res/res_audiosocket.c` in Asterisk.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar, Final
from uuid import UUID

from linekit.unfinished import Unfinished


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


HEADER_BYTES: Final = 3
MAX_PAYLOAD_BYTES: Final = 0xFFFF
FRAME_MS: Final = 20
FRAMES_PER_SECOND: Final = 1000 // FRAME_MS
SAMPLE_BYTES: Final = 2

DTMF_DIGITS: Final = frozenset("0123456789ABCD*#")


class Kind(enum.IntEnum):
    """The first byte of every message."""

    HANGUP = 0x00
    UUID = 0x01
    DTMF = 0x03
    SLIN8 = 0x10
    SLIN12 = 0x11
    SLIN16 = 0x12
    SLIN24 = 0x13
    SLIN32 = 0x14
    SLIN44 = 0x15
    SLIN48 = 0x16
    SLIN96 = 0x17
    SLIN192 = 0x18
    ERROR = 0xFF

    @property
    def is_audio(self) -> bool:
        """Whether the payload is signed 16-bit PCM, little endian, mono."""
        return Kind.SLIN8 <= self <= Kind.SLIN192


@dataclass(frozen=True, slots=True)
class Hangup:
    """The call is over. Only the server says so: Asterisk just closes the connection."""


@dataclass(frozen=True, slots=True)
class Identify:
    """Asterisk's first message: the UUID that the channel was created with."""

    uuid: UUID


@dataclass(frozen=True, slots=True)
class Dtmf:
    """A key was released. From Asterisk only, since 20.14, 21.9 and 22.4."""

    digit: str
    """One of `0` to `9`, `A` to `D`, `*` and `#`."""


@dataclass(frozen=True, slots=True)
class Audio:
    """Sound, of any duration: Asterisk forwards frames as long as they came (10, 20, 30 ms)."""

    kind: Kind
    payload: bytes
    """Signed 16-bit PCM, little endian, mono; never empty."""


@dataclass(frozen=True, slots=True)
class Error:
    """Defined by the protocol, never sent by Asterisk 18 to 23."""

    code: int


Message = Hangup | Identify | Dtmf | Audio | Error


@dataclass(frozen=True, slots=True)
class SlinFormat:
    """An audio format as Asterisk names it, and the kind that carries it."""

    name: str
    kind: Kind
    rate_hz: int

    @property
    def frame_samples(self) -> int:
        """Samples in 20 ms."""
        return self.rate_hz // FRAMES_PER_SECOND

    @property
    def frame_bytes(self) -> int:
        """Bytes in 20 ms."""
        return self.frame_samples * SAMPLE_BYTES

    @staticmethod
    def by_name(name: str) -> SlinFormat:
        """Return the format that Asterisk calls `name` (`slin`, `slin16`, …).

        Raises:
            ValueError: There is no such format.
        """
        try:
            return _BY_NAME[name]
        except KeyError:
            known = ", ".join(_BY_NAME)
            raise ValueError(f"no AudioSocket format {name!r}; there are {known}") from None


SLIN: Final = SlinFormat("slin", Kind.SLIN8, 8_000)
SLIN12: Final = SlinFormat("slin12", Kind.SLIN12, 12_000)
SLIN16: Final = SlinFormat("slin16", Kind.SLIN16, 16_000)
SLIN24: Final = SlinFormat("slin24", Kind.SLIN24, 24_000)
SLIN32: Final = SlinFormat("slin32", Kind.SLIN32, 32_000)
SLIN44: Final = SlinFormat("slin44", Kind.SLIN44, 44_100)
SLIN48: Final = SlinFormat("slin48", Kind.SLIN48, 48_000)
SLIN96: Final = SlinFormat("slin96", Kind.SLIN96, 96_000)
SLIN192: Final = SlinFormat("slin192", Kind.SLIN192, 192_000)

FORMATS: Final = (SLIN, SLIN12, SLIN16, SLIN24, SLIN32, SLIN44, SLIN48, SLIN96, SLIN192)

_BY_NAME: Final = {fmt.name: fmt for fmt in FORMATS}

_FIXED_LENGTH: Final = {Kind.HANGUP: 0, Kind.UUID: 16, Kind.DTMF: 1, Kind.ERROR: 1}

# Indexed by the kind byte: (kind, the only length it may have), None for "any audio length".
_RULES: Final[tuple[tuple[Kind, int | None] | None, ...]] = tuple(
    (Kind(value), _FIXED_LENGTH.get(Kind(value))) if value in Kind.__members__.values() else None
    for value in range(256)
)


def audio_header(kind: Kind, length: int) -> bytes:
    """Return the three bytes before `length` bytes of audio of this kind.

    Raises:
        ValueError: The kind is no audio, or the length is odd, zero or over 65535.
    """
    if not kind.is_audio:
        raise ValueError(f"kind 0x{kind:02x} carries no audio")
    if not 0 < length <= MAX_PAYLOAD_BYTES or length % SAMPLE_BYTES:
        raise ValueError(f"audio is whole samples in 2 to 65534 bytes, not {length} bytes")
    return bytes((kind, length >> 8, length & 0xFF))


def encode(message: Message) -> bytes:
    """Encode one message.

    Raises:
        ValueError: The protocol cannot carry its content.
    """
    match message:
        case Audio(kind, payload):
            return audio_header(kind, len(payload)) + payload
        case Hangup():
            return b"\x00\x00\x00"
        case Identify(uuid):
            return b"\x01\x00\x10" + uuid.bytes
        case Dtmf(digit):
            if digit not in DTMF_DIGITS:
                raise ValueError(f"no DTMF digit: {digit!r}")
            return b"\x03\x00\x01" + digit.encode("ascii")
        case _:
            return b"\xff\x00\x01" + bytes((message.code,))


class Decoder:
    """Cuts a byte stream into messages.

    Any split of the stream gives the same messages and, if there is one, the same error. A bad
    header is refused as soon as it is there; its payload is not waited for. What is held back
    is at most one message (64 KiB).

    Args:
        expect_identify: The first message must be the UUID, as a server demands.
    """

    def __init__(self, expect_identify: bool = True) -> None:
        self._must_identify = expect_identify
        self._rest = Unfinished()
        self._error: ProtocolError | None = None

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished message; above 3 (the header) its payload has begun."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that `data` completes, in order.

        Raises:
            ProtocolError: At the first fault, with the messages before it in `before`; every later
                call raises the same error again, without them.
        """
        if self._error is not None:
            raise type(self._error)(str(self._error))
        data = self._rest.before(data)
        messages: list[Message] = []
        start, end, needed = 0, len(data), HEADER_BYTES
        try:
            while start < end:
                kind, fixed_length = self._rule(data[start])
                body = start + HEADER_BYTES
                if body > end:
                    break
                length = data[start + 1] << 8 | data[start + 2]
                if fixed_length is None:
                    if not length or length % SAMPLE_BYTES:
                        raise WrongLength(f"kind 0x{kind:02x}: {length} bytes are no samples")
                elif length != fixed_length:
                    raise WrongLength(f"kind 0x{kind:02x}: {length} bytes, not {fixed_length}")
                stop = body + length
                if stop > end:
                    needed += length
                    break
                payload = data[body:stop]
                messages.append(
                    Audio(kind, payload) if fixed_length is None else _control(kind, payload)
                )
                self._must_identify = False
                start = stop
        except ProtocolError as error:
            self._error = error
            error.before = tuple(messages)
            raise
        if start < end:
            self._rest.hold(data[start:], needed)
        return messages

    def _rule(self, value: int) -> tuple[Kind, int | None]:
        rule = _RULES[value]
        if rule is None:
            raise UnknownKind(f"kind 0x{value:02x} is unknown")
        if self._must_identify and rule[0] is not Kind.UUID:
            raise NotIdentified(f"kind 0x{value:02x} came before the UUID")
        return rule


def _control(kind: Kind, payload: bytes) -> Message:
    match kind:
        case Kind.UUID:
            return Identify(UUID(bytes=payload))
        case Kind.DTMF:
            # A phone that sends SIP INFO may name A to D in lower case; Asterisk passes it on
            # (res_pjsip_dtmf_info.c).
            digit = payload.decode("latin-1").upper()
            if digit not in DTMF_DIGITS:
                raise InvalidDigit(f"byte 0x{payload[0]:02x} is no DTMF digit")
            return Dtmf(digit)
        case Kind.ERROR:
            return Error(payload[0])
        case _:
            return Hangup()
