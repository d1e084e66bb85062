from __future__ import annotations

import asyncio

import pytest

from ari_app.call.admission import Admission, NoRoom


class Calls:
    """As many calls as a test wants."""

    def __init__(self, running: int = 0) -> None:
        self.running = running

    def __call__(self) -> int:
        return self.running


async def test_a_place_is_kept_until_the_call_counts() -> None:
    calls = Calls()
    admission = Admission(1, calls)
    await admission.enter(paced=False, wait_seconds=0)
    assert admission.full
    with pytest.raises(NoRoom) as refused, admission.reserved():
        await admission.enter(paced=False, wait_seconds=0)
    assert refused.value.code == "capacity"
    assert refused.value.retry_after > 0
    assert not admission.full, "given back"


async def test_those_who_wait_get_their_places_in_the_order_of_asking() -> None:
    calls = Calls(running=1)
    admission = Admission(1, calls)
    order: list[int] = []

    async def enter(number: int) -> None:
        await admission.enter(paced=False, wait_seconds=5)
        with admission.reserved():
            order.append(number)

    waiting = []
    for number in range(3):
        waiting.append(asyncio.create_task(enter(number)))
        await asyncio.sleep(0)
    assert admission.waiting == 3
    calls.running = 0
    admission.changed()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]
    assert admission.waiting == 0


async def test_nobody_passes_those_who_wait() -> None:
    calls = Calls(running=1)
    admission = Admission(1, calls)
    first = asyncio.create_task(admission.enter(paced=False, wait_seconds=5))
    await asyncio.sleep(0)
    calls.running = 0
    with pytest.raises(NoRoom):
        await admission.enter(paced=False, wait_seconds=0)
    admission.changed()
    await first


async def test_room_that_nobody_announces_is_found() -> None:
    calls = Calls(running=1)
    admission = Admission(1, calls)
    waiting = asyncio.create_task(admission.enter(paced=False, wait_seconds=5))
    await asyncio.sleep(0)
    calls.running = 0
    await waiting


async def test_the_wait_has_an_end() -> None:
    admission = Admission(1, Calls(running=1))
    with pytest.raises(NoRoom) as refused:
        await admission.enter(paced=False, wait_seconds=0.01)
    assert refused.value.code == "queue_timeout"
    assert admission.waiting == 0


async def test_only_so_many_wait() -> None:
    admission = Admission(1, Calls(running=1), max_waiting=1)
    waiting = asyncio.create_task(admission.enter(paced=False, wait_seconds=0.05))
    await asyncio.sleep(0)
    with pytest.raises(NoRoom) as refused:
        await admission.enter(paced=False, wait_seconds=5)
    assert refused.value.code == "capacity"
    with pytest.raises(NoRoom):
        await waiting


async def test_the_rate_holds_for_calls_of_ours_alone() -> None:
    admission = Admission(10, Calls(), per_second=20)
    await admission.enter(paced=True, wait_seconds=0)
    with pytest.raises(NoRoom) as refused:
        await admission.enter(paced=True, wait_seconds=0)
    assert refused.value.code == "rate_limited"
    await admission.enter(paced=False, wait_seconds=0)
    await admission.enter(paced=True, wait_seconds=5)
