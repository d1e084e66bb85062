"""Bytes to messages and back. Pure: no socket, no clock."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from audiosocket.errors import (
    InvalidDigit,
    NotIdentified,
    ProtocolError,
    UnknownKind,
    WrongLength,
)
from audiosocket.frames import (
    DTMF_DIGITS,
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    SAMPLE_BYTES,
    Audio,
    Dtmf,
    Error,
    Hangup,
    Identify,
    Kind,
    Message,
)

_FIXED_LENGTH: Final = {Kind.HANGUP: 0, Kind.UUID: 16, Kind.DTMF: 1, Kind.ERROR: 1}

# Indexed by the kind byte: (kind, the only length it may have), None for "any audio length".
_RULES: Final[tuple[tuple[Kind, int | None] | None, ...]] = tuple(
    (Kind(value), _FIXED_LENGTH.get(Kind(value))) if value in Kind.__members__.values() else None
    for value in range(256)
)


def audio_header(kind: Kind, length: int) -> bytes:
    """The three bytes before `length` bytes of audio of this kind.

    Raises ValueError when the kind is no audio, or the length is odd, zero or over 65535.
    """
    if not kind.is_audio:
        raise ValueError(f"kind 0x{kind:02x} carries no audio")
    if not 0 < length <= MAX_PAYLOAD_BYTES or length % SAMPLE_BYTES:
        raise ValueError(f"audio is whole samples in 2 to 65534 bytes, not {length} bytes")
    return bytes((kind, length >> 8, length & 0xFF))


def encode(message: Message) -> bytes:
    """One message as bytes. Raises ValueError for content that the protocol cannot carry."""
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
    """

    def __init__(self, expect_identify: bool = True) -> None:
        """`expect_identify`: the first message must be the UUID, as a server demands."""
        self._must_identify = expect_identify
        self._rest = bytearray()
        self._needed = HEADER_BYTES
        self._error: ProtocolError | None = None

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished message; above 3 (the header) its payload has begun."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, in order.

        Raises ProtocolError at the first fault, with the messages before it in `before`; every
        later call raises the same error again, without them.
        """
        if self._error is not None:
            raise type(self._error)(str(self._error))
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return []
            data = bytes(rest)
            rest.clear()

        messages: list[Message] = []
        start, end = 0, len(data)
        try:
            while start < end:
                kind, fixed_length = self._rule(data[start])
                body = start + HEADER_BYTES
                if body > end:
                    self._needed = HEADER_BYTES
                    break
                length = data[start + 1] << 8 | data[start + 2]
                if fixed_length is None:
                    if not length or length % SAMPLE_BYTES:
                        raise WrongLength(f"kind 0x{kind:02x}: {length} bytes are no samples")
                elif length != fixed_length:
                    raise WrongLength(f"kind 0x{kind:02x}: {length} bytes, not {fixed_length}")
                stop = body + length
                if stop > end:
                    self._needed = HEADER_BYTES + length
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
            rest += data[start:]
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
