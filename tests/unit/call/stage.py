"""Everything around a call: a fake Asterisk, fake agents, a real AudioSocket server and the manager
under test. In virtual time or in real time, whatever loop it is entered in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from types import TracebackType
from typing import Any, Self

import numpy as np

from ari_app.agent.elevenlabs.client_messages import Initiation
from ari_app.agent.elevenlabs.closing import AgentClose
from ari_app.audio.sound_file import SoundFile
from ari_app.call.call import CallSession
from ari_app.call.calls import SessionManager
from ari_app.call.hearing import ResponseTime
from ari_app.call.plan import CallPlan, Services
from ari_app.call.states import State
from ari_app.line.asterisk.ari.models import Channel
from ari_app.line.asterisk.dialplan import CallArguments
from ari_app.records.events import SessionObserver, TranscriptLine
from audiosocket.frames import SLIN
from audiosocket.server import AudioSocketServer
from lab.load.audiosocket_client import AudioSocketClient
from linekit.clock import FrameClock
from tests.unit.call.fake_agents import FakeAgent, FakeAgents
from tests.unit.call.fake_ari import APP, FakeAsterisk, FakeClient, Landed, Moment
from tests.unit.virtual_loop import make_entrance


@dataclass
class Notes(SessionObserver):
    """Writes down what it is told."""

    states: list[State] = field(default_factory=list)
    said: list[TranscriptLine] = field(default_factory=list)
    connected: list[float] = field(default_factory=list)
    closes: list[AgentClose] = field(default_factory=list)
    responses: list[ResponseTime] = field(default_factory=list)
    not_reached: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    resumed: list[float] = field(default_factory=list)

    def call_changed(self, session: CallSession, state: State) -> None:
        self.states.append(state)

    def call_said(self, session: CallSession, line: TranscriptLine) -> None:
        self.said.append(line)

    def call_responded(self, session: CallSession, response: ResponseTime) -> None:
        self.responses.append(response)

    def agent_connected(self, session: CallSession, seconds: float) -> None:
        self.connected.append(seconds)

    def agent_not_reached(self, session: CallSession, code: str) -> None:
        self.not_reached.append(code)

    def agent_lost(self, session: CallSession) -> None:
        self.lost.append(session.conversation_id)

    def agent_resumed(self, session: CallSession, seconds: float) -> None:
        self.resumed.append(seconds)

    def agent_closed(self, session: CallSession, close: AgentClose) -> None:
        self.closes.append(close)


class Stage:
    """`async with Stage() as stage:`; at the end all calls are ended and nothing may be left.

    Args:
        max_calls: The limit.
        ticking: Whether the clock of all lines runs: without it ten minutes are a single step.
        observer: Who is told how calls go, instead of `notes`.
        asterisk: Makes another Asterisk than the usual one.
        plan: What differs from the usual plan of a call.
    """

    def __init__(
        self,
        *,
        max_calls: int = 10,
        ticking: bool = True,
        observer: SessionObserver | None = None,
        asterisk: Callable[[FrameClock], FakeAsterisk] | None = None,
        **plan: Any,
    ) -> None:
        self.notes = Notes()
        self.max_calls = max_calls
        self.ticking = ticking
        self.planned = plan
        self.plan_moment: Moment | None = None
        self._observer = observer or self.notes
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
        self.services = Services(
            ari=FakeClient(self.asterisk),
            lines=self.lines,
            agents=self.agents.client,
            app=APP,
            audiosocket_target=f"{host}:{port}",
            observer=self._observer,
        )
        self.manager = self.another_manager()
        self.asterisk.on_event = self.manager.handle
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
        self.manager.end_all("over")
        await self.manager.drain(30)
        await self.manager.close()
        await self.asterisk.close()
        await self.lines.close()
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
        self.manager = self.another_manager()
        self.asterisk.on_event = self.manager.handle

    def another_manager(self) -> SessionManager:
        """A manager of the same Asterisk and agents, as another process would have."""
        return SessionManager(self.services, self, max_concurrent_calls=self.max_calls)

    # --- CallPlanner

    async def for_caller(
        self, session_id: str, channel: Channel, arguments: CallArguments
    ) -> CallPlan:
        if self.plan_moment is not None and (waiting := self.plan_moment()) is not None:
            await waiting
        plan = self.for_waiting(session_id, arguments)
        told = plan.with_variables({"call_sid": channel.id, **arguments.variables})
        return replace(plan, **{"initiation": told, **self.planned})

    def for_waiting(self, session_id: str, arguments: CallArguments) -> CallPlan:
        return CallPlan(
            agent_id=arguments.agent_id or "agent_default",
            initiation=Initiation(),
            line_format=SLIN,
            call_timeout_seconds=600,
            connect_timeout_seconds=8,
            wait_seconds=arguments.wait_seconds or 0.0,
            uplink_chunk_ms=40,
        )

    # --- calls

    def caller(self) -> str:
        """The name of a new caller's channel."""
        return next(self._names)

    async def enter(self, *args: str, answered: bool = False) -> CallSession:
        """A caller enters the application; the session that it gets, which has just begun."""
        name = self.caller()
        self.asterisk.enter(name, *args, answered=answered)
        await until(lambda: any(s.call_id == name for s in self.manager.sessions.values()))
        return self.session_of(name)

    async def talk(self, *args: str, answered: bool = False) -> CallSession:
        """A call in which caller and agent hear each other."""
        session = await self.enter(*args, answered=answered)
        await self.until(session, State.TALKING)
        return session

    def session_of(self, channel: str) -> CallSession:
        """The session that a caller got last."""
        *_, session = (s for s in self.manager.sessions.values() if s.call_id == channel)
        return session

    async def until(self, session: CallSession, state: State) -> None:
        """Wait for a state."""
        await until(lambda: session.state is state)

    async def settle(self) -> None:
        """Let everything happen that takes no time."""
        await asyncio.sleep(1e-6)

    def agent(self) -> FakeAgent:
        """The agent that was connected last."""
        return self.agents.conversations[-1]

    def media(self, session: CallSession) -> AudioSocketClient:
        """Asterisk's end of a call's line."""
        return self.asterisk.media[session.media_id]

    def landed(self, session: CallSession) -> Landed:
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
        left += [f"task {name}" for name in _call_tasks()]
        return left


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so, for ten seconds at most; as long as possible without any."""
    async with asyncio.timeout(10):
        for _ in range(20):
            if condition():
                return
            await asyncio.sleep(0)
        while not condition():
            await asyncio.sleep(0.001)


def _call_tasks() -> list[str]:
    return [
        f"{task.get_name()}: {getattr(task.get_coro(), '__qualname__', '')}"
        for task in asyncio.all_tasks()
        if not task.done() and task.get_name().startswith("call ")
    ]


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
