"""What is said to Asterisk's chan_websocket, and when. Pure: `now` comes in, messages come out.

Asterisk (22.8 and later) plays what it is sent in its own time, from a queue, so a stall of ours is
not heard. We keep that queue short, and know what is in it: `Feed`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson

FRAME_SECONDS: Final = 0.02
MOST_BYTES: Final = 64_000
"""A longer message ends the channel: Asterisk takes 65,500 bytes."""

OPTIONS: Final = "f(json)"
"""How the channel is to speak. Never made of anything that comes from outside: a mistake in it has
ended a whole Asterisk."""

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
    """What Asterisk has been sent and has not played.

    Time is reckoned: what is sent is played after what was sent before, in real time. A mark each
    second says how far that is right, and whether Asterisk plays at all.

    When nothing is said, silence goes out: without it Asterisk sends no packets, and a trunk or a
    firewall gives up a call without packets. It lies far ahead, for it is flushed as soon as
    something is said.

    Args:
        frame_bytes: The size of a frame.

    Attributes:
        quiet_until: Until then nothing needs to be sent, but for sound after silence.
        speaks: Sound was sent last, and not silence.
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
        """Look whether Asterisk plays; to be called before what is asked at the same moment.

        Args:
            now: The time.
            punctual: We have not been held up: what Asterisk has said has been read.
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
            self.quiet_until = now  # somebody has to look

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
        """Return whether the next frame is due, be it silence."""
        return self._ends_at - now <= self._least(now)

    def _least(self, now: float) -> float:
        """How much has to lie ahead. Silence that is flushed again may always be as much as
        sound."""
        return _DUE_SECONDS if now < self._said_until + _PAUSE_SECONDS else _LEAST_SECONDS

    def say(self, frames: Sequence[bytes], now: float) -> list[Message]:
        """Send sound: a few whole frames."""
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
        """Send silence, if it is time to."""
        if self.blocked or not self.is_due(now):
            return []
        count = _PAUSE_FRAMES if now < self._said_until + _PAUSE_SECONDS else _SILENCE_FRAMES
        self._sent(count, now)
        self.quiet_until = self._ends_at - self._least(now)
        self.speaks = False
        return [*pieces([bytes(self._frame_bytes)] * count, self._frame_bytes), *self._mark(now)]

    def flush(self, now: float) -> float:
        """Throw away what is said and not heard, with `FLUSH`; how much, in ms. 0: no flush."""
        unheard = self._said_until - now
        if unheard <= 0:
            return 0.0
        self._drop_ahead(now)
        self._kept.clear()
        self._said_until = now
        return unheard * 1000

    def lost(self, now: float) -> list[bytes]:
        """Note that the channel is gone; the frames that were said and not heard."""
        unheard = 0.0 if self._is_heard(now) else max(0.0, self._said_until - now)
        count = min(len(self._kept), math.ceil(unheard / FRAME_SECONDS))
        frames = list(self._kept)[len(self._kept) - count :]
        self._forget()
        return frames

    def has_ended(self, now: float) -> bool:
        """Return whether something was said just now, to its end, as far as we can reckon."""
        earliest = self._said_until - _DUE_SECONDS - 2 * FRAME_SECONDS
        return earliest <= now < self._said_until + _PAUSE_SECONDS

    def _is_heard(self, now: float) -> bool:
        """Whether all that was said has been heard for certain."""
        return now >= self._said_until + _HEARD_SECONDS

    def _sent(self, count: int, now: float) -> None:
        self._ends_at = max(now, self._ends_at) + count * FRAME_SECONDS

    def _drop_ahead(self, now: float) -> None:
        # A flush takes marks along without a word.
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
        """Take note of what Asterisk says, read at once if we are `punctual`."""
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
        # Late it may be because we read it late; too early it cannot be.
        if late < -_DOUBT_SECONDS or (late > _DOUBT_SECONDS and punctual):
            self._shift(late, expected)

    def _shift(self, seconds: float, expected: float) -> None:
        """Correct the reckoning by what is known of a mark that was expected at a time."""
        if self._said_until >= expected - FRAME_SECONDS / 2:
            self._said_until += seconds
        self._ends_at += seconds
        self.quiet_until += seconds
        self._marks = deque((name, at + seconds) for name, at in self._marks)
