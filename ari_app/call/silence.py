"""Whether the agent owes the caller an answer, and for how long. Pure.

An agent whose socket is alive may still be dead behind it. The caller has spoken and hears nothing:
after a time it is told so, once, in a way that makes a healthy agent speak. After the same time
again it has failed.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

_PAUSE: Final = 0.2
"""Part of the limit for which the caller must have paused: who is still speaking is not waiting."""


class Verdict(Enum):
    """What is to be done about the agent's silence."""

    TELL = auto()
    """Tell the agent, once."""
    GIVE_UP = auto()
    """It has been told, and said nothing."""


class SilenceWatch:
    """Watches one call. All times are seconds on the clock of ``now``.

    Args:
        limit_seconds: How long the caller waits until the agent is told; 0: for ever.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._since: float | None = None
        self._told = False

    def look(
        self, now: float, *, spoke_at: float, answered_at: float, excused: bool
    ) -> Verdict | None:
        """Take a look; once a second is often enough.

        The time runs from the first word of the caller's that was not answered: one who asks
        "hello?" again and again does not begin it anew.

        Args:
            now: The time.
            spoke_at: When the caller last stopped speaking.
            answered_at: When the caller last heard the agent.
            excused: Something explains the silence: a tool is running, the caller is on hold.
        """
        if spoke_at <= answered_at or not self._limit:
            self._since, self._told = None, False
            return None
        if excused or self._since is None:
            self._since = now if excused else spoke_at
            return None
        if now - self._since < self._limit or now - spoke_at < self._limit * _PAUSE:
            return None
        if self._told:
            return Verdict.GIVE_UP
        self._since, self._told = now, True
        return Verdict.TELL
