"""What the phone says: one RTP packet each ptime, made of speech, silence or a digit.

Pure: `tick` is called once for each packet that is due. Timestamps go on by themselves, so what
is not sent leaves a gap on the far end's timeline, as a real microphone's clock does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from lab.softphone.codec import RATE_HZ, SAMPLE_BYTES, Codec
from lab.softphone.errors import SoftphoneError
from lab.softphone.rtp import DIGITS, RtpPacket, TelephoneEvent

END_PACKETS = 3
"""How often the end of a digit is sent (RFC 4733, section 2.5.1.4)."""

_LONGEST_DIGIT_MS = 8000
"""Beyond it a digit would need segments (RFC 4733, section 2.5.1.3)."""


class MouthFull(SoftphoneError):
    """More is queued than the mouth takes."""


class Utterance:
    """A piece of sound on its way out.

    `started_at` and `finished_at` are monotonic seconds. Where packets are made up for after a
    standstill, they are what they would have been without it.
    """

    def __init__(self, pcm: bytes, on_finished: Callable[[], None] | None = None) -> None:
        self.pcm = pcm
        self.started_at: float | None = None
        """When its first packet left."""
        self.finished_at: float | None = None
        """When its last packet left, or it was dropped."""
        self.dropped = False
        self._on_finished = on_finished
        self._offset = 0

    @property
    def remaining(self) -> int:
        """Bytes still to be said."""
        return len(self.pcm) - self._offset

    def take(self, size: int, now: float) -> bytes:
        if self.started_at is None:
            self.started_at = now
        piece = self.pcm[self._offset : self._offset + size]
        self._offset += len(piece)
        return piece

    def finish(self, now: float, *, dropped: bool = False) -> None:
        self.finished_at = now
        self.dropped = dropped
        if self._on_finished is not None:
            self._on_finished()


@dataclass(slots=True)
class _Press:
    """A digit being pressed, and the pause behind it. Lengths are in samples."""

    code: int
    total: int
    gap: int
    on_finished: Callable[[], None] | None = None
    timestamp: int = 0
    elapsed: int = 0
    ends_sent: int = 0


class Mouth:
    """The sending half of a call's sound.

    Digits go before speech; speech waits while a digit lasts, and while `muted` or `paused`.
    """

    def __init__(
        self,
        *,
        ssrc: int,
        sequence: int = 0,
        timestamp: int = 0,
        max_queue_ms: int = 600_000,
        max_digits: int = 256,
    ) -> None:
        self.muted = False
        """No packet leaves at all."""
        self.suppress_silence = False
        """Packets leave only while there is something to say (RFC 3551, section 4.1)."""
        self.paused = True
        """What was agreed lets us send nothing."""
        self.packets = 0
        self._ssrc = ssrc
        self._sequence = sequence & 0xFFFF
        self._timestamp = timestamp & 0xFFFFFFFF
        self._max_bytes = max_queue_ms * RATE_HZ // 1000 * SAMPLE_BYTES
        self._max_digits = max_digits
        self._codec: Codec | None = None
        self._payload_type = 0
        self._event_payload_type: int | None = None
        self._samples = 0
        self._queue: deque[Utterance] = deque()
        self._presses: deque[_Press] = deque()
        self._talking = False

    def configure(
        self, codec: Codec, payload_type: int, ptime_ms: int, event_payload_type: int | None
    ) -> None:
        """Say what packets look like from here on."""
        self._codec = codec
        self._payload_type = payload_type
        self._samples = ptime_ms * RATE_HZ // 1000
        self._event_payload_type = event_payload_type

    @property
    def pending_ms(self) -> float:
        """Speech still to be said."""
        left = sum(utterance.remaining for utterance in self._queue)
        return left / SAMPLE_BYTES / RATE_HZ * 1000

    def say(self, utterance: Utterance) -> None:
        """Queue speech: 16-bit PCM at 8 kHz. Pieces are joined without a seam.

        Raises:
            ValueError: half a sample.
            MouthFull: `max_queue_ms` would be passed; nothing is queued.
        """
        if len(utterance.pcm) % SAMPLE_BYTES:
            raise ValueError("half a sample")
        queued = sum(waiting.remaining for waiting in self._queue)
        if queued + len(utterance.pcm) > self._max_bytes:
            raise MouthFull("too much speech is queued")
        self._queue.append(utterance)

    def clear(self, now: float) -> None:
        """Drop the speech that is queued."""
        while self._queue:
            self._queue.popleft().finish(now, dropped=True)

    def press(
        self,
        digits: str,
        *,
        press_ms: int = 100,
        gap_ms: int = 100,
        on_finished: Callable[[], None] | None = None,
    ) -> None:
        """Queue digits, each followed by a pause.

        Raises:
            ValueError: a character that is no digit, or a press of no time or beyond 8 s.
            MouthFull: `max_digits` would be passed; nothing is queued.
            SoftphoneError: the far end takes no telephone events.
        """
        codes = [DIGITS.find(digit) for digit in digits.upper()]
        if -1 in codes or not codes:
            raise ValueError("digits are 0-9, *, # and A-D")
        if not 0 < press_ms <= _LONGEST_DIGIT_MS or gap_ms < 0:
            raise ValueError("a digit lasts from 1 to 8000 ms")
        if self._event_payload_type is None:
            raise SoftphoneError("the far end takes no telephone events")
        if len(self._presses) + len(codes) > self._max_digits:
            raise MouthFull("too many digits are queued")
        per_ms = RATE_HZ // 1000
        presses = [_Press(code, press_ms * per_ms, gap_ms * per_ms) for code in codes]
        presses[-1].on_finished = on_finished
        self._presses.extend(presses)

    def skip(self, packets: int) -> None:
        """Let time pass without a packet: it was missed."""
        self._timestamp = (self._timestamp + packets * self._samples) & 0xFFFFFFFF
        self._talking = False

    def tick(self, now: float) -> RtpPacket | None:
        """The packet that is due, if one is to be sent."""
        if self._codec is None or self.muted or self.paused:
            self.skip(1)
            return None
        packet = self._digit_packet() or self._sound_packet(self._codec, now)
        self._timestamp = (self._timestamp + self._samples) & 0xFFFFFFFF
        return packet

    def _digit_packet(self) -> RtpPacket | None:
        while self._presses:
            press = self._presses[0]
            if press.ends_sent < END_PACKETS:
                return self._press_packet(press)
            if press.gap > 0:
                press.gap -= self._samples
                return None
            self._presses.popleft()
            if press.on_finished is not None:
                press.on_finished()
        return None

    def _press_packet(self, press: _Press) -> RtpPacket:
        first = press.elapsed == 0
        if first:
            press.timestamp = self._timestamp
        if press.elapsed < press.total:
            press.elapsed = min(press.elapsed + self._samples, press.total)
        end = press.elapsed >= press.total
        press.ends_sent += end
        event = TelephoneEvent(press.code, end, press.elapsed)
        self._talking = False
        payload_type = self._event_payload_type
        assert payload_type is not None
        return self._packet(payload_type, press.timestamp, event.encode(), marker=first)

    def _sound_packet(self, codec: Codec, now: float) -> RtpPacket | None:
        wanted = self._samples * SAMPLE_BYTES
        pcm = self._take(wanted, now)
        if not pcm and self.suppress_silence:
            self._talking = False
            return None
        pcm += bytes(wanted - len(pcm))
        marker, self._talking = not self._talking, True
        return self._packet(self._payload_type, self._timestamp, codec.encode(pcm), marker=marker)

    def _take(self, wanted: int, now: float) -> bytes:
        pieces: list[bytes] = []
        while wanted and self._queue:
            utterance = self._queue[0]
            piece = utterance.take(wanted, now)
            pieces.append(piece)
            wanted -= len(piece)
            if not utterance.remaining:
                self._queue.popleft()
                utterance.finish(now)
        return b"".join(pieces)

    def _packet(
        self, payload_type: int, timestamp: int, payload: bytes, *, marker: bool
    ) -> RtpPacket:
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        self.packets += 1
        return RtpPacket(payload_type, sequence, timestamp, self._ssrc, payload, marker)
