"""A worker is lost, and the next one goes on with its calls."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from lab.asterisk import LabAsterisk
from lab.faults import TcpProxy
from lab.practice_agent import PracticeAgent
from lab.softphone import Answer, Call, Phone, Ring
from lab.softphone.sounds import tone, tone_dbfs
from tests.e2e.harness import practice_config
from tests.e2e.test_serve import Served
from tests.e2e.test_supervision import (
    LOUD,
    all_landed,
    hang_up,
    kept_calls,
    landed,
    nothing_of_ours_left,
    reaches,
    serving,
    talking,
    uri,
)
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.e2e

TALKING = 13
STOPPED = 5
# A machine that others use too; what is measured is told.
HEARD_SECONDS = 2.0
AGENT_SECONDS = 4.0
STALL_SECONDS = 2.0


def shown(what: str, seconds: list[float], most: float) -> None:
    """Tell what was measured, which `pytest -s` shows; it must not be more than `most`."""
    ordered = sorted(round(each, 2) for each in seconds)
    sys.stdout.write(f"\n{what}: {ordered[0]} to {ordered[-1]} s, {len(ordered)} calls\n")
    assert ordered[-1] < most


def kept_of(folder: Path) -> list[Path]:
    """The files of calls that are there."""
    return list(folder.rglob("*.call"))


@contextlib.asynccontextmanager
async def adopting(
    asterisk: LabAsterisk, agent: PracticeAgent, folder: Path, **changes: str
) -> AsyncIterator[Served]:
    """A service that goes on with calls; nothing of them is left behind."""
    changes = {"WORKER_LOSS": "adopt", "XDG_RUNTIME_DIR": str(folder), **changes}
    async with serving(asterisk, agent, **changes) as service:
        yield service
    assert not kept_of(folder)


async def sessions_of(http: aiohttp.ClientSession) -> dict[str, str]:
    async with http.get("/sessions") as response:
        return {each["session_id"]: each["state"] for each in (await response.json())["sessions"]}


async def talk_again(http: aiohttp.ClientSession, calls: int) -> None:
    """Wait until so many talk."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while list((await sessions_of(http)).values()).count("talking") < calls:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def post(http: aiohttp.ClientSession, path: str, body: object = None) -> str:
    async with http.post(path, json=body) as response:
        assert response.status < 300, await response.text()
        return str((await response.json()).get("session_id"))


async def lose(service: Served, calls: list[Call], number: signal.Signals) -> list[float]:
    """Lose the worker; how long each caller hears nothing."""
    await asyncio.gather(*(call.wait_for_silence(300) for call in calls))
    since = time.monotonic()
    os.kill(service.worker, number)
    at = await asyncio.gather(*(call.wait_for_sound(LOUD, since=since + 0.06) for call in calls))
    return [each - since for each in at]


async def adopted(service: Served, calls: int) -> None:
    """Wait until so many have been, whoever did it."""
    await until(lambda: len(service.said("call_adopted")) >= calls)


def hears_tone(call: Call, hz: int) -> bool:
    return bool(tone_dbfs(call.heard_pcm()[-1600:], hz) > -40)


async def test_calls_in_every_state_go_on_twice(asterisk: LabAsterisk, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/calls.db"
    async with (
        PracticeAgent(practice_config()) as agent,
        Phone() as phone,
        Phone(on_incoming=Ring()) as ringing,
        Phone(on_incoming=Answer()) as answering,
    ):
        settings = {
            "TRANSFER_ENDPOINT": f"PJSIP/lab/sip:{{number}}@127.0.0.1:{ringing.address.port}",
            "OUTBOUND_ENDPOINT": f"PJSIP/lab/sip:{{number}}@127.0.0.1:{answering.address.port}",
            "DATABASE_URL": url,
        }
        async with (
            adopting(asterisk, agent, tmp_path, **settings) as service,
            aiohttp.ClientSession(service.api) as http,
        ):
            calls = await talking(phone, asterisk, TALKING + 2)
            held, consulting, *talk = await sessions_of(http)
            await post(http, f"/sessions/{held}/hold")
            to = {"to": "+4930200", "mode": "attended"}
            await post(http, f"/sessions/{consulting}/transfer", to)
            target = await ringing.incoming(5)
            rings = await phone.dial(uri(asterisk, "103"))
            waits = await phone.call(uri(asterisk, "104"))
            callee = {"called_number": "+4930100"}
            placed = await post(http, "/webhook/initiate-call", callee)
            await reaches(http, placed, "talking")
            screened = await post(http, "/webhook/initiate-call", {**callee, "amd": True})
            kept = {held: "holding", consulting: "consulting", screened: "screening"}
            await asyncio.gather(*(reaches(http, each, state) for each, state in kept.items()))
            # Who hears music is not asked when they hear something again.
            speaking = [call for call in calls if call.level(200) < LOUD]
            mark, of_calls = asterisk.log_size(), len(talk) + 4
            for losses in (1, 2):
                holes = await lose(service, speaking, signal.SIGKILL)
                shown("until anything is heard", holes, HEARD_SECONDS)
                await adopted(service, losses * of_calls)
                await asyncio.gather(*(reaches(http, each, "talking") for each in [*talk, placed]))
                back = service.said("agent_resumed")[-len(talk) :]
                shown("until the agent", [each["seconds"] for each in back], AGENT_SECONDS)
                now = await sessions_of(http)
                assert (now[held], now[consulting]) == ("holding", "consulting")
                # Who waited waits on, as somebody who has just come.
                assert sorted(now.values()).count("waiting") == 2
            assert not landed(asterisk, mark)
            assert all(call.is_up for call in (*calls, waits))
            assert f"ari_app_calls_adopted_total {of_calls}.0" in (await service.get("/metrics"))[1]
            await post(http, f"/sessions/{held}/unhold")
            await asyncio.gather(*(reaches(http, each, "talking") for each in (held, screened)))
            await target.answer()
            await reaches(http, consulting, "handed_over")
            target.send(tone(1000, 3000, -15))
            await until(lambda: any(hears_tone(call, 1000) for call in calls))
            await hang_up(*calls, waits, *answering.calls)
            await rings.hang_up()
            kept_as = {each["session_id"]: each for each in await kept_calls(url, of_calls)}
            assert "worker_lost" not in {each["reason"] for each in kept_as.values()}
            assert {kept_as[each]["reason"] for each in talk} == {"caller_hung_up"}
            notes = [note["text"] for note in kept_as[talk[0]]["notes"]]
            assert sum("another goes on with it" in note for note in notes) == 2
            await nothing_of_ours_left(asterisk)
    await asterisk.wait_until_empty(2)


async def test_a_worker_that_stands_still_while_ari_is_away(
    asterisk: LabAsterisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIA_TRANSPORT", "websocket")
    host, _, port = asterisk.ari_url.removeprefix("http://").rpartition(":")
    async with (
        PracticeAgent(practice_config()) as agent,
        Phone() as phone,
        TcpProxy(host, int(port)) as proxy,
        adopting(asterisk, agent, tmp_path, ARI_URL=f"http://{proxy.address}") as service,
        aiohttp.ClientSession(service.api) as http,
    ):
        calls = await talking(phone, asterisk, STOPPED)
        before, mark = await sessions_of(http), asterisk.log_size()
        holes = await lose(service, calls, signal.SIGSTOP)
        shown("stopped, until anything is heard", holes, STALL_SECONDS + HEARD_SECONDS)
        await asyncio.gather(*(reaches(http, each, "talking") for each in before))
        gone, *calls = calls
        await proxy.refuse()
        os.kill(service.worker, signal.SIGKILL)
        await until(lambda: len(service.said("worker_started")) == 3)
        await gone.hang_up()
        await asyncio.sleep(1)
        await proxy.restore()
        await adopted(service, 2 * STOPPED - 1)
        await until(lambda: all(call.level(100) > LOUD for call in calls))
        await service.ready()
        await until(lambda: len(service.said("call_ended")) == 1)
        await talk_again(http, STOPPED - 1)
        assert not landed(asterisk, mark)
        # Three times within a minute: it may be one of them that ends workers.
        os.kill(service.worker, signal.SIGKILL)
        await all_landed(asterisk, STOPPED - 1, mark, 5)
        await service.ready()
        refused = 'ari_app_calls_not_adopted_total{reason="poison"}'
        assert refused in (await service.get("/metrics"))[1]
        await nothing_of_ours_left(asterisk)
        await hang_up(*calls)
    await asterisk.wait_until_empty(2)


async def test_a_worker_that_is_lost_while_the_service_drains(
    asterisk: LabAsterisk, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/calls.db"
    async with PracticeAgent(practice_config()) as agent, Phone() as phone:  # noqa: SIM117
        async with adopting(asterisk, agent, tmp_path, DATABASE_URL=url) as service:
            calls = await talking(phone, asterisk, 2)
            await asyncio.gather(*(call.wait_for_silence(300) for call in calls))
            mark = asterisk.log_size()
            service.process.send_signal(signal.SIGTERM)
            await until(lambda: bool(service.said("draining")))
            os.kill(service.worker, signal.SIGKILL)
            await all_landed(asterisk, 2, mark, HEARD_SECONDS)
            assert await asyncio.wait_for(service.process.wait(), PATIENCE_SECONDS) == 1
            kept = await kept_calls(url, 2)
            assert {each["reason"] for each in kept} == {"worker_lost"}
            assert all(each["turns"] and each["seconds"] > 1 for each in kept), "what was said"
            await hang_up(*calls)
    await asterisk.wait_until_empty(2)
