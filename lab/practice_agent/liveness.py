"""What happens by itself as time goes by: pings and the two time-outs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from lab.practice_agent.profile import Limits

MAX_OUTSTANDING = 16


@dataclass(frozen=True, slots=True)
class PingDue:
    """Send a ping."""

    event_id: int
    ping_ms: int | None


@dataclass(frozen=True, slots=True)
class ReceiveTimeout:
    """No user input for too long."""


@dataclass(frozen=True, slots=True)
class MaxDuration:
    """The conversation has lasted as long as it may."""


LivenessEvent = PingDue | ReceiveTimeout | MaxDuration


class Liveness:
    """Starts with the conversation; pings at once and then at fixed times."""

    def __init__(self, limits: Limits, *, duration_seconds: float, now: float) -> None:
        self._limits = limits
        self._next_ping_at = now
        self._idle_at = now + limits.receive_seconds
        self._ends_at = now + duration_seconds
        self._event_id = 0
        self._sent_at: dict[int, float] = {}
        self._ping_ms: int | None = None

    @property
    def next_at(self) -> float:
        """When `take_due` has something to say."""
        return min(self._next_ping_at, self._idle_at, self._ends_at)

    def user_input(self, now: float) -> None:
        """Audio, text or activity of the user's has arrived."""
        self._idle_at = now + self._limits.receive_seconds

    def pong(self, event_id: int, now: float) -> float | None:
        """Match a pong; return the round trip in seconds, None when no such ping is out."""
        sent_at = self._sent_at.pop(event_id, None)
        if sent_at is None:
            return None
        self._ping_ms = round((now - sent_at) * 1000)
        return now - sent_at

    def take_due(self, now: float) -> list[LivenessEvent]:
        """Return what is due by ``now``; a timeout comes alone."""
        if now >= self._ends_at:
            return [MaxDuration()]
        if now >= self._idle_at:
            return [ReceiveTimeout()]
        if now < self._next_ping_at:
            return []
        self._next_ping_at += self._limits.ping_seconds
        if self._next_ping_at <= now:
            self._next_ping_at = now + self._limits.ping_seconds
        self._event_id += 1
        if len(self._sent_at) == MAX_OUTSTANDING:
            del self._sent_at[next(iter(self._sent_at))]
        self._sent_at[self._event_id] = now
        return [PingDue(self._event_id, self._ping_ms)]
