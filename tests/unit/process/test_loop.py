from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from ari_app.process.loop import Soon, cancelled, compute, in_turns


async def test_what_is_asked_for_often_is_called_once_in_the_next_turn() -> None:
    called: list[str] = []
    soon = Soon(lambda: called.append("called"))
    soon.ask()
    soon.ask()
    assert called == []
    await asyncio.sleep(0)
    assert called == ["called"]
    soon.ask()
    soon.cancel()
    soon.cancel()
    await asyncio.sleep(0)
    assert called == ["called"]


async def test_others_go_on_while_much_is_gone_through() -> None:
    seen: list[int] = []
    behind: list[int] = []

    async def look() -> None:
        while True:
            behind.append(len(seen))
            await asyncio.sleep(0)

    task = asyncio.create_task(look())
    async for item in in_turns(range(40)):
        assert item == len(seen)
        seen.append(item)
    await cancelled(task)
    assert seen == list(range(40))
    assert behind == [0, 16, 32]


async def test_who_cancels_waits_until_it_is_done_whatever_comes_of_it() -> None:
    ended: list[str] = []

    async def works(name: str, error: Exception | None) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)
            if error is not None:
                raise error

    tasks = [asyncio.create_task(works("one", None)), asyncio.create_task(works("two", OSError()))]
    await asyncio.sleep(0)
    await cancelled(*tasks)
    assert sorted(ended) == ["one", "two"]
    await cancelled()


async def test_what_is_computed_does_not_wait_for_a_disk_that_does_not_answer() -> None:
    loop, is_back = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    reading = loop.run_in_executor(None, is_back.wait)
    try:
        assert await compute(str.encode, "text", encoding="ascii") == b"text"
        assert not reading.done()
    finally:
        is_back.set()
    await reading
