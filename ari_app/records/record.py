"""What is kept of one call for others to see."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from ari_app.line.asterisk.line import Party
from ari_app.records.bounded import Bounded, shortened
from ari_app.records.events import TranscriptLine
from ari_app.tools.http_tools import CallFacts

_MAX_TRANSCRIPT = 500


class CallRecord:
    """The course of a call, as data.

    Attributes:
        session_id: Ours; ``AGENT_SESSION_ID`` in the dialplan.
        call_id: The channel of the caller, or of the callee where we call.
        agent_id: The agent that was asked for.
        conversation_id: The conversation with it, the last one; ``AGENT_CONVERSATION_ID``.
        line_format: What is spoken on the line.
        reference: A dialer's own name for the call.
        metadata: What the request brought along, and what became known: ``amd_status``; and
            ``first_conversation_id``, when the agent was lost and ``conversation_id`` is another's.
        started_at, answered_at, ended_at: When it entered the application, when sound began, and
            when everything had been given back.
        hangup_cause, sip_code: Why the caller's channel ended, once it has, where Asterisk says.
        caller_hung_up: Asterisk has reported a hang-up.
        transcript: What was said: the last 500 lines, of 256 KiB in all and 8 KiB each.
        ended: Set once everything has been given back.
    """

    def __init__(self, party: Party, *, session_id: str) -> None:
        self.session_id = session_id
        self.call_id = party.channel_id
        self.caller_number = party.caller_number
        self.called_number = party.called_number
        self.agent_id = ""
        self.conversation_id = ""
        self.line_format = ""
        self.reference: str | None = None
        self.metadata: dict[str, Any] = {}
        self.started_at = datetime.now(UTC)
        self.answered_at: datetime | None = None
        self.ended_at: datetime | None = None
        self.hangup_cause: int | None = None
        self.sip_code: int | None = None
        self.caller_hung_up = False
        self.transcript: Bounded[TranscriptLine] = Bounded(_MAX_TRANSCRIPT)
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._duration: float | None = None

    def duration(self) -> float:
        """Seconds from entering the application to the end, or to now."""
        return self._loop.time() - self._started if self._duration is None else self._duration

    def facts(self) -> CallFacts:
        """What HTTP tools may be told about the call."""
        return CallFacts(
            session_id=self.session_id,
            call_id=self.call_id,
            conversation_id=self.conversation_id,
            agent_id=self.agent_id,
            caller_number=self.caller_number,
            called_number=self.called_number,
        )

    def caller_ended(self, cause: int | None, sip_code: int | None) -> None:
        """Keep why the caller's channel has ended, as far as it is known."""
        self.hangup_cause = cause or self.hangup_cause
        self.sip_code = sip_code or self.sip_code

    def converses(self, conversation_id: str) -> None:
        """Keep which conversation it is now; the first one stays in ``metadata``."""
        if self.conversation_id:
            self.metadata.setdefault("first_conversation_id", self.conversation_id)
        self.conversation_id = conversation_id

    def add_line(self, who: str, text: str) -> TranscriptLine:
        """Add to the transcript."""
        line = TranscriptLine(round(self.duration(), 3), who, shortened(text))
        self.transcript.append(line, line.text)
        return line

    def finish(self) -> None:
        """The call is over."""
        self.ended_at = datetime.now(UTC)
        self._duration = self.duration()
        self.ended.set()
