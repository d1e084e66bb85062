"""The wait for a free agent, with a message that repeats. Pure.

Source: ElevenLabs, *Call queueing*: ``waiting`` comes right after the metadata, hold audio is
ordinary audio in chunks of about a second, the end is ``admitted``, or ``timed_out`` and close
code 4300.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from lab.practice_agent import server_messages as messages
from lab.practice_agent.mouth import Mouth
from lab.practice_agent.outbox import Outbox
from lab.practice_agent.profile import Queue


class WaitingRoom:
    """Announces the wait when it is made."""

    def __init__(self, queue: Queue, mouth: Mouth, outbox: Outbox, *, now: float) -> None:
        self._queue = queue
        self._mouth = mouth
        self._outbox = outbox
        self._ends_at = now + queue.seconds
        self._is_rendering = False
        outbox.send(messages.queue_status("waiting"))

    def deadlines(self) -> Iterator[float | None]:
        """The times at which `outcome` has something to do."""
        yield self._ends_at
        yield self._mouth.next_due_at
        yield None if self._is_rendering else self._mouth.playing_until

    def rendered(self, audio: bytes, now: float) -> None:
        """Take the sound of the message."""
        self._is_rendering = False
        self._mouth.hold(audio, now)

    def outcome(self, now: float) -> Literal["admitted", "timed_out"] | None:
        """Keep the caller company until ``now``; return how the wait ended, None if it goes on."""
        if now >= self._ends_at:
            self._mouth.stop(now)
            self._outbox.send(messages.queue_status(self._queue.outcome))
            return self._queue.outcome
        self._mouth.pump(now)
        if not self._is_rendering and not self._mouth.is_playing(now):
            self._is_rendering = True
            self._outbox.render(self._queue.message)
        return None
