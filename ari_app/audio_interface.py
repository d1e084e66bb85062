"""Where a conversation's sound comes from and goes to.

:class:`ari_app.call.streamer.ConversationStreamer` knows nothing else of the line, so the same
streamer serves a call through AudioSocket and anything else that can hear and speak.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from ari_app.audio.formats import AudioFormat


@dataclass(frozen=True, slots=True)
class Cleared:
    """What an interruption left of a response.

    Attributes:
        response_id: The response that was playing; 0 when none was.
        heard_ms: How much of it had been played.
        dropped_ms: How much will never be heard.
    """

    response_id: int
    heard_ms: float
    dropped_ms: float


class AudioInterface(ABC):
    """Abstract interface for audio input and output.

    Attributes:
        rate_hz: Samples a second on the line, where audio is 16-bit PCM, little endian, mono.
        on_dry: Asked once for the last samples of a response whose end was not announced, when
            playing runs out of them.
        on_chunk: Where it is set, an interface that can do so hands over each chunk the moment that
            it is complete. :meth:`read_audio_chunk` then only waits for the end: to wake a task for
            every chunk of every call is a good part of what a call costs.
    """

    rate_hz: int
    on_dry: Callable[[], bytes] | None = None
    on_chunk: Callable[[bytes], None] | None = None

    @abstractmethod
    def start(self, heard_as: AudioFormat) -> None:
        """Begin to listen and to play; what was written before is played from its first sample.

        Called again, it goes on in another format.

        Args:
            heard_as: The format that :meth:`read_audio_chunk` returns.
        """

    @abstractmethod
    async def read_audio_chunk(self) -> bytes:
        """Wait for the next chunk from the source, in the format that was given to :meth:`start`.

        Chunks follow the wall clock: where the source pauses they hold silence, so that a listener
        who counts samples knows the time.

        Raises:
            LineError: The interface has been closed.
        """

    @abstractmethod
    def write_audio_chunk(self, audio: bytes, response_id: int = 0) -> None:
        """Queue audio for playing; returns at once, for a queue holds minutes.

        Args:
            audio: PCM at ``rate_hz``, any length.
            response_id: Which of the agent's responses it belongs to.
        """

    @abstractmethod
    def end_response(self) -> None:
        """Say that what was written last completes a response."""

    @abstractmethod
    def clear(self) -> Cleared:
        """Throw away what is queued and fall silent, without a click."""

    @abstractmethod
    async def drained(self) -> None:
        """Wait until all that was written has been played; on a closed interface not at all."""

    @abstractmethod
    async def close(self) -> None:
        """Close audio streams. May be called twice."""
