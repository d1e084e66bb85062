"""A dialer of one's own: each example holds a whole call with the practice agent."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import aiohttp
import pytest

from ari_app.bridge import VoiceBridge
from ari_app.settings import load_settings
from lab.asterisk.ports import free_port
from lab.practice_agent import PracticeAgent
from lab.softphone.sounds import babble, level_dbfs, read_wav, silence, write_wav
from tests.e2e.harness import KEY, book, loud_seconds, practice_config
from tests.waiting import until

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
LOUD = -45.0
AGENT = book(
    dialogue={
        "first_message": "Hello, how can I help you today?",
        "turns": [{"say": "Good bye, and thank you for calling us today.", "end_call": True}],
    }
)


def spoken_seconds(pcm: bytes) -> float:
    """How long there is sound, in frames of 20 ms at 16 kHz."""
    frames = [pcm[at : at + 640] for at in range(0, len(pcm), 640)]
    return 0.02 * sum(level_dbfs(frame) > LOUD for frame in frames)


@pytest.mark.parametrize("example", ["dialer_client.py", "dialer_server.py"])
async def test_the_example_holds_a_whole_call(tmp_path: Path, example: str) -> None:
    caller, heard = tmp_path / "caller.wav", tmp_path / "heard.wav"
    write_wav(caller, silence(4000, 16000) + babble(1500, rate_hz=16000), 16000)
    dialer_url = f"http://127.0.0.1:{free_port()}"
    async with PracticeAgent(practice_config(AGENT)) as agent:
        settings = load_settings(
            None,
            dialer_type="custom",
            dialer_api_url=dialer_url if example == "dialer_server.py" else "",
            dialer_api_key="key-of-ours",
            api_bind="127.0.0.1:0",
            api_key="key-of-the-dialer",
            database_url="",
            elevenlabs_base_url=agent.base_url,
            elevenlabs_api_key=KEY,
            elevenlabs_agent_id="agent_default",
        )
        async with VoiceBridge(settings) as bridge:
            running = asyncio.create_task(bridge.run())
            url = "http://{}:{}".format(*bridge.api_address)
            client = await asyncio.create_subprocess_exec(
                sys.executable,
                str(ROOT / "examples" / example),
                str(caller),
                str(heard),
                env={
                    **os.environ,
                    "API_URL": url,
                    "API_KEY": "key-of-the-dialer",
                    "DIALER_URL": dialer_url,
                    "DIALER_API_KEY": "key-of-ours",
                },
                stdout=asyncio.subprocess.PIPE,
            )
            output, _ = await asyncio.wait_for(client.communicate(), 60)
            (record,) = bridge.calls.records.values()
            await until(lambda: record.ended_at is not None)
            async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as metrics:
                counted = await metrics.text()
            bridge.stop()
            await running
        (conversation,) = agent.conversations
    told = [json.loads(line) for line in output.decode().splitlines()]
    assert client.returncode == 0, told
    if example == "dialer_client.py":
        assert [each["type"] for each in told] == ["ready", "hang_up"]
        assert record.caller_number == "+15550100001"
    assert told[-1]["conversation_id"] == record.conversation_id
    assert (record.agent_status, record.result) == ("COMPLETED", "answered")
    assert record.called_number == "+15550100002"
    assert record.reference == "example-1"
    assert 'ari_app_calls_ended_total{reason="agent_ended",status="COMPLETED"} 1.0' in counted

    sound = read_wav(heard, 16000)
    assert record.answered_at is not None and record.ended_at is not None
    # However long the agent took until then.
    flowed = (record.ended_at - record.answered_at).total_seconds()
    assert len(sound) / 32000 == pytest.approx(flowed, abs=1.0), "in real time"
    assert spoken_seconds(sound) > 0.6 * conversation.agent_audio_seconds
    assert loud_seconds(conversation) == pytest.approx(1.5, abs=0.3)
