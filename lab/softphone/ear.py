"""What the phone hears: every packet with its time, put together on the RTP timeline.

Pure. Nothing is played, so nothing is delayed or concealed: a test sees the line as it is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from lab.softphone.codec import RATE_HZ, SAMPLE_BYTES, Codec
from lab.softphone.errors import RtpError
from lab.softphone.rtp import DigitHeard, DigitReceiver, RtpPacket, unwrap
from lab.softphone.sounds import FLOOR_DBFS, level_dbfs

_MAX_DIGITS = 4096
_LARGEST_JUMP_S = 5.0
"""A timeline that leaves the clock by more is not believed: the far end began a new one."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One voice packet."""

    at: float
    """Monotonic seconds."""
    sequence: int
    timestamp: int
    marker: bool
    ssrc: int
    position: int
    """The first sample's place in `Ear.pcm`, counted from the first packet of the call."""
    payload: bytes
    codec: Codec

    @property
    def pcm(self) -> bytes:
        """16-bit PCM at 8 kHz."""
        return self.codec.decode(self.payload)


@dataclass(frozen=True, slots=True)
class HeardStats:
    """What the network and the far end did to the packets. Gaps are between voice packets."""

    packets: int
    lost: int
    duplicated: int
    out_of_order: int
    gap_p50_ms: float
    gap_p99_ms: float
    gap_max_ms: float
    jitter_ms: float
    """The estimate of RFC 3550, section 6.4.1."""


class _Stream:
    """One synchronisation source: its sequence and its place on the timeline."""

    def __init__(self, packet: RtpPacket, at: float, position: int) -> None:
        self.ssrc = packet.ssrc
        self.first_sequence = self.highest_sequence = packet.sequence
        self.anchor(packet, at, position)

    def anchor(self, packet: RtpPacket, at: float, position: int) -> None:
        self.timestamp = packet.timestamp
        self.position = position
        self.transit = at - packet.timestamp / RATE_HZ


class Ear:
    """Records one direction of a call. The oldest of more than `max_packets` are dropped."""

    def __init__(self, *, max_packets: int = 360_000) -> None:
        self.malformed = 0
        self.unexpected = 0
        """Packets of a payload type that nobody agreed on."""
        self._arrivals: deque[Arrival] = deque(maxlen=max_packets)
        self._digits: deque[DigitHeard] = deque(maxlen=_MAX_DIGITS)
        self._codecs: dict[int, Codec] = {}
        self._event_payload_type: int | None = None
        self._digit_receiver = DigitReceiver(RATE_HZ)
        self._stream: _Stream | None = None
        self._origin: float | None = None
        self._recent: dict[int, None] = {}
        self._received = 0
        self._expected_before = 0
        self._duplicated = 0
        self._out_of_order = 0
        self._jitter = 0.0

    def expect(self, codec: Codec, payload_type: int, event_payload_type: int | None) -> None:
        """Say what packets will look like. Payload types named before stay understood."""
        self._codecs[payload_type] = codec
        self._event_payload_type = event_payload_type

    def hear(self, data: bytes, at: float) -> Arrival | None:
        """Take a datagram. Never raises; what is no packet is counted in `malformed`."""
        try:
            packet = RtpPacket.parse(data)
            if packet.payload_type == self._event_payload_type:
                self._note_sequence(packet, at)
                self._digits += self._digit_receiver.receive(packet, at)
                return None
        except RtpError:
            self.malformed += 1
            return None
        codec = self._codecs.get(packet.payload_type)
        if codec is None:
            self.unexpected += 1
            return None
        if not self._note_sequence(packet, at):
            return None
        return self._place(packet, codec, at)

    @property
    def arrivals(self) -> tuple[Arrival, ...]:
        """Every voice packet, in order of arrival."""
        return tuple(self._arrivals)

    @property
    def digits(self) -> tuple[DigitHeard, ...]:
        return tuple(self._digits)

    @property
    def last(self) -> Arrival | None:
        return self._arrivals[-1] if self._arrivals else None

    def finish(self) -> None:
        """The call is over: a digit whose end was never heard ends now."""
        self._digits += self._digit_receiver.flush()

    def pcm(self) -> bytes:
        """All that was heard, in one piece; where nothing came there is silence.

        Starts at the oldest packet that is kept. Later packets win where two overlap.
        """
        if not self._arrivals:
            return b""
        pieces = [(arrival.position, arrival.pcm) for arrival in self._arrivals]
        start = min(position for position, _ in pieces)
        end = max(position + len(pcm) // SAMPLE_BYTES for position, pcm in pieces)
        timeline = bytearray((end - start) * SAMPLE_BYTES)
        for position, pcm in pieces:
            offset = (position - start) * SAMPLE_BYTES
            timeline[offset : offset + len(pcm)] = pcm
        return bytes(timeline)

    def level(self, last_ms: float, now: float) -> float:
        """The RMS level, in dBFS, of the packets that came within the last milliseconds."""
        since = now - last_ms / 1000
        recent: list[bytes] = []
        for arrival in reversed(self._arrivals):
            if arrival.at < since:
                break
            recent.append(arrival.pcm)
        return level_dbfs(b"".join(recent)) if recent else FLOOR_DBFS

    def sound_at(self, threshold_dbfs: float = -40.0, since: float = 0.0) -> float | None:
        """When the first packet at or above a level arrived, from `since` on."""
        for arrival in self._arrivals:
            if arrival.at >= since and level_dbfs(arrival.pcm) >= threshold_dbfs:
                return arrival.at
        return None

    def last_sound_at(self, threshold_dbfs: float = -40.0, since: float = 0.0) -> float | None:
        """When the last packet at or above a level arrived, from `since` on."""
        for arrival in reversed(self._arrivals):
            if arrival.at < since:
                return None
            if level_dbfs(arrival.pcm) >= threshold_dbfs:
                return arrival.at
        return None

    def stats(self) -> HeardStats:
        times = np.array([arrival.at for arrival in self._arrivals])
        gaps = np.diff(times) * 1000 if len(times) > 1 else np.zeros(1)
        return HeardStats(
            packets=self._received,
            lost=max(0, self._expected() - self._received),
            duplicated=self._duplicated,
            out_of_order=self._out_of_order,
            gap_p50_ms=float(np.percentile(gaps, 50)),
            gap_p99_ms=float(np.percentile(gaps, 99)),
            gap_max_ms=float(np.max(gaps)),
            jitter_ms=self._jitter / RATE_HZ * 1000,
        )

    def _expected(self) -> int:
        if self._stream is None:
            return 0
        current = self._stream.highest_sequence - self._stream.first_sequence + 1
        return self._expected_before + current

    def _note_sequence(self, packet: RtpPacket, at: float) -> bool:
        """Count the packet; False for one that was there before."""
        stream = self._stream
        if stream is None or stream.ssrc != packet.ssrc:
            self._expected_before = self._expected()
            position = 0 if self._origin is None else self._clock(at)
            self._origin = at if self._origin is None else self._origin
            self._stream = _Stream(packet, at, position)
            self._recent = {packet.sequence: None}
            self._received += 1
            return True
        sequence = unwrap(stream.highest_sequence, packet.sequence, 16)
        if sequence in self._recent:
            self._duplicated += 1
            return False
        self._recent[sequence] = None
        if len(self._recent) > 1000:
            del self._recent[next(iter(self._recent))]
        self._received += 1
        if sequence < stream.highest_sequence:
            self._out_of_order += 1
            # A packet from before the first one counts as expected, too.
            stream.first_sequence = min(stream.first_sequence, sequence)
        else:
            stream.highest_sequence = sequence
        return True

    def _place(self, packet: RtpPacket, codec: Codec, at: float) -> Arrival:
        stream = self._stream
        assert stream is not None
        timestamp = unwrap(stream.timestamp, packet.timestamp, 32)
        position = stream.position + timestamp - stream.timestamp
        if abs(position - self._clock(at)) > _LARGEST_JUMP_S * RATE_HZ:
            stream.anchor(packet, at, position := self._clock(at))
        else:
            # Carried along, so that a long call never leaves the reach of `unwrap`.
            stream.position, stream.timestamp = position, timestamp
            self._estimate_jitter(stream, timestamp, at)
        arrival = Arrival(
            at,
            packet.sequence,
            packet.timestamp,
            packet.marker,
            packet.ssrc,
            position,
            packet.payload,
            codec,
        )
        self._arrivals.append(arrival)
        return arrival

    def _estimate_jitter(self, stream: _Stream, timestamp: int, at: float) -> None:
        transit = at - timestamp / RATE_HZ
        change = abs(transit - stream.transit) * RATE_HZ
        stream.transit = transit
        self._jitter += (change - self._jitter) / 16

    def _clock(self, at: float) -> int:
        """Where the clock says that a packet belongs."""
        assert self._origin is not None
        return round((at - self._origin) * RATE_HZ)
