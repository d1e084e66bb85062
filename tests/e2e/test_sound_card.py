"""A talk over a real way of sound: PortAudio, ALSA and PipeWire, where nothing is plugged in.

Debian: `apt-get install dbus libportaudio2 pipewire pipewire-alsa pipewire-media-session`. The bus,
PipeWire and its session manager are this test's own; those of the machine are not touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from ctypes.util import find_library
from pathlib import Path

import numpy as np
import pytest

from lab.practice_agent import PracticeAgent, PracticeConfig
from tests.waiting import until

NEEDED = ("dbus-run-session", "pipewire", "pipewire-media-session", "pw-cli", "pw-record")
MISSING = [name for name in NEEDED if shutil.which(name) is None]
if find_library("portaudio") is None:
    MISSING.append("libportaudio2")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

# The session manager joins what is played with the phones, and the microphone with who records.
SESSION = """
pipewire & pipewire-media-session &
node() {
    pw-cli create-node adapter "{ factory.name=support.null-audio-sink node.name=$1 \
        media.class=$2 object.linger=true audio.position=[FL FR] }"
}
until node phones Audio/Sink; do sleep 0.1; done
node mic Audio/Source/Virtual
touch "$XDG_RUNTIME_DIR/ready"
wait
"""


@contextlib.asynccontextmanager
async def program(*words: str, env: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program and all that it starts, which end with the block."""
    process = await asyncio.create_subprocess_exec(
        *words,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        await process.communicate()


def audible_seconds(recorded: Path) -> float:
    """How long something was heard, in a WAV file at 16 kHz that still grows."""
    data = recorded.read_bytes()[44:] if recorded.exists() else b""
    samples = np.frombuffer(data[: len(data) // 640 * 640], "<i2").reshape(-1, 320)
    return float((np.abs(samples.astype(int)).max(axis=1) > 300).sum() / 50)


async def test_the_agent_is_heard_at_the_loudspeaker(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    env = {**os.environ, "XDG_RUNTIME_DIR": str(run), "XDG_STATE_HOME": str(tmp_path / "state")}
    env.pop("PIPEWIRE_REMOTE", None)
    heard = tmp_path / "heard.wav"
    async with (
        PracticeAgent(PracticeConfig(port=0)) as agent,
        program("dbus-run-session", "--", "sh", "-c", SESSION, env=env),
        asyncio.timeout(60),
    ):
        await until((run / "ready").exists)
        env |= {
            "ELEVENLABS_BASE_URL": agent.base_url,
            "ELEVENLABS_API_KEY": "any",
            "ELEVENLABS_AGENT_ID": "any",
        }
        ear = (
            "pw-record --target phones -P '{ stream.capture.sink=true }' --rate 16000 --channels 1"
        )
        talk = (sys.executable, "-m", "ari_app", "talk")
        async with (
            program("sh", "-c", f"{ear} {heard}", env=env),
            program(*talk, env=env) as talking,
        ):
            await until(lambda: audible_seconds(heard) > 1 or talking.returncode is not None)
            if talking.returncode is None:
                talking.send_signal(signal.SIGINT)
            said, _ = await talking.communicate()
            assert talking.returncode == 0, said.decode()
            assert b"agent: " in said
            assert b"The talk has ended: caller_hung_up" in said
