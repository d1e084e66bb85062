from __future__ import annotations

import pytest

from ari_app.process.opening import Opened


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
