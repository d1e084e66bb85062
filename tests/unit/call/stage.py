"""Everything around a call: a fake Asterisk, fake agents, a real AudioSocket server and the manager
under test. In virtual time or in real time, whatever loop it is entered in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ari_app.agent.interface import Briefing
from ari_app.audio.formats import DEFAULT_AGENT_FORMATS
from ari_app.audio.sound_file import SoundFile
from ari_app.call.calls import Calls
from ari_app.call.plan import Announcement, CallPlan, Services
from ari_app.call.states import State
from ari_app.line.asterisk.gateway import AsteriskGateway
from ari_app.line.asterisk.line import AsteriskOptions
from ari_app.line.interface import Arrival, LineFormat, Placing
from ari_app.records.events import (
    AgentClosed,
    AgentConnected,
    AgentLost,
    AgentNotReached,
    AgentResumed,
    CallerInterrupted,
    CallEvent,
    KeysPressed,
    Noted,
    Responded,
    Said,
    StateChanged,
    ToolRan,
)
from ari_app.records.journal import Journal
from ari_app.records.record import CallRecord, TranscriptLine
from ari_app.records.recording.archive import RecordingArchive
from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from tests.session_view import Session
from tests.unit.audiosocket.client import AudioSocketClient
from tests.unit.call.fake_agents import FakeAgent, FakeAgents
from tests.unit.call.fake_ari import (
    APP,
    FakeAsterisk,
    FakeClient,
    Landed,
    Moment,
    PlayedMedia,
)
from tests.unit.virtual_loop import make_entrance
from tests.waiting import call_tasks, until


@dataclass
class Notes:
    """Writes down what the journal is told."""

    states: list[str] = field(default_factory=list)
    said: list[TranscriptLine] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    closes: list[AgentClosed] = field(default_factory=list)
    responses: list[float] = field(default_factory=list)
    not_reached: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        match event:
            case StateChanged(state):
                self.states.append(state)
            case AgentConnected(_, seconds):
                self.connected.append(seconds)
            case AgentNotReached(reason):
                self.not_reached.append(reason)
            case AgentLost(conversation):
                self.lost.append(conversation)
            case AgentResumed(_, seconds):
                self.resumed.append(seconds)
            case AgentClosed():
                self.closes.append(event)
            case Responded(seconds):
                self.responses.append(seconds)
            case Said() | CallerInterrupted() | ToolRan() | KeysPressed() | Noted():
                self.said.append(record.transcript[-1])
            case _:
                pass


class Stage:
    """`async with Stage() as stage:`; at the end all calls are ended and nothing may be left.

    Args:
        max_calls: The limit.
        ticking: Whether the clock of all lines runs: without it ten minutes are a single step.
        asterisk: Makes another Asterisk than the usual one.
        recordings: Where calls are recorded.
        announcements: What a caller is told first.
        transport: `MEDIA_TRANSPORT`.
        plan: What differs from the usual plan of a call.
    """

    def __init__(
        self,
        *,
        max_calls: int = 10,
        ticking: bool = True,
        asterisk: Callable[[FrameClock], FakeAsterisk] | None = None,
        recordings: Path | None = None,
        announcements: Mapping[Announcement, SoundFile] | None = None,
        transport: str = "audiosocket",
        **plan: Any,
    ) -> None:
        self.notes = Notes()
        self.max_calls = max_calls
        self.ticking = ticking
        self.transport = transport
        self.planned = plan
        self.recordings = recordings
        self.announcements = announcements or {}
        self.plan_moment: Moment | None = None
        self._make_asterisk = asterisk or (lambda clock: FakeAsterisk(clock=clock))
        self._names = (f"sip-{number}" for number in count(1))

    async def __aenter__(self) -> Self:
        self._tasks_before = asyncio.all_tasks()
        self.clock = FrameClock()
        if self.ticking:
            self.clock.start()
        self.lines = AudioSocketServer(self.clock, entrance=make_entrance)
        host, port = await self.lines.start("127.0.0.1", 0)
        self.asterisk = self._make_asterisk(self.clock)
        self.agents = FakeAgents()
        self.target = f"{host}:{port}"
        self.journal = Journal()
        self.journal.listen(self.notes.heard)
        self.services = Services(
            agents=self.agents,
            journal=self.journal,
            recordings=None if self.recordings is None else RecordingArchive(self.recordings),
            announcements=self.announcements,
        )
        self.options = AsteriskOptions(APP, self.target, media_transport=self.transport)
        self.calls = self.another()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.asterisk.before.clear()
        self.asterisk.after.clear()
        self.asterisk.withheld.clear()
        self.agents.ready.set()
        self.calls.end_all("over")
        await self.calls.drain(30)
        await self.calls.close()
        await self.gateway.close()
        await self.asterisk.close()
        await self.lines.close()
        if self.services.recordings is not None:
            await self.services.recordings.close()
        self.clock.stop()
        await asyncio.sleep(0.001)
        if kind is None:
            left = asyncio.all_tasks() - self._tasks_before
            assert left <= {asyncio.current_task()}, left

    def with_policy(self, *, loss_sound: SoundFile | None = None, **policy: Any) -> None:
        """Another policy for the calls that begin from now on."""
        self.services = replace(
            self.services, policy=replace(self.services.policy, **policy), loss_sound=loss_sound
        )
        self.calls = self.another()

    def another(self) -> Calls:
        """All calls of the same Asterisk and agents, as another process would have them."""
        self.ari = FakeClient(self.asterisk)
        self.gateway = gateway = AsteriskGateway(self.ari, self.clock, self.lines, self.options)
        calls = Calls(
            self.services,
            self,
            max_concurrent_calls=self.max_calls,
            give_up=gateway.abandon,
        )
        gateway.take = calls.take
        self.asterisk.on_event = gateway.handle
        return calls

    # --- ArrivalPlanner

    async def for_arrival(self, record: CallRecord, arrival: Arrival) -> CallPlan:
        if self.plan_moment is not None and (waiting := self.plan_moment()) is not None:
            await waiting
        await arrival.line.prepare(DEFAULT_AGENT_FORMATS)
        plan = self.for_refusal(arrival)
        told = {"call_sid": arrival.line.id, **arrival.variables}
        return replace(plan, **{"briefing": plan.briefing.with_variables(told), **self.planned})

    def for_refusal(self, arrival: Arrival) -> CallPlan:
        return self.plan(arrival.agent_id)

    def plan(self, agent_id: str | None = None) -> CallPlan:
        """The usual plan of a call."""
        return CallPlan(
            briefing=Briefing(agent_id or "agent_default"),
            line_format=LineFormat("slin", 8000),
            call_timeout_seconds=600,
            connect_timeout_seconds=8,
            uplink_chunk_ms=40,
        )

    # --- calls

    def caller(self) -> str:
        """The name of a new caller's channel."""
        return next(self._names)

    async def enter(self, *args: str, answered: bool = False) -> Session:
        """A caller enters the application; the session that it gets, which has just begun."""
        name = self.caller()
        self.asterisk.enter(name, *args, answered=answered)
        await until(lambda: any(r.line_id == name for r in self.calls.records.values()))
        return self.session_of(name)

    async def talk(self, *args: str, answered: bool = False) -> Session:
        """A call in which caller and agent hear each other."""
        session = await self.enter(*args, answered=answered)
        await self.until(session, State.TALKING)
        return session

    def place(self, number: str = "1", *, screened: bool = False) -> Session:
        """Call somebody; the session, named `out`, which has just begun."""
        line = self.gateway.place("out", number, Placing("", 20, screened))
        line.name("out")
        trace = self.services.begin_trace("", "")
        record = CallRecord("out", line.id, now(), placed=True, called_number=number, trace=trace)
        self.calls.place(self.plan(), line, record, screened=screened)
        return self.session("out")

    def session_of(self, channel: str) -> Session:
        """The session that a caller got last."""
        *_, record = (r for r in self.calls.records.values() if r.line_id == channel)
        return self.session(record.session_id)

    def session(self, session_id: str) -> Session:
        """The session of this name, which has not ended."""
        live = self.calls.live(session_id)
        assert live is not None, "it has not ended"
        return Session(self.calls, live.record)

    async def until(self, session: Session, state: State) -> None:
        """Wait for a state."""
        await until(lambda: session.state is state)

    async def settle(self) -> None:
        """Let everything happen that takes no time."""
        await asyncio.sleep(1e-6)

    async def sweep(self) -> None:
        """Let the gateway look for what differs, as it does now and then."""
        await self.gateway._sweeper.reconcile()

    def agent(self) -> FakeAgent:
        """The agent that was connected last."""
        return self.agents.conversations[-1]

    def media(self, session: Session) -> AudioSocketClient:
        """Asterisk's end of a call's line."""
        return self.asterisk.media[session.media_id]

    def socket(self, session: Session) -> PlayedMedia:
        """The same over chan_websocket."""
        return self.asterisk.sockets[session.media_id]

    def landed(self, session: Session) -> Landed:
        """How a caller went on in the dialplan; exactly once."""
        (landed,) = (each for each in self.asterisk.landed if each.channel == session.call_id)
        return landed

    # --- what must be so

    def left_behind(self) -> list[str]:
        """What of ours is still somewhere; callers who wait for nobody too."""
        world = self.asterisk.world
        left = [f"channel {channel}" for channel in world.channels]
        left += [f"bridge {bridge}" for bridge in world.bridges]
        left += [f"line {number}" for number in range(self.lines.lines)]
        left += [f"expected line {number}" for number in range(self.lines.expected)]
        left += [f"agent {agent.agent_id}" for agent in self.agents.conversations if not agent.end]
        left += [f"task {name}" for name in call_tasks()]
        return left


def now() -> float:
    return asyncio.get_running_loop().time()


def nth(number: int, moment: Moment) -> Moment:
    """Only the request of this number, from 1, meets the moment."""
    left = [number]

    def each() -> Any:
        left[0] -= 1
        return moment() if left[0] == 0 else None

    return each


def sound(media: AudioSocketClient) -> np.ndarray[Any, np.dtype[np.int16]]:
    """All that the caller has heard."""
    return np.frombuffer(b"".join(heard.payload for heard in media.heard), "<i2")


def heard_ms(media: AudioSocketClient) -> float:
    """How long the caller heard something."""
    return np.count_nonzero(sound(media)) / 8
