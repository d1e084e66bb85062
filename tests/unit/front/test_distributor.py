"""Arrivals are given to workers; whatever becomes of those, nobody is stranded."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ari_app.control.workers.hub import Hub
from ari_app.control.workers.merged_metrics import FrontMetrics
from ari_app.front.distributor import Distributor
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriNotFound, AriServerError, AriTimeout
from ari_app.line.asterisk.ari.events import StasisStart
from ari_app.line.asterisk.ari.models import Channel
from ari_app.line.asterisk.ari.socket import SocketState
from ari_app.line.asterisk.dialplan import read_moved
from tests.unit.control.workers.company import FakeWorker, company, settled
from tests.waiting import until


class FakeApplications:
    """Who is in each worker's application, with a worker or without."""

    def __init__(self, asterisk: FakeAsterisk) -> None:
        self._asterisk = asterisk

    async def list(self) -> tuple[SimpleNamespace, ...]:
        where = self._asterisk.where
        return tuple(
            SimpleNamespace(
                name=name, channel_ids=tuple(each for each, app in where.items() if app == name)
            )
            for name in self._asterisk.workers
        )

    async def get(self) -> SimpleNamespace:
        """Who is in the front's own."""
        where = self._asterisk.where
        named = tuple(each for each, app in where.items() if app == self._asterisk.app)
        return SimpleNamespace(channel_ids=named)


class FakeAsterisk:
    """Moves channels to the workers' applications, and forgets those that hang up.

    Attributes:
        channels: Where each is: `voice-agent`, a worker's application, or `dialplan`.
        args: What each has brought to where it is.
        variables: Of those that went on in the dialplan.
        broken: Moves that are done, and whose answer is lost.
        obscure: Channels that cannot be described; while there is one, there is no list.
    """

    def __init__(self, workers: list[FakeWorker]) -> None:
        self.app = "voice-agent"
        self.where: dict[str, str] = {}
        self.args: dict[str, list[str]] = {}
        self.variables: dict[str, dict[str, str]] = {}
        self.broken = False
        self.obscure: set[str] = set()
        self.dead: set[str] = set()
        self.workers = {worker.app: worker for worker in workers}
        self.channels = self
        self.applications = FakeApplications(self)

    def within(self, seconds: float) -> FakeAsterisk:
        return self

    async def move(self, channel: str, app: str, app_args: str) -> None:
        await asyncio.sleep(0.001)
        if channel not in self.where:
            raise AriNotFound("gone", method="POST", path="move")
        self.where[channel], self.args[channel] = app, app_args.split(",")
        worker = self.workers.get(app)
        if worker is not None and app not in self.dead:
            asyncio.get_running_loop().call_later(0.002, worker.take_in, channel)
        if self.broken:
            raise AriTimeout("no answer", method="POST", path="move")

    async def get(self, name: str) -> Any:
        if name not in self.where:
            raise AriNotFound("gone", method="GET", path="channel")
        if name in self.obscure:
            raise AriServerError("Allocation failed", method="GET", path="channel")
        return channel(name)

    async def list(self) -> tuple[Channel, ...]:
        if self.obscure:
            raise AriServerError("Allocation failed", method="GET", path="channels")
        there = [each for each, app in self.where.items() if app != "dialplan"]
        return tuple(channel(each) for each in there)

    async def set_channel_var(self, channel: str, name: str, value: str) -> None:
        self.variables.setdefault(channel, {})[name] = value

    async def continue_in_dialplan(self, channel: str, **where: Any) -> None:
        self.where[channel] = "dialplan"


def channel(channel_id: str, data: str = "voice-agent,customer_name=Jane") -> Channel:
    return Channel.model_validate(
        {
            "id": channel_id,
            "name": f"PJSIP/{channel_id}",
            "state": "Ring",
            "dialplan": {"app_name": "Stasis", "app_data": data},
        }
    )


class House:
    """A front with its workers, at an Asterisk."""

    def __init__(self, hub: Hub, workers: list[FakeWorker]) -> None:
        self.hub, self.workers = hub, workers
        self.asterisk = FakeAsterisk(workers)
        self.metrics = FrontMetrics()
        self.distributor = Distributor(cast(Client, self.asterisk), hub, self.metrics)
        self._calls = 0

    async def arrive(self, *args: str, name: str | None = None) -> str:
        """Let somebody come; returns once it is decided where they are."""
        self._calls += 1
        channel_id = name or f"caller-{self._calls}"
        self.asterisk.where[channel_id] = "voice-agent"
        event = StasisStart(type="StasisStart", channel=channel(channel_id), args=args)
        self.distributor.handle(event)
        await self.distributor.close()
        await settled()
        return channel_id

    def at(self, channel_id: str) -> str:
        return self.asterisk.where[channel_id].rpartition(".")[2]

    def counted(self, result: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "ari_app_front_arrivals_total", {"result": result}
        )
        return value or 0.0


async def house(count: int = 2, **limits: int) -> House:
    return House(*await company(count, **limits))


async def test_callers_are_spread_and_keep_their_arguments() -> None:
    front = await house()
    args = ("agent_id=agent_7", 'customer_name=Doe, "Jane"', "a=%2C")
    places = [front.at(await front.arrive(*args)) for _ in range(4)]
    assert places == ["1", "2", "1", "2"]
    assert read_moved(front.asterisk.args["caller-1"]) == (list(args), True)
    assert front.counted("moved") == 4
    front.workers[0].ends()
    front.workers[0].ends()
    await settled()
    assert front.at(await front.arrive()) == "1"


async def test_many_at_once_are_spread_too() -> None:
    front = await house(4)
    names = [f"at-once-{number}" for number in range(40)]
    await asyncio.gather(*(front.arrive(name=name) for name in names[:8]))
    assert sorted(front.at(name) for name in names[:8]) == sorted("1234" * 2)


async def test_beyond_the_limit_a_worker_refuses_and_keeps_the_record() -> None:
    front = await house(max_calls=1)
    await front.arrive()
    refused = await front.arrive("agent_id=agent_7")
    assert read_moved(front.asterisk.args[refused]) == (["agent_id=agent_7"], False)
    # Who waits for an agent holds no place yet.
    waits = await front.arrive("wait=30")
    assert read_moved(front.asterisk.args[waits]) == (["wait=30"], True)


async def test_a_frozen_worker_costs_the_caller_a_moment() -> None:
    front = await house()
    front.workers[0].freeze()
    began = asyncio.get_running_loop().time()
    assert front.at(await front.arrive()) == "2"
    assert asyncio.get_running_loop().time() - began < 0.25


async def test_one_that_dies_with_the_caller_on_the_way() -> None:
    front = await house()
    front.asterisk.dead.add(front.workers[0].app)
    # 204, and nothing follows: the application is nobody's.
    asyncio.get_running_loop().call_later(0.01, front.workers[0].die)
    assert front.at(await front.arrive()) == "2"
    assert front.counted("not_confirmed") == 1
    assert not front.hub.admission.full


async def test_one_that_leaves_waits_for_the_caller_on_the_way() -> None:
    front = await house()
    leaves, stays = front.workers
    front.asterisk.dead.add(leaves.app)
    coming = asyncio.create_task(front.arrive())
    await until(lambda: front.asterisk.where.get("caller-1") == leaves.app)
    leaving = asyncio.create_task(leaves.membership.leave())
    await settled()
    assert not leaving.done()
    worker = front.hub.roster.numbered(1)
    assert worker is not None
    assert not await front.hub.offer(worker, "another", anyhow=False)
    leaves.take_in("caller-1")
    assert front.at(await coming) == "1"
    await leaving
    began = asyncio.get_running_loop().time()
    await stays.membership.leave()
    assert asyncio.get_running_loop().time() == began, "nobody is on the way"


async def test_one_that_takes_a_caller_and_says_nothing() -> None:
    front = await house()
    front.asterisk.dead.add(front.workers[0].app)
    assert front.at(await front.arrive()) == "2"
    assert front.hub.roster.numbered(1), "it is there all the same"
    first = front.hub.roster.numbered(1)
    assert first is not None
    assert first.promised == 0


async def test_nobody_is_there() -> None:
    front = await house()
    for worker in front.workers:
        worker.die()
    await settled()
    began = asyncio.get_running_loop().time()
    caller = await front.arrive()
    assert front.at(caller) == "dialplan"
    assert asyncio.get_running_loop().time() - began == pytest.approx(2.0, abs=0.1)
    assert front.asterisk.variables[caller]["AGENT_STATUS"] == "FAILED"
    assert front.asterisk.variables[caller]["AGENT_REASON"] == "no_worker"
    assert not front.hub.admission.full
    front.distributor.draining = True
    caller = await front.arrive()
    assert front.asterisk.variables[caller]["AGENT_STATUS"] == "REJECTED"


async def test_a_worker_that_comes_in_time_gets_who_waits() -> None:
    front = await house()
    for worker in front.workers:
        worker.die()
    await settled()
    asyncio.get_running_loop().call_later(1.0, front.workers[1].link, front.hub)
    assert front.at(await front.arrive()) == "2"


async def test_a_caller_who_hangs_up_on_the_way() -> None:
    front = await house(max_calls=1)
    front.distributor.handle(
        StasisStart(type="StasisStart", channel=channel("gone"), args=("tier=2",))
    )
    await front.distributor.close()
    assert front.counted("gone") == 1
    assert not front.hub.admission.full


async def test_a_lost_answer_is_no_lost_caller() -> None:
    front = await house()
    front.asterisk.broken = True
    assert front.at(await front.arrive()) == "1"
    assert front.counted("moved") == 1


async def test_whom_a_worker_has_called_comes_back_to_it() -> None:
    front = await house(max_calls=1)
    await front.arrive()
    placed = await front.arrive("amd_status=HUMAN", name=f"{front.workers[1].app}-out-session")
    assert front.at(placed) == "2"
    assert read_moved(front.asterisk.args[placed]) == (["amd_status=HUMAN"], True)


async def test_who_came_while_nobody_listened_is_found() -> None:
    front = await house()
    there = await front.arrive()
    front.workers[0].membership.known("session", cast(Any, SimpleNamespace(line_id=there)))
    lost = {
        "came": "voice-agent",
        "stranded": "nobody.1",
        "dead": front.workers[1].app,
    }
    front.asterisk.where |= lost
    await settled()
    front.distributor._state_changed(SocketState.CONNECTED)
    await asyncio.sleep(1.5)
    await front.distributor.close()
    assert front.at(there) == "1"
    assert {front.at("came"), front.at("stranded")} <= {"1", "2"}
    assert read_moved(front.asterisk.args["came"]) == (["customer_name=Jane"], True)
    assert "dead" not in front.asterisk.args, "its worker's successor looks after it"


async def test_who_came_while_nobody_listened_is_found_beside_one_that_is_obscure() -> None:
    front = await house()
    front.asterisk.where |= {"came": "voice-agent", "odd": "voice-agent", "else": "other"}
    front.asterisk.obscure |= {"odd", "else"}
    front.distributor._state_changed(SocketState.CONNECTED)
    await asyncio.sleep(1.5)
    await front.distributor.close()
    assert front.at("came") in {"1", "2"}
