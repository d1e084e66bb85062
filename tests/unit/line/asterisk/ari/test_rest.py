from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ari_app.errors import ConfigError
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import (
    AriConflict,
    AriError,
    AriMalformed,
    AriNotFound,
    AriServerError,
    AriTimeout,
    AriUnauthorized,
    AriUnavailable,
    AriUnreached,
)
from ari_app.line.asterisk.ari.rest import KEEPALIVE_SECONDS
from tests.unit.line.asterisk.ari.fake_ari import (
    APP,
    PASSWORD,
    USERNAME,
    Answer,
    FakeAri,
    json_answer,
)
from tests.unit.line.asterisk.ari.samples import channel


async def test_a_wrong_password(ari: FakeAri) -> None:
    async with Client(ari.url, USERNAME, "wrong", APP) as client:
        with pytest.raises(AriUnauthorized) as caught:
            await client.channels.list()
    assert str(caught.value) == "GET /channels: 401 Authentication required"
    assert ari.seen == []


async def test_each_request_is_told_with_what_became_of_it(ari: FakeAri, client: Client) -> None:
    told: list[tuple[str, str]] = []

    def on_done(method: str, result: str, seconds: float) -> None:
        assert 0 <= seconds < 5
        told.append((method, result))

    client.rest.on_done = on_done
    ari.answer("GET", "/channels/x", json_answer(channel("x")))
    await client.channels.get("x")
    ari.answer("GET", "/channels/x", json_answer({"message": "Channel not found"}, 404))
    with pytest.raises(AriNotFound):
        await client.channels.get("x")
    assert told == [("GET", "ok"), ("GET", "ari_not_found")]


async def test_asterisks_own_words_are_kept(ari: FakeAri, client: Client) -> None:
    ari.answer("GET", "/channels/x", json_answer({"message": "Channel not found"}, 404))
    with pytest.raises(AriNotFound) as caught:
        await client.channels.get("x")
    error = caught.value
    assert (error.method, error.path, error.status) == ("GET", "/channels/x", 404)
    assert error.reason == "Channel not found"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "Conflict"),
        (b"<html>", "Conflict"),
        (b"[1]", "Conflict"),
        (b'{"message":7}', "Conflict"),
        (b'{"message":"' + b"x" * 1000 + b'"}', "x" * 200),
    ],
)
async def test_an_answer_without_words(
    ari: FakeAri, client: Client, body: bytes, reason: str
) -> None:
    ari.answer("POST", "/channels/x/answer", Answer(409, body))
    with pytest.raises(AriConflict) as caught:
        await client.channels.answer("x")
    assert caught.value.reason == reason


async def test_an_answer_that_does_not_fit(ari: FakeAri, client: Client) -> None:
    ari.answer("GET", "/channels/x", json_answer({"id": 7}))
    with pytest.raises(AriMalformed, match="id: "):
        await client.channels.get("x")


async def test_redirections_are_not_followed(ari: FakeAri, client: Client) -> None:
    ari.answer("GET", "/channels", Answer(302, headers={"Location": ari.url}))
    with pytest.raises(AriMalformed):
        await client.channels.list()
    assert len(ari.seen) == 1


async def test_a_failing_external_media_request_does_not_say_why(
    ari: FakeAri, client: Client
) -> None:
    said = "An internal error prevented this request from being handled"
    ari.answer("POST", "/channels/externalMedia", json_answer({"message": said}, 500))
    with pytest.raises(AriServerError, match=said) as caught:
        await client.channels.external_media("m", "127.0.0.1:1", format="slin", data="not-shown")
    assert "not-shown" not in str(caught.value)
    assert len(ari.seen) == 1


async def test_the_deadline(ari: FakeAri, client: Client) -> None:
    ari.answer("GET", "/channels", Answer(never=True))
    with pytest.raises(AriTimeout, match=r"GET /channels: no answer within 0\.05 s") as caught:
        await client.within(0.05).channels.list()
    assert caught.value.retryable
    # Neither the client nor its pool has suffered.
    await client.channels.answer("1")


async def test_waiting_for_a_connection_counts(ari: FakeAri) -> None:
    ari.answer("GET", "/channels", Answer(never=True))
    async with Client(ari.url, USERNAME, PASSWORD, APP, max_connections=1) as client:
        stuck = asyncio.create_task(client.channels.list())
        await ari.hanging.wait()
        with pytest.raises(AriTimeout):
            await client.within(0.05).channels.answer("1")
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        await client.channels.answer("1")


async def test_nobody_listens(closed_port: int) -> None:
    async with Client(f"http://127.0.0.1:{closed_port}", USERNAME, PASSWORD, APP) as client:
        with pytest.raises(AriUnavailable) as caught:
            await client.channels.list()
    assert caught.value.retryable
    assert PASSWORD not in str(caught.value)


async def test_a_stale_connection_is_no_failure(ari: FakeAri, client: Client) -> None:
    await client.channels.ring("1")
    ari.drop_next = 1
    await client.channels.answer("1")
    assert [seen.raw_path for seen in ari.seen].count("/ari/channels/1/answer") == 2
    ari.drop_next = 1
    await client.channels.hangup("1")
    ari.answer("GET", "/channels", json_answer([channel()]))
    ari.drop_next = 1
    assert len(await client.channels.list()) == 1
    assert ari.connections_dropped == 3


async def test_a_request_that_must_not_be_repeated_is_not(ari: FakeAri, client: Client) -> None:
    await client.channels.ring("1")
    ari.drop_next = 1
    with pytest.raises(AriUnavailable):
        await client.channels.originate("1", "PJSIP/200", caller_id=None, ring_seconds=30)
    assert [seen.raw_path for seen in ari.seen].count("/ari/channels/1") == 1


async def test_a_connection_that_is_lost_again_is_a_failure(ari: FakeAri, client: Client) -> None:
    ari.drop_next = 100
    with pytest.raises(AriUnavailable):
        await client.channels.answer("1")
    assert ari.connections_dropped == 2


async def test_an_answer_that_is_cut_off() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Client(f"http://127.0.0.1:{port}", USERNAME, PASSWORD, APP) as client:
        with pytest.raises(AriUnavailable):
            await client.channels.list()


async def test_whether_asterisk_may_have_done_it_is_known() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        server.close()
        writer.transport.abort()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Client(f"http://127.0.0.1:{port}", USERNAME, PASSWORD, APP) as client:
        # The first attempt reached it, the second did not.
        with pytest.raises(AriUnavailable) as first:
            await client.channels.answer("1")
        assert first.value.may_be_done
        with pytest.raises(AriUnreached) as second:
            await client.channels.answer("1")
        assert not second.value.may_be_done


async def test_idle_connections_are_dropped_before_asterisk_drops_them(client: Client) -> None:
    assert KEEPALIVE_SECONDS < 15
    connections: Any = client.rest.connections
    assert connections._keep_seconds == KEEPALIVE_SECONDS
    assert connections._room._value < 100


async def test_a_closed_client(ari: FakeAri) -> None:
    client = Client(ari.url, USERNAME, PASSWORD, APP)
    await client.channels.answer("1")
    await client.close()
    await client.close()
    with pytest.raises(AriError) as caught:
        await client.channels.answer("1")
    assert caught.value.code == "ari_closed"


async def test_a_client_that_was_never_used_closes() -> None:
    await Client("http://127.0.0.1:8088", USERNAME, PASSWORD, APP).close()


@pytest.mark.parametrize(
    ("base_url", "root"),
    [
        ("http://127.0.0.1:8088", "http://127.0.0.1:8088/ari"),
        ("http://127.0.0.1:8088/", "http://127.0.0.1:8088/ari"),
        ("https://[::1]:8089/asterisk/", "https://[::1]:8089/asterisk/ari"),
    ],
)
def test_base_urls(base_url: str, root: str) -> None:
    assert Client(base_url, USERNAME, PASSWORD, APP).rest.root == root


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "127.0.0.1:8088",
        "ftp://127.0.0.1",
        "http://",
        "http://user:hidden@127.0.0.1:8088",
        "http://hidden@127.0.0.1:8088",
        "http://127.0.0.1:8088/?api_key=user:hidden",
        "http://127.0.0.1:8088/#hidden",
        "http://127.0.0.1:hidden",
    ],
)
def test_base_urls_that_cannot_be(base_url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Client(base_url, USERNAME, PASSWORD, APP)
    assert "hidden" not in str(caught.value)


def test_a_username_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="colon"):
        Client("http://127.0.0.1:8088", "a:b", PASSWORD, APP)
