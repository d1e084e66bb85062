"""What the caller hears of the agents of one call, and when it is silent."""

from __future__ import annotations

import asyncio
from typing import Final

from ari_app.call.sound import CallSound, Cleared
from ari_app.records.record import CallRecord

# After the agent has said that it ends the call: how long it may stay silent, and how long it may
# take.
QUIET_SECONDS: Final = 1.5
_QUIET_LIMIT_SECONDS: Final = 20.0
# How often whoever waits for silence looks anew.
_SILENCE_LOOK_SECONDS: Final = 0.1
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
    """The speech of one call's agents, one after the other, on the way to the line.

    Args:
        sound: The call's sound.
        record: Told when it is heard.

    Attributes:
        heard_until: When the caller will have heard all of it, or has; on the loop's clock.
        last_word: When somebody said something in another way: keys, a transcript.
    """

    def __init__(self, sound: CallSound, record: CallRecord) -> None:
        self._sound = sound
        self._record = record
        self._loop = asyncio.get_running_loop()
        self._last_audio = 0.0
        self._quiet_deadline = 0.0
        self._kept: list[tuple[int, bytes, bool]] = []
        self._kept_bytes = 0
        self._nothing_kept = asyncio.Event()
        self._nothing_kept.set()
        self.heard_until = 0.0
        self.last_word = self._loop.time()

    # --- what it says

    def take(self, event_id: int, data: bytes, is_final: bool, *, keep: bool = False) -> None:
        """Take a piece of a response: for the line, or kept behind what is kept already."""
        self._last_audio = self._loop.time()
        if keep or self._kept:
            self._keep(event_id, data, is_final)
        else:
            self._play(event_id, data, is_final)

    def play_kept(self) -> None:
        """Let what was kept be heard now, for the caller can hear the agent."""
        kept = self._take_kept()
        for event_id, data, is_final in kept:
            self._play(event_id, data, is_final)

    async def nothing_kept(self) -> None:
        """Wait until nothing is kept: it is being heard, or never will be."""
        await self._nothing_kept.wait()

    def interrupt(self, *, by_caller: bool = True) -> Cleared:
        """Fall silent, for the caller, or somebody else, speaks in its place."""
        self.last_word = self._loop.time()
        # What was heard before was heard then.
        self.heard_until = min(self.heard_until, self.last_word)
        self._take_kept()
        return self._sound.clear(measured=by_caller)

    def _keep(self, event_id: int, data: bytes, is_final: bool) -> None:
        self._kept_bytes += len(data)
        if len(self._kept) < _MAX_KEPT_CHUNKS and self._kept_bytes <= _MAX_KEPT_BYTES:
            self._kept.append((event_id, data, is_final))
            self._nothing_kept.clear()

    def _take_kept(self) -> list[tuple[int, bytes, bool]]:
        kept, self._kept, self._kept_bytes = self._kept, [], 0
        self._nothing_kept.set()
        return kept

    def end_response(self) -> None:
        """Complete the last response: nothing more comes of it."""
        if self._kept:
            event_id, data, _ = self._kept[-1]
            self._kept[-1] = (event_id, data, True)
            return
        self._sound.end_response()
        self._record.chronicle.response_over()

    def _play(self, event_id: int, data: bytes, is_final: bool) -> None:
        sound, chronicle = self._sound, self._record.chronicle
        # What waits for silence is heard after this.
        waiting = sound.waiting_seconds
        before = self.queued_seconds - waiting
        sound.say(event_id, data, is_final=is_final)
        now, queued = self._loop.time(), self.queued_seconds - waiting
        self.heard_until = now + queued
        if queued > before:
            since = now - self._record.began if sound.flows else 0.0
            chronicle.hears(event_id, since + before, since + queued)
        if is_final:
            chronicle.response_over()

    # --- silence

    @property
    def queued_seconds(self) -> float:
        """How much the caller has still to hear."""
        return self._sound.queued_seconds

    def begin_quiet(self, limit_seconds: float | None = None) -> None:
        """Start to wait for the agent's silence, for 20 s at most where nothing else is said."""
        self._quiet_deadline = self._loop.time() + (limit_seconds or _QUIET_LIMIT_SECONDS)

    def still_speaking(self) -> float:
        """Return the seconds until the agent, who wants to end, counts as silent; 0 when it is."""
        now = self._loop.time()
        if now >= self._quiet_deadline:
            return 0.0
        return min(self._silent_in(QUIET_SECONDS), self._quiet_deadline - now)

    def still_conversing(self, answer_seconds: float) -> float:
        """Return the seconds until both, the agent and whoever hears it, count as silent; 0 when
        they are.

        Args:
            answer_seconds: How long the agent may take to answer.
        """
        now, spoke_at = self._loop.time(), self._sound.hearing.last_speech_at
        owes = spoke_at + answer_seconds - now if spoke_at > self.heard_until else 0.0
        lasts = max(self.still_speaking(), owes)
        return max(0.0, min(lasts, self._quiet_deadline - now))

    def somebody_spoke(self) -> None:
        """Take note that somebody has said something just now, in whichever way."""
        self.last_word = self._loop.time()

    def silence_lacks(self, seconds: float) -> float:
        """Return the seconds that a silence of so many lacks, or less where what is heard may be
        noise."""
        now, hearing = self._loop.time(), self._sound.hearing
        heard = max(self.heard_until, self.last_word, hearing.last_speech_at)
        lacks = seconds - max(0.0, now - heard)
        return min(lacks, _UNSURE_SECONDS) if hearing.is_unsure(now) else lacks

    async def silent(self, quiet_seconds: float = _SENTENCE_SECONDS) -> None:
        """Wait until all that the agent said has been heard, for 20 s at most."""
        deadline = self._loop.time() + _QUIET_LIMIT_SECONDS
        while (left := self._silent_in(quiet_seconds)) > 0 and self._loop.time() < deadline:  # noqa: ASYNC110
            # The caller may interrupt meanwhile, or hang up.
            await asyncio.sleep(min(left, _SILENCE_LOOK_SECONDS))

    def will_speak(self) -> None:
        """Count as speaking from now on: it is about to say something."""
        self._last_audio = max(self._last_audio, self._loop.time())

    def _silent_in(self, quiet_seconds: float) -> float:
        now, queued = self._loop.time(), self.queued_seconds
        quiet = max(self._last_audio, now) if queued else self._last_audio
        return max(0.0, quiet + queued + quiet_seconds - now)
