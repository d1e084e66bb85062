"""What strangers do to running calls: thousands of connections at once, to either port.

Calls run as in *bridge*; then another process floods the AudioSocket port or the HTTP port, each
kind of flood for some seconds: silent connections, garbage, half a header, UUIDs that nobody knows,
HTTP requests with a wrong key. What the calls hear meanwhile is compared with what they heard
before.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.bridge import MAX_GAP_P99_MS, agent_profile
from benchmarks.processes import (
    BenchmarkError,
    Cores,
    Load,
    Service,
    agent_settings,
    busy_seconds,
    running,
    running_agent,
    running_load,
    running_service,
    scratch_folder,
)

CALLS = 50
CROWD = 5000
_HTTP_CROWD = 500
_SETTLE_SECONDS = 3.0
# More than in *bridge*: the kernel's work for the flood is done on this core, too.
_DISTURBED_PERCENT = 40.0
_REFUSED = re.compile(r'^ari_app_(?:audiosocket|http)_refused_total\{reason="(\w+)"\} ([0-9.e+]+)$')

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Flood:
    """What the calls heard during one kind of flood; `none` is before the first."""

    kind: str
    calls: int
    seconds: float
    crowd: int
    """Strangers at once."""
    connections: int
    """That came about."""
    answers: int
    """Of HTTP."""
    refused: dict[str, int]
    """By the service, by reason."""
    gap_p50_ms: float
    gap_p99_ms: float
    gap_max_ms: float
    lateness_p99_ms: float
    missing_frames: int
    lost_lines: int
    cpu_percent: float
    """The service's, percent of one core."""
    memory_mb: float
    """The service's at the end."""
    others_percent: float
    """How much of the service's core went to others: the kernel's part of the flood, and programs
    that are no part of this."""

    @property
    def disturbed(self) -> bool:
        """Whether so much of the service's core went to others that this says little."""
        return self.others_percent > _DISTURBED_PERCENT

    @property
    def holds(self) -> bool:
        """Whether the running calls noticed nothing: p99 gap of 25 ms, nothing lost."""
        return (
            self.gap_p99_ms <= MAX_GAP_P99_MS and self.missing_frames == 0 and self.lost_lines == 0
        )


async def measure_flood(
    calls: int, kinds: Sequence[str], seconds: float, say: Report, *, crowd: int = CROWD
) -> list[Flood]:
    """Let calls run, and flood the service with each kind in turn."""
    cores = Cores.split()
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        agent = await stack.enter_async_context(
            running_agent(folder, agent_profile("pcm_16000"), cores=cores.others)
        )
        load = await stack.enter_async_context(running_load(folder, cores=cores.others))
        service = await stack.enter_async_context(
            running_service(
                folder,
                {
                    **load.settings,
                    "API_KEY": "key-of-the-benchmark",
                    **agent_settings(agent.url, agent.authority),
                    "ELEVENLABS_AGENT_ID": "bench",
                    "MAX_CONCURRENT_CALLS": str(calls),
                    "CALL_TIMEOUT_SECONDS": "3600",
                },
                cores=cores.measured,
            )
        )
        await load.begin(calls)
        if not await load.joined(calls):
            raise BenchmarkError(f"{calls} calls did not all come up")
        await asyncio.sleep(_SETTLE_SECONDS)
        found = []
        for kind in ("none", *kinds):
            say(f"{calls} calls, flood: {kind}")
            found.append(await _measure(kind, calls, seconds, crowd, folder, service, load, cores))
            await asyncio.sleep(_SETTLE_SECONDS)
        await load.end_calls()
        await asyncio.sleep(1.0)
    return found


async def _measure(
    kind: str,
    calls: int,
    seconds: float,
    crowd: int,
    folder: Path,
    service: Service,
    load: Load,
    cores: Cores,
) -> Flood:
    loop = asyncio.get_running_loop()
    refused_before = await _refusals(service)
    cpu, began = service.process.cpu_seconds(), loop.time()
    busy = busy_seconds(cores.measured)
    await load.post("window")
    counts: dict[str, Any] = {}
    if kind == "none":
        crowd = 0
        await asyncio.sleep(seconds)
    else:
        crowd = min(crowd, _HTTP_CROWD) if kind.startswith("http") else crowd
        counts = await _flood(kind, crowd, seconds, folder, service, cores)
    lasted = loop.time() - began
    cpu_percent = 100 * (service.process.cpu_seconds() - cpu) / lasted
    busy = busy_seconds(cores.measured) - busy
    report = await load.report()
    heard = report["heard"]
    if service.process.returncode is not None:
        raise BenchmarkError(f"ari-app serve has ended during the flood {kind}")
    return Flood(
        kind=kind,
        calls=calls,
        seconds=round(lasted, 1),
        crowd=crowd,
        connections=counts.get("connected", 0),
        answers=counts.get("answers", 0),
        refused=_difference(await _refusals(service), refused_before),
        gap_p50_ms=heard["gaps"]["p50_ms"],
        gap_p99_ms=heard["gaps"]["p99_ms"],
        gap_max_ms=heard["gaps"]["max_ms"],
        lateness_p99_ms=heard["lateness"]["p99_ms"],
        missing_frames=heard["missing_frames"],
        lost_lines=sum(report["closed_lines"].values()),
        cpu_percent=round(cpu_percent, 1),
        memory_mb=round(service.process.memory_mb(), 1),
        others_percent=round(max(0.0, 100 * busy / lasted - cpu_percent), 1),
    )


async def _flood(
    kind: str, crowd: int, seconds: float, folder: Path, service: Service, cores: Cores
) -> dict[str, Any]:
    address = service.api if kind.startswith("http") else service.audiosocket
    host, _, port = address.rpartition(":")
    command = [
        sys.executable, "-m", "benchmarks.flood_process", kind, "--host", host, "--port", port,
        "--crowd", str(crowd), "--seconds", str(seconds),
    ]  # fmt: skip
    async with running("flood", command, folder, cores=cores.others) as process:
        return await process.first_line()


async def _refusals(service: Service) -> dict[str, int]:
    async with aiohttp.ClientSession() as session:
        for _ in range(100):
            try:
                async with session.get(f"http://{service.api}/metrics") as response:
                    if response.status == 200:
                        text = await response.text()
                        break
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
        else:
            raise BenchmarkError("the metrics cannot be read")
    found = (_REFUSED.match(line) for line in text.splitlines())
    return {match[1]: int(float(match[2])) for match in found if match}


def _difference(after: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    grown = {reason: number - before.get(reason, 0) for reason, number in after.items()}
    return {reason: number for reason, number in grown.items() if number}
