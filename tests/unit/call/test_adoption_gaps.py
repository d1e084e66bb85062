"""A process is lost between whichever two steps of a call, also twice: its call goes on or ends,
once, and nothing is left behind.

The scenarios and their points are those of `tests/unit/call/test_every_gap.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest

from ari_app.call.call import Call
from ari_app.call.states import State
from ari_app.line.asterisk import names
from ari_app.line.asterisk.line import AsteriskLine
from ari_app.records.events import CallEnded, CallEvent
from ari_app.records.record import CallRecord
from tests.unit.call.full_asterisk import FullAsterisk
from tests.unit.call.stage import Stage
from tests.unit.call.test_adoption import Process
from tests.unit.call.test_every_gap import (
    SCENARIOS,
    Run,
    no_logs,
    points,
)

__all__ = ["no_logs"]

LOSABLE = ("incoming", "answered_before", "waiting", "holding", "transferred", "placed", "screened")


@contextlib.contextmanager
def another_name() -> Iterator[None]:
    """The next process has another name: that of one which lives, too."""
    parent = os.getppid()
    other = names.Owner(names._place(), parent, names._began(parent) or 0)
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(names, "_this_process", lambda pid: other)
        yield


class LostRun(Run):
    """A run whose process is lost at a point, and another takes its place.

    Attributes:
        ended: How often each call was told to have ended.
        again: How much later the next one is lost too; None: it is not.
    """

    def __init__(self, at: tuple[str, int], *, slow: bool, again: float | None) -> None:
        super().__init__(at, lambda run: self.lose(), slow=slow)
        self.ended: Counter[str] = Counter()
        self.again = again
        self.is_lost = asyncio.Event()

    def lose(self) -> None:
        """Nothing of the process does anything from now on."""
        self.stage.asterisk.on_event = lambda event: None
        self.process.freeze()
        self.is_lost.set()

    def hears(self, record: CallRecord, event: CallEvent) -> None:
        if isinstance(event, CallEnded) and not self.process.frozen:
            self.ended[record.session_id] += 1

    async def lost_in(self, scenario: Callable[[Run], Awaitable[None]]) -> None:
        """Run until the point has come, lose the process, and see what becomes of the call."""
        self.stage = Stage(ticking=False, asterisk=lambda clock: FullAsterisk(clock, self.point))
        async with self.stage as stage:
            process = self.process = Process(stage)
            stage.journal.listen(self._told)
            stage.journal.listen(self.hears)
            self.asterisk.slow = self.slow
            stage.agents.before = lambda: self.point("the agent is dialled")
            playing = asyncio.ensure_future(scenario(self))
            async with asyncio.timeout(300):
                await self.is_lost.wait()
            playing.cancel()
            await asyncio.gather(playing, return_exceptions=True)
            await process.goes_on()
            if self.again is not None:
                await asyncio.sleep(self.again)
                process.freeze()
                with another_name():
                    await process.goes_on()
            await self._ends()
            await asyncio.sleep(5)
            assert stage.left_behind() == [], self.at
            assert not process.memory.files, self.at
            assert max(self.ended.values(), default=1) == 1, (self.at, self.ended)
            failed = [(each.status, each.reason) for each in self.asterisk.landed]
            assert "FAILED" not in dict(failed), (self.at, failed)
            landed = [each.channel for each in self.asterisk.landed]
            assert len(landed) == len(set(landed)), self.at

    async def _ends(self) -> None:
        """The agent speaks; then whoever is still there hangs up."""
        calls = self.stage.calls
        for _ in range(5):
            await asyncio.sleep(3)
            for agent in self.stage.agents.conversations:
                if not agent.end:
                    agent.says(100, final=True)
        for live in tuple(calls._live.values()):
            where = (self.at, live.record.state)
            if isinstance(live, Call) and live.state is State.TALKING:
                line = live.line
                assert isinstance(line, AsteriskLine)
                together = set(self.asterisk.world.bridges[line.bridge_id].channels)
                assert together == {line.id, line.media_id}, (where, together)
            self.asterisk.callee_hangs_up(live.record.line_id)
            async with asyncio.timeout(60):
                await live.ended.wait()
            assert live.record.ended_at is not None, where
        for channel in tuple(self.asterisk.world.channels):
            self.asterisk.callee_hangs_up(channel)


@pytest.mark.usefixtures("no_logs")
@pytest.mark.parametrize("again", [None, 0.0])
@pytest.mark.parametrize("name", LOSABLE)
async def test_a_process_may_be_lost_between_any_two_steps(name: str, again: float | None) -> None:
    scenario = SCENARIOS[name]
    for slow in (False, True) if again is None else (True,):
        undisturbed = points(await Run(slow=slow).of(scenario))
        for point in undisturbed:
            await LostRun(point, slow=slow, again=again).lost_in(scenario)
