"""The worker is killed, stopped, orphaned: no caller is stranded, and nothing stays in Asterisk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ari_app.records.store.log import CallLog
from ari_app.records.store.query import CallFilter
from lab.asterisk import LabAsterisk
from lab.faults import TcpProxy
from lab.practice_agent import PracticeAgent
from lab.softphone import Answer, Call, Phone, Ring
from lab.softphone.sounds import tone, tone_dbfs
from tests.e2e.harness import HUMAN_HZ, practice_config
from tests.e2e.test_serve import Served, environment, is_worker, served
from tests.waiting import PATIENCE_SECONDS, PROMPT_SECONDS, until

pytestmark = pytest.mark.e2e

LOUD = -35.0
CALLS = 20
WITHIN_SECONDS = 2.0
NOTICED_SECONDS = 3.0
_LANDED = re.compile(
    r"^\[(?P<at>[^\]]+)\] NOTICE.*landed=(?P<where>\w+)"
    r"(?: stasis=\w* agent=(?P<status>\w*))? reason=(?P<reason>\w*) session=(?P<session>\w*)",
    re.MULTILINE,
)


def uri(asterisk: LabAsterisk, extension: str = "100") -> str:
    return f"sip:{extension}@{asterisk.sip_host}:{asterisk.sip_port}"


def landed(asterisk: LabAsterisk, since: int) -> list[re.Match[str]]:
    """Who has gone on in the dialplan."""
    text = asterisk.log_path.read_bytes()[since:].decode(errors="replace")
    return list(_LANDED.finditer(text))


async def all_landed(asterisk: LabAsterisk, count: int, since: int, limit: float) -> float:
    """Wait until so many callers went on because their worker was lost; how long it took."""
    began = time.monotonic()
    try:
        await until(lambda: len(landed(asterisk, since)) >= count, limit)
    except TimeoutError:
        found = [line[0] for line in landed(asterisk, since)]
        raise AssertionError(f"{len(found)} of {count} after {limit:g} s: {found}") from None
    took = time.monotonic() - began
    for line in landed(asterisk, since):
        assert (line["where"], line["status"], line["reason"]) == ("human", "FAILED", "worker_lost")
    return took


async def talking(phone: Phone, asterisk: LabAsterisk, count: int) -> list[Call]:
    calls = await asyncio.gather(
        *(phone.call(uri(asterisk), timeout=PATIENCE_SECONDS) for _ in range(count))
    )
    await asyncio.gather(*(call.wait_for_sound(LOUD, since=0) for call in calls))
    return calls


def hears_human(call: Call) -> bool:
    return bool(tone_dbfs(call.heard_pcm()[-1600:], HUMAN_HZ) > -40)


async def hang_up(*calls: Call) -> None:
    for call in calls:
        if call.is_up:
            await call.hang_up()


async def nothing_of_ours_left(asterisk: LabAsterisk, app: str = "voice-agent") -> None:
    """No bridge, and no channel but those of callers who are in the dialplan."""

    async def left() -> list[str]:
        channels = await asterisk.channels()
        names = [c["id"] for c in channels if c["id"].startswith(f"{app}-")]
        names += [c["id"] for c in channels if c["dialplan"]["app_name"] == "Stasis"]
        return names + [bridge["id"] for bridge in await asterisk.bridges()]

    deadline = time.monotonic() + WITHIN_SECONDS
    while found := await left():
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.02)


async def a_new_call_talks(phone: Phone, asterisk: LabAsterisk, service: Served) -> None:
    await service.ready()
    (call,) = await talking(phone, asterisk, 1)
    await call.hang_up()


async def kept_calls(url: str, count: int) -> list[dict[str, Any]]:
    """What the call log has, once it has so many."""
    async with CallLog(url, writes=False) as call_log:
        async with asyncio.timeout(WITHIN_SECONDS):
            while (  # noqa: ASYNC110
                len(kept := (await call_log.page(CallFilter(), 1000)).calls) < count
            ):
                await asyncio.sleep(0.05)
    return kept


async def reaches(http: aiohttp.ClientSession, session_id: str, state: str) -> None:
    for _ in range(500):
        async with http.get(f"/sessions/{session_id}") as response:
            if f'"state":"{state}"' in await response.text():
                return
        await asyncio.sleep(0.02)
    raise TimeoutError(f"{session_id} is not {state}")


@contextlib.asynccontextmanager
async def serving(
    asterisk: LabAsterisk, agent: PracticeAgent, **changes: str
) -> AsyncIterator[Served]:
    settings = {
        "MAX_CONCURRENT_CALLS": "50",
        "LOG_LEVEL": "INFO",
        "WORKER_LOSS": "dialplan",
        **changes,
    }
    async with served(environment(asterisk, agent.base_url, **settings)) as service:
        yield service


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
@pytest.mark.usefixtures("transport")
async def test_the_worker_is_lost_in_the_middle_of_calls(
    asterisk: LabAsterisk, number: signal.Signals, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/calls.db"
    async with PracticeAgent(practice_config()) as agent, Phone() as phone:  # noqa: SIM117
        async with serving(asterisk, agent, DATABASE_URL=url) as service:
            threads = os.listdir(f"/proc/{service.process.pid}/task")
            assert len(threads) == 1, "what forks has one thread"
            calls = await talking(phone, asterisk, CALLS)
            lost, mark = service.worker, asterisk.log_size()
            os.kill(lost, number)
            limit = NOTICED_SECONDS if number is signal.SIGSTOP else 0.0
            took = await all_landed(asterisk, CALLS, mark, limit + WITHIN_SECONDS)
            assert took <= limit + WITHIN_SECONDS
            sessions = {line["session"] for line in landed(asterisk, mark)}
            assert len(sessions) == CALLS, "each is told the session that it had"
            await nothing_of_ours_left(asterisk)
            assert all(call.is_up for call in calls)
            await until(lambda: all(hears_human(call) for call in calls))
            await a_new_call_talks(phone, asterisk, service)
            kept = await kept_calls(url, CALLS + 1)
            as_lost = {each["session_id"] for each in kept if each["reason"] == "worker_lost"}
            assert as_lost == sessions
            assert all(each["conversation_id"] for each in kept)
            (died,) = service.said("worker_died")
            assert (died["pid"], died["signal"]) == (lost, "SIGKILL")
            assert bool(service.said("worker_stalled")) == (number is signal.SIGSTOP)
            metrics = (await service.get("/metrics"))[1]
            assert "ari_app_worker_restarts_total 1.0" in metrics
            await hang_up(*calls)
            service.process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(service.process.wait(), PATIENCE_SECONDS) == 0
    await asterisk.wait_until_empty(2)


async def test_the_worker_is_lost_with_calls_in_every_state(asterisk: LabAsterisk) -> None:
    async with (
        PracticeAgent(practice_config()) as agent,
        Phone() as phone,
        Phone(on_incoming=Ring()) as ringing,
        Phone(on_incoming=Answer()) as answering,
    ):
        to_ringing = f"PJSIP/lab/sip:{{number}}@127.0.0.1:{ringing.address.port}"
        endpoint = f"PJSIP/lab/sip:{{number}}@127.0.0.1:{answering.address.port}"
        settings = {"TRANSFER_ENDPOINT": to_ringing, "OUTBOUND_ENDPOINT": endpoint}
        async with (
            serving(asterisk, agent, **settings) as service,
            aiohttp.ClientSession(service.api) as http,
        ):

            async def place(**request: object) -> str:
                body = {"called_number": "+4930100", **request}
                async with http.post("/webhook/initiate-call", json=body) as response:
                    assert response.status < 300, await response.text()
                    return str((await response.json())["session_id"])

            async def session_of(call_id: int) -> str:
                async with http.get("/sessions") as response:
                    found = (await response.json())["sessions"]
                return str(found[call_id]["session_id"])

            held, consulting = await talking(phone, asterisk, 2)
            sessions = [await session_of(0), await session_of(1)]
            async with http.post(f"/sessions/{sessions[0]}/hold") as response:
                assert response.status < 300, await response.text()
            body = {"to": "+4930200", "mode": "attended"}
            async with http.post(f"/sessions/{sessions[1]}/transfer", json=body) as response:
                assert response.status < 300, await response.text()
            await asyncio.gather(
                reaches(http, sessions[0], "holding"), reaches(http, sessions[1], "consulting")
            )
            target = await ringing.incoming(5)
            rings = await phone.dial(uri(asterisk, "103"))
            waits = await phone.call(uri(asterisk, "104"))
            placed = await place()
            await reaches(http, placed, "talking")
            screened = await place(amd=True)
            await reaches(http, screened, "screening")
            callees = [call for call in answering.calls if call.is_up]
            assert len(callees) == 2

            mark = asterisk.log_size()
            os.kill(service.worker, signal.SIGKILL)
            await all_landed(asterisk, 4, mark, WITHIN_SECONDS)
            told = {line["session"] for line in landed(asterisk, mark)}
            assert told == {*sessions, ""}, "who waited had no session that a bridge could tell"
            await nothing_of_ours_left(asterisk)
            for leg in (target, *callees):
                await asyncio.wait_for(leg.ended, WITHIN_SECONDS)
            await until(lambda: all(hears_human(call) for call in (held, consulting, waits)))
            await asyncio.wait_for(rings.answered(), PROMPT_SECONDS)
            await service.ready()
            await hang_up(held, consulting, waits, rings)
    await asterisk.wait_until_empty(2)


async def test_two_who_were_joined_go_on_talking_without_a_worker(asterisk: LabAsterisk) -> None:
    async with (
        PracticeAgent(practice_config()) as agent,
        Phone() as phone,
        Phone(on_incoming=Answer()) as answering,
    ):
        endpoint = f"PJSIP/lab/sip:{{number}}@127.0.0.1:{answering.address.port}"
        async with (
            serving(asterisk, agent, TRANSFER_ENDPOINT=endpoint) as service,
            aiohttp.ClientSession(service.api) as http,
        ):
            (call,) = await talking(phone, asterisk, 1)
            async with http.get("/sessions") as response:
                session = (await response.json())["sessions"][0]["session_id"]
            body = {"to": "+4930200", "mode": "attended"}
            async with http.post(f"/sessions/{session}/transfer", json=body) as response:
                assert response.status < 300, await response.text()
            target = await answering.incoming(5)
            await reaches(http, session, "handed_over")
            mark = asterisk.log_size()
            os.kill(service.worker, signal.SIGKILL)
            await until(lambda: len(service.said("worker_started")) == 2)
            await service.ready()
            target.send(tone(1000, 2000, -15))
            await until(lambda: bool(tone_dbfs(call.heard_pcm()[-1600:], 1000) > -40))
            await target.hang_up()
            line = await asterisk.wait_for_log("landed=", 5, since=mark)
            assert "landed=bye reason=transferred" in line and f"session={session}" in line
            await asyncio.wait_for(call.ended, PROMPT_SECONDS)
    await asterisk.wait_until_empty(2)


async def test_the_parent_is_killed_too_and_the_next_start_mends(asterisk: LabAsterisk) -> None:
    async with PracticeAgent(practice_config()) as agent, Phone() as phone:
        env = environment(
            asterisk, agent.base_url, MAX_CONCURRENT_CALLS="50", WORKER_LOSS="dialplan"
        )
        async with served(env) as service:
            calls = await talking(phone, asterisk, CALLS)
            waits = await phone.call(uri(asterisk, "104"))
            await asyncio.sleep(0.2)
            mark = asterisk.log_size()
            for pid in (service.process.pid, service.worker):
                os.kill(pid, signal.SIGKILL)
            await service.process.wait()
            assert landed(asterisk, mark) == []
        began = time.monotonic()
        async with served(env) as service:
            assert time.monotonic() - began < 15, "the ports are free at once"
            await all_landed(asterisk, CALLS + 1, mark, WITHIN_SECONDS)
            assert len({line["session"] for line in landed(asterisk, mark)}) == CALLS + 1
            await nothing_of_ours_left(asterisk)
            await a_new_call_talks(phone, asterisk, service)
            await hang_up(*calls, waits)
    await asterisk.wait_until_empty(2)


async def test_a_worker_without_parent_finishes_its_calls(asterisk: LabAsterisk) -> None:
    async with PracticeAgent(practice_config()) as agent, Phone() as phone:
        env = environment(asterisk, agent.base_url)
        async with served(env) as orphaned:
            (old,) = await talking(phone, asterisk, 1)
            orphan, mark = orphaned.worker, asterisk.log_size()
            orphaned.process.kill()
            # Not wait(): that waits for the end of the output too, which the worker still has.
            await until(lambda: orphaned.process.returncode is not None)
            await until(lambda: bool(orphaned.said("draining")))
            refused = await phone.call(uri(asterisk))
            (line,) = landed(asterisk, mark)
            assert (line["status"], line["reason"]) == ("REJECTED", "draining")
            await refused.hang_up()
            async with served(env) as service:
                await a_new_call_talks(phone, asterisk, service)
                assert is_worker(orphan)
                assert old.is_up
                heard = len(old.heard_pcm())
                await until(lambda: len(old.heard_pcm()) > heard + 1600)
                assert not service.said("left_behind"), "what is served elsewhere is left alone"
                assert len(landed(asterisk, mark)) == 1
                await old.hang_up()
                await until(lambda: not is_worker(orphan))
    await asterisk.wait_until_empty(2)


async def test_a_signal_to_the_worker_drains_and_never_more(asterisk: LabAsterisk) -> None:
    async with (
        PracticeAgent(practice_config()) as agent,
        Phone() as phone,
        serving(asterisk, agent) as service,
    ):
        (call,) = await talking(phone, asterisk, 1)
        # As when every process of a group is told to end, more than once.
        for heard, number in enumerate([signal.SIGTERM, signal.SIGINT, signal.SIGTERM], 1):
            os.kill(service.worker, number)
            await until(lambda heard=heard: len(service.said("signal_received")) == heard)  # type: ignore[misc]
        service.process.send_signal(signal.SIGTERM)
        await until(lambda: len(service.said("signal_received")) == 4)
        heard = len(call.heard_pcm())
        await until(lambda: len(call.heard_pcm()) > heard + 1600)
        assert call.is_up
        await call.hang_up()
        assert await asyncio.wait_for(service.process.wait(), PATIENCE_SECONDS) == 0


async def test_the_worker_is_lost_while_it_drains(asterisk: LabAsterisk) -> None:
    async with PracticeAgent(practice_config()) as agent, Phone() as phone:
        async with serving(asterisk, agent) as service:
            calls = await talking(phone, asterisk, 3)
            service.process.send_signal(signal.SIGTERM)
            await until(lambda: bool(service.said("draining")))
            mark = asterisk.log_size()
            os.kill(service.worker, signal.SIGKILL)
            await all_landed(asterisk, len(calls), mark, WITHIN_SECONDS)
            assert await asyncio.wait_for(service.process.wait(), PATIENCE_SECONDS) == 1
            await nothing_of_ours_left(asterisk)
        await hang_up(*calls)
    await asterisk.wait_until_empty(2)


async def test_the_worker_is_lost_while_it_drains_and_ari_is_away(asterisk: LabAsterisk) -> None:
    host, _, port = asterisk.ari_url.removeprefix("http://").rpartition(":")
    async with (
        PracticeAgent(practice_config()) as agent,
        Phone() as phone,
        TcpProxy(host, int(port)) as proxy,
        serving(asterisk, agent, ARI_URL=f"http://{proxy.address}") as service,
    ):
        calls = await talking(phone, asterisk, 2)
        service.process.send_signal(signal.SIGTERM)
        await until(lambda: bool(service.said("draining")))
        mark = asterisk.log_size()
        await proxy.refuse()
        os.kill(service.worker, signal.SIGKILL)
        await until(lambda: bool(service.said("mending_failed")))
        await asyncio.sleep(2)
        assert service.process.returncode is None, "somebody has still to be given back"
        await proxy.restore()
        await all_landed(asterisk, len(calls), mark, WITHIN_SECONDS)
        assert await asyncio.wait_for(service.process.wait(), PATIENCE_SECONDS) == 1
        await nothing_of_ours_left(asterisk)
        await hang_up(*calls)
    await asterisk.wait_until_empty(2)
