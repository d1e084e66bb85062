"""What is asked of one machine and answered by another."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from ari_app.control.cluster.view import Machine, StoreAway
from ari_app.control.http import server as connections
from ari_app.control.http.front import build_front_app
from ari_app.control.http.keys import Keys
from ari_app.control.http.machines import HAS_PATH, Elsewhere, Machines
from ari_app.control.http.rates import RequestRates
from ari_app.control.http.relay import MACHINE_HEADER, Workers
from ari_app.control.http.server import HttpServer
from ari_app.control.workers.folder import Folder
from ari_app.control.workers.hub import Hub
from ari_app.control.workers.merged_metrics import FrontMetrics
from ari_app.control.workers.roster import Roster
from ari_app.front.machines import Fleet
from lab.web import serving
from linekit.listener import ConnectionLimits
from tests.unit.settings_maker import settings_maker
from tests.waiting import PATIENCE_SECONDS

SECRET = "a-secret-of-all-machines"


class Cluster:
    """One other machine, and a store that is away."""

    name = "here"

    def __init__(self, url: str) -> None:
        self.there = Machine("there", "1", url, "an-asterisk", room=1, calls=0, ready=True)
        self.asked: list[str] = []
        self.is_away, self.is_seen = True, True

    def others(self) -> list[Machine]:
        return [self.there] if self.is_seen else []

    def unseen(self) -> list[Machine]:
        return [] if self.is_seen else [self.there]

    def does_not_answer(self, machine: Machine) -> None:
        self.is_seen = True

    def targets(self) -> list[Machine]:
        return []

    def gave(self, machine: Machine) -> None:
        raise AssertionError

    def most(self, limit: int) -> int:
        return limit

    async def owner(self, call: str) -> Machine | None:
        if self.is_away:
            raise StoreAway("away")
        return None

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
@pytest.mark.parametrize("is_seen", [True, False])
async def test_without_the_store_a_call_is_found_by_its_whole_name(
    call: str, is_seen: bool
) -> None:
    async def has(request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["session_id"] == call else 404)

    app = web.Application()
    app.router.add_get(HAS_PATH, has)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(app))
        machines = Machines("a-secret-of-all-machines")
        stack.push_async_callback(machines.close)
        cluster = Cluster(url)
        # Away for this machine, or for the one that has the call.
        cluster.is_away = cluster.is_seen = is_seen
        elsewhere = Elsewhere(cluster, machines)
        found = await elsewhere.of_call(call)
        assert found is not None
        assert found.to.name == "there"
        assert await elsewhere.of_call("a") is None
        assert cluster.is_seen is is_seen
        cluster.there = replace(cluster.there, url="http://127.0.0.1:1")
        assert await elsewhere.of_call(call) is None
        assert cluster.is_seen, "it does not answer either"


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


async def test_strangers_at_the_port_of_machines_are_few_and_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.1)
    settings = settings_maker(monkeypatch, tmp_path)(
        ari_url="http://127.0.0.1:1/ari",
        ari_password="a-password",
        elevenlabs_agent_id="agent_1",
        elevenlabs_api_key="sk_1",
        max_concurrent_calls=1,
        workers=2,
        cluster_url="valkey://127.0.0.1:1",
        cluster_secret=SECRET,
        cluster_bind="127.0.0.1:0",
    )
    front = Front()
    fleet = Fleet(settings, front, front.hub, cast(Any, None))
    async with AsyncExitStack() as stack:
        stack.push_async_callback(fleet._exit.aclose)
        await fleet._listen()
        http = await stack.enter_async_context(ClientSession(fleet._url))
        port = int(fleet._url.rpartition(":")[2])
        with capture_logs() as logs:
            for given in ("not-" + SECRET, ""):
                async with http.get(
                    "/machine/has/one", headers={MACHINE_HEADER: given}
                ) as response:
                    assert response.status == 401
        async with http.get("/machine/has/one", headers={MACHINE_HEADER: SECRET}) as response:
            assert response.status == 404
        told = {each["event"]: each for each in logs}
        assert told.keys() == {"machine_refused"}
        assert SECRET not in str(logs)
        # Whoever says nothing does not stay.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()
    refused = front.metrics.http_refused
    assert refused.labels("unauthorized")._value.get() == 2
    assert refused.labels("head_too_late")._value.get() == 1
    assert settings.cluster_limits() == ConnectionLimits(132, 99, 132, 132)


async def test_a_front_listens_where_the_one_before_still_does() -> None:
    async with AsyncExitStack() as stack:
        port = 0
        for _ in range(2):
            server = HttpServer(
                web.Application(),
                limits=ConnectionLimits(),
                take=lambda address: 0.0,
                on_refused=lambda code: None,
            )
            stack.push_async_callback(server.close)
            _, port = await server.start("127.0.0.1", port, shared=True)
