"""Looks at everything every few seconds: the service from outside and from inside."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.processes import busy_seconds
from benchmarks.soak.programs import AgentProgram, ServiceProgram
from benchmarks.soak.scrape import Scrape, parse_metrics
from benchmarks.soak.verdicts import Rest
from lab.asterisk import LabAsterisk

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. Memory is resident, in MB of 10^6 bytes; CPU is in percent of one core."""

    at_s: float
    """Since the mix began."""
    fault: str
    calls: int
    """At the phones."""
    ended: int
    stranded: int
    failed: int
    """Calls whose end no fault explains."""
    worker_pid: int
    rss_mb: float
    fds: int
    tasks: int
    blocks: int
    lines: int
    service_calls: int
    gc_collections: int
    gap_p99_ms: int
    gap_max_ms: float
    cpu_percent: float
    machine_percent: float
    """All programs, of all cores together."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the service gives."""

    at: float
    pid: int
    rss_mb: float
    fds: int
    cpu_percent: float
    machine_percent: float
    scrape: Scrape


class Sampler:
    """Looks at the service and at what is left in Asterisk and at the agent."""

    def __init__(
        self,
        service: ServiceProgram,
        agent: AgentProgram,
        asterisk: LabAsterisk,
        http: aiohttp.ClientSession,
    ) -> None:
        self._service = service
        self._agent = agent
        self._asterisk = asterisk
        self._http = http
        self._cores = os.sched_getaffinity(0)
        self._pid = 0
        self._before = (0.0, 0.0, 0.0)

    async def look(self) -> Look | None:
        """Look now; None while nobody serves."""
        try:
            pid = self._service.worker_pid
            scrape = await self._scrape()
            rss_mb, fds, cpu = _rss_mb(pid), _open_files(pid), _cpu_seconds(pid)
        except (OSError, aiohttp.ClientError, TimeoutError, IndexError):
            # Also when the worker ends between one line and the next.
            return None
        now, busy = time.monotonic(), busy_seconds(self._cores)
        then, cpu_then, busy_then = self._before
        known = pid == self._pid
        self._pid, self._before = pid, (now, cpu, busy)
        passed = now - then
        return Look(
            now,
            pid,
            rss_mb,
            fds,
            100 * (cpu - cpu_then) / passed if known else 0.0,
            100 * (busy - busy_then) / passed / len(self._cores) if known else 0.0,
            scrape,
        )

    async def rest(self) -> Rest:
        """What there is now, of everything that a call makes. Raises OSError, ClientError."""
        channels = await self._asterisk.channels()
        bridges = await self._asterisk.bridges()
        scrape = await self._scrape()
        return Rest(
            channels=len(channels),
            bridges=len(bridges),
            calls=scrape.calls,
            lines=scrape.lines,
            tasks=scrape.tasks,
            fds=_open_files(self._service.worker_pid),
            conversations=await self._agent.open_conversations(),
        )

    async def _scrape(self) -> Scrape:
        timeout = aiohttp.ClientTimeout(total=2)
        # A connection that stays is a task and a file of the service's, and would be counted.
        async with self._http.get(
            f"{self._service.api_url}/metrics", timeout=timeout, headers={"Connection": "close"}
        ) as response:
            return parse_metrics(await response.text())


def _rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 1e6


def _open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
