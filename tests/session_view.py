"""A call as tests look at it, from its arrival to long after its end."""

from __future__ import annotations

import asyncio
from typing import Any

from ari_app.call.call import Call
from ari_app.call.calls import Calls, Waiting
from ari_app.call.signals import Event
from ari_app.call.sound import CallSound
from ari_app.call.states import State
from ari_app.line.asterisk.line import AsteriskLine
from ari_app.line.asterisk.names import bridge_id, media_channel_id
from ari_app.line.interface import Line, LineEvent, Outcome, Status
from ari_app.records.bounded import Bounded
from ari_app.records.record import CallRecord, TranscriptLine

APP = "voice-agent"


class Session:
    """One call's record, and its parts while it has not ended.

    Args:
        calls: All calls.
        record: The call's record.
    """

    def __init__(self, calls: Calls, record: CallRecord) -> None:
        self._calls = calls
        self._last: Call | Waiting | None = None
        self._line: Line | None = None
        self.record = record
        _ = self.live

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Session) and other.record is self.record

    def __hash__(self) -> int:
        return id(self.record)

    @property
    def live(self) -> Call | Waiting | None:
        """The call, or who waits; the last one there was."""
        live = self._calls.live(self.record.session_id)
        if live is not None and live.record is self.record:
            self._last = live
        return self._last

    @property
    def call(self) -> Call:
        live = self.live
        assert isinstance(live, Call), "it has become a call"
        return live

    @property
    def line(self) -> AsteriskLine:
        live = self.live
        if isinstance(live, Waiting):
            self._line = live.arrival.line
        elif live is not None and not live.ended.is_set():
            self._line = live.line
        assert isinstance(self._line, AsteriskLine)
        return self._line

    @property
    def state(self) -> State | str:
        state = self.record.state
        return state if state in ("new", "waiting") else State(state)

    @property
    def ended(self) -> asyncio.Event:
        live = self.live
        if live is not None:
            return live.ended
        over = asyncio.Event()
        over.set()
        return over

    @property
    def sound(self) -> CallSound:
        return self.call.sound

    @property
    def outcome(self) -> Outcome | None:
        """How it ends, with all that the caller is told."""
        live, record = self.live, self.record
        if isinstance(live, Call):
            return live.context.outcome
        if record.agent_status is None:
            return None
        return Outcome(Status(record.agent_status), record.end_reason or "")

    @property
    def call_id(self) -> str:
        return self.record.line_id

    @property
    def session_id(self) -> str:
        return self.record.session_id

    @property
    def conversation_id(self) -> str:
        return self.record.conversation_id

    @property
    def agent_id(self) -> str:
        return self.record.agent_id

    @property
    def end_reason(self) -> str | None:
        return self.record.end_reason

    @property
    def counts(self) -> bool:
        """Whether it holds a place."""
        return isinstance(live := self.live, Call) and live.counts

    @property
    def media_id(self) -> str:
        if not self.ended.is_set() and self.line.media_id:
            return self.line.media_id
        return media_channel_id(APP, self.record.session_id)

    @property
    def bridge_id(self) -> str:
        return bridge_id(APP, self.record.session_id)

    @property
    def target_id(self) -> str:
        """The present target's channel; none of a call that has ended."""
        return "" if self.ended.is_set() else self.line.target_id

    @property
    def transcript(self) -> Bounded[TranscriptLine]:
        return self.record.transcript

    @property
    def metadata(self) -> dict[str, Any]:
        return self.record.metadata

    def post(self, event: Event) -> None:
        """Something happens to the call."""
        self.call.context.post(event)

    def tells(self, event: LineEvent) -> None:
        """Something happens on its line."""
        self.call.on_line(event)

    def refresh(self) -> CallRecord:
        """Its record, up to date."""
        return self._calls.record(self.record.session_id) or self.record
