from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import orjson
import pytest

from ari_app.control.http import streams
from ari_app.records.events import Said
from ari_app.records.record import CallRecord
from tests.unit.control.http.fake_service import FakeService, Http, note_end
from tests.waiting import PATIENCE_SECONDS

PATH = "/sessions/s1/events"


@pytest.fixture
def record(service: FakeService) -> CallRecord:
    return service.add("s1")


def say(service: FakeService, record: CallRecord, text: str) -> None:
    service.journal.note(record, Said("caller", text))


async def next_event(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """One server-sent event, as a program reads it."""
    fields: dict[str, str] = {}
    while line := (await response.content.readline()).decode().rstrip("\n"):
        name, _, value = line.partition(": ")
        fields[name] = value
    event: dict[str, Any] = orjson.loads(fields["data"])
    assert (fields["id"], fields["event"]) == (str(event["seq"]), event["type"])
    return event


async def test_server_sent_events(http: Http, service: FakeService, record: CallRecord) -> None:
    say(service, record, "one\ntwo")
    headers = {"Accept": "text/event-stream", "X-Request-ID": "r1"}
    async with http.get(PATH, headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert response.headers["X-Request-ID"] == "r1"
        assert response.headers["Cache-Control"] == "no-store"
        first = await next_event(response)
        assert first.pop("at").endswith("Z")
        assert first == {"seq": 1, "type": "transcript", "who": "caller", "text": "one\ntwo"}
        say(service, record, "three")
        assert (await next_event(response))["text"] == "three"
        note_end(service.journal, record)
        assert (await next_event(response))["state"] == "ended"
        last = await next_event(response)
        assert (last["type"], last["end_reason"]) == ("ended", "agent_ended")
        assert await response.content.read() == b""


@pytest.mark.parametrize("accept", ["*/*", "text/*;q=0.5", "a/b, Text/Event-Stream"])
async def test_what_a_client_may_accept(
    http: Http, service: FakeService, record: CallRecord, accept: str
) -> None:
    note_end(service.journal, record)
    assert (await http.get(PATH, headers={"Accept": accept})).status == 200


async def test_what_a_client_must_not_ask_for(http: Http, record: CallRecord) -> None:
    response = await http.get(PATH, headers={"Accept": "application/json"})
    assert (response.status, (await response.json())["code"]) == (406, "not_acceptable")


async def test_a_stream_is_taken_up_again(
    http: Http, service: FakeService, record: CallRecord
) -> None:
    say(service, record, "one")
    note_end(service.journal, record)
    for request in (
        {"headers": {"Last-Event-ID": "2"}},
        {"params": {"last_event_id": "2"}},
    ):
        response = await http.get(PATH, **request)  # type: ignore[arg-type]
        assert [line[:5] for line in (await response.text()).splitlines()[:1]] == ["id: 3"]
    # An EventSource comes back for ever otherwise.
    assert (await http.get(PATH, headers={"Last-Event-ID": "3"})).status == 204


@pytest.mark.parametrize("value", ["-1", "abc", "1" * 19, "\u0663"])
async def test_a_last_event_that_cannot_be(http: Http, record: CallRecord, value: str) -> None:
    response = await http.get(PATH, params={"last_event_id": value})
    assert (response.status, (await response.json())["code"]) == (400, "invalid_header")


async def test_a_quiet_stream_is_kept_alive(
    http: Http, record: CallRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_KEEP_ALIVE_SECONDS", 0.01)
    async with http.get(PATH) as response:
        assert await response.content.readline() == b": keep-alive\n"


async def test_a_web_socket(http: Http, service: FakeService, record: CallRecord) -> None:
    say(service, record, "one")
    async with http.ws_connect(PATH) as socket:
        assert (await socket.receive_json())["text"] == "one"
        await socket.send_str("this means nothing")
        say(service, record, "two")
        assert (await socket.receive_json())["text"] == "two"
        note_end(service.journal, record)
        assert (await socket.receive_json())["state"] == "ended"
        assert (await socket.receive_json())["type"] == "ended"
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == 1000


async def test_a_web_socket_is_taken_up_again(
    http: Http, service: FakeService, record: CallRecord
) -> None:
    say(service, record, "one")
    say(service, record, "two")
    async with http.ws_connect(PATH, headers={"Last-Event-ID": "1"}) as socket:
        assert (await socket.receive_json())["text"] == "two"


async def test_an_upgrade_that_is_none(http: Http, record: CallRecord) -> None:
    response = await http.get(PATH, headers={"Upgrade": "websocket"})
    assert (response.status, (await response.json())["code"]) == (400, "bad_request")


async def test_a_client_that_leaves_makes_room(
    http: Http, service: FakeService, record: CallRecord
) -> None:
    follow = service.journal.follow
    sockets = [await http.ws_connect(PATH) for _ in range(16)]
    response = await http.get(PATH)
    assert (response.status, (await response.json())["code"]) == (503, "too_many_streams")
    assert response.headers["Retry-After"] == "5"
    for socket in sockets:
        await socket.close()
    for _ in range(100):
        await asyncio.sleep(0)
    assert follow(record).has_more


async def test_streams_end_with_the_service(
    http: Http, service: FakeService, record: CallRecord
) -> None:
    async with http.get(PATH) as response, http.ws_connect(PATH) as socket:
        service.journal.close()
        assert await response.content.read() == b""
        assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE


async def test_a_client_that_does_not_read_is_given_up(
    http: Http, service: FakeService, record: CallRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_WRITE_SECONDS", 0.05)
    monkeypatch.setattr(streams, "_CLOSE_SECONDS", 0.05)
    async with http.get(PATH) as response, http.ws_connect(PATH) as socket:
        response.connection.transport.pause_reading()  # type: ignore[union-attr]
        socket._conn.transport.pause_reading()  # type: ignore[union-attr]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while service.journal._history(record).followers:
                say(service, record, "x" * 1_000_000)
                await asyncio.sleep(0.01)
        socket._conn.transport.resume_reading()  # type: ignore[union-attr]


async def test_what_a_client_says_means_nothing_and_is_short(
    http: Http, record: CallRecord
) -> None:
    async with http.ws_connect(PATH) as socket:
        await socket.send_str("x" * 4000)
        await socket.send_bytes(b"\xff" * 4000)
        await socket.send_str("x" * 5000)
        message = await socket.receive(PATIENCE_SECONDS)
        while message.type is aiohttp.WSMsgType.TEXT:
            message = await socket.receive(PATIENCE_SECONDS)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG
