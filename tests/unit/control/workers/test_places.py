"""The places of all workers' calls: the limits are one, whoever asks."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from ari_app.call.admission import NoRoom
from ari_app.control.workers.hub import Hub
from ari_app.records.spend.guard import SpendGuard
from ari_app.records.spend.ledger import Counted
from tests.unit.control.workers.company import FakeWorker, company, settled


async def enter(worker: FakeWorker, *, paced: bool = True, wait: float = 0.0) -> None:
    """Place a call that counts from now on."""
    admission = worker.member.admission
    await admission.enter(paced=paced, wait_seconds=wait)
    with admission.reserved():
        await asyncio.sleep(0.5)
        worker.calls.running += 1


async def refusal(worker: FakeWorker, wait: float = 0.0) -> NoRoom:
    with pytest.raises(NoRoom) as refused:
        await enter(worker, wait=wait)
    return refused.value


async def test_one_limit_holds_for_all() -> None:
    _, (one, two) = await company(max_calls=2)
    await asyncio.gather(enter(one), enter(two))
    assert (await refusal(one)).code == "capacity"
    assert one.member.admission.full
    assert two.member.admission.full
    one.ends()
    await settled()
    await enter(two)
    assert two.calls.running == 2


async def test_a_place_is_kept_until_the_call_counts() -> None:
    hub, (one, two) = await company(max_calls=1)
    placing = asyncio.create_task(enter(one))
    await settled()
    assert one.calls.running == 0
    assert (await refusal(two)).code == "capacity"
    await placing
    await settled()
    assert hub.roster.used == 1
    assert (await refusal(two)).code == "capacity"


async def test_who_waits_gets_the_place_of_another_workers_call() -> None:
    _, (one, two) = await company(max_calls=1)
    await enter(one)
    waiting = asyncio.create_task(enter(two, wait=5.0))
    await asyncio.sleep(2)
    assert not waiting.done()
    one.ends()
    await waiting
    assert (await refusal(one, wait=3.0)).code == "queue_timeout"


async def test_calls_a_second_are_counted_together() -> None:
    _, (one, two) = await company(per_second=1.0)
    await enter(one)
    # Half a second later, at the other.
    refused = await refusal(two)
    assert refused.code == "rate_limited"
    assert 0 < refused.retry_after <= 0.5
    began = asyncio.get_running_loop().time()
    await enter(two, wait=5.0)
    assert asyncio.get_running_loop().time() - began == pytest.approx(0.5 + 0.5, abs=0.1)
    await enter(two, paced=False)


async def test_places_that_a_worker_had_asked_for_come_back_when_it_dies() -> None:
    hub, (one, two) = await company(max_calls=3)
    await enter(one)
    placing = asyncio.create_task(enter(one))
    waiting = asyncio.create_task(enter(one, paced=False, wait=60))
    await settled()
    one.die()
    await settled()
    assert [worker.number for worker in hub.roster] == [2]
    # That of its call does once its successor has not gone on with it.
    for _ in range(2):
        await enter(two)
    assert (await refusal(two)).code == "capacity"
    FakeWorker(1).link(hub)
    await settled()
    await enter(two)
    assert (await refusal(two)).code == "capacity"
    waiting.cancel()
    await placing


async def test_who_gives_up_waiting_has_no_place() -> None:
    _, (one, two) = await company(max_calls=1)
    await enter(one)
    waiting = asyncio.create_task(enter(two, wait=60))
    await settled()
    waiting.cancel()
    await settled()
    one.ends()
    await enter(one)


async def test_without_a_front_there_is_no_place_and_the_next_one_is_asked_again() -> None:
    _, (one,) = await company(1)
    waits = asyncio.create_task(enter(one, wait=5.0))
    await settled()
    one.die()
    await settled()
    assert (await refusal(one)).code == "capacity"
    await waits  # It had its place before.
    late = asyncio.create_task(enter(one, wait=5.0))
    await settled()
    hub, _ = await company(0, max_calls=2)
    one.link(hub)
    await late
    await settled()
    assert hub.roster.used == 2, "the next front knows of both"
    assert hub.admission.full


async def test_a_worker_that_drains_refuses_and_says_so() -> None:
    hub, (one, _) = await company()
    waiting = asyncio.create_task(enter(one, wait=60))
    await waiting
    one.calls.draining = True
    one.member.admission.close()
    assert (await refusal(one)).code == "draining"
    await settled()
    assert [worker.draining for worker in hub.roster] == [True, False]
    assert not await offered(hub, 1)
    assert await offered(hub, 1, anyhow=True), "nobody else takes it"
    assert await offered(hub, 2)


async def offered(hub: Hub, number: int, *, anyhow: bool = False) -> bool:
    worker = hub.roster.numbered(number)
    assert worker is not None
    return await hub.offer(worker, "channel", anyhow=anyhow)


async def test_one_that_is_frozen_does_not_answer() -> None:
    hub, (one, two) = await company()
    one.freeze()
    began = asyncio.get_running_loop().time()
    assert not await offered(hub, 1)
    assert asyncio.get_running_loop().time() - began < 0.2
    two.takes = False
    assert not await offered(hub, 2)


async def test_a_worker_that_comes_again_replaces_itself() -> None:
    hub, (one,) = await company(1)
    before = hub.roster.numbered(1)
    again = FakeWorker(1)
    again.link(hub)
    await settled()
    assert hub.roster.numbered(1) is not before
    assert len(hub.roster) == 1
    assert not one.line.peer.is_open


class Spend:
    """Counts so many calls, and remembers what others do."""

    def __init__(self, calls: int) -> None:
        self.own = Counted("2026-11-29", {"a": calls}, {"a": 1.5}, ["over"])
        self.others: dict[int, Counted] = {}

    def counted(self) -> Counted:
        return self.own

    def elsewhere(self, process: int, counted: Counted) -> None:
        self.others[process] = counted


async def test_each_knows_what_the_others_spend() -> None:
    hub, workers = await company(3)
    spends = [Spend(calls) for calls in (1, 2, 3)]
    for worker, spend in zip(workers, spends, strict=True):
        worker.member.count(cast(SpendGuard, spend))
        worker.member.spent()
        worker.member.spent()
    await settled()
    assert spends[0].others == {2: spends[1].own, 3: spends[2].own}
    # What one that has died counted stays, and the next one of its number hears of the others.
    workers[1].die()
    await settled()
    again, spend = FakeWorker(2), Spend(0)
    again.member.count(cast(SpendGuard, spend))
    again.link(hub)
    await settled()
    assert spend.others == {1: spends[0].own, 3: spends[2].own}
    assert spends[0].others[2] == spend.own
