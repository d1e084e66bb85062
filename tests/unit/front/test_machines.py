"""The front's part among other machines: what it does with the application."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast
from unittest.mock import AsyncMock

import pytest

from ari_app.control.cluster.view import Machine
from ari_app.control.http.relay import Relay, WorkerAway
from ari_app.control.workers.hub import Hub
from ari_app.control.workers.roster import Worker
from ari_app.front import machines
from ari_app.front.distributor import Distributor
from ari_app.front.machines import Fleet
from ari_app.line.asterisk.ari.errors import AriError, AriUnavailable
from ari_app.line.asterisk.ari.socket import SocketState
from ari_app.line.asterisk.cleanup import Stock
from ari_app.line.asterisk.names import media_channel_id, placed_channel_id, worker_app
from ari_app.records.record import CallRecord
from ari_app.settings import Settings
from tests.unit.control.cluster.fake_store import FakeLink, FakeStore
from tests.unit.control.workers.company import FakeWorker, company, settled
from tests.unit.settings_maker import settings_maker
from tests.waiting import until


class FakeDistributor:
    """Has the application until Asterisk gives it to another."""

    def __init__(self) -> None:
        self.state = SocketState.DISCONNECTED
        self.ari = self.asterisk = self
        self.replaced = asyncio.Event()

    def has_application(self) -> bool:
        return self.state is SocketState.CONNECTED

    def within(self, seconds: float) -> FakeDistributor:
        return self

    async def get_info(self) -> Any:
        return SimpleNamespace(system=SimpleNamespace(entity_id="an-asterisk"))

    async def run(self) -> None:
        self.state = SocketState.CONNECTED
        try:
            await self.replaced.wait()
            self.state = SocketState.REPLACED
        finally:
            if self.state is SocketState.CONNECTED:
                self.state = SocketState.DISCONNECTED


def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Settings of a machine that is one of several."""
    make = settings_maker(monkeypatch, tmp_path)
    return make(
        ari_url="http://127.0.0.1:1/ari",
        ari_password="a-password",
        elevenlabs_agent_id="agent_1",
        elevenlabs_api_key="sk_1",
        workers=2,
        cluster_url="valkey://127.0.0.1:1",
        cluster_secret="a-secret-of-all-machines",
    )


async def fleet_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[Fleet, Hub, list[FakeWorker]]:
    """A machine with two workers, which is not opened."""
    settings = cluster(monkeypatch, tmp_path)
    link = FakeLink(FakeStore())
    monkeypatch.setattr("ari_app.front.machines.Store", lambda url, app: link)
    hub, workers = await company(2)
    return Fleet(settings, cast(Any, None), hub, cast(Relay[Worker], None)), hub, workers


async def test_calls_that_come_and_go_together_are_looked_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fleet, hub, workers = await fleet_of(monkeypatch, tmp_path)
    hub.on_calls = fleet._calls_told.ask
    told: list[set[str]] = []
    has = fleet.member.has

    def note(calls: set[str]) -> None:
        told.append(calls)
        has(calls)

    monkeypatch.setattr(fleet.member, "has", note)
    records = [CallRecord(f"s{number}", f"l{number}", 0.0) for number in range(300)]
    for record in records:
        workers[0].membership.known(record.session_id, record)
    await settled()
    assert len(told) == 1
    for record in records[:200]:
        workers[0].membership.known(record.session_id, None)
    await settled()
    assert len(told) == 2
    assert len(fleet.member.calls) == 200, "a hundred, each by its name and its line"
    workers[0].die()
    await settled()
    assert len(fleet.member.calls) == 200, "who asks about them elsewhere is to come again"
    FakeWorker(1).link(hub)
    await settled()
    assert fleet.member.calls == set()


@pytest.mark.parametrize("taken", [True, False])
async def test_whoever_drains_has_the_application_until_it_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, taken: bool
) -> None:
    fleet, _, _ = await fleet_of(monkeypatch, tmp_path)
    distributor = FakeDistributor()
    serving = asyncio.create_task(fleet.distribute(cast(Distributor, distributor)))
    async with fleet.member:
        await until(distributor.has_application)
        fleet.drain()
        ending = asyncio.create_task(fleet.handed_over())
        await until(lambda: not fleet.member.lease.is_ours)
        await asyncio.sleep(1)
        assert distributor.has_application()
        assert await fleet.may_act()
        assert not ending.done()
        if taken:
            distributor.replaced.set()
        await ending
        assert not distributor.has_application()
        assert await fleet.may_act() is taken, "who has come before is still given to somebody"
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


async def test_what_was_deleted_while_a_machine_was_away_waits_for_its_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = FakeStore()
    link = FakeLink(store)
    monkeypatch.setattr("ari_app.front.machines.Store", lambda url, app: link)
    for number in range(3):
        await link.tell_deleted(f"call-{number}", [f"{number}.wav"])
    hub, _ = await company(0)
    fleet = Fleet(cluster(monkeypatch, tmp_path), cast(Any, None), hub, cast(Any, None))
    worker, heard = FakeWorker(1), list[tuple[str, list[str]]]()
    worker.membership.on_forget = lambda session_id, recordings: heard.append(
        (session_id, recordings)
    )
    async with fleet.member:
        await asyncio.sleep(5)
        worker.link(hub)
        await asyncio.sleep(5)
    assert heard == [(f"call-{number}", [f"{number}.wav"]) for number in range(3)]


class FakeMender:
    """Gives back what an application has left in Asterisk, or ends its sound."""

    done: ClassVar[list[str]]

    def __init__(self, ari: object, app: str, amd_context: str) -> None:
        self.app = app

    async def mend(self, *, expected: bool, patience: float) -> None:
        self.done.append(f"mended {self.app}")

    async def take_stock(self, calls: object) -> Stock:
        return Stock((), frozenset({media_channel_id(self.app, "s1"), "1.1"}), (), frozenset())

    async def remove_channel(self, name: str) -> None:
        self.done.append(f"ended {name}")


@pytest.fixture
def mended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done in Asterisk for a machine that is gone."""
    monkeypatch.setattr(machines, "Mender", FakeMender)
    done: list[str] = []
    monkeypatch.setattr(FakeMender, "done", done, raising=False)
    return done


def asterisk_with(*apps: str) -> Any:
    """An Asterisk in which these applications are."""
    found = AsyncMock(return_value=[SimpleNamespace(name=each) for each in apps])
    return SimpleNamespace(applications=SimpleNamespace(list=found))


@pytest.mark.parametrize("name", ["b", "bridge-01-voice-eu-central-1-callcentre-example-internal"])
async def test_a_machine_is_known_by_its_workers_applications_however_long_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mended: list[str], name: str
) -> None:
    fleet, _, _ = await fleet_of(monkeypatch, tmp_path)
    other = Machine(name, "run", "http://127.0.0.1:1", "an-asterisk", room=1, ready=True)
    app = worker_app("voice-agent", 2, name)
    full = replace(other, name="a-machine-with-more-room", room=9)
    monkeypatch.setattr(fleet.member, "targets", lambda: [full, other])
    asked: list[str] = []

    async def post(to: Machine, path: str, body: object, seconds: float) -> int:
        asked.append(to.name)
        return 200

    monkeypatch.setattr(fleet._machines, "post", post)
    assert await fleet.give(placed_channel_id(app, "s1"), [])
    assert asked == [name], "whoever has placed a call gets it back"

    monkeypatch.setattr(fleet._machines, "get", AsyncMock(side_effect=WorkerAway))
    ari = asterisk_with(worker_app("voice-agent", 1, full.name), app, "voice-agent")
    gone = machines._Gone(other, 0.0)
    for _ in range(2):
        await fleet._look_after(ari, gone, 0.0)
    assert mended == [f"mended {app}"]


async def test_a_machine_that_is_gone_is_looked_after_as_soon_as_asterisk_can_be_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mended: list[str]
) -> None:
    fleet, _, _ = await fleet_of(monkeypatch, tmp_path)
    away = AsyncMock(return_value=(200, b""))
    monkeypatch.setattr(fleet._machines, "get", away)
    app = worker_app("voice-agent", 1, "b")
    ari = asterisk_with(app)
    gone = machines._Gone(Machine("b", "run", "http://127.0.0.1:1"), 0.0)

    async def look(now: float) -> list[str]:
        with contextlib.suppress(AriError):
            await fleet._look_after(ari, gone, now)
        done, mended[:] = list(mended), []
        return done

    assert await look(100.0) == [], "it is cut off from the store alone"
    away.side_effect = WorkerAway
    assert await look(100.5) == []
    ari.applications.list.side_effect = AriUnavailable("Asterisk is away")
    assert [*await look(101.0), *await look(110.0), *await look(120.0)] == []
    ari.applications.list.side_effect = None
    ended = [f"ended {media_channel_id(app, 's1')}", f"mended {app}"]
    assert await look(130.0) == ended
    assert await look(130.5) == ended
    assert gone.is_done
    assert await look(131.0) == []
    away.side_effect = None
    await look(132.0)
    away.side_effect = WorkerAway
    assert [*await look(133.0), *await look(133.5)] == [f"mended {app}"]
    assert await look(134.0) == [], "one that still holds its sound may only be slow"
    assert await look(142.0) == ended
