"""What is asked of one machine and answered by another."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ari_app.control.cluster.view import Machine, StoreAway
from ari_app.control.http.access import Keys
from ari_app.control.http.front import build_front_app
from ari_app.control.http.machines import HAS_PATH, Elsewhere, Machines
from ari_app.control.http.middleware import RequestRates
from ari_app.control.http.relay import Workers
from ari_app.control.workers.folder import Folder
from ari_app.control.workers.hub import Hub
from ari_app.control.workers.merged import FrontMetrics
from ari_app.control.workers.roster import Roster
from tests.web import serving


class Cluster:
    """One other machine, and a store that is away."""

    name = "here"

    def __init__(self, url: str) -> None:
        self.there = Machine("there", "1", url, "an-asterisk", room=1, calls=0, ready=True)
        self.asked: list[str] = []

    def others(self) -> list[Machine]:
        return [self.there]

    def targets(self) -> list[Machine]:
        return []

    def gave(self, machine: Machine) -> None:
        raise AssertionError

    def most(self, limit: int) -> int:
        return limit

    async def owner(self, call: str) -> Machine | None:
        raise StoreAway("away")

    async def keep_key(self, key: str) -> Machine | None:
        self.asked.append(key)
        return None


class Front:
    """Has no worker."""

    def __init__(self) -> None:
        self.hub = Hub(Roster(2), max_calls=20, per_second=0, max_waiting=10)
        self.metrics = FrontMetrics()

    def problems(self) -> list[str]:
        return []

    def warnings(self) -> list[str]:
        return []


@pytest.mark.parametrize("call", ["one", "line:PJSIP/trunk-1", "a b", "a?b", "100%25", "Grüße"])
async def test_without_the_store_a_call_is_found_by_its_whole_name(call: str) -> None:
    async def has(request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["session_id"] == call else 404)

    app = web.Application()
    app.router.add_get(HAS_PATH, has)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(app))
        machines = Machines("a-secret-of-all-machines")
        stack.push_async_callback(machines.close)
        elsewhere = Elsewhere(Cluster(url), machines)
        found = await elsewhere.of_call(call)
        assert found is not None
        assert found.to.name == "there"
        assert await elsewhere.of_call("a") is None


@pytest.mark.parametrize("key", ["", "x" * 256, "Schlüssel"])
async def test_a_key_that_nobody_may_use_is_not_kept_for_all_machines(key: str) -> None:
    folder, cluster = Folder.make(), Cluster("http://127.0.0.1:1")
    async with AsyncExitStack() as stack:
        stack.callback(folder.remove)
        relay, machines = Workers(folder), Machines("a-secret-of-all-machines")
        for each in (relay, machines):
            stack.push_async_callback(each.close)
        app = build_front_app(
            Front(),
            relay,
            keys=Keys(),
            number_pattern=None,
            rates=RequestRates(),
            routes=[],
            features={},
            sign_in_seconds=3600,
            elsewhere=Elsewhere(cluster, machines),
        )
        http = await stack.enter_async_context(TestClient(TestServer(app)))
        for given, code in ((key, "invalid_header"), ("a-key", "worker_away")):
            async with http.post(
                "/webhook/initiate-call",
                json={"called_number": "+493023125001"},
                headers={"Idempotency-Key": given},
            ) as response:
                assert (await response.json())["code"] == code
    assert cluster.asked == ["a-key"]
