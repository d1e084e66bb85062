"""What is asked of one machine and answered by another."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from ari_app.control.cluster.store import StoreAway
from ari_app.control.cluster.view import Machine
from ari_app.control.http.machines import HAS_PATH, Elsewhere, Machines
from tests.web import serving


class Cluster:
    """One other machine, and a store that is away."""

    name = "here"

    def __init__(self, url: str) -> None:
        self.there = Machine("there", "1", url, "an-asterisk", room=1, calls=0, ready=True)

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
        raise AssertionError


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
        assert found.machine.name == "there"
        assert await elsewhere.of_call("a") is None
