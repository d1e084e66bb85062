from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.admission import Admission, NoRoom, TokenBucket


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


async def test_one_who_waits_for_the_pace_keeps_no_caller() -> None:
    admission = Admission(10, Calls(), per_second=0.1)
    await admission.enter(paced=True, wait_seconds=0)
    waiting = [asyncio.create_task(admission.enter(paced=True, wait_seconds=60)) for _ in range(2)]
    await asyncio.sleep(0)
    await admission.enter(paced=False, wait_seconds=0)
    began = asyncio.get_running_loop().time()
    await waiting[0]
    assert asyncio.get_running_loop().time() - began == pytest.approx(10, abs=0.01)
    assert not waiting[1].done()
    await waiting[1]


async def test_who_waits_is_refused_when_the_service_drains() -> None:
    admission = Admission(1, Calls(running=1))
    waiting = asyncio.create_task(admission.enter(paced=False, wait_seconds=300))
    await asyncio.sleep(0)
    admission.close()
    with pytest.raises(NoRoom, match="draining"):
        async with asyncio.timeout(1):
            await waiting
    with pytest.raises(NoRoom, match="draining"):
        await admission.enter(paced=False, wait_seconds=0)
    assert admission.waiting == 0


@pytest.mark.parametrize("late", [False, True])
async def test_who_gives_up_leaves_the_place_to_the_next(late: bool) -> None:
    calls = Calls(running=1)
    admission = Admission(1, calls)
    gives_up = asyncio.create_task(admission.enter(paced=False, wait_seconds=60))
    waits_on = asyncio.create_task(admission.enter(paced=False, wait_seconds=60))
    await asyncio.sleep(0)
    calls.running = 0
    if late:
        # Its place comes first, and it is gone before it knows.
        admission.changed()
    gives_up.cancel()
    await waits_on
    assert gives_up.cancelled()
    assert (admission.waiting, admission.full) == (0, True)


# --- the rate


def test_a_bucket_without_a_rate_lets_everything_through() -> None:
    bucket = TokenBucket(0)
    assert all(bucket.take(5.0) for _ in range(1000))
    assert bucket.wait(5.0) == 0


def test_a_bucket_lets_one_after_another() -> None:
    bucket = TokenBucket(2)
    assert bucket.take(10.0)
    assert not bucket.take(10.0)
    assert bucket.wait(10.0) == pytest.approx(0.5)
    assert bucket.wait(10.4) == pytest.approx(0.1)
    assert bucket.take(10.5)
    assert not bucket.take(10.6)


def test_a_bucket_lets_a_burst_after_a_pause() -> None:
    bucket = TokenBucket(1, burst=3)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(1)
    assert bucket.take(10.0)
    assert not bucket.take(5.0)
    assert not bucket.take(10.5)
    assert bucket.take(11.0)


@pytest.mark.parametrize(("rate", "burst"), [(-1, 1), (1, 0.5)])
def test_a_bucket_that_makes_no_sense_is_refused(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="rate must not be negative"):
        TokenBucket(rate, burst)


@given(st.integers(1, 50), st.lists(st.floats(0, 0.5), max_size=60))
def test_a_bucket_never_lets_more_than_its_rate(rate: int, pauses: list[float]) -> None:
    bucket = TokenBucket(rate)
    now, passed = 0.0, 0
    for pause in pauses:
        now += pause
        passed += bucket.take(now)
    assert passed <= 1 + now * rate + 1e-6


@given(st.integers(1, 50), st.lists(st.floats(0, 0.5), min_size=1, max_size=30))
def test_a_bucket_lets_one_after_the_wait(rate: int, pauses: list[float]) -> None:
    bucket = TokenBucket(rate)
    now = 0.0
    for pause in pauses:
        now += pause
        bucket.take(now)
    assert bucket.take(now + bucket.wait(now))
