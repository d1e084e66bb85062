"""The command as a user starts it: a process of its own, settings from the environment."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from lab.asterisk import LabAsterisk
from lab.asterisk.ports import free_port
from lab.practice_agent import AgentBook, PracticeAgent, PracticeConfig
from lab.softphone import Phone
from tests.e2e.conftest import Logged
from tests.e2e.harness import KEY, book, practice_config
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.e2e

LOUD = -35.0


@dataclass(slots=True)
class Served:
    """A running `ari-app serve`."""

    process: asyncio.subprocess.Process
    api: str
    output: list[str]

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(self.api + path) as response:
            return response.status, await response.text()

    def said(self, event: str) -> list[dict[str, Any]]:
        """What was logged under this name."""
        lines = [line for line in self.output if f'"event": "{event}"' in line]
        return [json.loads(line) for line in lines]

    @property
    def worker(self) -> int:
        """The process that serves the calls now."""
        return int(self.said("worker_started")[-1]["pid"])

    async def ready(self) -> None:
        """Wait until it takes calls."""
        for _ in range(1000):
            with contextlib.suppress(aiohttp.ClientError):
                if (await self.get("/health/ready"))[0] == 200:
                    return
            assert self.process.returncode is None, "".join(self.output)
            await asyncio.sleep(0.02)
        raise TimeoutError("it does not become ready")

    async def stop(self) -> None:
        """End it with all its calls, and whatever is left of it."""
        for _ in range(2):
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await until(lambda: self.process.returncode is not None)
        for pid in [entry["pid"] for entry in self.said("worker_started")]:
            if is_worker(pid):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


def is_worker(pid: int) -> bool:
    """Whether a process with this id runs, and is a worker."""
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "ari-app-worker\n"
    except OSError:
        return False


def environment(asterisk: LabAsterisk, agent_url: str, **changes: str) -> dict[str, str]:
    names = ("PATH", "HOME", "MEDIA_TRANSPORT")
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    return {
        **inherited,
        **asterisk.settings,
        "AUDIOSOCKET_BIND": f"127.0.0.1:{free_port()}",
        "API_BIND": f"127.0.0.1:{free_port()}",
        "ELEVENLABS_BASE_URL": agent_url,
        "ELEVENLABS_API_KEY": KEY,
        "ELEVENLABS_AGENT_ID": "agent_default",
        "DATABASE_URL": "",
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
        **changes,
    }


async def start(
    env: dict[str, str], *arguments: str, behind: Sequence[str] = ()
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *behind,
        sys.executable,
        "-m",
        "ari_app",
        *arguments,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


@contextlib.asynccontextmanager
async def served(env: dict[str, str], behind: Sequence[str] = ()) -> AsyncIterator[Served]:
    """Run a service; behind a command that others follow, should there be one."""
    process = await start(env, "serve", "--env-file", "/dev/null", behind=behind)
    assert process.stdout is not None
    output: list[str] = []

    async def read(stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            output.append(line.decode())

    reading = asyncio.create_task(read(process.stdout))
    service = Served(process, f"http://{env['API_BIND']}", output)
    try:
        await service.ready()
        yield service
    finally:
        await service.stop()
        await reading


async def test_a_call_through_the_command_and_a_graceful_end(
    asterisk: LabAsterisk, logged: Logged
) -> None:
    async with PracticeAgent(practice_config()) as agent, Phone() as phone:
        env = environment(asterisk, agent.base_url)
        async with served(env) as service:
            assert await service.get("/health/live") == (200, '{"status": "live"}')
            call = await phone.call(f"sip:100@{asterisk.sip_host}:{asterisk.sip_port}")
            await call.wait_for_sound(LOUD, since=0)
            status, sessions = await service.get("/sessions")
            assert status == 200
            assert '"active_sessions":1' in sessions

            service.process.send_signal(signal.SIGTERM)
            await until(lambda: any('"draining"' in line for line in service.output))
            assert (await service.get("/health/ready"))[0] == 503
            rejected = await phone.call(f"sip:100@{asterisk.sip_host}:{asterisk.sip_port}")
            await logged("agent=REJECTED reason=draining")
            await rejected.hang_up()
            assert call.is_up
            metrics = (await service.get("/metrics"))[1]
            assert 'ari_app_calls{state="talking"} 1.0' in metrics
            assert 'ari_app_calls_ended_total{reason="draining",status="REJECTED"} 1.0' in metrics

            await call.hang_up()
            assert await asyncio.wait_for(service.process.wait(), PATIENCE_SECONDS) == 0
        text = "".join(service.output)
        for secret in (KEY, asterisk.ari_password, "conversation_signature"):
            assert secret not in text
        await asterisk.wait_until_empty(2)


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ARI_PASSWORD": "wrong"}, "refuses the user 'lab'"),
        ({"ELEVENLABS_API_KEY": "sk_wrong"}, "refuses ELEVENLABS_API_KEY"),
        ({"UPLINK_CHUNK_MS": "15"}, "UPLINK_CHUNK_MS"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
async def test_bad_input_is_one_sentence_and_exit_code_2(
    asterisk: LabAsterisk, command: str, changes: dict[str, str], sentence: str
) -> None:
    agents = AgentBook(default=None, agents={"agent_default": book().find("x") or pytest.fail()})
    config = PracticeConfig(api_key=SecretStr(KEY), voice="built_in", book=agents)
    async with PracticeAgent(config) as agent:
        env = environment(asterisk, agent.base_url, **changes)
        process = await start(env, command, "--env-file", "/dev/null")
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    text = output.decode()
    assert process.returncode == 2, text
    assert sentence in text
    assert "Traceback" not in text
    assert "sk_wrong" not in text
