"""An ended call goes as soon as the last who shows it lets go: no collector is needed.

A full collection holds up every call, so it comes seldom; what only it can free piles up.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.call import calls as manager
from ari_app.call.signals import EndRequested
from ari_app.call.states import State
from ari_app.line.interface import KeyPressed, Outcome, Status
from ari_app.records.record import CallRecord
from linekit.clock import FrameClock
from tests.session_view import Session
from tests.unit.call.full_asterisk import FullAsterisk
from tests.unit.call.stage import Stage

CALLS: list[Callable[[Stage], Awaitable[Session]]] = []


def call(do: Callable[[Stage], Awaitable[Session]]) -> None:
    CALLS.append(do)


@call
async def hung_up(stage: Stage) -> Session:
    session = await stage.talk()
    agent = stage.agent()
    agent.says(400)
    agent.handler.user_transcript("Good morning.", 1)
    agent.handler.interruption(1)
    session.tells(KeyPressed("1"))
    await asyncio.sleep(1)
    stage.asterisk.hang_up(session.call_id)
    return session


@call
async def ended_by_the_agent(stage: Stage) -> Session:
    session = await stage.talk()
    stage.agent().says(400)
    stage.agent().closes(CloseKind.AGENT_ENDED)
    return session


@call
async def with_tools(stage: Stage) -> Session:
    session = await stage.talk()
    tools = stage.agent().handler
    tools.tool_call("send_dtmf", "1", {"digits": "1"}, True)
    tools.tool_call("no_such_tool", "2", {}, True)
    tools.tool_call("hold", "3", {}, True)
    await asyncio.sleep(30)
    tools.tool_call("hang_up", "4", {}, True)
    return session


@call
async def lost_its_agent(stage: Stage) -> Session:
    session = await stage.talk()
    stage.agent().closes(CloseKind.LOST, 1006)
    await asyncio.sleep(1)
    stage.agent().says(400)
    await stage.until(session, State.TALKING)
    stage.agent().closes(CloseKind.LOST, 1006)
    return session


@call
async def never_reached_its_agent(stage: Stage) -> Session:
    stage.agents.ready.clear()
    session = await stage.enter()
    await asyncio.sleep(10)
    return session


@call
async def ended_while_the_target_rings(stage: Stage) -> Session:
    session = await stage.talk()
    tools = stage.agent().handler
    tools.tool_call("transfer_call", "1", {"to": "+493023125001", "mode": "attended"}, True)
    await stage.until(session, State.CONSULTING)
    session.post(EndRequested(Outcome(Status.COMPLETED, "end_requested")))
    return session


@call
async def waited_for_an_agent(stage: Stage) -> Session:
    session = await stage.enter("wait=5")
    await asyncio.sleep(6)
    return session


@call
async def refused(stage: Stage) -> Session:
    stage.calls.draining = True
    return await stage.enter()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    def asterisk(clock: FrameClock) -> FullAsterisk:
        return FullAsterisk(clock, lambda moment: None)

    async with Stage(asterisk=asterisk) as stage:
        yield stage


@contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def only_for_the_collector() -> Counter[str]:
    """What nobody can reach any more, and what is there all the same; by type."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    found = Counter(f"{type(each).__module__}.{type(each).__name__}" for each in gc.garbage)
    gc.garbage.clear()
    return found


@pytest.mark.parametrize("happens", CALLS, ids=[each.__name__ for each in CALLS])
async def test_an_ended_call_needs_no_collector(
    stage: Stage, happens: Callable[[Stage], Awaitable[Session]]
) -> None:
    with no_collector():
        session = await happens(stage)
        await stage.until(session, State.ENDED)
        del session
        for agent in stage.agents.conversations:
            del agent.handler  # as the connection does that it stands for
        stage.agents.conversations.clear()
        await asyncio.sleep(61)
        assert not stage.calls.records
        assert not only_for_the_collector()


async def test_one_that_makes_room_for_others_goes_at_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "_MAX_ENDED", 1)
    ended: list[weakref.ref[CallRecord]] = []
    with no_collector():
        for _ in range(2):
            session = await stage.talk()
            stage.agent().closes(CloseKind.AGENT_ENDED)
            await stage.until(session, State.ENDED)
            del stage.agent().handler
            ended.append(weakref.ref(session.record))
            del session
        await stage.settle()
        assert [each() is None for each in ended] == [True, False]
