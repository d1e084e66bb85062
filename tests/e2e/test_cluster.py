"""Several machines on one Asterisk and one store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from lab.asterisk import LabAsterisk
from lab.practice_agent import PracticeAgent
from lab.softphone import Phone
from tests.e2e.harness import practice_config
from tests.e2e.test_serve import Served, environment, served
from tests.e2e.test_supervision import hang_up, hears_human, nothing_of_ours_left, talking
from tests.unit.control.cluster.valkey import NoValkey, Valkey, valkey_server
from tests.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.long]

NAMED = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"']
"""Gives a program a machine's name of its own; for root."""


@pytest.fixture(scope="module")
def valkey() -> Iterator[Valkey]:
    try:
        with valkey_server() as server:
            yield server
    except NoValkey as missing:
        pytest.skip(str(missing))


def pids(service: Served) -> list[int]:
    return [service.process.pid, *(entry["pid"] for entry in service.said("worker_started"))]


def kill_all(service: Served) -> None:
    """End all of a machine's processes at once."""
    for pid in pids(service):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def sessions(service: Served) -> dict[str, Any]:
    return dict(json.loads((await service.get("/sessions"))[1]))


def serves(service: Served) -> bool:
    """Whether it is the front of its Asterisk."""
    lines = [
        line for line in service.output if '"event": "front"' in line or "front_no_more" in line
    ]
    return bool(lines) and '"event": "front"' in lines[-1]


@pytest.fixture(scope="module")
def named() -> None:
    done = subprocess.run([*NAMED, "m0", "true"], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("only root gives a program another machine's name")


@contextlib.asynccontextmanager
async def machines(
    asterisk: LabAsterisk, valkey: Valkey, agent: PracticeAgent, **changes: str
) -> AsyncIterator[list[Served]]:
    """Two machines; the first is the front."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for name in ("m1", "m2"):
            env = environment(
                asterisk,
                agent.base_url,
                WORKERS="2",
                AUDIOSOCKET_BIND="127.0.0.1:0",
                CLUSTER_URL=valkey.url,
                CLUSTER_SECRET="a-secret-of-all-machines",
                CLUSTER_BIND="127.0.0.1:0",
                **changes,
            )
            made.append(await stack.enter_async_context(served(env, [*NAMED, name])))
            if name == "m1":
                await until(lambda: serves(made[0]))
        await asyncio.sleep(1)  # they have heard of each other
        yield made


async def running(service: Served) -> int:
    """How many calls this machine has."""
    return int(json.loads((await service.get("/health/ready"))[1])["active_sessions"])


async def act(service: Served, session: str, what: str) -> int:
    url = f"{service.api}/sessions/{session}/{what}"
    async with aiohttp.ClientSession() as client, client.post(url) as response:
        return response.status


async def followed(service: Served, session: str) -> list[str]:
    """The kinds of a call's events, until it has ended."""
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"{service.api}/sessions/{session}/events") as response,
    ):
        lines = [line.decode().strip() async for line in response.content]
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


async def test_calls_are_spread_and_reached_from_any_machine(
    asterisk: LabAsterisk, valkey: Valkey, named: None
) -> None:
    async with (
        PracticeAgent(practice_config()) as agent,
        Phone() as phone,
        machines(asterisk, valkey, agent, CLUSTER_MAX_CALLS="5") as (first, second),
    ):
        calls = await talking(phone, asterisk, 4)
        assert [await running(each) for each in (first, second)] == [2, 2]
        told = [await sessions(each) for each in (first, second)]
        assert [each["active_sessions"] for each in told] == [4, 4]
        assert [each["max_concurrent_calls"] for each in told] == [5, 5]
        names = {each["session_id"] for each in told[0]["sessions"]}
        assert names == {each["session_id"] for each in told[1]["sessions"]}
        streams = [
            asyncio.create_task(followed(each, name)) for each in (first, second) for name in names
        ]
        for name in names:
            for each in (first, second):
                assert await act(each, name, "hold") == 200
                assert await act(each, name, "unhold") == 200

        last = (await talking(phone, asterisk, 1))[0]
        refused = await phone.call(f"sip:100@{asterisk.sip_host}:{asterisk.sip_port}")
        await until(lambda: hears_human(refused), 5)
        await hang_up(*calls, last, refused)
        for kinds in await asyncio.gather(*streams):
            assert kinds[-1] == "ended"
    await nothing_of_ours_left(asterisk)


async def test_one_goes_and_the_store_goes(
    asterisk: LabAsterisk, valkey: Valkey, named: None
) -> None:
    async with (
        PracticeAgent(practice_config()) as agent,
        Phone() as phone,
        machines(asterisk, valkey, agent) as (first, second),
    ):
        calls = await talking(phone, asterisk, 4)
        with valkey.frozen():
            await asyncio.sleep(3)
            # New calls are taken, and those that are there talk on.
            [another] = await talking(phone, asterisk, 1)
            assert not any(hears_human(call) for call in calls)
        await asyncio.sleep(2)
        assert serves(first)
        assert not serves(second)
        await hang_up(another)

        on_second = await running(second)
        kill_all(first)
        killed_at = time.monotonic()
        while True:
            call = await phone.call(f"sip:100@{asterisk.sip_host}:{asterisk.sip_port}")
            await asyncio.sleep(0.3)
            if not hears_human(call):
                break
            await call.hang_up()
        outage = time.monotonic() - killed_at
        assert outage < 5
        assert serves(second)
        await until(lambda: sum(map(hears_human, calls)) == len(calls) - on_second, 8)
        assert await running(second) == on_second + 1
        await hang_up(*calls, call)
    await nothing_of_ours_left(asterisk)
