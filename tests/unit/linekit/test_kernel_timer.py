from __future__ import annotations

import asyncio
import ctypes
import os
import time
from typing import Any

import pytest
import uvloop

from linekit.clock import FrameClock, KernelTimer, is_coarse
from tests.waiting import until

pytestmark = pytest.mark.skipif(os.uname().sysname != "Linux", reason="timerfd is Linux'")


def on_uvloop(work: Any) -> Any:
    """Run on uvloop; nothing that the loop calls may fail, for it would only be logged."""
    failures: list[Any] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: failures.append(context))
        result = runner.run(work)
    assert not failures
    return result


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_it_fires_again_and_again_and_never_too_soon() -> None:
    async def run() -> list[float]:
        before = open_files()
        fired: list[float] = []
        first = time.monotonic() + 0.0053
        timer = KernelTimer(
            asyncio.get_running_loop(), first, 0.004, lambda: fired.append(time.monotonic())
        )
        assert open_files() == before + 1
        await until(lambda: len(fired) >= 5)
        timer.cancel()
        timer.cancel()
        assert open_files() == before
        count = len(fired)
        await asyncio.sleep(0.02)
        assert len(fired) == count, "it is cancelled"
        return [at - first for at in fired]

    for number, fired in enumerate(on_uvloop(run())):
        assert fired >= number * 0.004


def test_what_was_missed_is_told_once() -> None:
    async def run() -> list[float]:
        fired: list[float] = []
        # In the past: at once, and then by the same rhythm.
        first = time.monotonic() - 0.0505
        timer = KernelTimer(
            asyncio.get_running_loop(), first, 0.02, lambda: fired.append(time.monotonic() - first)
        )
        await until(lambda: len(fired) >= 2)
        timer.cancel()
        return fired

    at_once, then = on_uvloop(run())[:2]
    assert at_once >= 0.05 and then >= 0.06


def test_a_clock_on_uvloop_uses_it_and_gives_it_back() -> None:
    async def run() -> int:
        clock = FrameClock(period=0.005)
        ticks = 0
        enough = asyncio.Event()

        def tick(frames: int) -> None:
            nonlocal ticks
            ticks += frames
            if ticks >= 10:
                enough.set()

        clock.start()
        clock.add(tick)
        before = open_files()
        await enough.wait()
        clock.stop()
        assert open_files() == before - 1
        assert not clock.ticking
        return ticks

    assert on_uvloop(run()) >= 10


def test_without_one_the_loops_own_timer_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no more files")

    monkeypatch.setattr("linekit.clock.KernelTimer", refuse)

    async def run() -> int:
        clock = FrameClock(period=0.005)
        seen: list[int] = []
        clock.start()
        clock.add(seen.append)
        await asyncio.sleep(0.05)
        clock.stop()
        return sum(seen)

    assert on_uvloop(run()) > 0


async def test_only_uvloops_timers_are_coarse() -> None:
    assert is_coarse(asyncio.get_running_loop()) == ("uvloop" in repr(asyncio.get_running_loop()))


def test_a_kernel_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def __init__(self, *_: object, **__: object) -> None:
            ctypes.set_errno(24)

        def timerfd_create(self, *_: int) -> int:
            return -1

    monkeypatch.setattr(ctypes, "CDLL", Libc)

    async def run() -> None:
        with pytest.raises(OSError, match="Too many open files"):
            KernelTimer(asyncio.get_running_loop(), 0.0, 0.02, lambda: None)

    on_uvloop(run())


def test_one_that_no_loop_awaits_is_given_back() -> None:
    loop = uvloop.new_event_loop()
    loop.close()
    before = open_files()
    with pytest.raises(RuntimeError):
        KernelTimer(loop, 0.0, 0.02, lambda: None)
    assert open_files() == before
