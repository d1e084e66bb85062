"""What is at the end of a line, whatever the line is: an ear and a mouth, for as long as a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from lab.softphone.ear import Ear
from lab.softphone.ending import Ending
from lab.softphone.errors import CallOver
from lab.softphone.listener import Listener
from lab.softphone.mouth import Mouth, Utterance
from lab.softphone.sounds import read_wav


class Handset(Listener):
    """Hears and speaks. All sound is 16-bit PCM, mono, 8 kHz.

    Attributes:
        started_at, answered_at, ended_at: Monotonic seconds.
    """

    def __init__(self, ear: Ear, mouth: Mouth) -> None:
        super().__init__(ear)
        self.mouth = mouth
        self.started_at = time.monotonic()
        self.answered_at: float | None = None
        self.ended_at: float | None = None
        self.ending: Ending | None = None

    @property
    def is_up(self) -> bool:
        return self.answered_at is not None and self.ending is None

    @property
    def ended(self) -> Awaitable[Ending]:
        """Done when the call is over. Whoever waits may give up without harm."""
        return asyncio.shield(self._ended)

    def over(self, ending: Ending) -> None:
        """The call is over, once."""
        self.ending = ending
        self.ended_at = time.monotonic()
        self._ended.set_result(ending)

    def send(self, pcm: bytes) -> Utterance:
        """Queue sound behind what is queued already; pieces are joined without a seam.

        Raises:
            ValueError: half a sample.
            MouthFull: ten minutes are queued already.
            CallOver: the call has ended.
        """
        return self._say(pcm, None)

    async def play(self, sound: bytes | str | Path) -> Utterance:
        """Say PCM, or a WAV file, and wait until its last packet has left.

        Raises:
            CallOver: the call ended first.
        """
        pcm = sound if isinstance(sound, bytes) else read_wav(sound)
        finished = asyncio.Event()
        utterance = self._say(pcm, finished.set)
        await finished.wait()
        if utterance.dropped and self.ending is not None:
            raise CallOver("the call ended while something was said")
        return utterance

    def be_silent(self) -> None:
        """Drop what is queued; silence goes out from the next packet on."""
        self.mouth.clear(time.monotonic())

    def mute_rtp(self, muted: bool) -> None:
        """Stop sending packets altogether, as a phone with silence suppression may."""
        self.mouth.muted = muted

    def suppress_silence(self, suppress: bool) -> None:
        """Send packets only while there is something to say."""
        self.mouth.suppress_silence = suppress

    def _say(self, pcm: bytes, on_finished: Callable[[], None] | None) -> Utterance:
        self._check_not_over()
        utterance = Utterance(pcm, on_finished)
        self.mouth.say(utterance)
        return utterance

    def _check_not_over(self) -> None:
        if self.ending is not None:
            raise CallOver("the call has ended")
