"""Serving Twilio, over real HTTP: whole calls, both ways, who may come, and what comes after."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket as socket_module
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from xml.etree import ElementTree

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from ari_app.audio.g711 import pcm_to_ulaw
from ari_app.bridge import VoiceBridge
from ari_app.errors import ConfigError
from ari_app.line.twilio.signature import sign
from ari_app.settings import Settings
from lab.web import serving as web_serving
from tests.unit.agent.elevenlabs.fake_agent import API_KEY, FakeAgent, FakeConversation
from tests.unit.line.fake_twilio import ACCOUNT, PUBLIC_URL
from tests.unit.settings_maker import Make, settings_maker, unhurried
from tests.unit.test_custom import frame, handshake
from tests.waiting import PATIENCE_SECONDS, until

KEY = {"X-API-Key": "key-of-the-api"}
TOKEN = "0123456789abcdef0123456789abcdef"
CALL = "CA00000000000000000000000000000001"
OTHER = "CA00000000000000000000000000000002"
SAID = np.arange(1000, 1000 + 12 * 320, dtype="<i2")


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    """Settings for Twilio."""
    unhurried(monkeypatch)
    return settings_maker(
        monkeypatch,
        tmp_path,
        dialer_type="twilio",
        twilio_account_sid=ACCOUNT,
        twilio_auth_token=f"the-next-one, {TOKEN}",
        twilio_phone_number="+15550100002",
        api_public_url=PUBLIC_URL,
        api_bind="127.0.0.1:0",
        api_key=KEY["X-API-Key"],
        elevenlabs_api_key=API_KEY,
        elevenlabs_agent_id="agent_default",
    )


async def speaks(conversation: FakeConversation) -> None:
    """Say twelve frames, and go on listening."""
    await conversation.begin()
    await conversation.say(SAID.tobytes())
    await conversation.until_closed()


async def says_good_bye(conversation: FakeConversation) -> None:
    """Say twelve frames, and hang up."""
    await conversation.begin()
    await conversation.say(SAID.tobytes())
    await conversation.socket.close(1000)


class Rest:
    """The REST interface of Twilio's.

    Attributes:
        asked: Method, path and fields of each request.
        answers: What a path is answered instead.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, list[str]]]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.late: set[str] = set()
        self.app = web.Application()
        self.app.router.add_route("*", "/2010-04-01/Accounts/{rest:.*}", self._answer)

    async def _answer(self, request: web.Request) -> web.Response:
        fields = parse_qs((await request.read()).decode(), keep_blank_values=True)
        path = request.path.removeprefix(f"/2010-04-01/Accounts/{ACCOUNT}")
        self.asked.append((request.method, path, fields))
        wanted = base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {wanted}":
            return web.json_response({"code": 20003}, status=401)
        key = f"{request.method} {path}"
        if key in self.late:
            await asyncio.sleep(60)
        status, body = self.answers.get(key, (200, {"sid": CALL, "status": "in-progress"}))
        return web.json_response(body, status=status)

    def of(self, method: str, path: str) -> list[dict[str, list[str]]]:
        """The fields of what was asked."""
        return [fields for how, where, fields in self.asked if (how, where) == (method, path)]


class Twilio:
    """A service that runs, and a Twilio that calls it."""

    def __init__(self, bridge: VoiceBridge, session: aiohttp.ClientSession, rest: Rest) -> None:
        self.bridge, self.session, self.rest = bridge, session, rest
        self.sockets: list[aiohttp.ClientWebSocketResponse] = []

    async def posts(
        self, path: str, *, token: str = TOKEN, headers: dict[str, str] | None = None, **fields: Any
    ) -> tuple[int, str]:
        """Send a signed webhook; the status and the body of the answer."""
        form = {
            "CallSid": CALL,
            "AccountSid": ACCOUNT,
            "From": "+15550100001",
            "To": "+15550100002",
            "CallStatus": "ringing",
            "Direction": "inbound",
            "FromCity": "",
            **fields,
        }
        text = PUBLIC_URL + path + "".join(name + form[name] for name in sorted(form))
        signed = {"X-Twilio-Signature": sign(token.encode(), text).decode()}
        async with self.session.post(
            path,
            data=urlencode(form),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                **(signed if headers is None else headers),
            },
        ) as answer:
            return answer.status, await answer.text()

    async def calls(self, path: str = "/twilio/voice", **fields: Any) -> str:
        """Somebody calls; the path of the stream that Twilio is to open."""
        status, document = await self.posts(path, **fields)
        assert status == 200, document
        stream = ElementTree.fromstring(document).find("./Connect/Stream")
        assert stream is not None, document
        url = urlsplit(stream.attrib["url"])
        assert (url.scheme, url.netloc, url.query) == ("wss", "bridge.example.com", "")
        return url.path

    async def opens(self, path: str) -> aiohttp.ClientWebSocketResponse:
        """Open a stream, as Twilio does."""
        url = PUBLIC_URL.replace("https", "wss") + path
        headers = {"X-Twilio-Signature": sign(TOKEN.encode(), url).decode()}
        self.sockets.append(await self.session.ws_connect(path, headers=headers))
        return self.sockets[-1]

    async def streams(self, path: str, call_sid: str = CALL) -> aiohttp.ClientWebSocketResponse:
        """Open a stream and begin it."""
        socket = await self.opens(path)
        await socket.send_json({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        await socket.send_json(begin(call_sid))
        return socket

    def refused(self) -> dict[str, float]:
        """The reasons for which something was refused, and how often."""
        return {
            sample.labels["reason"]: sample.value
            for metric in self.bridge.metrics.twilio_refused_total.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }

    def ends(self) -> list[str | None]:
        return [record.end_reason for record in self.bridge.calls.records.values()]

    async def initiate(self, **wish: Any) -> tuple[int, dict[str, Any]]:
        path = "/webhook/initiate-call"
        async with self.session.post(path, json=wish, headers=KEY) as answer:
            return answer.status, await answer.json()


def begin(call_sid: str = CALL) -> dict[str, Any]:
    return {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": "MZ1",
        "start": {
            "accountSid": ACCOUNT,
            "streamSid": "MZ1",
            "callSid": call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        },
    }


def media(ulaw: bytes = b"\xff" * 160) -> dict[str, Any]:
    payload = base64.b64encode(ulaw).decode()
    return {
        "event": "media",
        "streamSid": "MZ1",
        "media": {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": payload},
    }


async def hears(socket: aiohttp.ClientWebSocketResponse, seconds: float) -> bytes:
    """What is sent until so much has come; marks are answered at once."""
    heard = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(heard) < seconds * 8000:
            message = json.loads(await socket.receive_str())
            if message["event"] == "media":
                heard += base64.b64decode(message["media"]["payload"])
            elif message["event"] == "mark":
                await socket.send_json(message)
    return heard


@asynccontextmanager
async def serving(make: Make, agent: FakeAgent, **changes: Any) -> AsyncIterator[Twilio]:
    rest = Rest()
    async with web_serving(rest.app) as url:
        settings: Settings = make(
            elevenlabs_base_url=agent.base_url, twilio_api_base_url=url, **changes
        )
        async with VoiceBridge(settings) as bridge:
            run = asyncio.create_task(bridge.run())
            await until(lambda: rest.of("GET", ".json") and not bridge.readiness().problems)
            async with aiohttp.ClientSession("http://{}:{}".format(*bridge.api_address)) as session:
                it = Twilio(bridge, session, rest)
                yield it
                for call_sid in (CALL, OTHER):
                    await it.posts("/twilio/status", CallSid=call_sid, CallStatus="completed")
                for socket in it.sockets:
                    await socket.close()
                bridge.stop()
                bridge.stop()
                await run


# --- calls that come in


async def test_a_call_comes_in_and_is_heard_from_its_first_sample(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        path = await it.calls("/twilio/voice?agent_id=agent_7&customer=Jane")
        socket = await it.streams(path)
        heard = np.frombuffer(await hears(socket, 0.2), np.uint8)
        assert heard[0] != 0xFF, "no silence comes before it"
        (record,) = it.bridge.calls.records.values()
        assert (record.line_id, record.agent_id) == (CALL, "agent_7")
        assert (record.caller_number, record.called_number) == ("+15550100001", "+15550100002")
        assert record.line_format == "ulaw_8000"
        (conversation,) = agent.conversations
        told = json.loads(conversation.frames[0])["dynamic_variables"]
        assert told["customer"] == "Jane"
        assert told["call_sid"] == CALL
        await socket.send_json(media())
        await socket.send_json(
            {"event": "dtmf", "streamSid": "MZ1", "dtmf": {"track": "inbound_track", "digit": "5"}}
        )
        await socket.send_json({"event": "stop", "streamSid": "MZ1", "stop": {}})
        await until(lambda: it.ends() == ["caller_hung_up"])
        assert it.rest.of("POST", f"/Calls/{CALL}.json") == [], "it is over at Twilio"
        assert it.refused() == {}


async def test_last_words_are_heard_before_it_goes_on(make: Make) -> None:
    async with FakeAgent(says_good_bye) as agent, serving(make, agent) as it:
        socket = await it.streams(await it.calls())
        heard, marks = b"", []
        loop = asyncio.get_running_loop()
        last_audio = 0.0
        while True:
            message = await socket.receive(timeout=PATIENCE_SECONDS)
            if message.type is not aiohttp.WSMsgType.TEXT:
                break
            told = json.loads(message.data)
            if told["event"] == "media":
                heard += base64.b64decode(told["media"]["payload"])
                last_audio = loop.time()
            elif told["event"] == "mark":
                marks.append(told["mark"]["name"])
                if len(heard) >= 1920:
                    await asyncio.sleep(0.5)
                await socket.send_json(told)
        assert len(heard) >= 1920
        assert loop.time() - last_audio > 0.5, "it waited for the mark"
        status, document = await it.posts("/twilio/after", CallStatus="in-progress")
        assert status == 200
        assert ElementTree.fromstring(document)[0].tag == "Hangup"
        await until(lambda: it.bridge.calls.count() == 0)
        assert it.rest.of("POST", f"/Calls/{CALL}.json") == []


async def test_a_retry_gets_the_same_answer_and_a_replay_none(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        first, second = await asyncio.gather(it.calls(), it.calls())
        assert first == second == await it.calls()
        assert len(it.bridge.calls.records) == 1
        socket = await it.streams(first)
        await hears(socket, 0.1)
        await socket.send_json({"event": "stop", "streamSid": "MZ1", "stop": {}})
        await until(lambda: it.bridge.calls.count() == 0)
        it.rest.answers[f"GET /Calls/{CALL}.json"] = (200, {"sid": CALL, "status": "completed"})
        await until(lambda: not it.bridge.gateways[0]._lines)  # type: ignore[attr-defined]
        status, _ = await it.posts("/twilio/voice")
        assert (status, it.refused()) == (403, {"replayed": 1})
        it.rest.answers[f"GET /Calls/{CALL}.json"] = (200, {"sid": CALL, "status": "in-progress"})
        await it.calls(CallStatus="in-progress")
        assert len(it.bridge.calls.records) == 2, "another document has sent it back to us"


@pytest.mark.parametrize("how", ["fails", "is late"])
async def test_who_is_sent_back_gets_an_agent_though_rest_fails(
    make: Make, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("ari_app.line.twilio.gateway._LOOK_SECONDS", 0.2)
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        socket = await it.streams(await it.calls())
        await socket.send_json({"event": "stop", "streamSid": "MZ1", "stop": {}})
        await until(lambda: it.bridge.calls.count() == 0)
        await until(lambda: not it.bridge.gateways[0]._lines)  # type: ignore[attr-defined]
        if how == "fails":
            it.rest.answers[f"GET /Calls/{CALL}.json"] = (503, {"code": 20503})
        else:
            it.rest.late.add(f"GET /Calls/{CALL}.json")
        await it.calls(CallStatus="in-progress")
        assert len(it.bridge.calls.records) == 2


async def test_at_the_limit_it_goes_elsewhere_unanswered(make: Make) -> None:
    async with FakeAgent(speaks) as agent:
        async with serving(make, agent, max_concurrent_calls=1) as it:
            await it.calls()
            _, document = await it.posts("/twilio/voice", CallSid=OTHER)
            assert "<Reject" in document
            it.bridge.drain()
            _, document = await it.posts("/twilio/voice", CallSid=OTHER)
            assert "<Reject" in document
        url = "https://ivr.example/human?queue=7"
        async with serving(make, agent, max_concurrent_calls=1, twilio_fallback_url=url) as it:
            await it.calls()
            _, document = await it.posts("/twilio/voice", CallSid=OTHER)
            redirect = ElementTree.fromstring(document)[0].text or ""
            assert parse_qs(urlsplit(redirect).query)["AGENT_REASON"] == ["at_capacity"]
            assert "queue=7" in redirect


async def test_without_an_agent_it_goes_elsewhere_unanswered(make: Make) -> None:
    async def refuses(conversation: FakeConversation) -> None:
        await conversation.socket.close(1008)

    number = "+15550100009"
    async with (
        FakeAgent(refuses) as agent,
        serving(make, agent, twilio_fallback_number=number) as it,
    ):
        _, document = await it.posts("/twilio/voice")
        dial = ElementTree.fromstring(document)[0]
        assert (dial.tag, dial[0].text) == ("Dial", number)
        assert dial.attrib["callerId"] == "+15550100001"


# --- who may come


async def test_who_is_not_twilio_gets_no_answer(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        for path in ("/twilio/voice", "/twilio/after", "/twilio/status"):
            assert (await it.posts(path, headers={}))[0] == 403
            assert (await it.posts(path, token="guessed"))[0] == 403
        path = await it.calls()
        for wanted, url, headers in (
            (403, path, {}),
            (403, path, {"X-Twilio-Signature": "x"}),
            (403, path, {"X-Twilio-Signature": sign(TOKEN.encode(), PUBLIC_URL + path).decode()}),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
                await it.session.ws_connect(url, headers=headers)
            assert refusal.value.status == wanted
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await it.opens("/twilio/media/unknown")
        assert refusal.value.status == 404
        socket = await it.streams(path)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            await it.opens(path)
        assert refusal.value.status == 404
        await hears(socket, 0.1)
        assert it.refused() == {
            "unsigned": 4,
            "wrong_signature": 5,
            "unknown_token": 1,
            "token_used": 1,
        }


async def test_no_secret_and_no_number_is_in_the_log(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        with capture_logs() as logs:
            path = await it.calls("/twilio/voice?customer=Jane")
            socket = await it.streams(path)
            await hears(socket, 0.1)
            await it.posts("/twilio/status", token="guessed")
            await socket.send_str("{")
            await it.posts("/twilio/after", CallStatus="in-progress")
            await until(lambda: it.ends() == ["twilio_malformed"])
        told = str(logs)
        for secret in (path.rpartition("/")[2], TOKEN, "Jane", "5550100001"):
            assert secret not in told.replace("Number", "")


# --- bad input on the wire


async def oversized(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_str("x" * 70_000)


async def binary(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_bytes(b"\xff" * 160)


async def no_frame(socket: aiohttp.ClientWebSocketResponse) -> None:
    transport = socket._writer.transport
    assert transport is not None
    transport.write(b"\xff" * 8)


async def twice(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_json(begin())


async def foreign(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_json(media() | {"streamSid": "MZ2"})


async def other_mark(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_json({"event": "mark", "streamSid": "MZ1", "mark": {"name": "5.5"}})


async def flood(socket: aiohttp.ClientWebSocketResponse) -> None:
    for _ in range(11):
        await socket.send_json(media(b"\xff" * 30_000))


@pytest.mark.parametrize(
    ("sends", "reason"),
    [
        (oversized, "oversized"),
        (binary, "malformed"),
        (no_frame, "malformed"),
        (twice, "twice"),
        (foreign, "wrong_stream"),
        (other_mark, "unknown_mark"),
        (flood, "too_fast"),
    ],
)
async def test_it_is_closed_and_nothing_else_is_disturbed(
    make: Make, sends: Callable[[aiohttp.ClientWebSocketResponse], Any], reason: str
) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        good = await it.streams(await it.calls())
        bad = await it.streams(await it.calls(CallSid=OTHER), OTHER)
        await hears(good, 0.1)
        await sends(bad)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await bad.receive()).type not in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.ERROR,
            ):
                pass
        _, document = await it.posts("/twilio/after", CallSid=OTHER, CallStatus="in-progress")
        assert "<Hangup" in document
        await until(lambda: f"twilio_{reason}" in it.ends())
        assert it.refused() == {reason: 1}
        await hears(good, 0.1)
        assert not good.closed


async def test_a_stream_of_another_call_is_closed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ari_app.line.twilio.line._AFTER_SECONDS", 0.1)
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        socket = await it.streams(await it.calls(), OTHER)
        message = await socket.receive(timeout=PATIENCE_SECONDS)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert it.refused() == {"wrong_call": 1}
        # Nobody asks what comes after it, so Twilio is told.
        await until(lambda: bool(it.rest.of("POST", f"/Calls/{CALL}.json")))
        (fields,) = it.rest.of("POST", f"/Calls/{CALL}.json")
        assert "<Hangup" in fields["Twiml"][0]


async def test_a_call_whose_stream_is_not_read_is_given_back_all_the_same(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ari_app.line.twilio.line._AFTER_SECONDS", 0.1)
    loop = asyncio.get_running_loop()

    async def speaks_on(conversation: FakeConversation) -> None:
        await conversation.begin()
        await conversation.say(bytes(np.tile(SAID, 200)))
        await conversation.until_closed()

    async def sends() -> None:
        while True:
            with contextlib.suppress(ConnectionError):
                await loop.sock_sendall(deaf, said(media()))
            await asyncio.sleep(0.02)

    def said(message: dict[str, Any]) -> bytes:
        return frame(json.dumps(message).encode(), text=True)

    async with FakeAgent(speaks_on) as agent, serving(make, agent) as it:
        path = await it.calls()
        signed = sign(TOKEN.encode(), PUBLIC_URL.replace("https", "wss") + path).decode()
        head = handshake(path).replace(b"Host:", f"X-Twilio-Signature: {signed}\r\nHost:".encode())
        with socket_module.socket() as deaf:
            deaf.setsockopt(socket_module.SOL_SOCKET, socket_module.SO_RCVBUF, 2048)
            deaf.setblocking(False)
            await loop.sock_connect(deaf, it.bridge.api_address)
            connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
            await loop.sock_sendall(deaf, head + said(connected) + said(begin()))
            (record,) = it.bridge.calls.records.values()
            sending = asyncio.create_task(sends())
            control = it.bridge.control
            await until(lambda: control.record(record.session_id).sound.frames_not_read > 5)
            await control.end(record.session_id)
            sending.cancel()
        (fields,) = it.rest.of("POST", f"/Calls/{CALL}.json")
        assert "<Hangup" in fields["Twiml"][0]


async def test_a_stream_that_does_not_begin_is_closed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ari_app.line.twilio.stream.START_SECONDS", 0.1)
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        socket = await it.opens(await it.calls())
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert it.refused() == {"no_start": 1}
        # Twilio then asks what comes next: without that, the call's end is waited for.
        status, _ = await it.posts("/twilio/after", CallStatus="in-progress")
        assert status == 200


async def test_bodies_that_cannot_be_used(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        async with it.session.post("/twilio/voice", data=b"x" * 70_000) as answer:
            assert answer.status == 413
        monkeypatch.setattr("ari_app.line.twilio.gateway._BODY_SECONDS", 0.1)
        reader, writer = await asyncio.open_connection(*it.bridge.api_address)
        writer.write(
            b"POST /twilio/voice HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\nA="
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert b" 408 " in await reader.readline()
        writer.close()
        monkeypatch.setattr("ari_app.line.twilio.gateway._BODY_SECONDS", PATIENCE_SECONDS)
        async with it.session.post("/twilio/voice", data=b"{}") as answer:
            assert answer.status == 403
        assert it.refused() == {"oversized": 1, "too_late": 1, "unsigned": 1}


async def test_a_body_that_breaks_off_is_no_failure_of_ours(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        for path in ("voice", "status"):
            _, writer = await asyncio.open_connection(*it.bridge.api_address)
            writer.write(
                f"POST /twilio/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n".encode()
                + b"Content-Type: application/x-www-form-urlencoded\r\n\r\nA="
            )
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        await until(lambda: it.refused() == {"malformed": 2})


# --- calls that we place


async def test_a_call_is_placed(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        it.rest.answers["POST /Calls.json"] = (201, {"sid": CALL, "status": "queued"})
        status, answer = await it.initiate(
            called_number="+15550100005", ring_timeout_seconds=25, session_id="s1"
        )
        assert status == 200, answer
        await until(lambda: bool(it.rest.of("POST", "/Calls.json")))
        (fields,) = it.rest.of("POST", "/Calls.json")
        assert (fields["To"], fields["From"]) == (["+15550100005"], ["+15550100002"])
        assert fields["Timeout"] == ["25"]
        assert fields["StatusCallbackEvent"] == ["initiated", "ringing", "answered", "completed"]
        assert len(fields["Twiml"][0]) < 4000
        callback = fields["StatusCallback"][0].removeprefix(PUBLIC_URL)
        assert callback == "/twilio/status?call=s1"
        stream = ElementTree.fromstring(fields["Twiml"][0]).find("./Connect/Stream")
        assert stream is not None
        assert (await it.posts(callback, CallStatus="ringing"))[0] == 204
        await until(lambda: bool(agent.conversations))
        socket = await it.streams(urlsplit(stream.attrib["url"]).path)
        await hears(socket, 0.1)
        await it.posts(callback, CallStatus="in-progress")
        await it.posts(callback, CallStatus="completed", SipResponseCode="200")
        record = it.bridge.control.record("s1")
        await until(lambda: record.ended_at is not None)
        assert (record.result, record.end_reason) == ("answered", "caller_hung_up")
        assert (record.sip_code, record.hangup_cause) == (200, 16)


async def test_nobody_answers(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        it.rest.answers["POST /Calls.json"] = (201, {"sid": CALL, "status": "queued"})
        await it.initiate(called_number="+15550100005", session_id="s1")
        await until(lambda: bool(it.rest.of("POST", "/Calls.json")))
        await it.posts("/twilio/status?call=s1", CallStatus="busy", SipResponseCode="486")
        record = it.bridge.control.record("s1")
        await until(lambda: record.ended_at is not None)
        assert (record.result, record.sip_code, record.hangup_cause) == ("busy", 486, 17)


async def test_a_refusal_says_why(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        it.rest.answers["POST /Calls.json"] = (400, {"code": 21211, "message": "+15550100005 is"})
        await it.initiate(called_number="+15550100005", session_id="s1")
        record = it.bridge.control.record("s1")
        await until(lambda: record.ended_at is not None)
        assert (record.result, record.detail) == (
            "invalid_number",
            "Twilio refused it (error 21211).",
        )
        assert len(it.rest.of("POST", "/Calls.json")) == 1


async def test_a_call_whose_answer_was_lost_is_found_and_not_placed_again(make: Make) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent) as it:
        it.rest.answers["POST /Calls.json"] = (500, {})
        made = "Fri, 01 Jan 2100 00:00:00 +0000"
        found = {
            "sid": CALL,
            "status": "ringing",
            "direction": "outbound-api",
            "date_created": made,
        }
        it.rest.answers["GET /Calls.json"] = (200, {"calls": [found]})
        await it.initiate(called_number="+15550100005", session_id="s1")
        await until(lambda: bool(it.rest.of("GET", "/Calls.json")))
        await it.bridge.control.end("s1")
        await until(lambda: bool(it.rest.of("POST", f"/Calls/{CALL}.json")))
        assert it.rest.of("POST", f"/Calls/{CALL}.json") == [{"Status": ["completed"]}]
        assert len(it.rest.of("POST", "/Calls.json")) == 1


@pytest.mark.parametrize(
    ("verdict", "status", "reason"),
    [("human", "HUMAN", None), ("machine_start", "MACHINE", "machine_detected")],
)
async def test_a_machine_is_found(
    make: Make, verdict: str, status: str, reason: str | None
) -> None:
    async with FakeAgent(speaks) as agent, serving(make, agent, amd_on_machine="hang_up") as it:
        it.rest.answers["POST /Calls.json"] = (201, {"sid": CALL, "status": "queued"})
        await it.initiate(called_number="+15550100005", session_id="s1", amd=True)
        await until(lambda: bool(it.rest.of("POST", "/Calls.json")))
        (fields,) = it.rest.of("POST", "/Calls.json")
        assert (fields["AsyncAmd"], fields["MachineDetection"]) == (["true"], ["Enable"])
        stream = ElementTree.fromstring(fields["Twiml"][0]).find("./Connect/Stream")
        assert stream is not None
        socket = await it.streams(urlsplit(stream.attrib["url"]).path)
        assert agent.conversations == [], "it is told who has answered"
        await it.posts("/twilio/status?call=s1", CallStatus="", AnsweredBy=verdict)
        record = it.bridge.control.record("s1")
        if reason is None:
            await hears(socket, 0.1)
        else:
            await until(lambda: record.end_reason == reason)
        assert record.metadata["amd_status"] == status


# --- settings and readiness


async def test_a_refused_token_is_told(make: Make) -> None:
    rest = Rest()
    async with (
        web_serving(rest.app) as url,
        VoiceBridge(make(twilio_api_base_url=url, twilio_auth_token="old")) as bridge,
    ):
        run = asyncio.create_task(bridge.run())
        await until(lambda: bool(bridge.readiness().problems))
        assert "TWILIO_AUTH_TOKEN" in bridge.readiness().problems[0]
        bridge.stop()
        await run


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"twilio_account_sid": None}, "TWILIO_ACCOUNT_SID is empty or not set"),
        ({"twilio_auth_token": "", "api_public_url": None}, "TWILIO_AUTH_TOKEN and API_PUBLIC_URL"),
        ({"api_public_url": "http://bridge.example.com"}, "must begin with https://"),
        ({"twilio_region": "ie1"}, "TWILIO_REGION and TWILIO_EDGE belong together"),
    ],
)
async def test_what_is_needed(make: Make, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        async with VoiceBridge(make(**changes)):
            pass


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"twilio_account_sid": "12"}, "TWILIO_ACCOUNT_SID: must be AC"),
        ({"twilio_auth_token": "a,,b"}, "TWILIO_AUTH_TOKEN: must be one auth token or several"),
        ({"twilio_phone_number": "5550100"}, "TWILIO_PHONE_NUMBER: The number is not in"),
        ({"twilio_fallback_url": "ivr.example"}, "TWILIO_FALLBACK_URL: must be a URL"),
        ({"twilio_region": "Ireland"}, "TWILIO_REGION: must be the name of a region"),
    ],
)
def test_settings_that_do_not_fit(make: Make, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make(**changes)


def test_where_twilio_answers(make: Make) -> None:
    assert make().twilio_api_url == "https://api.twilio.com"
    region = make(twilio_region="ie1", twilio_edge="dublin")
    assert region.twilio_api_url == "https://api.dublin.ie1.twilio.com"


def test_sound_is_the_one_that_was_said() -> None:
    assert len(pcm_to_ulaw(SAID.tobytes())) == SAID.size
