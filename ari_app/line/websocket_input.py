"""Input of a line's WebSocket that must be refused: unreadable messages, and floods. Pure: time is
an argument.
"""

from __future__ import annotations

from typing import Final

from aiohttp import WebSocketError, WSCloseCode


class BadInput(Exception):
    """The far end has sent something that cannot be used; the connection is given up.

    Attributes:
        reason: A stable slug.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


def unreadable(error: object, max_bytes: int) -> BadInput:
    """Turn an error that aiohttp met while reading, upon which it closed the socket, into ours.

    Args:
        error: The `data` of aiohttp's message of type ERROR.
        max_bytes: The longest message that was allowed.
    """
    if isinstance(error, WebSocketError) and error.code == WSCloseCode.MESSAGE_TOO_BIG:
        return BadInput("oversized", f"A message had over {max_bytes} bytes.")
    return BadInput("malformed", "What came is no WebSocket message (RFC 6455).")


class FloodGuard:
    """Refuses sound that comes faster than anybody speaks: over ten times real time, after a burst
    of 30 s that a hold-up may have gathered, be the call long or short.

    Args:
        now: The time, in seconds; on the same clock as for each call.
    """

    _FASTEST: Final = 10.0
    _BURST_SECONDS: Final = 30.0
    _TEXT_SECONDS: Final = 0.02
    """A text message counts as so much sound."""

    def __init__(self, now: float) -> None:
        self._at, self._allowed = now, self._BURST_SECONDS

    def text_came(self, now: float) -> None:
        """Count a text message.

        Raises:
            BadInput: It is too much.
        """
        self.sound_came(self._TEXT_SECONDS, now)

    def sound_came(self, seconds: float, now: float) -> None:
        """Count so many seconds of sound.

        Raises:
            BadInput: It is too much.
        """
        allowed = min(self._BURST_SECONDS, self._allowed + self._FASTEST * (now - self._at))
        self._at, self._allowed = now, allowed - seconds
        if self._allowed < 0:
            raise BadInput(
                "too_fast", f"Over {self._FASTEST:g} times as much came as time has passed."
            )
