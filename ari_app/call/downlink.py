"""The agent's voice on its way to the line: converted, and complete to its last sample. Pure.

What an interruption has overtaken never comes here: the agent's protocol drops it
(`ari_app.elevenlabs.conversation`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ari_app.audio.convert import Converter


@dataclass(slots=True)
class DownlinkStats:
    """What came from the agent and what was made of it."""

    chunks: int = 0
    bytes_in: int = 0
    """In the agent's format."""
    bytes_out: int = 0
    """In the line's format."""


class Downlink:
    """One call's stream from the agent.

    Args:
        converter: from the agent's format to the line's; this stream's own.
        write: takes the line's PCM and the id of the response that it belongs to.
    """

    def __init__(self, converter: Converter, write: Callable[[bytes, int], object]) -> None:
        self._converter = converter
        self._write = write
        self._response_id = 0
        self.stats = DownlinkStats()

    def audio(self, response_id: int, data: bytes) -> None:
        """Converts a chunk in the agent's format and hands it over."""
        self.stats.chunks += 1
        self.stats.bytes_in += len(data)
        self._response_id = response_id
        self._hand_over(self._converter.process(data))

    def end_of_response(self) -> None:
        """Hands over the last samples of the response; the next chunk begins a new stream."""
        self._hand_over(self._converter.flush())
        self._converter.reset()

    def tail(self) -> bytes:
        """The samples held back, for a buffer that runs dry before the response has ended."""
        tail = self._converter.flush()
        self.stats.bytes_out += len(tail)
        return tail

    def reset(self) -> None:
        """Forgets the samples held back: an interruption has overtaken them."""
        self._converter.reset()

    def _hand_over(self, pcm: bytes) -> None:
        if pcm:
            self.stats.bytes_out += len(pcm)
            self._write(pcm, self._response_id)
