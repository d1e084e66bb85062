"""A dialer of one's own in about 70 lines: holds one call with an agent; see docs/custom-dialer.md.

    python examples/dialer_client.py caller.wav heard.wav

Plays a WAV file (16 kHz, 16 bits, mono) as the caller, then silence, until the agent hangs up. What
the caller has heard is written to the other file. API_URL and API_KEY name the service.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import wave
from typing import Any

import aiohttp

FRAME_BYTES = 640  # 20 ms of pcm_16000
API_URL = os.environ.get("API_URL", "http://127.0.0.1:8080")
KEY = {"X-API-Key": os.environ["API_KEY"]} if "API_KEY" in os.environ else {}
CALL = {
    "call_id": "example-1",
    "caller_number": "+15550100001",
    "called_number": "+15550100002",
    "audio": {"format": "pcm_16000"},
}


async def speak(socket: aiohttp.ClientWebSocketResponse, said: bytes) -> None:
    """Send the caller's voice in real time: a frame every 20 ms."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    while not socket.closed:
        frame, said = said[:FRAME_BYTES], said[FRAME_BYTES:]
        await socket.send_bytes(frame.ljust(FRAME_BYTES, b"\0"))
        due += 0.02
        await asyncio.sleep(due - loop.time())


async def hold_call(said: bytes) -> tuple[bytes, dict[str, Any]]:
    """Hold one call; return what the caller has heard, and the service's last words."""
    heard, last_words = b"", {}
    async with aiohttp.ClientSession(API_URL, headers=KEY) as session:
        async with session.post("/webhook/initiate-call", json=CALL) as answer:
            answer.raise_for_status()
            audio_url = (await answer.json())["audio_url"]
        async with session.ws_connect(audio_url) as socket:
            speaking: asyncio.Task[None] | None = None
            async for message in socket:
                if message.type is aiohttp.WSMsgType.BINARY:
                    heard += message.data
                    continue
                last_words = json.loads(message.data)
                sys.stdout.write(message.data + "\n")
                if last_words["type"] == "ready":
                    speaking = asyncio.create_task(speak(socket, said))
            if speaking is not None:
                speaking.cancel()
    return heard, last_words


if __name__ == "__main__":
    with wave.open(sys.argv[1], "rb") as caller:
        voice = caller.readframes(caller.getnframes())
    sound, words = asyncio.run(hold_call(voice))
    with wave.open(sys.argv[2], "wb") as listener:
        listener.setparams((1, 2, 16000, 0, "NONE", ""))
        listener.writeframes(sound)
    sys.exit(0 if words.get("status") == "COMPLETED" else 1)
