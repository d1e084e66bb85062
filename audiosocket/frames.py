"""The messages of AudioSocket, and the audio formats that it carries.

A message is a kind (one byte), a length (two bytes, big endian) and a payload: see
`include/asterisk/res_audiosocket.h` and `res/res_audiosocket.c` in Asterisk.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final
from uuid import UUID

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
class LineFormat:
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
    def by_name(name: str) -> LineFormat:
        """The format that Asterisk calls `name` (`slin`, `slin16`, …).

        Raises ValueError for any other name.
        """
        try:
            return _BY_NAME[name]
        except KeyError:
            known = ", ".join(_BY_NAME)
            raise ValueError(f"no AudioSocket format {name!r}; there are {known}") from None

    @staticmethod
    def by_kind(kind: Kind) -> LineFormat:
        """The format of audio messages of this kind. Raises ValueError when it is no audio."""
        try:
            return _BY_KIND[kind]
        except KeyError:
            raise ValueError(f"kind 0x{kind:02x} carries no audio") from None


SLIN: Final = LineFormat("slin", Kind.SLIN8, 8_000)
SLIN12: Final = LineFormat("slin12", Kind.SLIN12, 12_000)
SLIN16: Final = LineFormat("slin16", Kind.SLIN16, 16_000)
SLIN24: Final = LineFormat("slin24", Kind.SLIN24, 24_000)
SLIN32: Final = LineFormat("slin32", Kind.SLIN32, 32_000)
SLIN44: Final = LineFormat("slin44", Kind.SLIN44, 44_100)
SLIN48: Final = LineFormat("slin48", Kind.SLIN48, 48_000)
SLIN96: Final = LineFormat("slin96", Kind.SLIN96, 96_000)
SLIN192: Final = LineFormat("slin192", Kind.SLIN192, 192_000)

FORMATS: Final = (SLIN, SLIN12, SLIN16, SLIN24, SLIN32, SLIN44, SLIN48, SLIN96, SLIN192)

_BY_NAME: Final = {fmt.name: fmt for fmt in FORMATS}
_BY_KIND: Final = {fmt.kind: fmt for fmt in FORMATS}
