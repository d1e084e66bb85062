"""The agent service's webhook, over HTTP, as it comes in from anybody."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from ari_app.control.http import agent_webhook
from ari_app.control.http.agent_webhook import PATH, AgentWebhook
from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.keys import Keys
from ari_app.control.http.middleware import ADDRESS
from ari_app.control.http.rates import RequestRates
from ari_app.records.agent_report import Report
from lab.practice_agent.post_call import sign
from tests.unit.control.http.conftest import KEY
from tests.unit.control.http.fake_service import FakeService, Http
from tests.unit.records.test_agent_report import told
from tests.waiting import until

NOW = 1_700_000_000
SECRET, OTHER = "wsec_one", "wsec_two"


class Door:
    """The webhook's place, and what it has let in."""

    def __init__(self) -> None:
        self.kept: list[Report] = []
        self.counted: Counter[str] = Counter()
        self.webhook = AgentWebhook(
            [OTHER.encode(), SECRET.encode()],
            self.kept.append,
            lambda result: self.counted.update([result]),
            now=lambda: NOW,
        )


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
async def http(service: FakeService, door: Door) -> AsyncIterator[Http]:
    app = build_web_app(service, keys=Keys.of(KEY), routes=door.webhook.routes)
    async with TestClient(TestServer(app)) as client:
        yield client


async def post(
    http: Http, body: bytes, header: str | None = None, **headers: str
) -> tuple[int, dict[str, object]]:
    header = sign(SECRET, body, NOW) if header is None else header
    async with http.post(
        PATH, data=body, headers={"ElevenLabs-Signature": header, **headers}
    ) as answer:
        found: dict[str, object] = await answer.json(content_type=None)
        return answer.status, found


BODY = orjson.dumps(told())


async def test_what_is_signed_is_kept_without_an_api_key(http: Http, door: Door) -> None:
    assert await post(http, BODY) == (200, {"status": "kept"})
    assert await post(http, BODY, sign(OTHER, BODY, NOW)) == (200, {"status": "kept"})
    first, again = door.kept
    assert first == again, "told twice, it is the same"
    assert first.value["transcript_summary"] == "They booked a table."
    assert door.counted == {"kept": 2}


async def test_any_of_several_signatures_will_do(http: Http) -> None:
    good = sign(SECRET, BODY, NOW)
    for header in (
        f"t={NOW},v0={64 * '0'},{good.partition(',')[2]}",
        f"{good},v0={64 * 'f'}",
        f"{good},v1=new",
    ):
        assert (await post(http, BODY, header))[0] == 200


async def test_clocks_may_differ(http: Http, door: Door) -> None:
    for t, wanted in ((NOW - 1799, 200), (NOW + 299, 200), (NOW - 1801, 400), (NOW + 301, 400)):
        assert (await post(http, BODY, sign(SECRET, BODY, t)))[0] == wanted
    assert door.counted == {"kept": 2, "too_old": 1, "from_the_future": 1}


async def test_everything_wrong_is_refused_in_the_same_words(http: Http, door: Door) -> None:
    not_json, nothing = b"{", orjson.dumps(told(data={}))
    tries = [
        (BODY, "", {}, "no_signature"),
        (BODY, "t=1", {}, "malformed_signature"),
        (BODY, sign("guessed", BODY, NOW), {}, "wrong_signature"),
        (BODY + b" ", sign(SECRET, BODY, NOW), {}, "wrong_signature"),
        (BODY, sign(SECRET, BODY, NOW - 9999), {}, "too_old"),
        (BODY, None, {"Content-Encoding": "gzip"}, "compressed"),
        (not_json, None, {}, "malformed"),
        (nothing, None, {}, "malformed"),
        (b"", None, {}, "malformed"),
    ]
    answers = []
    for body, header, headers, reason in tries:
        before = door.counted[reason]
        status, answer = await post(http, body, header, **headers)
        assert door.counted[reason] == before + 1, reason
        del answer["request_id"]
        answers.append((status, answer))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 400
    assert door.kept == []


async def test_sound_is_taken_and_not_kept(http: Http, door: Door) -> None:
    data = {"conversation_id": "conv_1", "agent_id": "a", "full_audio": 5_000_000 * "A"}
    body = orjson.dumps(told("post_call_audio", data))

    async def pieces() -> AsyncIterator[bytes]:
        for begin in range(0, len(body), 100_000):
            yield body[begin : begin + 100_000]

    headers = {"ElevenLabs-Signature": sign(SECRET, body, NOW)}
    async with http.post(PATH, data=pieces(), headers=headers) as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ignored"})
    headers["ElevenLabs-Signature"] = sign("guessed", body, NOW)
    async with http.post(PATH, data=pieces(), headers=headers) as answer:
        assert answer.status == 400
    assert door.counted == {"ignored": 1, "wrong_signature": 1}


async def test_a_body_has_an_end(http: Http, door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_webhook, "_MAX_BYTES", 1000)
    assert (await post(http, 1001 * b"x"))[0] == 400

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield 100 * b"x"

    headers = {"ElevenLabs-Signature": sign(SECRET, b"", NOW)}
    async with http.post(PATH, data=pieces(), headers=headers) as answer:
        assert answer.status == 400
    assert door.counted == {"too_large": 2}


class Slow:
    """Uploads that stall after their first byte.

    Attributes:
        ended: Lets them end.
    """

    def __init__(self, http: Http, door: Door) -> None:
        self.ended = asyncio.Event()
        self._http = http
        self._door = door

    async def begin(self, number: int, **headers: str) -> list[asyncio.Task[int]]:
        """Begin so many, one after the other, and return what will be answered."""
        return [await self._begin_one(headers) for _ in range(number)]

    async def _begin_one(self, headers: dict[str, str]) -> asyncio.Task[int]:
        before = self._door.webhook._under_way
        asked = asyncio.create_task(self._ask(headers))
        await until(lambda: self._door.webhook._under_way > before)
        return asked

    async def _ask(self, headers: dict[str, str]) -> int:
        headers = {"ElevenLabs-Signature": sign(SECRET, BODY, NOW), **headers}
        async with self._http.post(PATH, data=self._body(), headers=headers) as answer:
            return answer.status

    async def _body(self) -> AsyncIterator[bytes]:
        yield b"{"
        await self.ended.wait()


async def test_there_are_so_many_places_and_no_more(
    http: Http, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_webhook, "_SLOW_SECONDS", 60.0)
    slow = Slow(http, door)
    asked = await slow.begin(8)
    async with http.post(
        PATH, data=BODY, headers={"ElevenLabs-Signature": sign(SECRET, BODY, NOW)}
    ) as answer:
        assert answer.status == 429, "which is tried again"
        assert answer.headers["Retry-After"] == "5"
    slow.ended.set()
    assert await asyncio.gather(*asked) == 8 * [400]
    assert (await post(http, BODY))[0] == 200
    assert door.counted == {"too_many": 1, "wrong_signature": 8, "kept": 1}


async def test_whoever_stalls_is_given_up(
    http: Http, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_webhook, "_LATE_SECONDS", 0.05)
    assert await asyncio.gather(*await Slow(http, door).begin(1)) == [400]
    assert door.counted == {"too_late": 1}


async def test_a_body_has_to_come_at_a_pace() -> None:
    upload = agent_webhook._Upload("192.0.2.1", 100.0, asyncio.timeout(10.0))
    limits = []
    async with upload.limit:
        for size in (1, 512 * 1024 - 1, 10 * 1024 * 1024, 50 * 1024 * 1024):
            upload.came(size)
            limits.append(upload.limit.when())
        # By the loop's own clock that may be over.
        upload.limit.reschedule(None)
    assert limits == [pytest.approx(110.0, abs=0.001), 112.0, 152.0, 160.0]
    assert upload.behind(100.0) < 0 < upload.behind(400.0)


async def test_an_address_that_has_all_places_makes_room_for_others(
    service: FakeService, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_webhook, "_SLOW_SECONDS", 60.0)

    @web.middleware
    async def believe(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[ADDRESS] = request.headers["X-From"]
        return await handler(request)

    app = build_web_app(service, keys=Keys.of(KEY), routes=door.webhook.routes)
    app.middlewares.append(believe)
    async with TestClient(TestServer(app)) as http:
        slow = Slow(http, door)
        asked = await slow.begin(8, **{"X-From": "192.0.2.1"})
        assert (await post(http, BODY, **{"X-From": "192.0.2.1"}))[0] == 429
        assert (await post(http, BODY, **{"X-From": "198.51.100.1"}))[0] == 200
        assert await asked.pop(0) == 429, "the oldest"
        slow.ended.set()
        assert await asyncio.gather(*asked) == 7 * [400]
    assert door.counted == {"kept": 1, "too_many": 2, "wrong_signature": 7}


async def test_whoever_is_slow_makes_room_for_others_even_of_its_own_address(
    http: Http, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a proxy, where all have the same."""
    slow = Slow(http, door)
    asked = await slow.begin(8)
    monkeypatch.setattr(agent_webhook, "_SLOW_SECONDS", -1.0)
    for _ in range(3):
        assert (await post(http, BODY))[0] == 200
        assert await asked.pop(0) == 429
        asked += await slow.begin(1)
    slow.ended.set()
    assert await asyncio.gather(*asked) == 8 * [400]
    assert door.counted == {"kept": 3, "too_many": 3, "wrong_signature": 8}


async def test_what_comes_too_late_to_one_that_was_given_up_does_not_bring_it_back() -> None:
    upload = agent_webhook._Upload("192.0.2.1", 100.0, asyncio.timeout(10.0))
    async with upload.limit:
        upload.give_up(asyncio.get_running_loop().time())
        with pytest.raises(TimeoutError):
            upload.came(1)


async def test_whoever_is_refused_too_often_is_told_so(service: FakeService, door: Door) -> None:
    routes = door.webhook.routes
    app = build_web_app(service, keys=Keys.of(KEY), rates=RequestRates(0.01), routes=routes)
    async with TestClient(TestServer(app)) as http:
        wrong = [(await post(http, BODY, sign("guessed", BODY, NOW)))[0] for _ in range(3)]
        assert wrong == [400, 429, 429]
        assert (await post(http, BODY))[0] == 200


async def test_without_a_secret_there_is_no_such_place(service: FakeService) -> None:
    app: web.Application = build_web_app(service, keys=Keys.of(KEY))
    async with TestClient(TestServer(app), headers={"X-API-Key": KEY}) as http:
        assert (await post(http, BODY))[0] == 404
