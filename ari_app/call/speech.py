"""When the agent speaks, and when it has fallen silent; kept until the caller can hear it."""

from __future__ import annotations

import asyncio
from typing import Final

from ari_app.audio_interface import Cleared
from ari_app.call.line_audio import LineAudio
from ari_app.call.streamer import AgentAudio, ConversationStreamer

# After the agent has said that it ends the call: how long it may stay silent, and how long it may
# take.
QUIET_SECONDS: Final = 1.5
_QUIET_LIMIT_SECONDS: Final = 20.0
# Between two pieces of one sentence.
_SENTENCE_SECONDS: Final = 0.4
# What the agent says while the caller is on the way back from the music. A minute in the widest
# format is 6 MB; of what comes beyond it the caller hears nothing, so that no word is cut out of
# the middle.
_MAX_KEPT_CHUNKS: Final = 500
_MAX_KEPT_BYTES: Final = 8_000_000
# Until it is known whether what is heard is a voice.
_UNSURE_SECONDS: Final = 0.5


class AgentSpeech:
    """What one call's agents say, one after the other, on the way to the line.

    Args:
        audio: The line.

    Attributes:
        streamer: Carries the sound, once there is an agent.
        heard_until: When the caller will have heard all of it, or has; on the loop's clock.
        last_word: When somebody said something in another way: keys, a transcript.
    """

    def __init__(self, audio: LineAudio) -> None:
        self._audio = audio
        self._loop = asyncio.get_running_loop()
        self._last_audio = 0.0
        self._quiet_deadline = 0.0
        self._kept: list[tuple[int, bytes, bool]] = []
        self._kept_bytes = 0
        self.streamer: ConversationStreamer | None = None
        self.heard_until = 0.0
        self.last_word = self._loop.time()

    def carry(self, agent: AgentAudio) -> None:
        """Take an agent's voice from now on, and let it hear the line."""
        if self.streamer is None:
            self.streamer = ConversationStreamer(self._audio, agent)
        else:
            self.streamer.replace(agent)

    # --- what it says

    def take(self, event_id: int, data: bytes, is_final: bool, *, keep: bool = False) -> None:
        """Take a piece of a response: for the line, or kept behind what is kept already."""
        self._last_audio = self._loop.time()
        if keep or self._kept:
            self._keep(event_id, data, is_final)
        else:
            self._play(event_id, data, is_final)

    def play_kept(self) -> None:
        """The caller can hear the agent: what was kept is heard now."""
        kept = self._take_kept()
        for event_id, data, is_final in kept:
            self._play(event_id, data, is_final)

    def interrupt(self) -> Cleared | None:
        """The caller speaks over it."""
        self.last_word = self.heard_until = self._loop.time()
        self._take_kept()
        return None if self.streamer is None else self.streamer.interrupt()

    def _keep(self, event_id: int, data: bytes, is_final: bool) -> None:
        self._kept_bytes += len(data)
        if len(self._kept) < _MAX_KEPT_CHUNKS and self._kept_bytes <= _MAX_KEPT_BYTES:
            self._kept.append((event_id, data, is_final))

    def _take_kept(self) -> list[tuple[int, bytes, bool]]:
        kept, self._kept, self._kept_bytes = self._kept, [], 0
        return kept

    def end_response(self) -> None:
        """Nothing more comes of the last response."""
        if self.streamer is not None:
            self.streamer.response_complete()

    def _play(self, event_id: int, data: bytes, is_final: bool) -> None:
        if self.streamer is not None:
            self.streamer.agent_audio(event_id, data, is_final=is_final)
            self.heard_until = self._loop.time() + self.queued_seconds

    # --- silence

    @property
    def queued_seconds(self) -> float:
        """How much the caller has still to hear."""
        return self._audio.playout.pending_ms / 1000

    def begin_quiet(self) -> float:
        """Start to wait for the agent's silence; seconds until the first look."""
        self._quiet_deadline = self._loop.time() + _QUIET_LIMIT_SECONDS
        return QUIET_SECONDS

    def still_speaking(self) -> float:
        """Seconds until the agent, who wants to end, counts as silent; 0 when it is."""
        now = self._loop.time()
        if now >= self._quiet_deadline:
            return 0.0
        return min(self._silent_in(QUIET_SECONDS), self._quiet_deadline - now)

    def somebody_spoke(self) -> None:
        """Take note that somebody has said something just now, in whichever way."""
        self.last_word = self._loop.time()

    def silence_lacks(self, seconds: float) -> float:
        """Seconds that a silence of so many lacks, or less where what is heard may be noise."""
        now, hearing = self._loop.time(), self._audio.hearing
        heard = max(self.heard_until, self.last_word, hearing.last_speech_at)
        lacks = seconds - max(0.0, now - heard)
        return min(lacks, _UNSURE_SECONDS) if hearing.is_unsure(now) else lacks

    async def silent(self, quiet_seconds: float = _SENTENCE_SECONDS) -> None:
        """Wait until all that the agent said has been heard, for 20 s at most."""
        deadline = self._loop.time() + _QUIET_LIMIT_SECONDS
        while (left := self._silent_in(quiet_seconds)) > 0 and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(left)

    def will_speak(self) -> None:
        """Count as speaking from now on: it is about to say something."""
        self._last_audio = max(self._last_audio, self._loop.time())

    def _silent_in(self, quiet_seconds: float) -> float:
        now, queued = self._loop.time(), self.queued_seconds
        quiet = max(self._last_audio, now) if queued else self._last_audio
        return max(0.0, quiet + queued + quiet_seconds - now)
