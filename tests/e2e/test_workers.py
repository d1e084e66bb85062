"""Several workers behind a front: calls are spread, HTTP shows all, and what dies is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lab.asterisk import LabAsterisk
from lab.practice_agent import PracticeAgent
from lab.softphone import Call, Phone
from lab.softphone.sounds import babble
from tests.e2e.conftest import Logged
from tests.e2e.harness import practice_config
from tests.e2e.test_adoption import HEARD_SECONDS, kept_of, shown
from tests.e2e.test_serve import Served, environment, served
from tests.e2e.test_supervision import (
    LOUD,
    hang_up,
    kept_calls,
    landed,
    nothing_of_ours_left,
    talking,
    uri,
)
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.e2e

TALKING = 10


@contextlib.asynccontextmanager
async def two_workers(
    asterisk: LabAsterisk, agent: PracticeAgent, **changes: str
) -> AsyncIterator[Served]:
    settings = {"WORKERS": "2", "LOG_LEVEL": "INFO", **changes}
    async with served(environment(asterisk, agent.base_url, **settings)) as service:
        await all_take_calls(service, 2)
        yield service


async def all_take_calls(service: Served, workers: int) -> None:
    """Wait until there are so many that take calls."""
    wanted = f'ari_app_workers{{state="taking"}} {workers}.0'
    async with asyncio.timeout(PATIENCE_SECONDS):
        while wanted not in (await service.get("/metrics"))[1]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def calls_of(service: Served, worker: int) -> int:
    """How many calls a worker has."""
    text = (await service.get("/metrics"))[1]
    found = re.search(rf'^ari_app_worker_calls{{worker="{worker}"}} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else 0


def pid_of(service: Served, place: str) -> int:
    """The process in this place now."""
    return int(
        [each for each in service.said("worker_started") if each["place"] == place][-1]["pid"]
    )


async def sessions(service: Served) -> list[dict[str, Any]]:
    return list(json.loads((await service.get("/sessions"))[1])["sessions"])


async def states(service: Served, wanted: dict[str, str]) -> None:
    """Wait until all calls are as they should be."""
    async with asyncio.timeout(10):
        while {each["session_id"]: each["state"] for each in await sessions(service)} != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def talks_on(call: Call) -> None:
    """The agent answers the caller; once a conversation."""
    await call.wait_for_silence(300)
    since = time.monotonic()
    call.send(babble(1500, -20))
    await call.wait_for_sound(LOUD, since=since)


async def test_calls_are_spread_and_http_shows_all(asterisk: LabAsterisk, logged: Logged) -> None:
    async with PracticeAgent(practice_config()) as agent, Phone() as phone:  # noqa: SIM117
        async with (
            two_workers(asterisk, agent, MAX_CONCURRENT_CALLS="5") as service,
            aiohttp.ClientSession(service.api) as http,
        ):
            calls = await talking(phone, asterisk, 4)
            shown = await sessions(service)
            assert [each["state"] for each in shown] == ["talking"] * 4
            metrics = (await service.get("/metrics"))[1]
            assert 'ari_app_calls{state="talking"} 4.0' in metrics
            assert 'ari_app_front_arrivals_total{result="moved"} 4.0' in metrics
            assert 'process_cpu_seconds_total{worker="2"}' in metrics
            assert [await calls_of(service, number) for number in (1, 2)] == [2, 2]

            # Each request finds the worker that has the call; the limit is one for all.
            for each in shown:
                path = f"/sessions/{each['session_id']}"
                assert (await service.get(path))[0] == 200
                async with http.ws_connect(f"{path}/events") as events:
                    assert (await events.receive_json())["seq"] == 1
                async with http.post(f"{path}/hold") as response:
                    assert response.status == 200, await response.text()
            assert {each["state"] for each in await sessions(service)} == {"holding"}
            assert (await service.get("/sessions/nobody"))[0] == 404
            # One who waits is found, wherever they do.
            waiting = await phone.dial(uri(asterisk, "103"))
            calls.append(waiting)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (  # noqa: ASYNC110
                    found := [s for s in await sessions(service) if s["state"] == "waiting"]
                ):
                    await asyncio.sleep(0.02)
            body = {"call_id": found[0]["channel_id"], "agent_id": "agent_7"}
            async with http.post("/webhook/initiate-call", json=body) as response:
                assert response.status == 200, await response.text()
            await waiting.answered()
            refused = await phone.call(uri(asterisk))
            await logged("agent=REJECTED reason=at_capacity")
            body = {"called_number": "+493023125001"}
            async with http.post("/webhook/initiate-call", json=body) as response:
                assert response.status == 503
                assert (await response.json())["code"] == "capacity"
            await hang_up(*calls, refused)
    await asterisk.wait_until_empty(2)


async def test_what_dies_is_replaced_and_all_talk_on(asterisk: LabAsterisk, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/calls.db"
    settings = {"DATABASE_URL": url, "XDG_RUNTIME_DIR": str(tmp_path), "MAX_CONCURRENT_CALLS": "20"}
    async with PracticeAgent(practice_config()) as agent, Phone() as phone:
        async with two_workers(asterisk, agent, **settings) as service:
            calls = await talking(phone, asterisk, TALKING)
            before, since = (
                {each["session_id"] for each in await sessions(service)},
                (asterisk.log_size()),
            )

            os.kill(pid_of(service, "front"), signal.SIGKILL)
            # HTTP waits for the next front; it knows whom the workers have.
            assert {each["session_id"] for each in await sessions(service)} == before
            await service.ready()
            # What the dialplan says goes with the caller.
            calls.append(await phone.call(uri(asterisk, "102")))
            await until(lambda: len(agent.conversations) == TALKING + 1)
            told = agent.conversations[-1]
            assert (told.agent_id, told.dynamic_variables["customer_name"]) == ("agent_7", "Jane")
            before = {each["session_id"] for each in await sessions(service)}
            assert len(before) == TALKING + 1

            lost = await calls_of(service, 2)
            assert lost in (TALKING // 2, TALKING // 2 + 1)
            await asyncio.gather(*(call.wait_for_silence(300) for call in calls))
            killed = time.monotonic()
            os.kill(pid_of(service, "worker 2"), signal.SIGKILL)
            waiting = [
                asyncio.create_task(call.wait_for_sound(LOUD, since=killed + 0.06))
                for call in calls
            ]
            await until(lambda: sum(each.done() for each in waiting) == lost)
            again = [each.result() - killed for each in waiting if each.done()]
            shown("until anything is heard", again, HEARD_SECONDS)
            for each in waiting:
                each.cancel()
            await until(lambda: len(service.said("call_adopted")) == lost)
            await until(lambda: len(service.said("agent_resumed")) == lost)
            await asyncio.gather(*map(talks_on, calls))
            await until(lambda: len(service.said("serving")) == 3)
            await states(service, dict.fromkeys(before, "talking"))
            assert [await calls_of(service, 1), await calls_of(service, 2)] == [
                TALKING + 1 - lost,
                lost,
            ]
            counted = (await service.get("/metrics"))[1]
            assert f"ari_app_calls_adopted_total {lost}.0" in counted
            assert 'ari_app_front_arrivals_total{result="moved"} 1.0' in counted
            calls += await talking(phone, asterisk, 1)

            service.process.send_signal(signal.SIGTERM)
            await until(lambda: len(service.said("draining")) == 2)
            assert (await service.get("/health/ready"))[0] == 503
            assert len(await sessions(service)) == TALKING + 2
            await hang_up(*calls)
            assert await asyncio.wait_for(service.process.wait(), PATIENCE_SECONDS) == 0
        kept = await kept_calls(url, TALKING + 2)
        assert {each["reason"] for each in kept} == {"caller_hung_up"}
        assert before < {each["session_id"] for each in kept}
        assert landed(asterisk, since) == [], "nobody fell to the dialplan"
        await nothing_of_ours_left(asterisk)
        assert not kept_of(tmp_path)
    await asterisk.wait_until_empty(2)


async def test_all_are_replaced_one_after_the_other_while_calls_talk(
    asterisk: LabAsterisk,
) -> None:
    async with PracticeAgent(practice_config()) as agent, Phone() as phone:  # noqa: SIM117
        async with two_workers(asterisk, agent) as service:
            since = asterisk.log_size()
            # One after the other: the first has worker 1.
            calls = [*await talking(phone, asterisk, 1), *await talking(phone, asterisk, 1)]
            places = ("worker 1", "worker 2", "front")
            before = {place: pid_of(service, place) for place in places}
            service.process.send_signal(signal.SIGHUP)
            await until(lambda: len(service.said("draining")) == 1)
            # Worker 1 waits for its call; the other takes what comes, and waits for its turn.
            calls += await talking(phone, asterisk, 1)
            assert await calls_of(service, 2) == 2
            for call in calls:
                await talks_on(call)
            await hang_up(calls.pop(0))
            await until(lambda: len(service.said("draining")) == 2)
            (late,) = await talking(phone, asterisk, 1)
            assert await calls_of(service, 1) == 1, "it is new, and has all the room"
            await hang_up(*calls)
            await until(lambda: bool(service.said("workers_replaced")))
            await talks_on(late)
            after = {place: pid_of(service, place) for place in places}
            assert all(before[place] != after[place] for place in places)
            assert [each["state"] for each in await sessions(service) if not each["ended_at"]] == [
                "talking"
            ]
            (last,) = await talking(phone, asterisk, 1)
            await hang_up(late, last)
            assert landed(asterisk, since) == [], "nobody fell to the dialplan"
    await asterisk.wait_until_empty(2)


async def test_those_of_workers_that_there_are_no_longer(
    asterisk: LabAsterisk, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/calls.db"
    settings = {"DATABASE_URL": url, "XDG_RUNTIME_DIR": str(tmp_path)}
    async with PracticeAgent(practice_config()) as agent, Phone() as phone:
        env = environment(asterisk, agent.base_url, LOG_LEVEL="INFO", WORKERS="3", **settings)
        async with served(env) as service:
            await all_take_calls(service, 3)
            calls = await talking(phone, asterisk, 3)
            since = asterisk.log_size()
            service.process.kill()
            for started in service.said("worker_started"):
                os.kill(started["pid"], signal.SIGKILL)
            await service.process.wait()
        async with two_workers(asterisk, agent, **settings) as service:
            await until(lambda: len(service.said("call_adopted")) == 2)
            await until(lambda: len(landed(asterisk, since)) == 1)
            assert len(kept_of(tmp_path)) == 2
            await hang_up(*calls)
            kept = await kept_calls(url, 3)
            reasons = sorted(each["reason"] for each in kept)
            assert reasons == ["caller_hung_up", "caller_hung_up", "worker_lost"]
            await nothing_of_ours_left(asterisk)
    await asterisk.wait_until_empty(2)
