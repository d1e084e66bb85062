"""What comes over a WebSocket from whoever has a call's sound, and cannot be used. Pure: time is an
argument.
"""

from __future__ import annotations

from typing import Final

from aiohttp import WebSocketError, WSCloseCode


class BadInput(Exception):
    """Something came that cannot be used.

    Attributes:
        reason: A stable slug.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def unreadable(error: object, max_bytes: int) -> BadInput:
    """Return what is wrong with what aiohttp could not read; it has closed the socket.

    Args:
        error: What it says.
        max_bytes: So long it lets a message be.
    """
    if isinstance(error, WebSocketError) and error.code == WSCloseCode.MESSAGE_TOO_BIG:
        return BadInput("oversized", f"A message had over {max_bytes} bytes.")
    return BadInput("malformed", "What came is no WebSocket message (RFC 6455).")


class FloodGuard:
    """Refuses what comes faster than anybody speaks.

    Args:
        now: The time, in seconds.
    """

    _FASTEST: Final = 10.0
    _BURST_SECONDS: Final = 30.0
    """So much may come at once after a hold-up, and so many times as fast as it is spoken."""
    _TEXT_SECONDS: Final = 0.02
    """What a text message counts for."""

    def __init__(self, now: float) -> None:
        self._began, self._seconds_came = now, 0.0

    def text_came(self, now: float) -> None:
        """Count a text message.

        Raises:
            BadInput: That is a flood.
        """
        self.sound_came(self._TEXT_SECONDS, now)

    def sound_came(self, seconds: float, now: float) -> None:
        """Count so many seconds of sound.

        Raises:
            BadInput: That is a flood.
        """
        self._seconds_came += seconds
        if self._seconds_came > self._BURST_SECONDS + self._FASTEST * (now - self._began):
            raise BadInput(
                "too_fast", f"Over {self._FASTEST:g} times as much came as time has passed."
            )
