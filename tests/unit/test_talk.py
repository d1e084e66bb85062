"""`ari-app talk`, and serving without Asterisk, at a sound card of our own."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from rich.console import Console

from ari_app import cli
from ari_app.bridge import VoiceBridge
from ari_app.checks.all import check_all
from ari_app.checks.finding import Verdict, what_works
from ari_app.commands import talk as talk_module
from ari_app.commands.talk import TalkFailed, meters, talk
from ari_app.errors import ConfigError
from ari_app.line import microphone
from ari_app.line.microphone import Levels, MicrophoneGateway, PortAudio
from ari_app.process import logs
from ari_app.settings import Settings
from tests.unit.agent.elevenlabs.fake_agent import API_KEY, FakeAgent, FakeConversation
from tests.unit.line.fake_card import BLOCK_SECONDS, FakeCard
from tests.unit.settings_maker import Make, settings_maker, unhurried
from tests.waiting import until


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """Settings for this machine's microphone; nothing is said of an Asterisk."""
    unhurried(monkeypatch)
    return settings_maker(
        monkeypatch,
        tmp_path,
        use_dialer_audio=False,
        api_bind="127.0.0.1:0",
        elevenlabs_api_key=API_KEY,
        elevenlabs_agent_id="agent_default",
    )


@pytest.fixture
async def card() -> AsyncIterator[FakeCard]:
    """A sound card that runs."""
    card = FakeCard(16000)

    async def beats() -> None:
        while True:
            await asyncio.sleep(BLOCK_SECONDS)
            card.beat(2000)

    running = asyncio.create_task(beats())
    yield card
    running.cancel()
    assert card.open_streams == 0


def screen() -> Console:
    return Console(file=io.StringIO(), width=100)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def greets(conversation: FakeConversation) -> None:
    """Say half a second, and go on listening."""
    await conversation.begin()
    sound = base64.b64encode(np.full(8000, 3000, "<i2").tobytes()).decode()
    await conversation.send(
        {"type": "audio", "audio_event": {"audio_base_64": sound, "event_id": 1}},
        {"type": "agent_response", "agent_response_event": {"agent_response": "Hello there"}},
    )


async def greets_and_ends(conversation: FakeConversation) -> None:
    """Greet, and hang up once the caller is heard: only then are the two surely together."""
    await greets(conversation)
    while "user_audio_chunk" not in await conversation.receive():
        pass
    await conversation.socket.close(1000)


async def greets_and_listens(conversation: FakeConversation) -> None:
    await greets(conversation)
    await conversation.until_closed()


# --- talk


async def test_a_talk_is_heard_shown_and_ended_by_the_agent(
    make: Make, card: FakeCard, tmp_path: Path
) -> None:
    console = screen()
    async with FakeAgent(greets_and_ends) as agent:
        # Whatever the settings say, a talk is at this machine, and needs no port.
        settings = make(
            elevenlabs_base_url=agent.base_url,
            use_dialer_audio=True,
            api_bind="0.0.0.0:1",
            workers=2,
            cluster_url="valkey://127.0.0.1:1",
            database_url=f"sqlite+aiosqlite:///{tmp_path}/calls.db",
            recordings_dir=str(tmp_path / "recordings"),
            spend_calls_per_day=1,
            webhook_url="http://127.0.0.1:1/hook",
            webhook_secret="a secret that is long enough to sign with",
            webhook_spool=str(tmp_path / "webhooks.db"),
        )
        before = os.listdir(tmp_path)
        await talk(settings, console, card)
    assert os.listdir(tmp_path) == before, "nothing is kept of it"
    out = shown(console)
    assert "Use a headset" in out
    assert "agent: Hello there\n" in out
    assert re.search(r"\nThe talk has ended: agent_ended, \d+ s\.\n$", out)
    heard = b"".join(card.played)
    # The last samples of an end fade out.
    assert np.count_nonzero(np.frombuffer(heard, "<i2") == 3000) == pytest.approx(8000, abs=200)


async def test_ctrl_c_hangs_up(make: Make, card: FakeCard) -> None:
    console = screen()
    async with FakeAgent(greets_and_listens) as agent:
        talking = asyncio.create_task(talk(make(elevenlabs_base_url=agent.base_url), console, card))
        await until(lambda: any(any(block) for block in card.played))
        os.kill(os.getpid(), signal.SIGINT)
        await talking
    assert "The talk has ended: caller_hung_up" in shown(console)


async def test_levels_move_in_a_terminal(make: Make, card: FakeCard) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    async with FakeAgent(greets_and_ends) as agent:
        await talk(make(elevenlabs_base_url=agent.base_url), console, card)
    # 2000 of 32768 is -24 dB, and 3000 is -21.
    assert "-24 dB" in shown(console)
    assert "-21 dB" in shown(console)


def test_the_meters() -> None:
    quiet, full = "░" * 24, "█" * 24
    assert meters(Levels()).plain == f"you   {quiet}  quiet    agent {quiet}  quiet"
    assert meters(Levels(0.0, -30.0)).plain.startswith(f"you   {full}   0 dB    agent {'█' * 12}░")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"elevenlabs_api_key": ""}, "ELEVENLABS_API_KEY is not set."),
        ({"elevenlabs_agent_id": ""}, "No agent is named. .* `ari-app talk --agent ID`"),
    ],
)
async def test_what_is_missing_is_said(make: Make, changes: Any, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        await talk(make(**changes), screen(), FakeCard(16000))


async def test_without_a_sound_device_nothing_is_begun(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"^This machine has no sound device"):
        await talk(make(), screen(), FakeCard())


async def test_an_agent_that_fails_is_said(make: Make, card: FakeCard) -> None:
    async def refuses(conversation: FakeConversation) -> None:
        await conversation.receive()
        await conversation.socket.close(1008, "quota exceeded")

    async with FakeAgent(refuses) as agent:
        with pytest.raises(TalkFailed, match=r"The talk has ended: agent_\w+; see docs/agent\.md"):
            await talk(make(elevenlabs_base_url=agent.base_url), screen(), card)


# --- the command


@pytest.fixture
def run(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int | str | None, str]]:
    """Run `ari-app talk`: its exit code, and what it said."""
    monkeypatch.setattr(logs, "set_up_logging", lambda *given: None)

    def run(*arguments: str) -> tuple[int | str | None, str]:
        monkeypatch.setattr(sys, "argv", ["ari-app", "talk", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, "".join(capsys.readouterr())

    return run


def test_the_command_lists_devices(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone, "devices", lambda: ["0: head [set] (in 1, out 2)"])
    assert run("--list-devices") == (0, "0: head [set] (in 1, out 2)\n")
    monkeypatch.setattr(microphone, "devices", list)
    code, said = run("--list-devices")
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("ari-app: This machine has no sound device")


def test_the_command_names_agent_and_device(
    run: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[str | None, str | None]] = []

    async def talk(settings: Settings, console: Console) -> None:
        given.append((settings.elevenlabs_agent_id, settings.local_audio_device))

    monkeypatch.setattr(talk_module, "talk", talk)
    monkeypatch.setenv("ELEVENLABS_AGENT_ID", "agent_1")
    monkeypatch.setenv("LOCAL_AUDIO_DEVICE", "3")
    assert run() == (0, "")
    assert run("--agent", "agent_2", "--device", "Jabra") == (0, "")
    assert given == [("agent_1", "3"), ("agent_2", "Jabra")]


# --- serve and check


async def test_a_dialer_begins_a_talk_without_asterisk(make: Make, card: FakeCard) -> None:
    async with FakeAgent(greets_and_listens) as agent:
        settings = make(elevenlabs_base_url=agent.base_url)
        async with VoiceBridge(settings, card=card) as bridge:
            run = asyncio.create_task(bridge.run())
            url = "http://{}:{}".format(*bridge.api_address)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"{url}/health/ready") as response:
                    assert (response.status, (await response.json())["problems"]) == (200, [])
                wish = {"agent_id": "agent_7", "called_number": "+15550100001"}
                async with session.post(f"{url}/webhook/initiate-call", json=wish) as response:
                    assert response.status == 200
            await until(lambda: any(any(block) for block in card.played))
            bridge.stop()
            bridge.stop()
            await run


async def test_a_microphone_that_failed_makes_the_service_not_ready(make: Make) -> None:
    async with VoiceBridge(make(), card=FakeCard()) as bridge:
        gateway = bridge.way_in(MicrophoneGateway)
        assert gateway is not None
        gateway.problem = "It is gone."
        assert bridge.readiness().problems == ["It is gone."]


async def test_check_asks_for_no_asterisk(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PortAudio, "rate_hz", FakeCard(48000).rate_hz)
    async with FakeAgent() as agent:
        found = [each async for each in check_all(make(elevenlabs_base_url=agent.base_url))]
    assert {each.verdict for each in found} == {Verdict.OK, Verdict.NOTE}
    assert what_works(found) == (
        "Calls in: not set up, see Telephone. Calls out: yes. "
        "Answering machine detection: not set up, see Telephone."
    )
    assert "Microphone" in {each.what for each in found}
    assert not {"Asterisk", "Connection"} & {each.what for each in found}
    assert any("at 48000 Hz" in each.detail for each in found)


async def test_check_says_that_there_is_no_device(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PortAudio, "rate_hz", FakeCard().rate_hz)
    async with FakeAgent() as agent:
        found = [each async for each in check_all(make(elevenlabs_base_url=agent.base_url))]
    (failed,) = (each for each in found if each.verdict is Verdict.FAILED)
    assert failed.detail.startswith("This machine has no sound device")


async def test_check_names_each_fault_that_it_finds(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PortAudio, "rate_hz", FakeCard().rate_hz)
    settings = make(api_bind="0.0.0.0:0", elevenlabs_base_url="http://127.0.0.1:1")
    found = [each async for each in check_all(settings)]
    wrong = {each.what for each in found if each.verdict is Verdict.FAILED}
    assert wrong == {"Settings", "Agent", "Microphone"}


@pytest.mark.parametrize(
    ("changes", "local"),
    [
        ({}, False),
        ({"dialer_type": "asterisk"}, False),
        ({"dialer_type": "local"}, True),
        ({"use_dialer_audio": "false"}, True),
        ({"use_dialer_audio": "false", "dialer_type": "asterisk"}, True),
        ({"use_dialer_audio": "true", "dialer_type": "local"}, True),
    ],
)
def test_which_way_in_there_is(make: Make, changes: Any, local: bool) -> None:
    settings = make(**{"use_dialer_audio": True, **changes})
    assert (settings.ways_in == ("local",)) is local
    if local:
        settings.require_serving()
    else:
        with pytest.raises(ConfigError, match="ARI_USERNAME and ARI_PASSWORD"):
            settings.require_serving()


def test_a_way_in_that_is_none(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"^DIALER_TYPE: "):
        make(dialer_type="carrier-pigeon")
