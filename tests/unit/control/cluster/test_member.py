"""Several machines on one store, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ari_app.control.cluster.member import Hooks, Member
from ari_app.control.cluster.store import LEASE_SECONDS, Deletion
from ari_app.control.cluster.view import Machine, StoreAway
from tests.unit.control.cluster.fake_store import FakeLink, FakeStore
from tests.waiting import until


class Box:
    """A machine, its way to the store, and what it was told."""

    def __init__(self, store: FakeStore, name: str, limit: int = 0, run: str = "1") -> None:
        self.link = FakeLink(store)
        self.machine = Machine(name, run, f"http://{name}", "asterisk", 10, 0, True)
        self.fronts: list[bool] = []
        self.gone: list[str] = []
        self.deleted: list[str] = []
        self.frozen = 0.0
        hooks = Hooks(
            tell=lambda: self.machine,
            on_front=self.fronts.append,
            on_gone=lambda machine: self.gone.append(machine.name),
            on_deleted=self._delete,
        )
        self.member = Member(self.link, hooks, run_id=run, limit=limit, now=self.now)

    async def call(self) -> bool:
        """Take one more call in, if there is a place for it."""
        self.machine = replace(self.machine, calls=self.machine.calls + 1)
        taken = await self.member.take_place()
        if not taken:
            self.hang_up()
        return taken

    def hang_up(self) -> None:
        self.machine = replace(self.machine, calls=self.machine.calls - 1)

    async def _delete(self, deletion: Deletion) -> None:
        self.deleted.append(deletion.session_id)

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.frozen

    @property
    def is_front(self) -> bool:
        return self.member.lease.may_act(self.now())

    async def die(self) -> None:
        """End without a word to anybody."""
        self.link.away = True
        await self.member.close()


@contextlib.asynccontextmanager
async def boxes(*names: str, limit: int = 0) -> AsyncIterator[tuple[FakeStore, list[Box]]]:
    store = FakeStore()
    made = [Box(store, name, limit) for name in names]
    try:
        for box in made:
            await box.member.__aenter__()
            await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        yield store, made
    finally:
        for box in made:
            await box.member.close()


def fronts(all_boxes: list[Box]) -> list[str]:
    return [box.machine.name for box in all_boxes if box.is_front]


async def test_another_is_the_front_within_two_seconds() -> None:
    async with boxes("a", "b", "c") as (_, three):
        assert fronts(three) == ["a"]
        died_at = three[0].now()
        await three[0].die()
        await until(lambda: fronts(three[1:]))
        assert three[1].now() - died_at < 2.0
        [now] = fronts(three[1:])
        await asyncio.sleep(5)
        assert fronts(three[1:]) == [now]
        assert three[1].gone == three[2].gone == ["a"]


async def test_who_drains_hands_the_front_over_at_once() -> None:
    async with boxes("a", "b") as (_, two):
        two[0].member.draining = True
        began = two[0].now()
        await until(lambda: fronts(two) == ["b"])
        assert two[0].now() - began < 0.8
        assert two[0].fronts == [True, False]


async def test_the_next_front_of_an_only_machine_does_not_wait_for_those_of_other_asterisks() -> (
    None
):
    async with boxes("a", "b") as (store, [old, other]):
        other.machine = replace(other.machine, asterisk="another")
        await asyncio.sleep(2)
        new = Box(store, "a", run="2")
        async with new.member:
            await asyncio.sleep(0.4)
            assert fronts([old, new, other]) == ["a", "b"]
            old.member.draining = True
            began = new.now()
            await until(lambda: new.is_front)
            assert new.now() - began < 0.8
            assert new.fronts == [True]


async def test_a_lease_that_ran_out_on_the_own_clock_is_asked_for_again() -> None:
    async with boxes("a") as (_, [box]):
        assert await box.member.may_act()
        box.frozen += 5.0
        assert not box.is_front
        assert await box.member.may_act()


async def test_the_one_that_was_frozen_does_not_act_once_another_is_the_front() -> None:
    async with boxes("a", "b") as (_, two):
        was = two[0]
        # Asked in time, the answer lay in the socket while the machine was frozen.
        was.link.slow = 4.0
        await asyncio.sleep(3.5)
        assert fronts(two) == ["b"]
        assert was.member.lease.is_ours
        was.link.slow = 0.0
        assert not await was.member.may_act()
        await asyncio.sleep(2)
        assert was.fronts == [True, False]


async def test_without_the_store_the_front_goes_on_and_all_is_right_afterwards() -> None:
    async with boxes("a", "b", "c") as (store, three):
        for box in three:
            box.link.away = True
        three[1].member.has({"call-1"})
        for _ in range(100):
            await asyncio.sleep(0.1)
            assert fronts(three) in (["a"], []), "only a pause of a beat or so may be between"
        assert await three[0].member.may_act()
        store.empty()
        for box in three:
            box.link.away = False
        await asyncio.sleep(5)
        assert fronts(three) == ["a"]
        assert [box.fronts for box in three] == [[True], [], []]
        assert [box.gone for box in three] == [[], [], []]
        assert await three[0].link.owner("call-1") == "b"


async def test_cut_off_alone_it_goes_on_until_asterisk_gives_the_application_away() -> None:
    async with boxes("a", "b") as (_, two):
        two[0].link.away = True
        await asyncio.sleep(3)
        # Both believe so. Asterisk has one client an application: it tells the first of them.
        assert await two[0].member.may_act()
        assert await two[1].member.may_act()
        two[0].member.replaced()
        assert not await two[0].member.may_act()
        two[0].link.away = False
        await asyncio.sleep(3)
        assert fronts(two) == ["b"]


async def test_places_hold_over_all_machines_and_come_back_by_themselves() -> None:
    async with boxes("a", "b", limit=3) as (store, [a, b]):
        assert [await box.call() for box in (a, b, b, a)] == [True, True, True, False]
        b.hang_up()
        await asyncio.sleep(0.5)
        assert await a.call()
        assert not await b.call()
        await asyncio.sleep(3 * LEASE_SECONDS)
        assert sorted(store.places) == ["a#1", "a#2", "b#1"], (
            "those of calls that go on are renewed"
        )
        await b.die()
        assert not await a.call()
        await asyncio.sleep(LEASE_SECONDS)
        assert await a.call()


async def test_calls_that_are_there_have_places_whatever_the_limit() -> None:
    async with boxes("a", "b", limit=2) as (store, [a, b]):
        a.machine = replace(a.machine, calls=3)
        await asyncio.sleep(1)
        assert len(store.places) == 3
        assert not await b.call()


async def test_many_at_once_take_no_more_than_there_are() -> None:
    async with boxes("a", "b", limit=10) as (_, [a, b]):
        taken = await asyncio.gather(*(box.call() for box in [a, b] * 20))
        assert sum(taken) == 10


async def test_without_the_store_each_machine_has_its_share() -> None:
    async with boxes("a", "b", limit=5) as (_, [a, b]):
        a.link.away = b.link.away = True
        taken = [await box.call() for box in [a] * 4 + [b] * 4]
        assert taken == [True, True, True, False, True, True, False, False]


async def test_nobody_waits_for_a_store_that_is_known_to_be_away() -> None:
    async with boxes("a", "b", limit=5) as (_, [a, b]):
        a.link.away = True
        await asyncio.sleep(2)
        began = a.now()
        assert [await a.call() for _ in range(4)] == [True, True, True, False]
        for asked in (a.member.owner("call-1"), a.member.keep_key("key")):
            with pytest.raises(StoreAway):
                await asked
        assert a.now() == began
        a.link.away = False
        await asyncio.sleep(2)
        assert [await box.call() for box in (a, a, b)] == [True, True, False]


async def test_a_front_whose_answers_are_late_asks_again_before_it_leaves_a_caller() -> None:
    async with boxes("a") as (_, [box]):
        box.link.slow = 2.0
        await until(lambda: not box.is_front)
        asked = asyncio.create_task(box.member.may_act())
        await asyncio.sleep(1.9)
        box.link.slow = 0.0
        assert await asked


async def test_a_call_is_found_at_its_machine() -> None:
    async with boxes("a", "b") as (_, [a, b]):
        b.member.has({"call-1"})
        await asyncio.sleep(0.1)
        found = await a.member.owner("call-1")
        assert found is not None
        assert found.url == "http://b"
        assert await b.member.owner("call-1") is None
        assert await a.member.owner("call-2") is None
        b.member.has({"call-2"})
        await asyncio.sleep(0.1)
        owners = [await a.member.owner(call) for call in ("call-1", "call-2")]
        assert owners == [None, found]


async def test_one_that_is_cut_off_from_the_store_may_still_be_asked() -> None:
    async with boxes("a", "b") as (_, [a, b]):
        for answers in (True, False):
            a.link.away = True
            await asyncio.sleep(3)
            assert [each.name for each in b.member.unseen()] == ["a"]
            if not answers:
                b.member.does_not_answer(a.machine)
                assert b.member.unseen() == []
            a.link.away = False
            await asyncio.sleep(3)
            assert b.member.unseen() == []
            assert [each.name for each in b.member.others()] == ["a"]


async def test_what_was_deleted_is_deleted_everywhere_also_later() -> None:
    async with boxes("a", "b") as (store, [a, b]):
        assert await a.member.deleted("call-1", ["2026/1.wav"])
        await asyncio.sleep(1)
        assert b.deleted == ["call-1"]
        late = Box(store, "c")
        async with late.member:
            await asyncio.sleep(1)
        assert late.deleted == ["call-1"]


async def test_nothing_counts_as_told_that_only_this_process_knows() -> None:
    """It may end before the store is back, and nobody would remove what others have."""
    async with boxes("a", "b") as (_, [a, b]):
        a.link.away = True
        assert not await a.member.deleted("call-1", ["2026/1.wav"])
        a.link.away = False
        await asyncio.sleep(2)
        assert b.deleted == []
        assert await a.member.deleted("call-1", ["2026/1.wav"])


async def test_a_machine_that_was_given_a_call_counts_as_one_fuller() -> None:
    async with boxes("a", "b") as (_, [a, b]):
        b.machine = replace(b.machine, room=12)
        await asyncio.sleep(1)
        assert [each.name for each in a.member.targets()] == ["b", "a"]
        for _ in range(2):
            a.member.gave(a.member.targets()[0])
        assert [each.name for each in a.member.targets()] == ["a", "b"]
        await asyncio.sleep(1)
        assert [each.name for each in a.member.targets()] == ["b", "a"]


@pytest.mark.parametrize("asterisk", ["", "other"])
async def test_only_who_serves_the_asterisk_is_its_front(asterisk: str) -> None:
    async with boxes("a", "b") as (_, [a, b]):
        b.machine = replace(b.machine, asterisk=asterisk)
        await asyncio.sleep(3)
        assert a.is_front
        assert b.is_front is bool(asterisk)


async def test_two_of_one_name_are_told_so_and_whoever_restarts_is_not() -> None:
    async with boxes("a", "b") as (store, [one, two]):
        await one.die()
        again = Box(store, "a", run="2")
        async with again.member:
            await asyncio.sleep(5)
            assert again.member.namesake == ""
            copy = Box(store, "a", run="3")
            copy.machine = replace(copy.machine, url="http://copy")
            async with copy.member:
                await asyncio.sleep(10)
                assert (again.member.namesake, copy.member.namesake) == ("http://copy", "http://a")
                assert two.member.namesake == ""
            await asyncio.sleep(5)
            assert again.member.namesake == ""
