"""Whatever ends a call, between whichever two steps: everything is given back.

A scenario runs once and writes down each *point* that it passes: each request that Asterisk gets
and has done, each event before and after it is told, each step of the agent's, each state of the
call. Then it runs again for each of these points, and for each way to end it there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import pytest
import structlog

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.call.calls import Waiting
from ari_app.call.signals import ConsultRequested, EndRequested, HoldRequested
from ari_app.call.states import State
from ari_app.line.interface import Outcome, Status
from ari_app.records.events import AgentConnected, CallEvent, StateChanged
from ari_app.records.record import CallRecord
from tests.session_view import Session
from tests.unit.call.full_asterisk import FullAsterisk
from tests.unit.call.stage import Stage

CALLER = "sip-1"
ENDED = Outcome(Status.COMPLETED, "end_requested")
TARGET = "+493023125001"


@dataclass
class Run:
    """One run of a scenario.

    Attributes:
        at: The point at which it is disturbed, and how often it has come then; None: it is not.
        disturb: What happens there.
        later: It happens in the next turn of the loop, not in the middle of what is being done.
        slow: Asterisk takes its time to make things.
        passed: The points, in order.
        disturbed: It has happened.
    """

    at: tuple[str, int] | None = None
    disturb: Callable[[Run], None] = lambda run: None
    later: bool = False
    slow: bool = False
    passed: list[str] = field(default_factory=list)
    disturbed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    reconnecting: asyncio.Task[None] | None = None
    outcome: Outcome | None = None
    stage: Stage = field(init=False)
    _session: Session | None = None

    def point(self, name: str) -> None:
        """A moment has come."""
        self.passed.append(name)
        if not self.disturbed and self.at == (name, self.passed.count(name)):
            self.disturbed = True
            if self.later:
                asyncio.get_running_loop().call_soon(self.disturb, self)
            else:
                self.disturb(self)

    async def of(self, scenario: Callable[[Run], Awaitable[None]]) -> list[str]:
        """Run to the end; the points that were passed."""
        self.stage = Stage(
            ticking=False,
            asterisk=lambda clock: FullAsterisk(clock, self.point),
        )
        async with self.stage:
            self.stage.journal.listen(self._told)
            self.asterisk.slow = self.slow
            self.stage.agents.before = lambda: self.point("the agent is dialled")
            await scenario(self)
            for record in list(self.stage.calls.records.values()):
                async with asyncio.timeout(60):
                    await Session(self.stage.calls, record).ended.wait()
            if self.reconnecting is not None:
                await self.reconnecting
            # At once, and also after what Asterisk was still about to do.
            for seconds in (0.2, 5):
                await asyncio.sleep(seconds)
                assert self.stage.left_behind() == [], (self.at, seconds)
            landed = [each.channel for each in self.asterisk.landed]
            assert len(landed) == len(set(landed)), self.at
            if self.session is not None:
                self.outcome = self.session.outcome
        return self.passed

    @property
    def asterisk(self) -> FullAsterisk:
        assert isinstance(self.stage.asterisk, FullAsterisk)
        return self.stage.asterisk

    @property
    def session(self) -> Session | None:
        """The call, once there is one."""
        if self._session is None and (records := self.stage.calls.records):
            self._session = Session(self.stage.calls, next(iter(records.values())))
        return self._session

    def _told(self, record: CallRecord, event: CallEvent) -> None:
        match event:
            case StateChanged(state):
                self.changed.set()
                self.point(f"the call is {state}")
            case AgentConnected():
                self.point("the agent is there")

    async def reaches(self, *states: State | str) -> bool:
        """Wait for one of these states; whether the call gets there."""
        while self.session is None or self.session.state not in (*states, State.ENDED):
            self.changed.clear()
            try:
                async with asyncio.timeout(60):
                    await self.changed.wait()
            except TimeoutError:
                assert self.session is None, "a call goes on or ends"
                return False
        return self.session.state in states


# --- what a call goes through


async def talk(run: Run) -> None:
    """What all scenarios end with: the agent hangs up."""
    if await run.reaches(State.TALKING):
        run.stage.agent().closes(CloseKind.AGENT_ENDED)


async def incoming(run: Run) -> None:
    run.asterisk.enter(CALLER)
    await talk(run)


async def answered_before(run: Run) -> None:
    run.asterisk.enter(CALLER, answered=True)
    await talk(run)


async def refused(run: Run) -> None:
    run.stage.calls.draining = True
    run.asterisk.enter(CALLER)
    await run.reaches(State.ENDED)


async def waiting(run: Run) -> None:
    run.asterisk.enter(CALLER, "wait=30", answered=True)
    if await run.reaches("waiting") and (session := run.session) is not None:
        waiting = session.live
        assert isinstance(waiting, Waiting)
        if waiting.waits:
            run.stage.calls.assign(waiting, run.stage.plan(), "named")
        await talk(run)


async def holding(run: Run) -> None:
    run.asterisk.enter(CALLER)
    for on, state in ((True, State.HOLDING), (False, State.TALKING)):
        # A call that lost its agent while it held comes back talking.
        before = (State.TALKING,) if on else (State.HOLDING, State.TALKING)
        if await run.reaches(*before) and run.session is not None:
            run.session.post(HoldRequested(on=on))
            await run.reaches(state, State.TALKING)
    await talk(run)


async def transferred(run: Run) -> None:
    run.asterisk.enter(CALLER)
    if await run.reaches(State.TALKING) and run.session is not None:
        run.session.post(ConsultRequested(TARGET))
        # The target may be lost.
        await run.reaches(State.HANDED_OVER, State.TALKING)
        target_hangs_up(run)
        await talk(run)


async def placed(run: Run, *, screened: bool = False) -> None:
    run.stage.place(screened=screened)
    await talk(run)


async def screened(run: Run) -> None:
    await placed(run, screened=True)


# --- what ends it


def caller_hangs_up(run: Run) -> None:
    if (session := run.session) is None:
        run.asterisk.hang_up(CALLER)
    else:
        run.asterisk.callee_hangs_up(session.call_id)


def end_is_requested(run: Run) -> None:
    if (session := run.session) is not None:
        live = session.live
        if isinstance(live, Waiting):
            live.end(ENDED)
        else:
            session.post(EndRequested(ENDED))


def agent_is_lost(run: Run) -> None:
    for agent in run.stage.agents.conversations:
        agent.closes(CloseKind.LOST, 1006)


def agent_ends(run: Run) -> None:
    for agent in run.stage.agents.conversations:
        agent.closes(CloseKind.AGENT_ENDED)


def line_is_lost(run: Run) -> None:
    for media in run.asterisk.media.values():
        media.close()


def target_hangs_up(run: Run) -> None:
    if (session := run.session) is not None and session.target_id:
        run.asterisk.callee_hangs_up(session.target_id)


def asterisk_is_cut_off(run: Run) -> None:
    """All connections to Asterisk break, and are there again a tenth of a second later."""
    run.asterisk.away = True
    events_are_lost(run)


def agent_is_lost_and_asterisk_cut_off(run: Run) -> None:
    asterisk_is_cut_off(run)
    agent_is_lost(run)


def events_are_lost(run: Run) -> None:
    """The event socket breaks, and is there again a tenth of a second later."""
    loop = asyncio.get_running_loop()

    async def back() -> None:
        await asyncio.sleep(0.1)
        run.asterisk.deaf = run.asterisk.away = False
        run.stage.ari.link.set(True)
        await run.stage.gateway._sweeper.catch_up()

    run.asterisk.deaf = True
    run.stage.ari.link.set(False)
    run.reconnecting = loop.create_task(back())


SCENARIOS = {
    each.__name__: each
    for each in (
        incoming,
        answered_before,
        refused,
        waiting,
        holding,
        transferred,
        placed,
        screened,
    )
}
ENDS = {
    each.__name__: each
    for each in (
        caller_hangs_up,
        end_is_requested,
        agent_is_lost,
        agent_ends,
        line_is_lost,
        target_hangs_up,
    )
}


IN_TWO_WAYS = ("caller_hangs_up", "end_is_requested")
"""In the middle of a step and after it, and of a quick Asterisk and a slow one."""


def points(passed: list[str]) -> list[tuple[str, int]]:
    """Each point with how often it has come."""
    return [(name, passed[: number + 1].count(name)) for number, name in enumerate(passed)]


@pytest.fixture
def no_logs() -> Iterator[None]:
    """Thousands of calls: what they log is not looked at, and would take most of the time."""
    usual = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**usual)


@pytest.mark.usefixtures("no_logs")
@pytest.mark.parametrize(
    ("name", "end"),
    [
        (name, end)
        for name in SCENARIOS
        for end in ENDS
        if end != "target_hangs_up" or name == "transferred"
    ],
)
async def test_everything_is_given_back_wherever_a_call_ends(name: str, end: str) -> None:
    scenario = SCENARIOS[name]
    for otherwise in (False, True) if end in IN_TWO_WAYS else (False,):
        undisturbed = points(await Run(slow=otherwise).of(scenario))
        assert len(undisturbed) > 10
        for point in undisturbed:
            run = Run(point, ENDS[end], later=otherwise, slow=otherwise)
            await run.of(scenario)
            assert run.disturbed, f"{point} did not come again"


NOT_DONE_TWICE = (
    "the call is dialling",
    "POST /channels/{channelId} comes",
    "POST /channels/{channelId} is done",
)
"""Somebody is called: whoever wishes for that again may, but we do not."""


@pytest.mark.usefixtures("no_logs")
@pytest.mark.parametrize(
    "disturb",
    [events_are_lost, asterisk_is_cut_off, agent_is_lost_and_asterisk_cut_off],
    ids=lambda disturb: disturb.__name__,
)
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "refused"])
async def test_no_call_ends_because_of_a_moment_without_asterisk(
    name: str, disturb: Callable[[Run], None]
) -> None:
    undisturbed = Run()
    for point in points(await undisturbed.of(SCENARIOS[name])):
        run = Run(point, disturb)
        await run.of(SCENARIOS[name])
        assert run.disturbed, f"{point} did not come again"
        if run.session is None:
            # What is not known to be a caller's may be another process's: it goes to a person.
            assert point == ("StasisStart comes", 1)
            assert [landed.reason for landed in run.asterisk.landed] == ["session_lost"]
            continue
        assert run.outcome is not None and undisturbed.outcome is not None
        if disturb is events_are_lost:
            assert run.outcome == undisturbed.outcome, point
        elif not (run.session.record.placed and point[0] in NOT_DONE_TWICE):
            # A target that was not called is a sentence of the agent's.
            assert run.outcome.status is undisturbed.outcome.status, point
