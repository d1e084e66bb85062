from __future__ import annotations

import asyncio

import pytest

from ari_app.process.opening import Opened, cancelled


class Two(Opened):
    """Opens two pieces, the second only if it is to."""

    def __init__(self, *, fails: bool) -> None:
        super().__init__()
        self.closed: list[int] = []
        self._fails = fails

    async def _start(self) -> None:
        self._exit.callback(self.closed.append, 1)
        if self._fails:
            raise OSError("the second does not open")
        self._exit.callback(self.closed.append, 2)


async def test_what_was_opened_is_closed_the_last_one_first() -> None:
    async with Two(fails=False) as two:
        assert two.closed == []
    assert two.closed == [2, 1]


async def test_where_one_does_not_open_those_before_it_are_closed() -> None:
    two = Two(fails=True)
    with pytest.raises(OSError, match="does not open"):
        await two.__aenter__()
    assert two.closed == [1]


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
