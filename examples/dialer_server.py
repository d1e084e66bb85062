"""A dialer of one's own to which the service comes, in 100 lines; see docs/custom-dialer.md.

    python examples/dialer_server.py caller.wav heard.wav

Asks for an agent, says where the sound of its call is, and plays a WAV file (16 kHz, 16 bits, mono)
as the caller, then silence, until it is told that the call is over. What the caller has heard is
written to the other file. API_URL and API_KEY name the service, whose DIALER_API_URL is DIALER_URL
here (http://127.0.0.1:9900), and whose DIALER_API_KEY must be the same.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import wave
from typing import Any

import aiohttp
from aiohttp import web

FRAME_BYTES = 640  # 20 ms of pcm_16000
CALL_ID = "example-1"
URL = os.environ.get("DIALER_URL", "http://127.0.0.1:9900")
BEARER = f"Bearer {os.environ['DIALER_API_KEY']}"
API_URL = os.environ.get("API_URL", "http://127.0.0.1:8080")
KEY = {"X-API-Key": os.environ["API_KEY"]} if "API_KEY" in os.environ else {}


class Dialer:
    """One call: what its caller says, and what it has heard."""

    def __init__(self, said: bytes) -> None:
        self.said, self.heard = said, b""
        self.over: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    async def audio(self, request: web.Request) -> web.StreamResponse:
        """Say where the sound of a call is."""
        self.check(request)
        url = f"ws{URL.removeprefix('http')}/sound/{CALL_ID}"
        return web.json_response({"url": url, "format": "pcm_16000"})

    async def sound(self, request: web.Request) -> web.StreamResponse:
        """Carry the sound: the caller's once `ready` has come, the agent's as it comes."""
        self.check(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                self.heard += message.data
            elif json.loads(message.data)["type"] == "ready":
                self.speaking = asyncio.create_task(self.speak(socket))
        return socket

    async def speak(self, socket: web.WebSocketResponse) -> None:
        """Send the caller's voice in real time: a frame every 20 ms."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not socket.closed:
            frame, self.said = self.said[:FRAME_BYTES], self.said[FRAME_BYTES:]
            await socket.send_bytes(frame.ljust(FRAME_BYTES, b"\0"))
            due += 0.02
            await asyncio.sleep(due - loop.time())

    async def hangup(self, request: web.Request) -> web.StreamResponse:
        """Be told that the call is over, perhaps twice."""
        self.check(request)
        if not self.over.done():
            self.over.set_result(await request.json())
        return web.Response()

    def check(self, request: web.Request) -> None:
        """Refuse strangers, and calls that there are not."""
        if request.headers.get("Authorization") != BEARER:
            raise web.HTTPUnauthorized
        if request.match_info["call_id"] != CALL_ID:
            raise web.HTTPNotFound


async def hold_call(said: bytes) -> tuple[bytes, dict[str, Any]]:
    """Hold one call; return what the caller has heard, and how it ended."""
    dialer, app = Dialer(said), web.Application()
    app.router.add_get("/calls/{call_id}/audio", dialer.audio)
    app.router.add_get("/sound/{call_id}", dialer.sound)
    app.router.add_post("/calls/{call_id}/hangup", dialer.hangup)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    port = int(URL.rpartition(":")[2])
    await web.TCPSite(runner, "127.0.0.1", port).start()
    wish = {"call_id": CALL_ID, "called_number": "+15550100002", "audio": {}}
    async with (
        aiohttp.ClientSession(API_URL, headers=KEY) as session,
        session.post("/webhook/initiate-call", json=wish) as answer,
    ):
        answer.raise_for_status()
    ended = await dialer.over
    await runner.cleanup()
    return dialer.heard, ended


if __name__ == "__main__":
    with wave.open(sys.argv[1], "rb") as caller:
        voice = caller.readframes(caller.getnframes())
    sound, ending = asyncio.run(hold_call(voice))
    with wave.open(sys.argv[2], "wb") as listener:
        listener.setparams((1, 2, 16000, 0, "NONE", ""))
        listener.writeframes(sound)
    sys.stdout.write(json.dumps(ending) + "\n")
    sys.exit(0 if ending["status"] == "COMPLETED" else 1)
