"""All that runs during the demonstration, started in order and stopped in the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from pydantic import SecretStr
from rich.console import Console

from ari_app.bridge import VoiceBridge
from ari_app.control.http.models import Readiness
from ari_app.settings import Settings, load_settings
from lab.asterisk import LabError
from lab.demo import scene
from lab.demo.progress import Steps
from lab.demo.transcript import LiveTranscript
from lab.demo.voice import agent_voice
from lab.demo.ways import Way
from lab.practice_agent import PracticeAgent, PracticeConfig

READY_SECONDS = 10.0

_API_KEY = "practice"
_POLL_SECONDS = 0.02
_DRAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the demonstration drives and watches."""

    way: Way
    bridge: VoiceBridge
    transcript: LiveTranscript


@asynccontextmanager
async def running(way: Way, console: Console) -> AsyncIterator[Parts]:
    """Start everything, and stop it in any case.

    Raises:
        LabError: What brings the caller cannot be had or does not start, or the service does not
            find it.
        AppError: The service cannot be set up.
    """
    steps = Steps(console)
    async with AsyncExitStack() as stack:
        transcript = LiveTranscript(console)
        ways_settings = await way.prepare(stack, steps)
        with steps.step("Practice agent") as step:
            voice = agent_voice()
            config = PracticeConfig(book=scene.agents(), api_key=SecretStr(_API_KEY))
            agent = await stack.enter_async_context(PracticeAgent(config, voice=voice))
            step.result = agent.base_url
        with steps.step("Voice bridge") as step:
            settings = bridge_settings(ways_settings, agent.base_url)
            bridge = await stack.enter_async_context(_serving(settings, transcript))
            step.result = way.listens(bridge)
        await way.connect(bridge, stack, steps)
        yield Parts(way, bridge, transcript)


def bridge_settings(ways_settings: Mapping[str, object], agent_url: str) -> Settings:
    """Settings that owe nothing to the environment, where a real account may be set up."""
    defaults = {name: field.default for name, field in Settings.model_fields.items()}
    ours = {
        "api_bind": "127.0.0.1:0",
        "elevenlabs_base_url": agent_url,
        "elevenlabs_api_key": _API_KEY,
        "elevenlabs_agent_id": scene.AGENT_ID,
        "drain_timeout_seconds": _DRAIN_SECONDS,
        "database_url": "",
    }
    return load_settings(None, **(defaults | ours | dict(ways_settings)))


@asynccontextmanager
async def _serving(settings: Settings, transcript: LiveTranscript) -> AsyncIterator[VoiceBridge]:
    async with VoiceBridge(settings, [transcript.heard]) as bridge:
        serving = asyncio.create_task(bridge.run(), name="voice-bridge")
        try:
            await ready(bridge, serving)
            yield bridge
        finally:
            bridge.stop()
            await serving


class Service(Protocol):
    """What says whether calls are taken."""

    def readiness(self) -> Readiness: ...


async def ready(bridge: Service, serving: asyncio.Task[None]) -> None:
    """Wait until the service takes calls; `serving` is the task that runs it.

    Raises:
        LabError: it does not get ready in time, or has stopped.
    """
    problems: list[str] = []
    try:
        async with asyncio.timeout(READY_SECONDS):
            while not serving.done():
                problems = bridge.readiness().problems
                if not problems:
                    return
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise LabError(f"The service is not ready: {'; '.join(problems)}.") from None
    await serving
    raise LabError("The service stopped: another program took its application in Asterisk.")
