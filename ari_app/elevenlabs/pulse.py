"""Whether the agent's socket is alive: it must answer our pings. Pure.

A peer that has vanished, or a process that has stopped, leaves an open socket on which nothing
comes, and TCP alone finds that after minutes. So we ping, and whatever arrives is an answer.

It counts looks, not seconds: when this process itself was held up, only one look was missed, and
what came meanwhile is read before the next one.
"""

from __future__ import annotations

from typing import Final

LOOKS: Final = 4
"""A peer that is silent for so many looks, one after the other, is dead."""


class Pulse:
    """Counts the looks at which nothing had arrived since the one before."""

    def __init__(self) -> None:
        self._missed = 0

    def look(self, heard: bool) -> bool:
        """Take one look; False: the peer is dead. Otherwise a ping is to be sent.

        Args:
            heard: Whether anything has arrived since the last look.
        """
        self._missed = 0 if heard else self._missed + 1
        return self._missed < LOOKS
