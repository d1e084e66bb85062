"""Serving dialers of one's own, over real HTTP: whole calls, who may come, and the one limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from structlog.testing import capture_logs

from ari_app.bridge import VoiceBridge
from ari_app.call.states import State
from ari_app.checks.dialer import check_dialer
from ari_app.checks.finding import Verdict
from ari_app.control.http.server import HttpServer
from ari_app.errors import ConfigError
from ari_app.settings import Settings
from lab.load.server import LoadServer
from tests.unit.agent.elevenlabs.fake_agent import FakeAgent, FakeConversation
from tests.unit.call.stage import Notes
from tests.unit.line.asterisk.ari.fake_ari import PASSWORD, USERNAME
from tests.unit.settings_maker import Make, custom_maker
from tests.waiting import PATIENCE_SECONDS, until

KEY = {"X-API-Key": "key-of-the-dialer"}
SAID = np.arange(1000, 1000 + 3 * 320, dtype="<i2")
WISH = {"call_id": "crm-1", "caller_number": "100", "audio": {"format": "pcm_16000"}}


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """Settings for a dialer of one's own; nothing is said of an Asterisk."""
    return custom_maker(monkeypatch, tmp_path, api_key=KEY["X-API-Key"])


async def speaks(conversation: FakeConversation) -> None:
    """Say three frames, and go on listening."""
    await conversation.begin()
    await conversation.say(SAID.tobytes())
    await conversation.until_closed()


class Service:
    """A service that runs, and a client of its HTTP."""

    def __init__(self, bridge: VoiceBridge, session: aiohttp.ClientSession) -> None:
        self.bridge, self.session = bridge, session

    async def initiate(self, **changes: Any) -> tuple[int, dict[str, Any]]:
        path = "/webhook/initiate-call"
        async with self.session.post(path, json=WISH | changes, headers=KEY) as answer:
            return answer.status, await answer.json()

    async def comes(self, **changes: Any) -> aiohttp.ClientWebSocketResponse:
        """Ask for a call, and bring its sound."""
        status, answer = await self.initiate(**changes)
        assert status == 200, answer
        return await self.session.ws_connect(answer["audio_url"])

    def refused(self) -> dict[str, float]:
        """The reasons for which dialers were refused, and how often."""
        family = self.bridge.metrics.dialer_refused_total.collect()
        return {
            sample.labels["reason"]: sample.value
            for metric in family
            for sample in metric.samples
            if sample.name.endswith("_total")
        }

    def ends(self) -> list[str | None]:
        return [record.end_reason for record in self.bridge.calls.records.values()]


@asynccontextmanager
async def serving(settings: Settings, *listeners: Any) -> AsyncIterator[Service]:
    async with VoiceBridge(settings, listeners) as bridge:
        run = asyncio.create_task(bridge.run())
        await until(lambda: not bridge.readiness().problems)
        url = "http://{}:{}".format(*bridge.api_address)
        async with aiohttp.ClientSession(url) as session:
            yield Service(bridge, session)
            bridge.stop()
            bridge.stop()
            await run


async def ready(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await socket.receive_str(timeout=PATIENCE_SECONDS))
    assert told["type"] == "ready"
    return told


# --- a call


@pytest.mark.parametrize("pacing", ["ours", "theirs"])
async def test_a_call_is_heard_from_its_first_sample(make: Make, pacing: str) -> None:
    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        socket = await it.comes(audio={"format": "pcm_16000", "pacing": pacing})
        told = await ready(socket)
        assert (told["format"], told["pacing"]) == ("pcm_16000", pacing)
        heard = b""
        while SAID[-1:].tobytes() not in heard:
            message = await socket.receive(timeout=PATIENCE_SECONDS)
            heard += message.data if message.type is aiohttp.WSMsgType.BINARY else b""
        samples = np.frombuffer(heard, "<i2")
        assert np.array_equal(samples[samples != 0], SAID)
        await socket.send_str('{"type": "hang_up"}')
        await until(lambda: it.ends() == ["caller_hung_up"])
        (record,) = it.bridge.calls.records.values()
        assert (record.reference, record.caller_number) == ("crm-1", "100")
        assert record.line_format == "pcm_16000"
        assert it.refused() == {}


async def test_it_is_no_secret_in_the_log_and_needs_no_key(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        with capture_logs() as logs:
            status, answer = await it.initiate()
            assert status == 200
            token = answer["audio_url"].rpartition("/")[2]
            assert len(token) == 32
            async with it.session.get(f"/dialer/audio/{token}") as response:
                assert response.status == 400, "no WebSocket; the token is still good"
            socket = await it.session.ws_connect(answer["audio_url"])
            await ready(socket)
            await socket.close()
            await until(lambda: it.ends() == ["caller_hung_up"])
        assert token not in str(logs)
        assert it.refused() == {"no_websocket": 1}


# --- who may come


async def test_a_token_that_is_unknown_or_was_used(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        status, answer = await it.initiate()
        assert status == 200
        socket = await it.session.ws_connect(answer["audio_url"])
        for url in (answer["audio_url"], "/dialer/audio/" + "x" * 32):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await it.session.ws_connect(url)
            assert refusal.value.status == 404
        await ready(socket)
        assert not socket.closed, "the running call is not disturbed"
        assert it.refused() == {"token_used": 1, "unknown_token": 1}


async def test_without_custom_there_is_no_such_way(make: Make) -> None:
    local = make(use_dialer_audio=False)
    async with VoiceBridge(local) as bridge:
        run = asyncio.create_task(bridge.run())
        url = "http://{}:{}".format(*bridge.api_address)
        async with aiohttp.ClientSession(url) as session:
            status, answer = await Service(bridge, session).initiate()
            assert (status, answer["code"]) == (409, "no_such_way")
            async with session.get("/dialer/audio/x", headers=KEY) as response:
                assert response.status == 404
        bridge.stop()
        await run


async def test_a_dialer_of_ones_own_calls_no_number(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        status, answer = await it.initiate(audio=None, called_number="+15550100002")
        assert (status, answer["code"]) == (409, "no_such_way")


def handshake(path: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: dialer\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def frame(data: bytes, *, text: bool = False) -> bytes:
    """A message as a client sends it (RFC 6455), masked with zeros; 126 to 65,535 bytes."""
    return struct.pack("!BBH", 0x81 if text else 0x82, 0x80 | 126, len(data)) + bytes(4) + data


def path_of(answer: dict[str, Any]) -> str:
    return "/dialer" + str(answer["audio_url"]).partition("/dialer")[2]


@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_a_dialer_that_vanishes_as_it_comes_holds_no_place(make: Make, how: str) -> None:
    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        _, answer = await it.initiate()
        with socket.create_connection(it.bridge.api_address) as there:
            if how == "reset":
                linger = struct.pack("ii", 1, 0)
                there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            there.sendall(handshake(path_of(answer)))
        # Long before the time that it has to come.
        await until(lambda: it.bridge.calls.count() == 0)
        assert it.ends()[0] in ("no_answer", "line_lost")


# --- bad input on the wire


async def oversized(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_bytes(bytes(64_002))


async def no_text(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket._writer.send_frame(b"\xff\xfe", aiohttp.WSMsgType.TEXT)


async def no_frame(socket: aiohttp.ClientWebSocketResponse) -> None:
    transport = socket._writer.transport
    assert transport is not None
    transport.write(b"\xff" * 8)


async def half_a_sample(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_bytes(bytes(641))


@pytest.mark.parametrize(
    ("sends", "reason"),
    [
        (oversized, "oversized"),
        (no_text, "malformed"),
        (no_frame, "malformed"),
        (half_a_sample, "audio_length"),
    ],
)
async def test_it_is_closed_and_nothing_else_is_disturbed(
    make: Make, sends: Callable[[aiohttp.ClientWebSocketResponse], Any], reason: str
) -> None:
    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        good, bad = await it.comes(), await it.comes()
        await ready(good)
        await ready(bad)
        await sends(bad)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await bad.receive()).type not in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.ERROR,
            ):
                pass
        await until(lambda: f"dialer_{reason}" in it.ends())
        assert it.refused() == {reason: 1}
        assert it.bridge.calls.count() == 1
        while not any(await good.receive_bytes(timeout=PATIENCE_SECONDS)):
            pass
        assert not good.closed


@pytest.mark.parametrize("speaks_on", [False, True])
async def test_a_dialer_that_does_not_read_is_ended_all_the_same(
    make: Make, speaks_on: bool
) -> None:
    loop = asyncio.get_running_loop()

    async def sends() -> None:
        while True:
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(deaf, frame(bytes(640)))
            await asyncio.sleep(0.02)

    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        status, answer = await it.initiate()
        assert status == 200
        server = it.bridge._http
        assert isinstance(server, HttpServer)
        before = server.connections
        with socket.socket() as deaf, capture_logs() as logged:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, it.bridge.api_address)
            await loop.sock_sendall(deaf, handshake(path_of(answer)))
            session_id = answer["session_id"]
            control = it.bridge.control
            await until(lambda: control.record(session_id).state == "talking")
            sending = asyncio.create_task(sends()) if speaks_on else None
            await until(lambda: control.record(session_id).sound.frames_not_read > 5)
            async with asyncio.timeout(PATIENCE_SECONDS):
                record = await control.end(session_id)
            assert record.ended_at is not None
            await until(lambda: server.connections == before)
            if sending is not None:
                sending.cancel()
        assert [each for each in logged if each["log_level"] == "error"] == []


UNKNOWN = "/dialer/audio/" + "x" * 32
FLOOD: tuple[tuple[bytes, float], ...] = (
    (handshake(UNKNOWN), 10),
    (f"GET {UNKNOWN} HTTP/1.1\r\nHost: dialer\r\n\r\n".encode(), 10),
    (b"\x16\x03\x01\x02\x00" + b"\xff" * 64, 0.3),
    (handshake(UNKNOWN)[:60], 0.3),
    (b"", 0.3),
)
"""What strangers send, and how long they wait for an answer."""


async def test_a_flood_of_sockets_disturbs_no_running_call(make: Make) -> None:
    """Its sound arrives whole in the middle of it, and whoever is meant to come still gets in."""
    loop = asyncio.get_running_loop()

    async def knocks(head: bytes, seconds: float) -> None:
        with socket.socket() as there:
            there.setblocking(False)
            await loop.sock_connect(there, it.bridge.api_address)
            await loop.sock_sendall(there, head)
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(seconds):
                    await loop.sock_recv(there, 4096)

    async with (
        FakeAgent(speaks) as agent,
        serving(
            # Nothing but the way in itself holds them off here.
            make(
                elevenlabs_base_url=agent.base_url,
                api_requests_per_second=0,
                api_max_connections=2000,
            )
        ) as it,
    ):
        good = await it.comes()
        await ready(good)
        flood = asyncio.gather(*(knocks(head, wait) for _ in range(60) for head, wait in FLOOD))
        heard = b""
        while not flood.done() or SAID[-1:].tobytes() not in heard:
            await good.send_bytes(SAID.tobytes()[:640])
            heard += await good.receive_bytes(timeout=PATIENCE_SECONDS)
        await flood
        samples = np.frombuffer(heard, "<i2")
        assert np.array_equal(samples[samples != 0][: len(SAID)], SAID)
        (record,) = it.bridge.calls.records.values()
        assert it.bridge.control.record(record.session_id).sound.frames_not_read == 0
        assert it.refused() == {"unknown_token": 120}
        await ready(await it.comes(call_id="crm-2"))
        assert not good.closed


async def test_a_dialer_that_answers_no_pings_is_gone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ari_app.line.dialer.gateway.HEARTBEAT_SECONDS", 0.1)
    async with FakeAgent(speaks) as agent, serving(make(elevenlabs_base_url=agent.base_url)) as it:
        _, answer = await it.initiate()
        dead = await it.session.ws_connect(answer["audio_url"], autoping=False)
        await ready(dead)
        await until(lambda: it.ends() == ["line_lost"])
        assert it.refused() == {}, "it has sent nothing wrong"
        await dead.close()


# --- several ways in


async def test_calls_of_all_kinds_share_one_limit(make: Make) -> None:
    notes = Notes()
    asterisk = LoadServer("voice-agent", USERNAME, PASSWORD)
    url = await asterisk.start()
    async with FakeAgent(speaks) as agent:
        settings = make(
            dialer_type="asterisk, custom",
            ari_url=url,
            ari_username=USERNAME,
            ari_password=PASSWORD,
            audiosocket_bind="127.0.0.1:0",
            elevenlabs_base_url=agent.base_url,
            max_concurrent_calls=2,
        )
        async with serving(settings, notes.heard) as it:
            await asterisk.generator.start_calls(1, 100)
            await until(lambda: State.TALKING in notes.states)
            socket = await it.comes()
            await ready(socket)
            assert it.bridge.readiness().active_sessions == 2
            status, answer = await it.initiate()
            assert (status, answer["code"]) == (503, "capacity")
            await socket.close()
            await until(lambda: it.bridge.calls.count() == 1)
            socket = await it.comes()
            await ready(socket)
            await socket.close()
            asterisk.generator.end_calls()
            await until(lambda: it.bridge.calls.count() == 0)
    await asterisk.close()


@pytest.mark.parametrize(
    ("text", "ways"),
    [
        ("custom", ("custom",)),
        ("asterisk,custom", ("asterisk", "custom")),
        (" custom , asterisk ", ("custom", "asterisk")),
    ],
)
def test_several_ways_in_may_be_named(make: Make, text: str, ways: tuple[str, ...]) -> None:
    assert make(dialer_type=text).ways_in == ways


@pytest.mark.parametrize("text", ["", "custom,", "custom,custom", "asterisk,local", "pigeon"])
def test_ways_in_that_cannot_be(make: Make, text: str) -> None:
    with pytest.raises(ConfigError, match=r"^DIALER_TYPE: "):
        make(dialer_type=text)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, Verdict.OK),
        ({"api_bind": "0.0.0.0:8080"}, Verdict.WARNING),
        ({"api_public_url": "http://calls.example"}, Verdict.WARNING),
        ({"api_bind": "0.0.0.0:8080", "api_public_url": "https://calls.example"}, Verdict.OK),
    ],
)
def test_check_says_whether_dialers_are_told_a_good_address(
    make: Make, changes: dict[str, str], verdict: Verdict
) -> None:
    found = check_dialer(make(**changes))
    assert found.verdict is verdict
    if verdict is Verdict.OK:
        assert "/dialer/audio/..." in found.detail
