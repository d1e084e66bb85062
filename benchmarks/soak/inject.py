"""Carries faults out, from outside, and puts everything right again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp

from benchmarks.soak.programs import AgentProgram, ServiceProgram
from benchmarks.soak.schedule import FaultKind, PlannedFault, Window
from benchmarks.soak.world import agent_ids, profile
from lab.asterisk import LabAsterisk
from lab.faults import TcpProxy

_HOST = "127.0.0.1"
_FLOOD_CONNECTIONS = 300
_GARBAGE_PER_SECOND = 50
_ABUSE_PER_SECOND = 100
_LARGE_BODY = b"[" + b"0," * 40_000 + b"0]"


@dataclass(frozen=True, slots=True)
class Victims:
    """What faults are done to."""

    asterisk: LabAsterisk
    ari: TcpProxy
    agent: AgentProgram
    service: ServiceProgram
    http: aiohttp.ClientSession


class Injector:
    """Injects one fault at a time. What it breaks it mends, also when it is cancelled."""

    def __init__(self, victims: Victims, seed: int) -> None:
        self._victims = victims
        self._random = random.Random(seed)
        self._actions: dict[FaultKind, Callable[[float], Awaitable[str]]] = {
            FaultKind.AGENT_500: lambda seconds: self._agent(seconds, handshake_status=500),
            FaultKind.AGENT_401: lambda seconds: self._agent(seconds, signed_url_status=401),
            FaultKind.AGENT_429: lambda seconds: self._agent(seconds, signed_url_status=429),
            FaultKind.AGENT_SLOW: lambda seconds: self._agent(
                seconds, handshake_delay_ms=1500, metadata_delay_ms=1500
            ),
            FaultKind.AGENT_KILLED: self._kill_agent,
            FaultKind.AGENT_STOPPED: self._stop_agent,
            FaultKind.ARI_CUT: self._cut_ari,
            FaultKind.LINE_GARBAGE: self._send_garbage,
            FaultKind.LINE_FLOOD: self._flood,
            FaultKind.HTTP_ABUSE: self._abuse,
            FaultKind.WORKER_KILLED: self._kill_worker,
            FaultKind.WORKER_STOPPED: self._stop_worker,
            FaultKind.LOG_STALLED: self._stall_log,
            FaultKind.ASTERISK_RESTARTED: self._restart_asterisk,
        }

    async def inject(self, fault: PlannedFault) -> Window:
        """Do it, and undo it; when it was, and what there is to say."""
        start = time.monotonic()
        note = await self._actions[fault.kind](fault.seconds)
        return Window(fault.kind, start, time.monotonic(), note)

    # --- the agent

    async def _agent(self, seconds: float, **faults: object) -> str:
        agent = self._victims.agent
        try:
            for name in agent_ids():
                await agent.set_profile(name, profile(name, **faults))
            await asyncio.sleep(seconds)
        finally:
            for name in agent_ids():
                await agent.set_profile(name, profile(name))
        return ""

    async def _kill_agent(self, seconds: float) -> str:
        await self._victims.agent.kill()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._victims.agent.start()
        return ""

    async def _stop_agent(self, seconds: float) -> str:
        return await _stopped(self._victims.agent.pid, seconds)

    # --- Asterisk

    async def _cut_ari(self, seconds: float) -> str:
        proxy = self._victims.ari
        await proxy.refuse()
        try:
            await asyncio.sleep(seconds)
        finally:
            await proxy.restore()
        return ""

    async def _restart_asterisk(self, seconds: float) -> str:
        asterisk = self._victims.asterisk
        asterisk.kill()
        try:
            await asyncio.sleep(seconds)
        finally:
            await asterisk.revive()
        return ""

    # --- the service

    async def _kill_worker(self, seconds: float) -> str:
        os.kill(self._victims.service.worker_pid, signal.SIGKILL)
        return await self._until_ready(seconds)

    async def _stop_worker(self, seconds: float) -> str:
        pid = self._victims.service.worker_pid
        await _stopped(pid, seconds)
        note = await self._until_ready(0)
        return note if pid == self._victims.service.worker_pid else f"replaced, {note}"

    async def _until_ready(self, seconds: float) -> str:
        start = time.monotonic()
        service = self._victims.service
        await service.ready(self._victims.http)
        ready = time.monotonic() - start
        await asyncio.sleep(max(0.0, seconds - ready))
        return f"ready after {ready:.1f} s"

    async def _stall_log(self, seconds: float) -> str:
        log = self._victims.service.log
        log.stall()
        try:
            await asyncio.sleep(seconds)
        finally:
            log.resume()
        return ""

    # --- strangers

    async def _send_garbage(self, seconds: float) -> str:
        port = self._victims.service.line_port
        sent = 0

        async def one() -> None:
            nonlocal sent
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(_HOST, port)
                try:
                    writer.write(self._random.randbytes(self._random.randrange(1, 2000)))
                    await asyncio.wait_for(reader.read(), 5)
                    sent += 1
                finally:
                    writer.close()

        await _many(one, _GARBAGE_PER_SECOND, seconds)
        return f"{sent} connections"

    async def _flood(self, seconds: float) -> str:
        port = self._victims.service.line_port
        writers: list[asyncio.StreamWriter] = []
        try:
            for _ in range(_FLOOD_CONNECTIONS):
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(_HOST, port)
                    writers.append(writer)
            await asyncio.sleep(seconds)
        finally:
            for writer in writers:
                writer.close()
        return f"{len(writers)} connections"

    async def _abuse(self, seconds: float) -> str:
        url, http = self._victims.service.api_url, self._victims.http
        statuses: dict[int, int] = {}
        attempts: list[tuple[str, str, bytes, dict[str, str]]] = [
            ("POST", "/webhook/initiate-call", _LARGE_BODY, {}),
            ("POST", "/webhook/initiate-call", b'{"called_number": "${EXTEN}"', {}),
            ("POST", "/webhook/end-call", b'{"session_id": "\\u0000", "reason": 7}', {}),
            ("GET", "/sessions", b"", {"X-API-Key": "wrong"}),
            ("GET", "/sessions/..%2f..%2fetc/events", b"", {}),
            ("DELETE", "/metrics", b"", {}),
        ]

        async def one() -> None:
            method, path, body, headers = self._random.choice(attempts)
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with http.request(method, url + path, data=body, headers=headers) as answer:
                    await answer.read()
                    statuses[answer.status] = statuses.get(answer.status, 0) + 1

        await _many(one, _ABUSE_PER_SECOND, seconds)
        return ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))


async def _stopped(pid: int, seconds: float) -> str:
    """Stop a process for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return ""


async def _many(one: Callable[[], Awaitable[None]], per_second: int, seconds: float) -> None:
    """Begin `one` so many times a second, without waiting for it in between."""
    async with asyncio.TaskGroup() as group:
        for _ in range(round(per_second * seconds)):
            group.create_task(_as_coroutine(one))
            await asyncio.sleep(1 / per_second)


async def _as_coroutine(one: Callable[[], Awaitable[None]]) -> None:
    await one()
