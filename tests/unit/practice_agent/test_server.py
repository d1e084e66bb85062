"""The server on real sockets: signed URLs, the handshake, endings, the control calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest
import trustme
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, WSServerHandshakeError
from pydantic import SecretStr

from lab.practice_agent import (
    AgentBook,
    AgentProfile,
    CloseFault,
    Dialogue,
    Faults,
    PracticeAgent,
    PracticeConfig,
    TranscriptLine,
    Turn,
    serve,
)
from lab.practice_agent.formats import Samples
from tests.tls import client_tls, server_tls
from tests.unit.practice_agent.stage import profile

SIGN = "/v1/convai/conversation/get-signed-url"
KEY = {"xi-api-key": "sk_test"}
INITIATION = {"type": "conversation_initiation_client_data", "dynamic_variables": {"name": "J"}}


class ShortVoice:
    """A tenth of a second for any text."""

    def speak(self, text: str, rate_hz: int) -> Samples:
        return np.full(rate_hz // 10, 1000, np.int16)


def config(**fields: Any) -> PracticeConfig:
    book = AgentBook(
        default=profile("yes", "no", greeting="Hello {{name}}"),
        agents={
            "private": profile(requires_auth=True),
            "broken": profile(faults=Faults(signed_url_status=500, handshake_status=503)),
            "busy": profile(faults=Faults(signed_url_status=429)),
            "drops": profile(greeting="Hello", faults=Faults(close=CloseFault(mid_response=True))),
            "closes": profile(
                faults=Faults(close=CloseFault(code=3008, reason="ü" * 100, after_ms=10))
            ),
            "ends": profile(dialogue=Dialogue(turns=(Turn(end_call=True),))),
            "garbage": profile(faults=Faults(garbage="binary")),
            "rubbish": profile(faults=Faults(garbage="json")),
        },
    )
    dialogue = book.default.dialogue if book.default else Dialogue()
    default = profile().model_copy(
        update={"dialogue": dialogue.model_copy(update={"variables": {"name": "you"}})}
    )
    book = book.model_copy(update={"default": default})
    return PracticeConfig.model_validate({"book": book, "voice": "built_in", **fields})


@pytest.fixture
async def agent() -> AsyncIterator[PracticeAgent]:
    async with PracticeAgent(config(keep_audio_seconds=10), voice=ShortVoice()) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


async def until(socket: ClientWebSocketResponse, kind: str) -> dict[str, Any]:
    """Read until a message of a type comes."""
    while True:
        message = await socket.receive_json()
        assert isinstance(message, dict)
        if message["type"] == kind:
            return message


async def closing(socket: ClientWebSocketResponse) -> int | None:
    """Read until the end; return the close code."""
    while (await socket.receive()).type not in (
        WSMsgType.CLOSE,
        WSMsgType.CLOSED,
        WSMsgType.CLOSING,
        WSMsgType.ERROR,
    ):
        pass
    return socket.close_code


@pytest.mark.parametrize("path", [SIGN, SIGN.replace("-", "_")])
async def test_a_signed_url_opens_a_private_agent(
    agent: PracticeAgent, http: ClientSession, path: str
) -> None:
    async with http.get(f"{agent.base_url}{path}?agent_id=private", headers=KEY) as answer:
        assert answer.status == 200
        url = (await answer.json())["signed_url"]
    assert url.startswith(agent.socket_url + "?agent_id=private&conversation_signature=")
    async with http.ws_connect(url + "&source=python_sdk") as socket:
        await socket.send_json(INITIATION)
        await until(socket, "conversation_initiation_metadata")
    record = await agent.conversation()
    assert record.authorization == "signed_url"
    assert record.query == {"agent_id": "private", "source": "python_sdk"}


async def test_a_signed_url_with_a_conversation_opens_once(
    agent: PracticeAgent, http: ClientSession
) -> None:
    url = f"{agent.base_url}{SIGN}?agent_id=private&include_conversation_id=true"
    async with http.get(url, headers=KEY) as answer:
        signed = (await answer.json())["signed_url"]
    async with http.ws_connect(signed):
        record = await agent.conversation()
        assert f"conversation_id={record.conversation_id}" in signed
    with pytest.raises(WSServerHandshakeError) as caught:
        await http.ws_connect(signed)
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("?agent_id=x", {}, 401),
        ("?agent_id=x", {"xi-api-key": ""}, 401),
        ("", KEY, 422),
        ("?agent_id=broken", KEY, 500),
        ("?agent_id=busy", KEY, 429),
    ],
)
async def test_signed_urls_that_are_refused(
    agent: PracticeAgent, http: ClientSession, query: str, headers: dict[str, str], status: int
) -> None:
    async with http.get(agent.base_url + SIGN + query, headers=headers) as answer:
        assert answer.status == status
        assert set((await answer.json())["detail"]) == {"status", "message"}


async def test_the_right_key_is_demanded(http: ClientSession) -> None:
    settings = config(api_key=SecretStr("sk_right"))
    async with PracticeAgent(settings, voice=ShortVoice()) as agent:
        for key, status in (("sk_wrong", 401), ("sk_right", 200)):
            headers = {"xi-api-key": key}
            async with http.get(f"{agent.base_url}{SIGN}?agent_id=x", headers=headers) as answer:
                assert answer.status == status
            url = f"{agent.base_url}/practice/conversations"
            async with http.get(url, headers=headers) as answer:
                assert answer.status == status
        with pytest.raises(WSServerHandshakeError):
            await http.ws_connect(f"{agent.socket_url}?agent_id=x", headers={"xi-api-key": "?"})
        await http.ws_connect(f"{agent.socket_url}?agent_id=x", headers={"xi-api-key": "sk_right"})
        assert (await agent.conversation()).authorization == "authorization_header"
        assert "sk_right" not in repr(settings)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("?agent_id=private", 401),
        ("?agent_id=x&conversation_signature=forged", 401),
        ("?agent_id=broken", 503),
    ],
)
async def test_handshakes_that_are_refused(
    agent: PracticeAgent, http: ClientSession, query: str, status: int
) -> None:
    with pytest.raises(WSServerHandshakeError) as caught:
        await http.ws_connect(agent.socket_url + query)
    assert caught.value.status == status


async def test_unknown_agents(http: ClientSession) -> None:
    book = AgentBook(default=None, agents={"known": AgentProfile()})
    async with PracticeAgent(config(book=book), voice=ShortVoice()) as agent:
        async with http.get(f"{agent.base_url}{SIGN}?agent_id=x", headers=KEY) as answer:
            assert answer.status == 404
        with pytest.raises(WSServerHandshakeError) as caught:
            await http.ws_connect(f"{agent.socket_url}?agent_id=x")
        assert caught.value.status == 404
        await http.ws_connect(f"{agent.socket_url}?agent_id=known")


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [((), None), (("convai",), "convai"), (("bearer.x", "convai"), "convai"), (("other",), None)],
)
async def test_the_subprotocol_is_chosen_when_it_is_offered(
    agent: PracticeAgent, http: ClientSession, offered: tuple[str, ...], chosen: str | None
) -> None:
    async with http.ws_connect(f"{agent.socket_url}?agent_id=x", protocols=offered) as socket:
        assert socket.protocol == chosen
        assert (await agent.conversation()).subprotocol == chosen


async def test_websocket_pings_are_answered(agent: PracticeAgent, http: ClientSession) -> None:
    url = f"{agent.socket_url}?agent_id=x"
    async with http.ws_connect(url, autoping=False, compress=15) as socket:
        assert socket.compress == 0
        await socket.ping(b"there?")
        message = await socket.receive()
        assert (message.type, message.data) == (WSMsgType.PONG, b"there?")


async def test_a_drop_has_no_close_frame(agent: PracticeAgent, http: ClientSession) -> None:
    async with http.ws_connect(f"{agent.socket_url}?agent_id=drops") as socket:
        await socket.send_json(INITIATION)
        await until(socket, "audio")
        message = await socket.receive()
        assert message.type is not WSMsgType.CLOSE
    record = await agent.conversation(ended=True)
    assert record.closing is not None
    assert (record.closing.code, record.closing.by) == (1006, "agent")


async def test_a_long_reason_is_cut(agent: PracticeAgent, http: ClientSession) -> None:
    async with http.ws_connect(f"{agent.socket_url}?agent_id=closes") as socket:
        message = await socket.receive()
        assert message.type is WSMsgType.CLOSE
        assert (message.data, message.extra) == (3008, "ü" * 61)


@pytest.mark.parametrize(
    ("agent_id", "kind"), [("garbage", WSMsgType.BINARY), ("rubbish", WSMsgType.TEXT)]
)
async def test_garbage_on_the_wire(
    agent: PracticeAgent, http: ClientSession, agent_id: str, kind: WSMsgType
) -> None:
    async with http.ws_connect(f"{agent.socket_url}?agent_id={agent_id}") as socket:
        await socket.send_json(INITIATION)
        await until(socket, "conversation_initiation_metadata")
        assert (await socket.receive()).type is kind


@pytest.mark.parametrize("code", [1005, 1001, 4000])
async def test_the_clients_close_code_is_kept(
    agent: PracticeAgent, http: ClientSession, code: int
) -> None:
    socket = await http.ws_connect(f"{agent.socket_url}?agent_id=x")
    if code == 1005:
        # A close frame without a body: final, opcode 8, masked, length 0.
        transport = socket._writer.transport
        transport.write(b"\x88\x80\x00\x00\x00\x00")
    else:
        await socket.close(code=code)
    record = await agent.conversation(ended=True)
    assert record.closing is not None
    assert (record.closing.code, record.closing.by) == (code, "client")
    await socket.close()


async def test_a_client_that_vanishes(agent: PracticeAgent, http: ClientSession) -> None:
    socket = await http.ws_connect(f"{agent.socket_url}?agent_id=x")
    await socket.send_json(INITIATION)
    await until(socket, "agent_response")
    transport = socket._writer.transport
    transport.abort()
    record = await agent.conversation(ended=True)
    assert record.closing is not None
    assert (record.closing.code, record.closing.by) == (1006, "lost")
    await socket.close()


async def test_agents_can_be_put_while_it_runs(agent: PracticeAgent, http: ClientSession) -> None:
    url = f"{agent.base_url}/practice/agents/late"
    async with http.put(url, json={"dialogue": {"first_message": "I am new"}}) as answer:
        assert answer.status == 204
    async with http.ws_connect(f"{agent.socket_url}?agent_id=late") as socket:
        await socket.send_json(INITIATION)
        response = await until(socket, "agent_response")
        assert response["agent_response_event"]["agent_response"] == "I am new"
    await agent.conversation(ended=True)
    async with http.get(f"{agent.base_url}/practice/conversations") as answer:
        (summary,) = (await answer.json())["conversations"]
        assert summary["transcript"][0]["text"] == "I am new"
    for body, place in (({"dialog": {}}, "dialog: "), (None, "body: ")):
        async with http.put(url, json=body) as answer:
            assert answer.status == 422
            assert (await answer.json())["detail"]["message"].startswith(place)


async def test_the_observer_hears_every_line(http: ClientSession) -> None:
    lines: list[TranscriptLine] = []
    async with (
        PracticeAgent(config(), observer=lines.append, voice=ShortVoice()) as agent,
        http.ws_connect(f"{agent.socket_url}?agent_id=x") as socket,
    ):
        await socket.send_json(INITIATION)
        await until(socket, "agent_response")
        await socket.send_json({"type": "user_message", "text": "hi"})
        await until(socket, "agent_response")
    spoken = [(line.speaker, line.text) for line in lines if line.speaker != "note"]
    assert spoken == [("agent", "Hello J"), ("caller", "hi"), ("agent", "yes")]


async def test_stopping_closes_open_sockets_and_can_be_done_twice(http: ClientSession) -> None:
    agent = PracticeAgent(config(), voice=ShortVoice())
    await agent.start()
    async with http.ws_connect(f"{agent.socket_url}?agent_id=x") as socket:
        await agent.conversation()
        stopping = asyncio.create_task(agent.stop())
        assert await closing(socket) == 1001
        await stopping
    await agent.stop()
    record = agent.conversations[0]
    assert record.closing is not None
    assert (record.closing.code, record.closing.by) == (1001, "agent")


async def test_a_taken_port(agent: PracticeAgent) -> None:
    port = int(agent.base_url.rpartition(":")[2])
    with pytest.raises(OSError, match="address already in use"):
        await PracticeAgent(config(port=port), voice=ShortVoice()).start()


async def test_over_tls(authority: trustme.CA) -> None:
    server_context = server_tls(authority, "127.0.0.1")
    connector = aiohttp.TCPConnector(ssl=client_tls(authority))
    async with (
        PracticeAgent(config(), ssl_context=server_context, voice=ShortVoice()) as agent,
        ClientSession(connector=connector) as http,
    ):
        assert agent.base_url.startswith("https://")
        async with http.get(f"{agent.base_url}{SIGN}?agent_id=x", headers=KEY) as answer:
            url = (await answer.json())["signed_url"]
        assert url.startswith("wss://")
        async with http.ws_connect(url) as socket:
            await socket.send_json(INITIATION)
            await until(socket, "agent_response")


async def test_serve_runs_until_it_is_stopped(http: ClientSession) -> None:
    stop = asyncio.Event()
    ready: asyncio.Future[PracticeAgent] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(config(), stop=stop, ready=ready))
    agent = await ready
    async with http.get(f"{agent.base_url}{SIGN}?agent_id=x", headers=KEY) as answer:
        assert answer.status == 200
    stop.set()
    await task
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(agent.base_url)


async def test_serve_without_anybody_waiting_for_it() -> None:
    stop = asyncio.Event()
    stop.set()
    await serve(config(voice="auto"), stop=stop)


async def test_faults_that_pass(agent: PracticeAgent, http: ClientSession) -> None:
    faults = Faults(
        times=2,
        retry_after_seconds=7,
        signed_url_status=429,
        handshake_status=503,
        close=CloseFault(code=1011),
    )
    agent.set_profile("ill", profile("yes", greeting="Hello", faults=faults))
    url = f"{agent.base_url}{SIGN}?agent_id=ill"
    for status in (429, 429, 200):
        async with http.get(url, headers=KEY) as answer:
            assert answer.status == status
            assert answer.headers.get("Retry-After") == ("7" if status == 429 else None)
    for _ in range(2):
        with pytest.raises(WSServerHandshakeError) as refused:
            await http.ws_connect(f"{agent.socket_url}?agent_id=ill")
        assert refused.value.status == 503
    for _ in range(2):
        async with http.ws_connect(f"{agent.socket_url}?agent_id=ill") as socket:
            assert await closing(socket) == 1011
    async with http.ws_connect(f"{agent.socket_url}?agent_id=ill") as socket:
        await socket.send_json(INITIATION)
        await until(socket, "agent_response")
    agent.set_profile("ill", profile("yes", faults=faults))
    async with http.get(url, headers=KEY) as answer:
        assert answer.status == 429, "a new profile begins anew"


async def test_a_frozen_socket_stays_open_and_answers_no_ping(
    agent: PracticeAgent, http: ClientSession
) -> None:
    agent.set_profile("ice", profile("yes", greeting="Hello", faults=Faults(freeze_after_ms=0)))
    async with http.ws_connect(f"{agent.socket_url}?agent_id=ice", autoping=False) as socket:
        await socket.ping(b"there?")
        with pytest.raises(TimeoutError):
            await socket.receive(timeout=0.3)
        assert not socket.closed
    record = await agent.conversation(ended=True)
    assert record.sent == {}
