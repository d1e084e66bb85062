"""RTP packets (RFC 3550) and the digits that travel in them (RFC 4733).

Pure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from lab.softphone.errors import RtpError

DIGITS = "0123456789*#ABCD"
"""Position is the event code (RFC 4733, section 3.2)."""

_HEADER = struct.Struct("!BBHII")
_EVENT = struct.Struct("!BBH")
# RTP and RTCP told apart by the second byte (RFC 5761, section 4).
_RTCP_TYPES = range(192, 224)


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One packet. `sequence` has 16 bits, `timestamp` 32 bits in samples."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False

    def encode(self) -> bytes:
        second = self.payload_type | self.marker << 7
        header = _HEADER.pack(0x80, second, self.sequence, self.timestamp, self.ssrc)
        return header + self.payload

    @classmethod
    def parse(cls, data: bytes) -> RtpPacket:
        """Read a datagram; contributing sources, extension and padding are skipped.

        Raises:
            RtpError: it is RTCP, too short or of another version.
        """
        if len(data) < _HEADER.size:
            raise RtpError("shorter than a header")
        first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
        if first >> 6 != 2:
            raise RtpError("not version 2")
        if second in _RTCP_TYPES:
            raise RtpError("RTCP")
        start = _HEADER.size + 4 * (first & 0x0F)
        if first & 0x10:
            if len(data) < start + 4:
                raise RtpError("a header extension that is cut off")
            start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4], "big")
        end = len(data) - (data[-1] if first & 0x20 else 0)
        if end < start or (first & 0x20 and data[-1] == 0):
            raise RtpError("longer than the datagram")
        return cls(second & 0x7F, sequence, timestamp, ssrc, data[start:end], bool(second & 0x80))


@dataclass(frozen=True, slots=True)
class TelephoneEvent:
    """The payload of a digit's packet. `duration` counts samples since the digit began."""

    code: int
    end: bool
    duration: int
    volume: int = 10
    """Below full scale, in dB."""

    def encode(self) -> bytes:
        return _EVENT.pack(self.code, self.end << 7 | self.volume, self.duration)

    @classmethod
    def parse(cls, payload: bytes) -> TelephoneEvent:
        """Raise RtpError when the payload is too short. Redundant events behind it are ignored."""
        if len(payload) < _EVENT.size:
            raise RtpError("shorter than an event")
        code, flags, duration = _EVENT.unpack_from(payload)
        return cls(code, bool(flags & 0x80), duration, flags & 0x3F)

    @property
    def digit(self) -> str | None:
        return DIGITS[self.code] if self.code < len(DIGITS) else None


@dataclass(frozen=True, slots=True)
class DigitHeard:
    """A digit that the far end pressed. `at` is when its end, as far as known, was heard."""

    digit: str
    at: float
    duration_ms: float


class DigitReceiver:
    """Makes one digit out of its many packets: the timestamp tells digits apart.

    A digit is reported at its first end packet, or, when all three of them are lost, as soon as
    the next digit begins or `flush` is called.
    """

    def __init__(self, rate_hz: int) -> None:
        self._per_ms = rate_hz / 1000
        self._key: tuple[int, int] | None = None
        self._open: tuple[str, float, int] | None = None

    def receive(self, packet: RtpPacket, at: float) -> list[DigitHeard]:
        """Take a packet of the event's payload type. Raise RtpError when it cannot be read."""
        event = TelephoneEvent.parse(packet.payload)
        digit = event.digit
        if digit is None:
            return []
        heard: list[DigitHeard] = []
        key = (packet.ssrc, packet.timestamp)
        if key != self._key:
            if self._key is not None and key[0] == self._key[0] and _is_older(key[1], self._key[1]):
                return []
            heard = self.flush()
            self._key = key
            self._open = digit, at, event.duration
        if self._open is None:
            return heard
        longest = max(event.duration, self._open[2])
        self._open = digit, at, longest
        return heard + self.flush() if event.end else heard

    def flush(self) -> list[DigitHeard]:
        """Report a digit whose end was never heard."""
        if self._open is None:
            return []
        digit, at, duration = self._open
        self._open = None
        return [DigitHeard(digit, at, duration / self._per_ms)]


def unwrap(last: int, value: int, bits: int) -> int:
    """The number nearest to `last` whose lowest `bits` are `value`.

    Sequence numbers and timestamps wrap around; what comes out of here does not.
    """
    span = 1 << bits
    distance = (value - last) % span
    return last + distance - (span if distance >= span // 2 else 0)


def _is_older(timestamp: int, than: int) -> bool:
    return unwrap(than, timestamp, 32) < than
