"""A service without Asterisk: sessions that are made by hand, and a control that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Literal, cast

from aiohttp import web
from aiohttp.test_utils import TestClient

from ari_app.call.call import CallSession
from ari_app.call.calls import SessionManager
from ari_app.call.sound import UplinkStats
from ari_app.call.states import State
from ari_app.control.control import CallControl, Initiate, NotPossible, SessionNotFound
from ari_app.control.http.models import Readiness
from ari_app.line.interface import Outcome, Status
from ari_app.records.bounded import Bounded
from ari_app.records.events import TranscriptLine
from ari_app.records.journal import SessionFeed
from ari_app.records.metrics import Metrics

Http = TestClient[web.Request, web.Application]


class FakeSession:
    """What the HTTP interface sees of a call."""

    def __init__(
        self,
        session_id: str,
        call_id: str = "1700000000.1",
        reference: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.session_id = session_id
        self.call_id = call_id
        self.reference = reference
        self.agent_id = "agent_7"
        self.caller_number = "+493023125002"
        self.called_number = "+493023125001"
        self.status = "active"
        self.state = State.TALKING
        self.started_at = datetime(2025, 1, 1, tzinfo=UTC)
        self.ended_at: datetime | None = None
        self.conversation_id = "conv_1"
        self.outcome: Outcome | None = None
        self.result: str | None = None
        self.hangup_cause: int | None = None
        self.sip_code: int | None = None
        self.detail: str | None = None
        self.metadata = dict(metadata or {})
        self.agent: object = None
        self.line_format = "slin"
        self.interruptions = 0
        self.transcript: Bounded[TranscriptLine] = Bounded(500)
        self.transcript.append(TranscriptLine(1.5, "agent", "Hello."))
        self.ended = asyncio.Event()
        self.audio_interface = SimpleNamespace(
            rate_hz=8000,
            uplink_stats=UplinkStats(16000, 800, 1, 240, 80),
            playout=SimpleNamespace(
                stats=SimpleNamespace(samples_played=8000, samples_dropped=80, underruns=1),
                pending_ms=20.0,
            ),
            line=None,
            hearing=SimpleNamespace(responses=[SimpleNamespace(seconds=0.81234)]),
        )

    def duration(self) -> float:
        return 12.3456

    def end(self, status: Status, reason: str) -> None:
        self.status, self.state = "ended", State.ENDED
        self.outcome = Outcome(status, reason)
        self.ended_at = datetime(2025, 1, 1, 0, 0, 13, tzinfo=UTC)
        self.ended.set()


def as_session(fake: FakeSession) -> CallSession:
    return cast(CallSession, fake)


class FakeControl(CallControl):
    """Grants every wish, unless ``refusal`` or ``not_possible`` is set."""

    def __init__(self, service: FakeService) -> None:
        self._service = service
        self.wishes: list[Initiate] = []
        self.done: list[tuple[object, ...]] = []
        self.refusal: Exception | None = None
        self.not_possible: NotPossible | None = None
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def initiate(self, request: Initiate) -> CallSession:
        self.wishes.append(request)
        self.asked.set()
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        return as_session(
            self._service.add(
                request.session_id or f"session-{len(self.wishes)}",
                reference=request.call_id,
                metadata=request.metadata,
            )
        )

    async def end(self, session_id: str, reason: str | None = None) -> CallSession:
        fake = self._fake(session_id)
        self.done.append(("end", session_id, reason))
        if not fake.ended.is_set():
            fake.end(Status.COMPLETED, reason or "end_requested")
        return as_session(fake)

    async def transfer(
        self, session_id: str, to: str, mode: Literal["blind", "attended"] = "blind"
    ) -> None:
        self._act("transfer", session_id, to, mode)

    async def send_dtmf(self, session_id: str, digits: str) -> None:
        self._act("dtmf", session_id, digits)

    async def hold(self, session_id: str) -> None:
        self._act("hold", session_id)

    async def unhold(self, session_id: str) -> None:
        self._act("unhold", session_id)

    async def say_to_agent(
        self, session_id: str, kind: Literal["context", "user"], text: str
    ) -> None:
        self._act("say_to_agent", session_id, kind, text)

    async def mute(self, session_id: str, muted: bool) -> None:
        self._act("mute", session_id, muted)

    def _act(self, name: str, session_id: str, *details: object) -> None:
        self._fake(session_id)
        if self.not_possible is not None:
            raise self.not_possible
        self.done.append((name, session_id, *details))

    def _fake(self, session_id: str) -> FakeSession:
        if session_id not in self._service.fakes:
            raise SessionNotFound(session_id)
        return self._service.fakes[session_id]


class FakeService:
    """What the handlers are given instead of the service."""

    def __init__(self, feed: SessionFeed | None = None) -> None:
        self.fakes: dict[str, FakeSession] = {}
        self.control = FakeControl(self)
        self.feed = feed or SessionFeed()
        self.metrics = Metrics()
        self.problems: list[str] = []
        self.look: Callable[[str], FakeSession | None] = self.fakes.get
        self.manager = cast(
            SessionManager,
            SimpleNamespace(
                sessions=self.fakes,
                max_concurrent_calls=10,
                get_active_sessions_count=lambda: len(self.fakes),
                get_session=lambda session_id: self.look(session_id),
            ),
        )

    def add(self, session_id: str, **details: Any) -> FakeSession:
        fake = self.fakes[session_id] = FakeSession(session_id, **details)
        return fake

    def readiness(self) -> Readiness:
        return Readiness(
            status="not_ready" if self.problems else "ready",
            problems=self.problems,
            active_sessions=len(self.fakes),
            asterisk_version="22.10.1",
        )
