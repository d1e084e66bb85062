"""The lab's Twilio against a small server of a customer's, on real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, web

from lab.softphone import CallFailed, CallOver
from lab.softphone.sounds import tone
from lab.twilio import Callee, Number, Post, RestError, StreamFaults, Twilio
from lab.twilio.signatures import sign
from lab.web import serving
from tests.waiting import until

ORIGIN = "https://bridge.test"
CALLER, NUMBER, OTHER = "+15550100001", "+15550100002", "+15550100003"
STREAM = (
    '<Connect action="/after"><Stream url="wss://bridge.test/media/t1" statusCallback="/stream">'
    '<Parameter name="plan" value="gold"/></Stream></Connect>'
)

Socket = web.WebSocketResponse
Talk = Callable[[Socket], Coroutine[Any, Any, None]]


@dataclass
class Customer:
    """Answers webhooks with what a test has put there, and holds the streams."""

    twilio: Twilio
    answers: dict[str, list[web.Response]] = field(default_factory=dict)
    posts: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    signed: list[bool] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    talk: Talk | None = None
    delay: float = 0.0

    def says(self, path: str, *inner: str) -> None:
        self.answers[path] = [
            web.Response(text=f"<Response>{each}</Response>", content_type="text/xml")
            for each in inner
        ]

    async def webhook(self, request: web.Request) -> web.StreamResponse:
        fields = {name: str(value) for name, value in (await request.post()).items()}
        self.posts.append((request.path, fields))
        self.tokens.append(request.headers["I-Twilio-Idempotency-Token"])
        right = sign(f"{ORIGIN}{request.path_qs}", fields.items(), self.twilio.auth_token)
        self.signed.append(request.headers.get("X-Twilio-Signature") == right)
        await asyncio.sleep(self.delay)
        waiting = self.answers.get(request.path, [])
        if not waiting:
            return web.Response(status=204)
        given = waiting.pop(0)
        return web.Response(body=given.body, status=given.status, headers=given.headers)

    async def media(self, request: web.Request) -> web.StreamResponse:
        self.headers = dict(request.headers)
        if not request.path.endswith("/t1"):
            return web.Response(status=403)
        right = sign(f"wss://bridge.test{request.path}", (), self.twilio.auth_token)
        self.signed.append(request.headers.get("X-Twilio-Signature") == right)
        socket = Socket(compress=False)
        await socket.prepare(request)
        talk = asyncio.create_task(self.talk(socket)) if self.talk else None
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                self.messages.append(json.loads(message.data))
        if talk is not None:
            await talk
        return socket

    def events(self) -> list[str]:
        return [message["event"] for message in self.messages]

    def told(self, path: str) -> list[dict[str, str]]:
        return [fields for where, fields in self.posts if where == path]

    @property
    def stream_sid(self) -> str:
        return str(self.messages[1]["streamSid"])


@contextlib.asynccontextmanager
async def customer() -> AsyncIterator[Customer]:
    app = web.Application()
    origins: dict[str, str] = {}
    async with Twilio(origins, calls_a_second=100) as twilio:
        server = Customer(twilio)
        app.router.add_get("/media/{token}", server.media)
        app.router.add_post("/{path:.*}", server.webhook)
        async with serving(app) as url:
            origins[ORIGIN] = url
            twilio.numbers[NUMBER] = Number(
                f"{ORIGIN}/voice?agent_id=a1", f"{ORIGIN}/fallback", f"{ORIGIN}/status"
            )
            yield server


async def test_a_call_comes_in_and_streams() -> None:
    async with customer() as c:
        c.says("/voice", STREAM)
        call = c.twilio.call(CALLER, NUMBER)
        await call.answered()
        await until(lambda: c.events().count("media") >= 5)
        await call.stream.press("5")
        await call.hang_up()
        await until(lambda: c.told("/status") and len(c.told("/stream")) == 2)
    assert all(c.signed)
    voice = c.told("/voice")[0]
    assert (voice["CallStatus"], voice["Direction"], voice["From"]) == (
        "ringing",
        "inbound",
        CALLER,
    )
    assert voice["FromCity"] == "", "an empty field is sent, and signed"
    assert c.told("/status")[0]["CallStatus"] == "completed"
    assert [each["StreamEvent"] for each in c.told("/stream")] == [
        "stream-started",
        "stream-stopped",
    ]
    assert c.headers["User-Agent"] == "Twilio.TmeWs/1.0"
    assert not {"Origin", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"} & c.headers.keys()
    connected, start, first, *_, stop = c.messages
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    sid = start["streamSid"]
    assert start == {
        "event": "start",
        "sequenceNumber": "1",
        "streamSid": sid,
        "start": {
            "accountSid": c.twilio.account_sid,
            "streamSid": sid,
            "callSid": call.sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"plan": "gold"},
        },
    }
    silence = base64.b64encode(b"\xff" * 160).decode()
    assert first["media"] == {
        "track": "inbound",
        "chunk": "1",
        "timestamp": "100",
        "payload": silence,
    }
    dtmf = next(message for message in c.messages if message["event"] == "dtmf")
    assert dtmf["dtmf"] == {"track": "inbound_track", "digit": "5"}
    assert stop["stop"] == {"accountSid": c.twilio.account_sid, "callSid": call.sid}
    assert [int(m["sequenceNumber"]) for m in c.messages[1:]] == list(range(1, len(c.messages)))
    assert not c.twilio.notes


async def test_what_the_server_says_is_heard_and_marks_come_back() -> None:
    async with customer() as c:
        c.says("/voice", STREAM)

        async def talk(socket: Socket) -> None:
            await until(lambda: len(c.messages) > 2)
            sound = base64.b64encode(b"\x80" * 1600).decode()
            for said in (
                {"event": "media", "media": {"payload": sound}},
                {"event": "mark", "mark": {"name": "end"}},
            ):
                await socket.send_json({"streamSid": c.stream_sid, **said})
            await until(lambda: "mark" in c.events())
            await socket.close()

        c.talk = talk
        c.says("/after", "<Hangup/>")
        call = c.twilio.call(CALLER, NUMBER)
        await call.answered()
        await call.wait_for_sound()
        ending = await call.ended
    assert ending.by == "far"
    (played,) = call.stream.playout.played
    assert (played.name, played.cleared) == ("end", False)
    assert played.at - call.stream.playout.told[0].at > 0.18
    assert [verb.name for verb in call.verbs] == ["Connect", "Hangup"]
    assert c.twilio.codes() == [31921], "even where it was intended"
    assert c.told("/after")[0]["CallStatus"] == "in-progress"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"\0", 31950),
        ("{", 31951),
        ('{"event": "hangup"}', 31951),
        ('{"event": "clear", "streamSid": "MZ0"}', 31951),
        ('{"event": "clear", "streamSid": "SID", "extra": 1}', 31951),
        ('{"event": "clear", "stream_sid": "SID"}', 31951),
        ('{"event": "mark", "streamSid": "SID", "mark": {}}', 31951),
        ('{"event": "media", "streamSid": "SID", "media": {"payload": "%%"}}', 31951),
        ('{"event": "media", "streamSid": "SID", "media": {"payload": "", "track": "x"}}', 31951),
    ],
)
async def test_what_twilio_does_not_take_is_told_once(said: str | bytes, code: int) -> None:
    async with customer() as c:
        c.says("/voice", STREAM)

        async def talk(socket: Socket) -> None:
            await until(lambda: len(c.messages) > 2)
            for _ in range(2):
                if isinstance(said, bytes):
                    await socket.send_bytes(said)
                else:
                    await socket.send_str(said.replace("SID", c.stream_sid))

        c.talk = talk
        call = c.twilio.call(CALLER, NUMBER)
        await call.answered()
        await until(lambda: call.streams and len(call.stream.invalid) == 2)
        await call.hang_up()
        assert c.twilio.codes() == [code]


@pytest.mark.parametrize(
    "frames", [b"\x01\x01{\x80\x01}", b"\xc1\x01{"], ids=["split", "compressed"]
)
async def test_frames_that_end_the_call(frames: bytes) -> None:
    async with customer() as c:
        c.says("/voice", STREAM)

        async def talk(socket: Socket) -> None:
            transport = socket._req.transport if socket._req else None
            assert transport is not None
            transport.write(frames)

        c.talk = talk
        call = c.twilio.call(CALLER, NUMBER)
        assert (await call.ended).by == "network"
        assert c.twilio.codes() == [31924]


async def test_an_upgrade_that_is_refused_ends_the_call() -> None:
    async with customer() as c:
        c.twilio.faults = StreamFaults(url=f"{ORIGIN}/media/old".replace("https", "wss"))
        c.says("/voice", STREAM)
        call = c.twilio.call(CALLER, NUMBER)
        await call.ended
        assert (call.stream.status, c.twilio.codes()) == (403, [31920])


async def test_an_address_that_is_not_wss() -> None:
    async with customer() as c:
        c.says("/voice", STREAM.replace("wss:", "ws:"))
        await c.twilio.call(CALLER, NUMBER).ended
        assert c.twilio.codes() == [31922]


async def test_faults_of_the_greeting() -> None:
    async with customer() as c:
        c.twilio.faults = StreamFaults(greeting=("start",), call_sid="CA0", signing="https")
        c.says("/voice", STREAM)
        call = c.twilio.call(CALLER, NUMBER)
        await until(lambda: "media" in c.events())
        assert c.messages[0]["start"]["callSid"] == "CA0"
        assert c.signed.count(False) == 1
        await call.hang_up()


async def test_a_stall_a_burst_and_a_jump() -> None:
    async with customer() as c:
        c.twilio.faults = StreamFaults(stalls={3: 0.2}, jumps={5: 400})
        c.says("/voice", STREAM)
        call = c.twilio.call(CALLER, NUMBER)
        await until(lambda: c.events().count("media") > 12)
        await call.hang_up()
    media = [message["media"] for message in c.messages if message["event"] == "media"]
    assert [each["chunk"] for each in media] == [str(n + 1) for n in range(len(media))]
    assert [each["timestamp"] for each in media[:6]] == ["100", "120", "140", "160", "580", "600"]


@pytest.mark.parametrize("how", ["reset", "close", "half"])
async def test_ways_in_which_a_stream_breaks(how: str) -> None:
    async with customer() as c:
        c.says("/voice", STREAM)
        call = c.twilio.call(CALLER, NUMBER)
        await until(lambda: "media" in c.events())
        match how:
            case "reset":
                call.stream.reset()
            case "close":
                call.stream.skip_stop()
                await call.hang_up()
            case "half":
                call.stream.go_silent()
                said = call.stream._sequence
                await asyncio.sleep(0.1)
                assert call.stream._sequence == said
                await call.hang_up()
        await call.ended
        assert "stop" not in c.events()


async def test_what_comes_after_a_broken_stream_may_be_asked() -> None:
    async with customer() as c:
        c.twilio.asks_after_errors = True
        c.says("/voice", STREAM)
        c.says("/after", "<Hangup/>")
        call = c.twilio.call(CALLER, NUMBER)
        await until(lambda: "media" in c.events())
        call.stream.reset()
        await call.ended
        assert [verb.name for verb in call.verbs] == ["Connect", "Hangup"]
        await until(lambda: len(c.told("/stream")) == 2)
        assert c.told("/stream")[-1]["StreamEvent"] == "stream-error"


async def test_a_webhook_that_fails_has_a_fallback() -> None:
    async with customer() as c:
        c.answers["/voice"] = [web.Response(status=500)]
        c.says("/fallback", '<Reject reason="busy"/>')
        call = c.twilio.call(CALLER, NUMBER)
        with pytest.raises(CallFailed):
            await call.answered()
        assert c.told("/fallback")[0]["ErrorCode"] == "11200"
        assert (call.status, c.twilio.codes()) == ("busy", [11200])


async def test_a_webhook_that_does_not_answer_is_asked_again_as_the_address_says() -> None:
    async with customer() as c:
        c.twilio.webhooks.patience = 0.01
        c.delay = 1.0
        c.twilio.numbers[NUMBER] = Number(f"{ORIGIN}/voice#rp=all&rc=2")
        call = c.twilio.call(CALLER, NUMBER)
        await call.ended
        assert call.application_error
        assert len(c.tokens) == 3
        assert len(set(c.tokens)) == 1
        assert all(c.signed), "the fragment is not signed"


async def test_twiml_that_is_wrong() -> None:
    async with customer() as c:
        c.says("/voice", "<Hangup>", "")
        call = c.twilio.call(CALLER, NUMBER)
        await call.ended
        assert call.application_error
        assert 12100 in c.twilio.codes()


async def test_a_dialled_target_and_its_result() -> None:
    async with customer() as c:
        dial = f'<Dial action="/dialled" timeout="5" answerOnBridge="true">{OTHER}</Dial>'
        for outcome, status in (("busy", "busy"), ("answer", "completed")):
            c.twilio.callees[OTHER] = Callee(outcome, talk_seconds=0.05)  # type: ignore[arg-type]
            c.says("/voice", dial)
            c.says("/dialled", "")
            await c.twilio.call(CALLER, NUMBER).ended
            assert c.told("/dialled")[-1]["DialCallStatus"] == status
        assert (await c.twilio.call_to(OTHER)).direction == "outbound-dial"


@contextlib.asynccontextmanager
async def rest(c: Customer, token: str = "") -> AsyncIterator[Callable[..., Any]]:
    twilio = c.twilio
    auth = aiohttp.encode_basic_auth(twilio.account_sid, token or twilio.auth_token)
    base = f"{twilio.base_url}/2010-04-01/Accounts/{twilio.account_sid}"
    async with aiohttp.ClientSession(headers={"Authorization": auth}) as session:

        async def ask(method: str, path: str, **fields: Any) -> tuple[int, Any]:
            pairs = [
                (name, each)
                for name, value in fields.items()
                for each in (value if isinstance(value, list) else [value])
            ]
            asked = {"params": fields} if method == "GET" else {"data": aiohttp.FormData(pairs)}
            async with session.request(method, f"{base}/{path}.json", **asked) as answer:
                return answer.status, await answer.json() if answer.status != 204 else None

        yield ask


WANTED = {"To": OTHER, "From": NUMBER, "Twiml": "<Response><Pause length='60'/></Response>"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"To": ""}, 21201),
        ({"To": "555"}, 21211),
        ({"To": NUMBER}, 21211),
        ({"From": "me"}, 21212),
        ({"From": CALLER}, 21210),
        ({"Twiml": ""}, 21205),
        ({"Url": "https://under_score.test/"}, 21205),
        ({"SendDigits": "1x"}, 21206),
        ({"MachineDetection": "true"}, 21262),
    ],
)
async def test_a_create_that_is_refused(changes: dict[str, str], code: int) -> None:
    async with customer() as c, rest(c) as ask:
        status, body = await ask("POST", "Calls", **(WANTED | changes))
        assert (status, body["code"], body["status"]) == (400, code, 400)
        assert not c.twilio.calls


async def test_refusals_of_rest() -> None:
    async with customer() as c, rest(c) as ask, rest(c, "wrong") as stranger:
        status, body = await stranger("POST", "Calls", **WANTED)
        assert (status, body["code"]) == (401, 20003)
        c.twilio.refusals.append(RestError(429, 20429, "Too many concurrent requests"))
        status, body = await ask("POST", "Calls", **WANTED)
        assert (status, body["code"]) == (429, 20429)
        status, body = await ask("GET", "Calls/CA0")
        assert (status, body["code"]) == (404, 20404)


async def test_a_placed_call_is_answered_changed_and_ended() -> None:
    async with customer() as c, rest(c) as ask:
        c.says("/voice", STREAM)
        wanted = {"To": OTHER, "From": NUMBER, "Url": f"{ORIGIN}/voice"}
        status, body = await ask("POST", "Calls", **wanted)
        assert (status, body["status"]) == (201, "queued")
        call = c.twilio.calls[body["sid"]]
        await until(lambda: "media" in c.events())
        path = f"Calls/{call.sid}"
        dial = f"<Response><Dial callerId='{NUMBER}'>+15550100009</Dial></Response>"
        assert (await ask("POST", path, Twiml=dial))[0] == 200
        await until(lambda: "stop" in c.events())
        assert (await c.twilio.call_to("+15550100009")).parent == call.sid
        assert (await ask("GET", path))[1]["status"] == "in-progress"
        await ask("POST", path, Status="completed")
        await call.ended
        status, body = await ask("POST", path, Status="completed")
        assert (status, body["code"]) == (400, 21220)
        assert len((await ask("GET", "Calls", To=OTHER))[1]["calls"]) == 1


async def test_inline_twiml_has_no_relative_address() -> None:
    async with customer() as c, rest(c) as ask:
        twiml = '<Response><Redirect method="POST">/voice</Redirect></Response>'
        await ask("POST", "Calls", **(WANTED | {"Twiml": twiml}))
        await (await c.twilio.call_to(OTHER)).ended
        assert c.twilio.codes() == [15004]


async def test_a_create_that_is_never_answered_has_dialled() -> None:
    async with customer() as c, rest(c) as ask:
        c.twilio.stall_creates = 1
        c.twilio.list_lag = timedelta(hours=1)
        asking = asyncio.ensure_future(ask("POST", "Calls", **WANTED))
        await c.twilio.call_to(OTHER)
        await asyncio.wait({asking}, timeout=0.1)
        assert not asking.done()
        asking.cancel()
        assert (await ask("GET", "Calls", To=OTHER))[1]["calls"] == []
        c.twilio.list_lag = timedelta()
        assert len((await ask("GET", "Calls", To=OTHER))[1]["calls"]) == 1


@pytest.mark.parametrize(
    ("callee", "status", "sip_code"),
    [
        (Callee("busy"), "busy", "486"),
        (Callee("failed", ring_seconds=None), "failed", "404"),
        (Callee(ring_seconds=30.0), "no-answer", "487"),
    ],
)
async def test_the_results_of_placed_calls(callee: Callee, status: str, sip_code: str) -> None:
    async with customer() as c, rest(c) as ask:
        c.twilio.callees[OTHER] = callee
        # What is said last arrives first, and twice.
        c.twilio.post = Post({"initiated": 0.2, "ringing": 0.1}, {"completed": 2})
        events = {
            "StatusCallback": f"{ORIGIN}/events",
            "StatusCallbackEvent": ["initiated", "ringing", "answered", "completed"],
            "Timeout": "0.2",
        }
        await ask("POST", "Calls", **(WANTED | events))
        await (await c.twilio.call_to(OTHER)).ended
        await until(lambda: any(t["CallStatus"] == "initiated" for t in c.told("/events")))
        await until(lambda: [t["CallStatus"] for t in c.told("/events")].count(status) == 2)
        told = [each for each in c.told("/events") if each["CallStatus"] == status]
        assert told[0]["SipResponseCode"] == sip_code
        assert told[0] == told[1]


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_machine_detection(asynchronous: bool) -> None:
    async with customer() as c, rest(c) as ask:
        c.twilio.callees[OTHER] = Callee(answered_by="machine_end_beep", verdict_seconds=0.05)
        c.says("/voice", "<Pause length='5'/>")
        wanted = {"To": OTHER, "From": NUMBER, "Url": f"{ORIGIN}/voice"}
        amd = {"MachineDetection": "DetectMessageEnd"}
        if asynchronous:
            amd |= {"AsyncAmd": "true", "AsyncAmdStatusCallback": f"{ORIGIN}/amd"}
        await ask("POST", "Calls", **wanted, **amd)
        path = "/amd" if asynchronous else "/voice"
        await until(lambda: c.told(path))
        assert c.told(path)[0]["AnsweredBy"] == "machine_end_beep"
        assert ("AnsweredBy" in c.told("/voice")[0]) is not asynchronous


async def test_a_conference_lives_until_the_one_that_ends_it_leaves() -> None:
    async with customer() as c, rest(c) as ask:
        c.says("/voice", "<Dial><Conference endConferenceOnExit='true'>room</Conference></Dial>")
        call = c.twilio.call(CALLER, NUMBER)
        await until(lambda: call.conference_sid)
        wanted = {"From": NUMBER, "To": OTHER, "Label": "person"}
        status, body = await ask("POST", "Conferences/room/Participants", **wanted)
        assert status == 201
        (room,) = c.twilio.conferences
        await until(lambda: len(room.participants) == 2)
        status, person = await ask("GET", f"Conferences/{room.sid}/Participants/person")
        assert person["call_sid"] == body["call_sid"]
        await call.hang_up()
        await (await c.twilio.call_to(OTHER)).ended
        assert room.status == "completed"


async def test_calls_that_are_too_many_wait_their_turn() -> None:
    async with customer() as c, rest(c) as ask:
        c.twilio._spacing = 60.0
        for _ in range(2):
            await ask("POST", "Calls", **WANTED)
        first, second = c.twilio.calls.values()
        await first.answered()
        assert not second.answered_at
        await ask("POST", f"Calls/{second.sid}", Status="canceled")
        assert (await second.ended).reason == "canceled"


def loud(c: Customer) -> int:
    media = (message["media"] for message in c.messages if message["event"] == "media")
    return sum("//////" not in each["payload"] for each in media)


async def test_the_telephone_speaks_until_the_call_is_over() -> None:
    async with customer() as c:
        c.says("/voice", STREAM)
        call = c.twilio.call(CALLER, NUMBER)
        await until(lambda: "media" in c.events())
        await call.play(tone(440, 60))
        await until(lambda: loud(c) == 3)
        await call.hang_up()
        with pytest.raises(CallOver):
            await call.play(tone(440, 60))
