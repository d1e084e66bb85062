"""The store in memory and a real server keep the same promises."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from ari_app.control.cluster.lease import TTL
from ari_app.control.cluster.member import CommonStore, Hooks, Member
from ari_app.control.cluster.store import Deletion, Leases, Store
from ari_app.control.cluster.view import Machine, StoreAway
from tests.unit.control.cluster.fake_store import FakeLink, FakeStore
from tests.unit.control.cluster.valkey import Valkey
from tests.waiting import until

A = Machine("a", "1", "http://a", "asterisk", 3, 0, True)
B = Machine("b", "1", "http://b", "asterisk", 3, 0, True)
FULL = Leases(["b#1", "b#2"], (), ["x", "y"])


@contextlib.asynccontextmanager
async def real(valkey: Valkey) -> AsyncIterator[Store]:
    # Keys of its own for each test.
    async with Store(valkey.url, f"app-{time.monotonic_ns()}") as store:
        yield store


async def keeps_its_promises(store: CommonStore) -> None:
    first = await store.beat(A, holder="a/1", wants=True)
    assert first.grant.holder == "a/1"
    assert [each.name for each in first.machines] == ["a"]
    assert first.before is None
    second = await store.beat(B, holder="b/1", wants=True, leases=FULL)
    assert second.grant == first.grant
    assert {each.name: each for each in second.machines} == {"a": A, "b": B}
    assert second.places == 2
    # The same once more is the same.
    again = await store.beat(B, holder="b/1", wants=True, leases=FULL)
    assert (again.grant, again.places, again.before) == (second.grant, 2, B)
    assert await store.owner("x") == "b"
    # A call that has moved is not taken away by whom it has left.
    await store.beat(A, holder="a/1", wants=True, leases=Leases(here=["x"]))
    await store.beat(B, holder="b/1", wants=True, leases=Leases((), ["b#2"], (), ["x", "y"]))
    assert (await store.owner("x"), await store.owner("y")) == ("a", None)

    assert await store.claim("a#1", 2)
    assert await store.claim("a#1", 2)
    assert not await store.claim("a#2", 2)

    given_up = await store.beat(A, holder="a/1", wants=False)
    assert given_up.grant.holder == ""
    taken = await store.beat(B, holder="b/1", wants=True)
    assert taken.grant.holder == "b/1"
    assert taken.grant.token > first.grant.token
    await asyncio.sleep(TTL + 0.1)
    gone = await store.beat(A, holder="a/2", wants=True)
    assert gone.grant.holder == "a/2"
    assert gone.grant.token > taken.grant.token
    assert [each.name for each in gone.machines] == ["a"]
    await store.leave(A, "a/2")
    assert (await store.beat(B, holder="b/1", wants=True)).grant.holder == "b/1"

    assert [await store.keep_key("k", name) for name in ("b", "a", "b")] == ["b", "b", "b"]
    # Of one that is gone, whoever is asked next has the answer, also when that one is back.
    assert await store.keep_key("of a", "a") == "a"
    assert [await store.keep_key("of a", name) for name in ("b", "a")] == ["b", "b"]
    await store.beat(A, holder="a/3", wants=False)
    assert await store.keep_key("of a", "a") == "b"
    await store.leave(A, "a/3")

    # One that ends while its successor is there takes nothing away from it.
    after = replace(B, run="2")
    await store.beat(after, holder="b/2", wants=True)
    await store.leave(B, "b/1")
    found = await store.beat(after, holder="b/2", wants=True)
    assert (found.machines, found.grant.holder) == ((after,), "b/2")

    await store.tell_deleted("x", ["p/1.wav"])
    await store.tell_deleted("y", [])
    read = [await anext(entries) for entries in [store.deletions("a")] for _ in range(2)]
    assert [(each.session_id, each.recordings) for each in read] == [("x", ("p/1.wav",)), ("y", ())]
    later = store.deletions("a", read[0].entry)
    assert (await anext(later)).session_id == "y"


async def test_the_store_in_memory() -> None:
    await keeps_its_promises(FakeLink(FakeStore()))


async def test_a_real_server(valkey: Valkey) -> None:
    async with real(valkey) as store:
        await keeps_its_promises(store)


async def test_a_frozen_server_is_away_within_a_second(valkey: Valkey) -> None:
    async with real(valkey) as store:
        await store.beat(A, holder="a/1", wants=True, leases=Leases(["a#1"]))
        with valkey.frozen():
            began = time.monotonic()
            with pytest.raises(StoreAway):
                await store.beat(A, holder="a/1", wants=True, leases=Leases(["a#2"]))
            assert time.monotonic() - began < 1.0
        # What was asked is done when the server goes on, and may be asked again.
        found = await store.beat(A, holder="a/1", wants=True, leases=Leases(["a#1", "a#2"]))
        assert found.places == 2


async def test_a_quiet_stream_of_deletions_goes_on(valkey: Valkey) -> None:
    """Longer than the time after which the client library gives a quiet connection up."""
    async with real(valkey) as store:
        reading = asyncio.ensure_future(anext(store.deletions("a")))
        await asyncio.sleep(5.5)
        assert not reading.done()
        await store.tell_deleted("x", [])
        assert (await reading).session_id == "x"


async def test_deletions_of_long_ago_are_forgotten(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold names of recordings, and with these the numbers of those who wanted to be."""
    monkeypatch.setattr("ari_app.control.cluster.store._KEEP_DELETED_MS", 1000)
    long = 2.1  # in whole seconds of the server's
    async with real(valkey) as store:
        await store.tell_deleted("a", ["DAY/120000-+493023125001-a.wav"])
        await store.tell_deleted("b", [])
        await asyncio.sleep(long)
        await store.tell_deleted("c", [])
        assert (await anext(store.deletions("a"))).session_id == "c"
        # Also where nothing is deleted any more.
        await asyncio.sleep(long)
        reading = asyncio.ensure_future(anext(store.deletions("a")))
        await asyncio.sleep(0.1)
        await store.tell_deleted("d", [])
        assert (await reading).session_id == "d"


async def test_a_machine_is_told_once_what_was_deleted_and_all_is_forgotten_then(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each start would go through all of a month: millions, with `RECORDS_KEEP_DAYS`."""
    monkeypatch.setattr("ari_app.control.cluster.store._AGAIN_DELETED_MS", 1000)
    monkeypatch.setattr("ari_app.control.cluster.store._BLOCK_SECONDS", 0.05)
    monkeypatch.setattr("ari_app.control.cluster.store._FOLLOWS_SECONDS", 0.0)
    long = 2.1  # in whole seconds of the server's

    async def told(store: Store, machine: str, call: str) -> list[str]:
        """Return what a machine reads that comes, finds nothing new, and then hears of a call."""

        async def read() -> list[str]:
            found: list[str] = []
            async for deletion in store.deletions(machine):
                found.append(deletion.session_id)
                if found[-1] == call:
                    break
            return found

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0.2)
        await store.tell_deleted(call, [])
        return await reading

    async with real(valkey) as store:
        assert await told(store, "a", "1") == ["1"]
        assert await told(store, "b", "2") == ["1", "2"]
        await asyncio.sleep(long)
        # Again what may still have waited to be removed when it was there last.
        assert await told(store, "a", "3") == ["1", "2", "3"]
        await asyncio.sleep(long)
        assert await told(store, "a", "4") == ["3", "4"]
        # It was kept for the one that was away.
        assert await told(store, "b", "5") == ["1", "2", "3", "4", "5"]
        await asyncio.sleep(long)
        for machine in ("a", "b"):
            await told(store, machine, f"6 at {machine}")
        assert (await anext(store.deletions("c"))).session_id == "6 at a"


async def test_a_server_that_starts_again_empty_is_filled_again(valkey: Valkey) -> None:
    async with real(valkey) as store:
        deleted: list[str] = []

        async def delete(deletion: Deletion) -> None:
            deleted.append(deletion.session_id)

        fronts: list[bool] = []
        one_call = replace(A, calls=1)
        hooks = Hooks(lambda: one_call, fronts.append, on_deleted=delete)
        async with Member(store, hooks, run_id="1", limit=5) as member:
            member.has({"call-1"})
            await until(lambda: member.lease.is_ours and member.view.places == 1)
            token = member.lease.token
            valkey.stop()
            await until(lambda: not member.view.reachable)
            valkey.start()
            await until(lambda: member.view.reachable and member.view.places == 1)
            assert await store.owner("call-1") == "a"
            assert fronts == [True]
            assert member.lease.token > token
            assert await member.deleted("call-2", [])
            await until(lambda: deleted == ["call-2"])
        with pytest.raises(StoreAway):
            async with Store("valkey://127.0.0.1:1", "app") as nowhere:
                await nowhere.owner("x")
