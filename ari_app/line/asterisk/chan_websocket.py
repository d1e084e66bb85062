"""The messages of Asterisk's chan_websocket, and the model of its queue. Pure: `now` comes in,
messages come out.

Asterisk (22.8 and later) plays what it is sent in its own time, from a queue, so a stall of ours is
not heard. We keep that queue short, and reckon what is in it: `Feed`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

FRAME_SECONDS: Final = 0.02
MOST_BYTES: Final = 8_000
"""Of sound in a message. Asterisk ends a channel when a message comes in ten pieces (22.10.1), and
over a network each packet may be one. Packets that bring 1,000 bytes or more are nine at most."""

OPTIONS: Final = "f(json)"
"""The channel's `transport_data`. Never made of anything that comes from outside: a mistake in it
has ended a whole Asterisk."""

Message = bytes | str
"""Sound, or a command."""

FLUSH: Final = '{"command":"FLUSH_MEDIA"}'
REPORT_DRAINED: Final = '{"command":"REPORT_QUEUE_DRAINED"}'


# --- what Asterisk says


@dataclass(frozen=True, slots=True)
class Started:
    """The channel is there.

    Attributes:
        channel_id: Its name in ARI.
        format: What it speaks.
        frame_bytes: 20 ms of it.
    """

    channel_id: str
    format: str
    frame_bytes: int


@dataclass(frozen=True, slots=True)
class MarkReached:
    """All that was sent before a mark has been played."""

    name: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Asterisk's queue is nearly full (XOFF), or no longer (XON)."""

    on: bool


@dataclass(frozen=True, slots=True)
class Drained:
    """All that was sent has been played."""


@dataclass(frozen=True, slots=True)
class Key:
    """Somebody in the channel's bridge has pressed a key."""

    digit: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Complaint:
    """Asterisk did not understand something."""

    text: str


Said = Started | MarkReached | Stop | Drained | Key | Complaint


def read_event(text: bytes) -> Said | None:
    """Read what Asterisk says; None for what nobody here needs, or cannot be read."""
    try:
        event = orjson.loads(text)
    except orjson.JSONDecodeError:
        return Complaint("what came is no JSON")
    match event:
        case {"event": "MEDIA_MARK_PROCESSED", "correlation_id": str(name)}:
            return MarkReached(name)
        case {"event": "MEDIA_XOFF"}:
            return Stop(on=True)
        case {"event": "MEDIA_XON"}:
            return Stop(on=False)
        case {"event": "QUEUE_DRAINED"}:
            return Drained()
        case {
            "event": "MEDIA_START",
            "channel_id": str(channel_id),
            "format": str(name),
            "optimal_frame_size": int(size),
        }:
            return Started(channel_id, name, size)
        case {"event": "DTMF_END", "digit": str(digit)}:
            return Key(digit)
        case {"event": "ERROR"}:
            return Complaint(str(event.get("error_text", "")))
        case _:
            return None


def mark(name: str) -> str:
    """Return the command that has Asterisk say when all before it has been played."""
    return f'{{"command":"MARK_MEDIA","correlation_id":"{name}"}}'


def pieces(frames: Sequence[bytes], frame_bytes: int) -> Iterator[bytes]:
    """Put whole frames into messages that are not too long."""
    at_once = MOST_BYTES // frame_bytes
    for start in range(0, len(frames), at_once):
        yield b"".join(frames[start : start + at_once])


# --- what lies ahead

_LEAST_SECONDS: Final = 0.22
"""As long as so much lies ahead, nothing is sent: a stall of 200 ms is not heard."""
_MOST_SECONDS: Final = 0.42
_DUE_SECONDS: Final = 0.05
"""When so little lies ahead, the next frame has to be taken, whatever it is."""
_HEARD_SECONDS: Final = 0.04
"""Later than that after its reckoned end, sound has been heard for certain."""
_PAUSE_FRAMES: Final = 4
_SILENCE_FRAMES: Final = 25
_PAUSE_SECONDS: Final = 0.5
"""For so long after sound, silence is sent in small pieces: then the queue soon runs dry when it
is to be known that all has been heard."""
_MARK_SECONDS: Final = 1.5
_DOUBT_SECONDS: Final = 0.015
_BLOCKED_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 5.0
_MOST_UNSEEN_SECONDS: Final = 0.6
"""Between two looks no more time counts: it was we who were held up."""
_MOST_MARKS: Final = 16


class Feed:
    """A model of what Asterisk has been sent and has not played yet.

    It assumes that Asterisk plays all that it is sent, in order and in real time. A mark each
    second tells by how much that is wrong, and whether Asterisk plays at all.

    When nothing is said, silence is sent: without it Asterisk sends no packets, and a trunk or a
    firewall gives up a call without packets. Silence lies far ahead, for it is flushed as soon as
    something is said.

    "Sent" is all that goes to Asterisk, "said" is sound only.

    Args:
        frame_bytes: The size of a frame.

    Attributes:
        quiet_until: Until then nothing has to be sent, but for sound after silence.
        speaks: What was sent last is sound, and not silence.
    """

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._kept: deque[bytes] = deque(maxlen=math.ceil(_MOST_SECONDS / FRAME_SECONDS) + 2)
        self._marks_made = 0
        self._looked = float("-inf")
        self._forget()

    def _forget(self) -> None:
        # When the last of what was sent, and of what was said, has been played.
        self._ends_at = self._said_until = float("-inf")
        self._kept.clear()
        self._marks: deque[tuple[str, float]] = deque()
        self._marked_at = float("-inf")
        self._overdue = 0.0
        self._stopped = False
        self.quiet_until = float("-inf")
        self.speaks = False

    # --- time

    def look(self, now: float, *, punctual: bool) -> None:
        """Check by the marks whether Asterisk plays; call this first at each moment.

        Args:
            now: The time.
            punctual: We were not held up, so all that Asterisk has told has been read.
        """
        passed, self._looked = min(now - self._looked, _MOST_UNSEEN_SECONDS), now
        if not self._marks or now < self._marks[0][1]:
            self._overdue = 0.0
            return
        self._overdue += passed
        expected = self._marks[0][1]
        if punctual and now - expected > _HEARD_SECONDS:
            # What was sent after it cannot have been played either.
            self._shift(now - expected, expected)
        if self.blocked:
            self.quiet_until = now  # so that this is called again soon

    @property
    def stalled(self) -> bool:
        """Whether Asterisk has played nothing for five seconds."""
        return self._overdue > _PATIENCE_SECONDS

    @property
    def blocked(self) -> bool:
        """Whether nothing is to be sent: Asterisk wants no more, or does not play what it has."""
        return self._stopped or self._overdue > _BLOCKED_SECONDS

    # --- what is sent

    def room(self, now: float) -> int:
        """Return how many frames of sound may be sent."""
        if self.blocked:
            return 0
        ahead = 0.0 if self._is_heard(now) else max(0.0, self._ends_at - now)
        return 0 if ahead > _LEAST_SECONDS else int((_MOST_SECONDS - ahead) / FRAME_SECONDS)

    def is_due(self, now: float) -> bool:
        """Return whether another frame has to be sent, of sound or silence."""
        return self._ends_at - now <= self._least(now)

    def _least(self, now: float) -> float:
        """Return how many seconds have to lie ahead, of sound or silence."""
        return _DUE_SECONDS if now < self._said_until + _PAUSE_SECONDS else _LEAST_SECONDS

    def say(self, frames: Sequence[bytes], now: float) -> list[Message]:
        """Return the messages that send some whole frames of sound."""
        messages: list[Message] = []
        if self._ends_at > now and self._ends_at > self._said_until and self._is_heard(now):
            self._drop_ahead(now)
            messages.append(FLUSH)
        self._kept.extend(frames)
        self._sent(len(frames), now)
        self._said_until = self._ends_at
        self.quiet_until = self._ends_at - _LEAST_SECONDS
        self.speaks = True
        messages += pieces(frames, self._frame_bytes)
        return messages + self._mark(now)

    def pause(self, now: float) -> list[Message]:
        """Return the messages that send silence, where some is due."""
        if self.blocked or not self.is_due(now):
            return []
        count = _PAUSE_FRAMES if now < self._said_until + _PAUSE_SECONDS else _SILENCE_FRAMES
        self._sent(count, now)
        self.quiet_until = self._ends_at - self._least(now)
        self.speaks = False
        return [*pieces([bytes(self._frame_bytes)] * count, self._frame_bytes), *self._mark(now)]

    def flush(self, now: float) -> float:
        """Forget what was said and is not heard yet, which the caller of this has to `FLUSH`.

        Returns:
            How much that is, in ms; 0: there is nothing to flush.
        """
        unheard = self._said_until - now
        if unheard <= 0:
            return 0.0
        self._drop_ahead(now)
        self._kept.clear()
        self._said_until = now
        return unheard * 1000

    def lost(self, now: float) -> list[bytes]:
        """Forget all, for the channel is gone; return the frames that were said and not heard."""
        unheard = 0.0 if self._is_heard(now) else max(0.0, self._said_until - now)
        count = min(len(self._kept), math.ceil(unheard / FRAME_SECONDS))
        frames = list(self._kept)[len(self._kept) - count :]
        self._forget()
        return frames

    def has_ended(self, now: float) -> bool:
        """Return whether something that was said has just been played to its end."""
        earliest = self._said_until - _DUE_SECONDS - 2 * FRAME_SECONDS
        return earliest <= now < self._said_until + _PAUSE_SECONDS

    def _is_heard(self, now: float) -> bool:
        """Return whether all that was said has certainly been heard."""
        return now >= self._said_until + _HEARD_SECONDS

    def _sent(self, count: int, now: float) -> None:
        self._ends_at = max(now, self._ends_at) + count * FRAME_SECONDS

    def _drop_ahead(self, now: float) -> None:
        # Marks that are flushed are never reported.
        self._ends_at = self.quiet_until = now
        self._marks.clear()
        self._overdue = 0.0

    def _mark(self, now: float) -> list[Message]:
        if now < self._marked_at + _MARK_SECONDS or len(self._marks) >= _MOST_MARKS:
            return []
        self._marks_made += 1
        name = str(self._marks_made)
        self._marked_at = now
        self._marks.append((name, self._ends_at))
        return [mark(name)]

    # --- what Asterisk says of it

    def hear(self, said: Said, now: float, *, punctual: bool = True) -> None:
        """Take an event of Asterisk's.

        Args:
            said: The event.
            now: The time.
            punctual: We were not held up, so it has just come.
        """
        match said:
            case Stop(on=on):
                self._stopped = on
            case MarkReached(name=name):
                self._reached(name, now, punctual)
            case _:
                pass

    def _reached(self, name: str, now: float, punctual: bool) -> None:
        if name not in {each for each, _ in self._marks}:
            return  # it was flushed
        expected = now
        while self._marks:
            each, expected = self._marks.popleft()
            if each == name:
                break
        self._overdue = 0.0
        late = now - expected
        # It may seem late because we have read it late; it cannot seem early.
        if late < -_DOUBT_SECONDS or (late > _DOUBT_SECONDS and punctual):
            self._shift(late, expected)

    def _shift(self, seconds: float, expected: float) -> None:
        """Correct all times by how much a mark came later than `expected`, or earlier."""
        if self._said_until >= expected - FRAME_SECONDS / 2:
            self._said_until += seconds
        self._ends_at += seconds
        self.quiet_until += seconds
        self._marks = deque((name, at + seconds) for name, at in self._marks)
