"""Everything that a soak needs, started in order and stopped in the other."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from benchmarks.processes import agent_settings, scratch_folder
from benchmarks.soak.options import SoakOptions
from benchmarks.soak.programs import (
    AgentProgram,
    CallersProgram,
    ServiceProgram,
    running_callers,
)
from benchmarks.soak.world import dialplan, tools
from lab.asterisk import LabAsterisk
from lab.faults import TcpProxy
from lab.web import serving

MAX_CALLS = 500


@dataclass(frozen=True, slots=True)
class Stage:
    """All that runs."""

    folder: Path
    recordings: Path
    asterisk: LabAsterisk
    ari: TcpProxy
    """The service speaks to Asterisk through it."""
    agent: AgentProgram
    service: ServiceProgram
    callers: CallersProgram
    http: aiohttp.ClientSession


@asynccontextmanager
async def running_stage(options: SoakOptions) -> AsyncIterator[Stage]:
    """Start it all. Raises BenchmarkError and LabError for what does not start."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        key = secrets.token_urlsafe(18)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(
                headers={"X-API-Key": key}, timeout=aiohttp.ClientTimeout(total=10)
            )
        )
        callers = await stack.enter_async_context(running_callers(folder))
        asterisk = await stack.enter_async_context(LabAsterisk(dialplan=dialplan()))
        ari_url = urlsplit(asterisk.ari_url)
        ari = await stack.enter_async_context(
            TcpProxy(ari_url.hostname or "127.0.0.1", ari_url.port or 80)
        )
        agent = AgentProgram(folder, http)
        stack.push_async_callback(agent.close)
        await agent.start()
        tools_file, recordings = folder / "tools.yaml", folder / "recordings"
        tools_file.write_text(tools(await stack.enter_async_context(_running_orders())))
        service = ServiceProgram(
            folder,
            {
                **asterisk.settings,
                "ARI_URL": f"http://{ari.address}",
                **agent_settings(agent.url, agent.authority),
                "API_KEY": key,
                "MAX_CONCURRENT_CALLS": str(MAX_CALLS),
                "OUTBOUND_ENDPOINT": f"PJSIP/lab/sip:{{number}}@127.0.0.1:{callers.callee_port}",
                "RECORDINGS_DIR": str(recordings),
                "TOOLS_FILE": str(tools_file),
                "DTMF_TIMEOUT_SECONDS": "1",
                # All phones ask from one address.
                "API_REQUESTS_PER_SECOND": "0",
            },
        )
        await stack.enter_async_context(service.running(http))
        await callers.begin(
            f"{asterisk.sip_host}:{asterisk.sip_port}",
            service.api_url,
            key,
            options.dead_air_seconds,
        )
        yield Stage(folder, recordings, asterisk, ari, agent, service, callers, http)


@asynccontextmanager
async def _running_orders() -> AsyncIterator[str]:
    """Somebody's service for the agents' HTTP tool; its address."""

    async def order(_: web.Request) -> web.Response:
        return web.json_response({"state": "on its way"})

    app = web.Application()
    app.router.add_get("/orders/{order}", order)
    async with serving(app) as url:
        yield url
