"""What one caller hears: when there was sound, and how far apart the packets came. Pure."""

from __future__ import annotations

from lab.softphone.ear import Arrival
from lab.softphone.sounds import level_dbfs

_LOUD_DBFS = -40.0
_LOOK_AT_EVERY = 3
"""Of so many packets the level of one is looked at: sound lasts longer, and looking costs."""


class Hearing:
    """Follows the packets of one call. Times are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self.counting = False
        """Whether gaps are taken: only while the agent has the call, for whoever gets it next is
        free to send nothing in between."""
        self.first_sound_at: float | None = None
        self.last_sound_at = now
        """The last sound; before there was any, when the call began."""
        self._last_packet_at: float | None = None
        self._packets = 0

    def hear(self, arrival: Arrival) -> float | None:
        """Take a packet; the gap in ms before it, if it is to be counted."""
        self._packets += 1
        if self._packets % _LOOK_AT_EVERY == 0 and level_dbfs(arrival.pcm) >= _LOUD_DBFS:
            self.last_sound_at = arrival.at
            if self.first_sound_at is None:
                self.first_sound_at = arrival.at
        last, self._last_packet_at = self._last_packet_at, arrival.at
        if last is None or not self.counting:
            return None
        return max(0.0, (arrival.at - last) * 1000)

    def silent_for(self, now: float) -> float:
        """Seconds since the last sound."""
        return max(0.0, now - self.last_sound_at)
