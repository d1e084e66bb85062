"""The wall clock jumps in the middle of a call, an hour forward and two hours back."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from ari_app.call.states import State
from lab.asterisk import LabAsterisk
from lab.softphone.sounds import tone
from tests.e2e.harness import bench, book, loud_seconds
from tests.waiting import PROMPT_SECONDS, until

pytestmark = pytest.mark.e2e

QUIET = {"dialogue": {"first_message": "", "turns": []}}


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Put the wall clock of this process forward by so many seconds, or back."""
    ahead, real_time = [0.0], time.time

    class Jumped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Jumped:
            there = datetime.now(tz) + timedelta(seconds=ahead[0])
            return cls.fromisoformat(there.isoformat())

    monkeypatch.setattr(time, "time", lambda: real_time() + ahead[0])
    monkeypatch.setattr(time, "time_ns", lambda: int((real_time() + ahead[0]) * 1e9))
    for name, module in list(sys.modules.items()):
        if name.startswith("ari_app.") and vars(module).get("datetime") is datetime:
            monkeypatch.setattr(module, "datetime", Jumped)

    def put(seconds: float) -> None:
        ahead[0] += seconds

    return put


async def test_a_call_does_not_notice_that_the_clock_jumps(
    asterisk: LabAsterisk, jump: Callable[[float], None]
) -> None:
    began = time.monotonic()
    async with bench(asterisk, book(**QUIET)) as b:
        call, session = await b.talk()
        record = await b.conversation()
        for seconds in (3600, -7200, 3600):
            jump(seconds)
            heard, packets = loud_seconds(record), len(call.ear.arrivals)
            await call.play(tone(1000, 500, -20))
            await until(lambda: loud_seconds(record) > heard + 0.45)  # noqa: B023
            await until(lambda: len(call.ear.arrivals) > packets + 20)  # noqa: B023
            assert session.state is State.TALKING
        stats = call.ear.stats()
        assert (stats.lost, stats.duplicated) == (0, 0)
        # A stamp tells the time as it is now; how long something took does not depend on it.
        jump(3600)
        await call.hang_up()
        await asyncio.wait_for(session.ended.wait(), PROMPT_SECONDS)
        assert (session.record.seconds or 0) < time.monotonic() - began
        assert session.record.ended_at is not None
        assert session.record.ended_at - datetime.now(UTC) > timedelta(minutes=59)
        assert b.named(session.session_id) == session
        await b.all_gone()
        again = await b.call()
        await again.hang_up()
        await b.all_gone()
