"""How many calls a second can be set up: a real Asterisk, a SIP phone, the agent in a process.

Calls are placed at an even rate, whatever becomes of those before; each is up for half a second.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.lines import way
from benchmarks.processes import (
    BenchmarkError,
    Service,
    agent_settings,
    running_agent,
    running_service,
    scratch_folder,
)
from lab.asterisk import LabAsterisk
from lab.softphone import Call, CallFailed, Phone

RATES = (25, 50, 75, 100)
QUICK_RATES = (50,)
"""Calls a second."""
SECONDS, QUICK_SECONDS = 10.0, 5.0
UP_SECONDS = 0.5
GOAL_MS = 100.0
_WARM_UP_CALLS = 10
_GIVE_UP_SECONDS = 10.0
_PROFILE = {"dialogue": {"first_message": "2.0", "turns": []}}


@dataclass(frozen=True, slots=True)
class SetUps:
    """One rate. Times are from INVITE to 200 OK, in ms."""

    rate: int
    calls: int
    failed: int
    p50_ms: float
    p95_ms: float
    max_ms: float
    cpu_ms: float
    """CPU time of the service for a call, its half second of sound included."""
    cpu_percent: float
    """Of a core, while calls came."""
    restarts: int = 0
    """Workers that were replaced meanwhile: then the calls that they had are lost, and CPU is that
    of starting others as well."""

    @property
    def holds(self) -> bool:
        """Whether the rate was kept: nobody failed, no worker was replaced, and 19 of 20 were
        answered within 100 ms."""
        return not self.failed and not self.restarts and self.p95_ms <= GOAL_MS


async def measure_setups(
    rates: Sequence[int],
    seconds: float,
    say: Callable[[str], None],
    *,
    line: str = "audiosocket",
) -> tuple[list[SetUps], str]:
    """Measure each rate for so long; what was found, and the version of Asterisk.

    Raises BenchmarkError for a line that no Asterisk has.
    """
    if not way(line).in_asterisk:
        raise BenchmarkError(f"Asterisk is not the far end of {line!r}.")
    async with AsyncExitStack() as stack:
        asterisk = await stack.enter_async_context(LabAsterisk())
        service = await stack.enter_async_context(_service(asterisk, line))
        phone = await stack.enter_async_context(Phone(username="bench"))
        target = f"sip:100@{asterisk.sip_host}:{asterisk.sip_port}"
        gc.collect()
        gc.freeze()
        await _place(phone, target, 5, _WARM_UP_CALLS)
        found = []
        for rate in rates:
            say(f"{rate} calls a second, {seconds:g} s")
            await asyncio.sleep(1.0)
            found.append(await _measure(service, phone, target, rate, round(rate * seconds)))
        gc.unfreeze()
        return found, asterisk.version


@asynccontextmanager
async def _service(asterisk: LabAsterisk, line: str) -> AsyncIterator[Service]:
    with scratch_folder() as folder:
        async with (
            running_agent(folder, _PROFILE) as agent,
            running_service(
                folder,
                {
                    **way(line).settings,
                    **asterisk.settings,
                    **agent_settings(agent.url, agent.authority),
                    "ELEVENLABS_AGENT_ID": "bench",
                    "MAX_CONCURRENT_CALLS": "1000",
                },
            ) as service,
        ):
            yield service


async def _measure(service: Service, phone: Phone, target: str, rate: int, calls: int) -> SetUps:
    cpu, starts, begun = service.process.cpu_seconds(), service.starts, time.monotonic()
    took = await _place(phone, target, rate, calls)
    lasted = time.monotonic() - begun
    # What is done after a call belongs to it.
    await asyncio.sleep(0.5)
    used = service.process.cpu_seconds() - cpu
    if not took:
        raise BenchmarkError(f"No call was answered at {rate} a second.")
    p50, p95, most = np.percentile(took, (50, 95, 100))
    return SetUps(
        rate=rate,
        calls=calls,
        failed=calls - len(took),
        p50_ms=round(1000 * float(p50), 1),
        p95_ms=round(1000 * float(p95), 1),
        max_ms=round(1000 * float(most), 1),
        cpu_ms=round(1000 * used / calls, 2),
        cpu_percent=round(100 * used / lasted, 1),
        restarts=service.starts - starts,
    )


async def _place(phone: Phone, target: str, rate: float, calls: int) -> list[float]:
    """Place calls at a rate; how long each took to be answered, in seconds."""
    start = time.monotonic()
    under_way = []
    for number in range(calls):
        await asyncio.sleep(max(0.0, start + number / rate - time.monotonic()))
        under_way.append(asyncio.create_task(_one(phone, target)))
    took = await asyncio.gather(*under_way)
    return [seconds for seconds in took if seconds is not None]


async def _one(phone: Phone, target: str) -> float | None:
    begun = time.monotonic()
    call: Call | None = None
    try:
        async with asyncio.timeout(_GIVE_UP_SECONDS):
            call = await phone.dial(target)
            await call.answered()
            took = time.monotonic() - begun
            await asyncio.sleep(UP_SECONDS)
    except (TimeoutError, CallFailed, OSError):
        return None
    finally:
        if call is not None:
            await call.hang_up()
    return took
