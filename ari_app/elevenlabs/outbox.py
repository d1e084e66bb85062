"""What waits to be sent while the peer does not read. Pure: `now` is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


class PeerStalled(Exception):
    """The peer has stopped reading for good."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One message that waits."""

    payload: bytes
    """Audio as it is, or a control message as JSON."""
    is_audio: bool
    since: float


class Outbox:
    """Control messages and audio, in two lines; control goes first and is never dropped.

    Sound that comes late is worth nothing, so audio older than `max_age_s`, or beyond
    `max_audio_bytes`, is dropped from the old end and counted in `dropped_messages` and
    `dropped_bytes`. When nothing could be taken out for `max_stall_s`, or more than `max_control`
    control messages or `max_control_bytes` of them wait, adding raises `PeerStalled`.
    """

    def __init__(
        self,
        *,
        max_age_s: float = 2.0,
        max_audio_bytes: int = 512 * 1024,
        max_control: int = 1024,
        max_control_bytes: int = 4 * 1024 * 1024,
        max_stall_s: float = 20.0,
    ) -> None:
        self.max_age_s = max_age_s
        self.max_audio_bytes = max_audio_bytes
        self.max_control = max_control
        self.max_control_bytes = max_control_bytes
        self.max_stall_s = max_stall_s
        self.dropped_messages = 0
        self.dropped_bytes = 0
        self._control: deque[Waiting] = deque()
        self._control_bytes = 0
        self._audio: deque[Waiting] = deque()
        self._audio_bytes = 0
        # When the outbox was last empty or gave something away.
        self._moved_at = 0.0

    def __len__(self) -> int:
        return len(self._control) + len(self._audio)

    def push_control(self, payload: bytes, now: float) -> None:
        """Add a control message. Raises `PeerStalled`."""
        self._check_stall(now)
        size = self._control_bytes + len(payload)
        if len(self._control) >= self.max_control or size > self.max_control_bytes:
            raise PeerStalled
        self._control.append(Waiting(payload, False, now))
        self._control_bytes = size

    def push_audio(self, payload: bytes, now: float) -> None:
        """Add audio, dropping what is too old or too much. Raises `PeerStalled`."""
        self._check_stall(now)
        self._audio.append(Waiting(payload, True, now))
        self._audio_bytes += len(payload)
        self._expire(now)

    def pop(self, now: float) -> Waiting | None:
        """The next message to send, or `None`."""
        self._moved_at = now
        if self._control:
            waiting = self._control.popleft()
            self._control_bytes -= len(waiting.payload)
            return waiting
        self._expire(now)
        if not self._audio:
            return None
        waiting = self._audio.popleft()
        self._audio_bytes -= len(waiting.payload)
        return waiting

    def clear(self) -> None:
        """Forget everything, uncounted: the conversation is over."""
        self._control.clear()
        self._audio.clear()
        self._control_bytes = self._audio_bytes = 0

    def _check_stall(self, now: float) -> None:
        if not self._control and not self._audio:
            self._moved_at = now
        elif now - self._moved_at > self.max_stall_s:
            raise PeerStalled

    def _expire(self, now: float) -> None:
        oldest = now - self.max_age_s
        while self._audio and (
            self._audio[0].since < oldest or self._audio_bytes > self.max_audio_bytes
        ):
            size = len(self._audio.popleft().payload)
            self._audio_bytes -= size
            self.dropped_messages += 1
            self.dropped_bytes += size
