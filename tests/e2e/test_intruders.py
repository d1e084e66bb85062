"""Strangers at both ports while callers talk: nobody on the line may notice."""

from __future__ import annotations

import asyncio
import re
import sys
import time

import aiohttp
import pytest

from benchmarks.stage import GREETING_SECONDS, Stage, running_stage
from lab.asterisk import LabAsterisk
from tests.e2e.conftest import Logged
from tests.e2e.harness import bench
from tests.waiting import until

pytestmark = pytest.mark.e2e

_SPEECH_SECONDS = 8.0
_CROWD = 300
_EACH_SECONDS = 1.0


async def flood(kind: str, address: str) -> None:
    """Let a crowd of strangers come, from a process of their own."""
    host, _, port = address.rpartition(":")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.flood_process", kind, "--host", host, "--port", port),
        *("--crowd", str(_CROWD), "--seconds", str(_EACH_SECONDS)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0


async def refusals(stage: Stage) -> dict[str, float]:
    async with aiohttp.ClientSession() as session:
        # The flood may have used up what one address may ask.
        for _ in range(100):
            async with session.get(f"{stage.service.api_url}/metrics") as response:
                if response.status == 200:
                    text = await response.text()
                    found = re.findall(r'_refused_total\{reason="(\w+)"\} (\S+)', text)
                    return {reason: float(number) for reason, number in found}
            await asyncio.sleep(0.1)
    raise AssertionError("the metrics cannot be read")


async def test_callers_notice_nothing_of_strangers() -> None:
    async with running_stage((_SPEECH_SECONDS,), max_calls=2) as stage:
        caller = await stage.call(0)
        await asyncio.sleep(GREETING_SECONDS + 0.5)
        spoken_at = await caller.speak()
        await until(lambda: caller.responses()[-1].sent_at > spoken_at)
        answer = caller.responses()[-1]
        ends_at = time.monotonic() + _SPEECH_SECONDS + 1.0

        silent = asyncio.create_task(flood("silent", stage.service.audiosocket))
        await asyncio.sleep(_EACH_SECONDS / 2)
        # Strangers who keep quiet do not keep a caller out.
        other = await stage.call(1)
        await silent
        for kind in ("garbage", "unknown", "header"):
            await flood(kind, stage.service.audiosocket)
        for kind in ("http-garbage", "http-keys"):
            await flood(kind, stage.service.api)
        await asyncio.sleep(max(0.0, ends_at - time.monotonic()))

        packets = caller.packets()
        first = packets.first_sound(answer.sent_at)
        assert first is not None
        track = packets.track(first, first + _SPEECH_SECONDS + 0.5, _SPEECH_SECONDS)
        assert (track.lost, track.doubled) == (0, 0)
        assert other.packets().first_sound(other.answered_at) is not None
        refused = await refusals(stage)
        assert {"address_limit", "malformed", "unknown_uuid"} <= set(refused)
        assert {"bad_request", "rate_limited"} <= set(refused)
        await caller.call.hang_up()
        await other.call.hang_up()


async def test_an_asterisk_that_is_not_on_the_list(asterisk: LabAsterisk, logged: Logged) -> None:
    async with bench(asterisk, audiosocket_allow="192.0.2.0/24, 2001:db8::/32") as b:
        call = await b.dial()
        await logged("landed=human")
        assert b.bridge.lines.refusals["not_allowed"] >= 1
        await call.hang_up()
        await until(lambda: b.bridge.lines.half_open == 0)
        await b.all_gone()
