from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_app.errors import ConfigError
from ari_app.service import serve
from ari_app.settings import Settings, load_settings
from lab.load.server import LoadServer
from tests.unit.ari.fake_ari import PASSWORD, USERNAME, Answer, FakeAri
from tests.unit.call.stage import until
from tests.unit.elevenlabs.fake_agent import API_KEY, FakeAgent


@pytest.fixture(autouse=True)
def _memory_as_it_was() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def settings_for(ari_url: str, agent_url: str, **changes: Any) -> Settings:
    complete = {
        "ari_url": ari_url,
        "ari_username": USERNAME,
        "ari_password": PASSWORD,
        "audiosocket_bind": "127.0.0.1:0",
        "api_bind": "127.0.0.1:0",
        "elevenlabs_base_url": agent_url,
        "elevenlabs_api_key": API_KEY,
        "elevenlabs_agent_id": "agent_default",
    }
    return load_settings(None, **(complete | changes))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_serves_until_a_signal(number: signal.Signals) -> None:
    asterisk = LoadServer("voice-agent", USERNAME, PASSWORD)
    url = await asterisk.start()
    async with FakeAgent() as agent:
        with capture_logs() as logs:
            serving = asyncio.create_task(serve(settings_for(url, agent.base_url)))
            await until(lambda: "asterisk_connected" in [entry["event"] for entry in logs])
            os.kill(os.getpid(), number)
            await serving
    await asterisk.close()
    said = {entry["event"]: entry for entry in logs}
    assert said["serving"]["app"] == "voice-agent"
    assert said["serving"]["audiosocket"].startswith("127.0.0.1:")
    assert said["signal_received"]["signal"] == number.name
    assert list(said)[-1] == "stopped"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert API_KEY not in str(logs) and PASSWORD not in str(logs)


async def test_what_no_call_could_be_served_without_is_said_at_once() -> None:
    async with FakeAgent() as agent, FakeAri() as ari:
        ari.answer("GET", "/asterisk/info", Answer(404))
        with pytest.raises(ConfigError, match="has no /ari"):
            await serve(settings_for(ari.url, agent.base_url))
        assert ari.handshakes == [], "no call was taken"


async def test_a_key_that_is_refused_is_said_at_once() -> None:
    asterisk = LoadServer("voice-agent", USERNAME, PASSWORD)
    url = await asterisk.start()
    async with FakeAgent() as agent:
        settings = settings_for(url, agent.base_url, elevenlabs_api_key="sk_wrong")
        with pytest.raises(ConfigError, match="refuses ELEVENLABS_API_KEY"):
            await serve(settings)
    await asterisk.close()


async def test_what_may_be_over_in_a_minute_is_only_a_warning() -> None:
    asterisk = LoadServer("voice-agent", USERNAME, PASSWORD)
    url = await asterisk.start()
    with socket.socket() as closed, capture_logs() as logs:
        closed.bind(("127.0.0.1", 0))
        agent_url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        serving = asyncio.create_task(serve(settings_for(url, agent_url)))
        await until(lambda: "asterisk_connected" in [entry["event"] for entry in logs])
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    await asterisk.close()
    (warning,) = (entry for entry in logs if entry["event"] == "check")
    assert (warning["log_level"], warning["what"]) == ("warning", "Agent")
    assert "could not be asked" in warning["found"]
