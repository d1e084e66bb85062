"""A service without a call: records that are made by hand, and a control that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Literal, cast

from aiohttp import web
from aiohttp.test_utils import TestClient

from ari_app.call.calls import Calls
from ari_app.control.control import CallControl
from ari_app.control.http.models import Readiness
from ari_app.control.planner import Wish
from ari_app.control.refusals import NotPossible, SessionNotFound
from ari_app.records.events import CallEnded, StateChanged
from ari_app.records.journal import Journal
from ari_app.records.metrics import Metrics
from ari_app.records.record import CallRecord, SoundReport, TranscriptLine
from ari_app.records.recording.archive import RecordingArchive
from ari_app.records.store.log import CallLog

Http = TestClient[web.Request, web.Application]


def talking(session_id: str, **details: Any) -> CallRecord:
    """The record of a call in which caller and agent talk."""
    record = CallRecord(
        session_id,
        details.pop("line_id", "1700000000.1"),
        0.0,
        agent_id="agent_7",
        caller_number="+493023125002",
        called_number="+493023125001",
        status="active",
        state="talking",
        started_at=datetime(2025, 1, 1, tzinfo=UTC),
        seconds=12.3456,
        conversation_id="conv_1",
        line_format="slin",
        response_times=[0.812],
        sound=SoundReport(
            heard_by_agent_ms=2000.0,
            silence_filled_ms=100.0,
            surplus_ms=40.0,
            said_to_caller_ms=1000.0,
            dropped_ms=10.0,
            queued_ms=20.0,
            underruns=1,
            interruptions=2,
            frames_not_read=3,
        ),
        **details,
    )
    record.transcript.append(TranscriptLine(1.5, "agent", "Hello."))
    return record


def end(record: CallRecord, status: str = "COMPLETED", reason: str = "agent_ended") -> None:
    """Write down that a call has ended."""
    record.status = record.state = "ended"
    record.agent_status, record.end_reason = status, reason
    record.ended_at = datetime(2025, 1, 1, 0, 0, 13, tzinfo=UTC)


def note_end(journal: Journal, record: CallRecord) -> None:
    """Tell that a call has ended."""
    end(record)
    journal.note(record, StateChanged(record.state, record.status))
    journal.note(record, CallEnded(record.agent_status, record.end_reason, 12.346))


class FakeControl(CallControl):
    """Grants every wish, unless `refusal` or `not_possible` is set."""

    def __init__(self, service: FakeService) -> None:
        self._service = service
        self.wishes: list[Wish] = []
        self.done: list[tuple[object, ...]] = []
        self.refusal: Exception | None = None
        self.not_possible: NotPossible | None = None
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    def understood(self, wish: Wish) -> Wish:
        return wish

    async def initiate(self, wish: Wish) -> CallRecord:
        self.wishes.append(wish)
        self.asked.set()
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        return self._service.add(
            wish.session_id or f"session-{len(self.wishes)}",
            reference=wish.reference,
            metadata=dict(wish.metadata),
        )

    async def end(self, session_id: str, reason: str | None = None) -> CallRecord:
        record = self.record(session_id)
        self.done.append(("end", session_id, reason))
        if record.ended_at is None:
            end(record, reason=reason or "end_requested")
        return record

    def record(self, session_id: str) -> CallRecord:
        record = self._service.look(session_id)
        if record is None:
            raise SessionNotFound(session_id)
        return record

    async def transfer(
        self, session_id: str, to: str, mode: Literal["blind", "attended"] = "blind"
    ) -> None:
        self._act("transfer", session_id, to, mode)

    async def take_over(self, session_id: str, endpoint: str, who: str) -> None:
        self._act("take_over", session_id, endpoint, who)

    async def give_back(self, session_id: str) -> None:
        self._act("give_back", session_id)

    async def send_dtmf(self, session_id: str, digits: str) -> None:
        self._act("dtmf", session_id, digits)

    async def hold(self, session_id: str, *, on: bool) -> None:
        self._act("hold" if on else "unhold", session_id)

    async def say_to_agent(
        self, session_id: str, kind: Literal["context", "user"], text: str
    ) -> None:
        self._act("say_to_agent", session_id, kind, text)

    async def record_call(self, session_id: str, on: bool) -> None:
        self._act("recording", session_id, on)

    async def mute(self, session_id: str, muted: bool) -> None:
        self._act("mute", session_id, muted)

    def _act(self, name: str, session_id: str, *details: object) -> None:
        self.record(session_id)
        if self.not_possible is not None:
            raise self.not_possible
        self.done.append((name, session_id, *details))


class FakeService:
    """What the handlers are given instead of the service."""

    def __init__(self) -> None:
        self.records: dict[str, CallRecord] = {}
        self.look: Callable[[str], CallRecord | None] = self.records.get
        self.control = FakeControl(self)
        self.told: list[dict[str, Any]] = []
        self.journal = Journal()
        self.metrics = Metrics()
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.recordings: RecordingArchive | None = None
        self.call_log: CallLog | None = None
        self.calls = cast(
            Calls,
            SimpleNamespace(
                records=self.records,
                record=lambda session_id: self.look(session_id),
                max_concurrent_calls=10,
                count=lambda: len(self.records),
                call=lambda session_id: None,
            ),
        )

    async def deliveries(self, session_id: str) -> list[dict[str, Any]]:
        return self.told

    def add(self, session_id: str, **details: Any) -> CallRecord:
        record = self.records[session_id] = talking(session_id, **details)
        return record

    def readiness(self) -> Readiness:
        return Readiness(
            status="not_ready" if self.problems else "ready",
            problems=self.problems,
            warnings=self.warnings,
            active_sessions=len(self.records),
            asterisk_version="22.10.1",
        )
