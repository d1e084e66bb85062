"""The agent's speech on the wire: event ids, chunks, what has been heard, interruptions. Pure."""

from __future__ import annotations

from lab.practice_agent import server_messages as messages
from lab.practice_agent.formats import AudioFormat, split
from lab.practice_agent.outbox import Outbox
from lab.practice_agent.profile import AgentProfile
from lab.practice_agent.record import ConversationRecord, Interrupted
from lab.practice_agent.utterance import Utterance

HOLD_CHUNK_MS = 1000


class Mouth:
    """Speaks through an outbox.

    Event ids only grow. A turn's transcript and its first response share one; whatever follows
    an interruption has a higher one than the interruption's.
    """

    def __init__(self, profile: AgentProfile, record: ConversationRecord, outbox: Outbox) -> None:
        self._format: AudioFormat = profile.formats.agent_output
        self._delivery = profile.delivery
        self._torn = profile.faults.torn_samples
        self._record = record
        self._outbox = outbox
        self._utterances: list[Utterance] = []
        self._response_count = 0
        self._turn_is_unanswered = False
        self.event_id = 0
        self.playing_until = 0.0
        """When the caller has heard everything, as far as the agent can tell."""

    @property
    def next_due_at(self) -> float | None:
        """When the next chunk leaves; None when nothing is being sent."""
        return self._utterances[-1].next_due_at if self._utterances else None

    def is_playing(self, now: float) -> bool:
        """Whether the caller should be hearing the agent."""
        return now < self.playing_until

    def new_turn(self) -> int:
        """Begin a turn of the caller's; return its event id."""
        self.event_id += 1
        self._turn_is_unanswered = True
        return self.event_id

    def speak(self, text: str, audio: bytes, now: float) -> None:
        """Begin a response. Without audio it is a text response, and complete at once."""
        if not self._turn_is_unanswered:
            self.event_id += 1
        self._turn_is_unanswered = False
        self._response_count += 1
        utterance = self._add(
            text, audio, now, chunk_ms=self._delivery.chunk_ms, speed=self._delivery.speed
        )
        self._outbox.report("agent", text, now)
        if not audio:
            self._send_text(utterance, spoken=False)
            self._send_complete(utterance)
        self.pump(now)

    def hold(self, audio: bytes, now: float) -> None:
        """Play audio that is no response, in real time: the wait in a queue."""
        if not self.event_id:
            self.event_id = 1
        self._add("", audio, now, chunk_ms=(HOLD_CHUNK_MS,), speed=1.0)
        self.pump(now)

    def pump(self, now: float) -> None:
        """Send the chunks that are due."""
        if not self._utterances:
            return
        utterance = self._utterances[-1]
        for chunk in utterance.take_due(now):
            if self._delivery.event_ids == "per_chunk" and not chunk.is_first:
                self.event_id += 1
            self._record.agent_audio_seconds += self._format.seconds(len(chunk.payload))
            self._outbox.send(messages.audio(chunk.payload, self.event_id, is_final=chunk.is_final))
            if chunk.is_first and utterance.text:
                self._send_text(utterance, spoken=True)
            if chunk.is_final and utterance.text:
                self._send_complete(utterance)

    def stop(self, now: float) -> None:
        """Forget everything that has not been heard."""
        self._utterances.clear()
        self.playing_until = now

    def interrupt(self, now: float) -> None:
        """Stop because the caller speaks, and say so: interruption first, then corrections."""
        self._outbox.send(messages.interruption(self.event_id))
        heard_in_all: list[str] = []
        for utterance in self._utterances:
            if utterance.ends_at <= now:
                continue
            heard = utterance.heard(now)
            heard_in_all.append(heard)
            self._outbox.send(
                messages.agent_response_correction(
                    utterance.text, heard, utterance.event_id, utterance.response_id
                )
            )
        heard_text = " ".join(filter(None, heard_in_all))
        self._record.interruptions.append(Interrupted(now, self.event_id, heard_text))
        self._outbox.report("note", f"interrupted after: {heard_text}", now)
        self._turn_is_unanswered = False
        self.stop(now)

    def _add(
        self, text: str, audio: bytes, now: float, *, chunk_ms: tuple[int, ...], speed: float
    ) -> Utterance:
        utterance = Utterance(
            text,
            f"{self._record.conversation_id}_r{self._response_count}",
            self.event_id,
            split(audio, self._format, chunk_ms, torn=self._torn),
            duration_s=self._format.seconds(len(audio)),
            started_at=now,
            plays_from=max(now, self.playing_until),
            speed=speed,
        )
        self._utterances = [old for old in self._utterances if old.ends_at > now]
        self._utterances.append(utterance)
        self.playing_until = utterance.ends_at
        return utterance

    def _send_text(self, utterance: Utterance, *, spoken: bool) -> None:
        self._outbox.send(
            messages.agent_response(
                utterance.text, utterance.event_id, utterance.response_id, spoken=spoken
            )
        )

    def _send_complete(self, utterance: Utterance) -> None:
        self._outbox.send(messages.agent_response_complete(utterance.event_id))
