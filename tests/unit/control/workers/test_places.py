"""The places of all workers' calls: the limits are one, whoever asks."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Final, cast

import pytest

from ari_app.call.admission import NoRoom
from ari_app.control.workers.hub import Hub
from ari_app.records.spend.guard import SpendGuard
from ari_app.records.spend.ledger import AgentTime, Ledger
from ari_app.records.spend.shares import Change, Share, Telling
from tests.unit.control.workers import company as company_module
from tests.unit.control.workers.company import FakeWorker, company, settled

TODAY: Final = date(2026, 11, 29)


async def enter(worker: FakeWorker, *, paced: bool = True, wait: float = 0.0) -> None:
    """Place a call that counts from now on."""
    admission = worker.membership.admission
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
    assert one.membership.admission.full
    assert two.membership.admission.full
    one.ends()
    await settled()
    await enter(two)
    assert two.calls.running == 2


async def test_no_more_wait_for_a_place_of_all_machines_than_may_wait_here() -> None:
    hub, (one, _) = await company(max_calls=50)
    free = False

    async def common() -> bool:
        return free

    hub.common = common
    asking = [asyncio.create_task(enter(one, wait=60)) for _ in range(12)]
    await settled()
    assert [each.done() for each in asking] == [False] * 10 + [True] * 2, "ten may wait"
    assert [cast(NoRoom, each.exception()).code for each in asking[10:]] == ["capacity"] * 2
    assert (await refusal(one)).code == "capacity"
    assert (await refusal(one, wait=0.01)).code == "capacity"
    asking[0].cancel()
    await settled()
    assert (await refusal(one, wait=0.01)).code == "queue_timeout"
    free = True
    await asyncio.gather(*asking[1:10])
    await settled()
    assert (one.calls.running, hub.admission.taken) == (9, 9)


async def test_whom_all_machines_together_refuse_uses_no_turn_of_the_pace() -> None:
    hub, (one, _) = await company(max_calls=50, per_second=0.1)
    free = False

    async def common() -> bool:
        return free

    hub.common = common
    for _ in range(3):
        assert (await refusal(one)).code == "capacity"
    free = True
    await enter(one)
    assert (await refusal(one)).code == "rate_limited"


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
    one.membership.admission.close()
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


async def test_calls_that_end_together_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, (one, _) = await company(max_calls=300)
    one.calls.running = 300
    one.membership.tell_room()
    await settled()
    counts: list[int] = []

    def count() -> int:
        counts.append(one.calls.running)
        return one.calls.running

    monkeypatch.setattr(one.calls, "count", count)
    for _ in range(200):
        one.ends()
    await settled()
    assert counts == [100]
    assert hub.roster.used == 100


class Spend:
    """Counts calls, and remembers what others do."""

    def __init__(self, number: int, calls: int) -> None:
        self._number, self._calls = number, 0
        self.ledger: Ledger[int] = Ledger(lambda key: AgentTime(1.5), lambda: 0.0)
        self._telling = Telling(self.ledger)
        self.others: dict[int, Share] = {}
        self.ends(calls)

    def ends(self, calls: int) -> None:
        """So many calls end."""
        for _ in range(calls):
            self._calls += 1
            name = f"{self._number}-{self._calls:030}"
            self.ledger.enters(self._calls, name, TODAY, f"agent_{self._calls % 3}")
            self.ledger.leaves(self._calls, self._calls)

    def news(self, *, anew: bool = False) -> list[Change]:
        return self._telling.news(TODAY, anew=anew)

    def elsewhere(self, process: int, change: Change) -> None:
        self.others.setdefault(process, Share()).take(change)

    def settles(self, calls: int) -> None:
        """The call log has got so many of them."""
        assert self.ledger.log_says(TODAY, calls, self.ledger.counted_here(TODAY, calls), {})

    def knows(self, *others: Spend) -> bool:
        """Whether it knows what others count, and nothing else."""
        return self.others.keys() == {other._number for other in others} and all(
            (share.spent, list(share.ended)) == (other.ledger.here(TODAY), other.all_ended())
            for other in others
            for share in [self.others[other._number]]
        )

    def all_ended(self) -> list[str]:
        return self.ledger.ended(TODAY, 0)


async def spending(workers: list[FakeWorker], *calls: int) -> list[Spend]:
    spends = [
        Spend(worker.membership.number, each) for worker, each in zip(workers, calls, strict=True)
    ]
    for worker, spend in zip(workers, spends, strict=True):
        worker.membership.count(cast(SpendGuard, spend))
        worker.membership.spent()
        worker.membership.spent()
    await settled()
    return spends


async def test_each_knows_what_the_others_spend() -> None:
    hub, workers = await company(3)
    one, two, three = await spending(workers, 1, 2, 3)
    assert one.knows(two, three)
    # What one that has died counted stays, and the next one of its number hears of the others.
    workers[1].die()
    await settled()
    assert one.knows(two, three)
    again, spend = FakeWorker(2), Spend(2, 0)
    again.membership.count(cast(SpendGuard, spend))
    again.link(hub)
    await settled()
    assert spend.knows(one, three)
    assert one.knows(spend, three)


async def test_however_many_calls_are_over_each_that_ends_is_little_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    write = company_module._End.write

    def weigh(end: company_module._End, data: bytes) -> None:
        sizes.append(len(data))
        write(end, data)

    monkeypatch.setattr(company_module._End, "write", weigh)
    hub, workers = await company(3)
    one, two, three = await spending(workers, 40_000, 40_000, 1)
    assert one.knows(two, three)
    assert three.knows(one, two)
    sizes.clear()
    for _ in range(100):
        one.ends(1)
        workers[0].membership.spent()
    await settled()
    assert three.knows(one, two)
    assert len(sizes) == 3, "all of one turn are told at once, to the front and by it to two others"
    assert max(sizes) < 10_000
    sizes.clear()
    one.settles(39_000)
    workers[0].membership.spent()
    await settled()
    assert three.knows(one, two)
    assert max(sizes) < 1000
    # The next front knows nothing, nor does a worker that comes now.
    await hub.close()
    await settled()
    hub, (four,) = await company(1)
    four.die()
    await settled()
    for worker in workers:
        worker.link(hub)
    late, spend = FakeWorker(4), Spend(4, 0)
    late.membership.count(cast(SpendGuard, spend))
    late.link(hub)
    one.ends(1)
    workers[0].membership.spent()
    await settled()
    assert spend.knows(one, two, three)
    assert two.knows(one, three, spend)
    assert max(sizes) < 1 << 16


async def test_a_call_stays_while_nobody_else_can_be_told_that_it_is_deleted() -> None:
    hub, (one, _) = await company()
    told: list[tuple[str, list[str]]] = []
    is_store_there = False

    async def tell(session_id: str, recordings: list[str]) -> bool:
        told.append((session_id, recordings))
        return is_store_there

    hub.on_deleted = tell
    document = {"recordings": [{"path": "a.wav"}]}
    one.die()
    await settled()
    with pytest.raises(ConnectionError, match="the front is not there"):
        await one.membership.deleted("session", document)
    one.link(hub)
    await settled()
    with pytest.raises(ConnectionError, match="the other machines cannot be told"):
        await one.membership.deleted("session", document)
    is_store_there = True
    await asyncio.gather(*(one.membership.deleted("session", document) for _ in range(2)))
    assert set(map(str, told)) == {"('session', ['a.wav'])"}


async def test_a_call_stays_where_the_front_goes_before_it_has_told() -> None:
    hub, (one, _) = await company()
    gone = asyncio.Event()

    async def tell(session_id: str, recordings: list[str]) -> bool:
        return await gone.wait()

    hub.on_deleted = tell
    deleting = asyncio.ensure_future(one.membership.deleted("session", {}))
    await settled()
    one.die()
    with pytest.raises(ConnectionError):
        await deleting
    gone.set()


async def test_without_other_machines_a_deletion_waits_for_nobody() -> None:
    _, (one, _) = await company()
    await one.membership.deleted("session", {})
