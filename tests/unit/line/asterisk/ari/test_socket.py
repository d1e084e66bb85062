from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
import pytest
import structlog
from aiohttp import WSCloseCode, web

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriUnauthorized
from ari_app.line.asterisk.ari.events import AriEvent, StasisEnd, UnknownEvent
from ari_app.line.asterisk.ari.rest import Backoff
from ari_app.line.asterisk.ari.socket import EventSocket, SocketState
from lab.web import serving
from tests.unit.line.asterisk.ari.fake_ari import APP, PASSWORD, USERNAME, Answer, FakeAri
from tests.unit.line.asterisk.ari.samples import channel, event
from tests.waiting import Turns

CONNECTED, DISCONNECTED, REPLACED = (
    SocketState.CONNECTED,
    SocketState.DISCONNECTED,
    SocketState.REPLACED,
)


class Listener:
    """An event socket with its callbacks, on a clock of its own that only sleeping moves."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.events: list[AriEvent] = []
        self.states: list[SocketState] = []
        self.sleeps: list[float] = []
        self.now = 0.0
        self._changed = asyncio.Event()
        self.socket = EventSocket(
            client,
            self.on_event,
            self.on_state,
            sleep=self.sleep,
            clock=lambda: self.now,
            chance=lambda: 1.0,
            **options,
        )
        self.task = asyncio.create_task(self.socket.run())

    def on_event(self, seen: AriEvent) -> None:
        self.events.append(seen)
        self._changed.set()

    def on_state(self, state: SocketState) -> None:
        self.states.append(state)
        self._changed.set()

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds
        self._changed.set()
        await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


async def send(socket: web.WebSocketResponse, kind: str, **fields: Any) -> None:
    await socket.send_str(orjson.dumps(event(kind, **fields)).decode())


async def test_events_arrive_in_order(ari: FakeAri, client: Client) -> None:
    listener = Listener(client)
    server = await ari.sockets.get()
    for number in range(5):
        await send(server, "StasisEnd", channel=channel(str(number)))
    await listener.until(lambda: len(listener.events) == 5)
    assert [seen.channel.id for seen in listener.events if isinstance(seen, StasisEnd)] == list(
        "01234"
    )
    assert listener.states == [CONNECTED]
    assert listener.socket.connected
    # The credentials travelled in a header: the query holds the application alone.
    assert ari.handshakes == [{"app": APP}]
    await listener.socket.close()
    await listener.task
    assert listener.states == [CONNECTED, DISCONNECTED]
    assert listener.sleeps == []


async def test_what_is_no_event_does_no_harm(ari: FakeAri, client: Client) -> None:
    with structlog.testing.capture_logs() as logs:
        listener = Listener(client)
        server = await ari.sockets.get()
        await server.send_str("{")
        await server.send_str('{"type":"StasisEnd"}')
        await server.send_bytes(b"binary")
        await send(server, "SomethingNew")
        await send(server, "SomethingNew")
        await send(server, "StasisEnd", channel=channel())
        await listener.until(lambda: len(listener.events) == 3)
    told = Counter(entry["event"] for entry in logs)
    assert (told["ari_event_malformed"], told["ari_event_unknown"]) == (2, 1)
    assert [type(seen) for seen in listener.events] == [UnknownEvent, UnknownEvent, StasisEnd]
    assert listener.states == [CONNECTED]
    await listener.socket.close()
    await listener.task


async def test_a_callback_that_fails_does_no_harm(ari: FakeAri, client: Client) -> None:
    class Failing(Listener):
        def on_event(self, seen: AriEvent) -> None:
            super().on_event(seen)
            raise LookupError("a bug")

        def on_state(self, state: SocketState) -> None:
            super().on_state(state)
            raise LookupError("another")

    with structlog.testing.capture_logs() as logs:
        listener = Failing(client)
        server = await ari.sockets.get()
        await send(server, "StasisEnd", channel=channel())
        await send(server, "StasisEnd", channel=channel())
        await listener.until(lambda: len(listener.events) == 2)
    told = Counter(entry["event"] for entry in logs)
    assert (told["ari_event_handler_failed"], told["ari_state_handler_failed"]) == (2, 1)
    assert listener.socket.connected
    await listener.socket.close()
    await listener.task


async def test_many_events_at_once_leave_others_their_turn(ari: FakeAri, client: Client) -> None:
    turns = Turns()

    class Slow(Listener):
        def on_event(self, seen: AriEvent) -> None:
            super().on_event(seen)
            self.now += 0.001
            turns.note()

    listener = Slow(client)
    server = await ari.sockets.get()
    for number in range(60):
        await send(server, "StasisEnd", channel=channel(str(number)))
    await listener.until(lambda: len(listener.events) == 60)
    assert max(Counter(turns.noted).values()) <= 3
    turns.stop()
    await listener.socket.close()
    await listener.task


async def test_a_lost_socket_is_opened_again(ari: FakeAri, client: Client) -> None:
    listener = Listener(client)
    for _ in range(3):
        server = await ari.sockets.get()
        await server.close(code=WSCloseCode.GOING_AWAY)
    await ari.sockets.get()
    await listener.until(lambda: len(listener.states) == 7)
    assert listener.states == [CONNECTED, DISCONNECTED] * 3 + [CONNECTED]
    # Connections that do not last are no reason to hurry.
    assert listener.sleeps == pytest.approx([0.2, 0.4, 0.8])
    await listener.socket.close()
    await listener.task


async def test_a_connection_that_lasted_starts_the_delays_anew(
    ari: FakeAri, client: Client
) -> None:
    ari.refuse_handshakes = [503, 503, 503, 404]
    listener = Listener(client, backoff=Backoff(first_seconds=1.0, most_seconds=4.0))
    server = await ari.sockets.get()
    await listener.until(lambda: listener.states == [CONNECTED])
    assert listener.sleeps == [1.0, 2.0, 4.0, 4.0]
    listener.now += 4.0
    await server.close()
    await ari.sockets.get()
    await listener.until(lambda: len(listener.states) == 3)
    assert listener.sleeps[4:] == [1.0]
    await listener.socket.close()
    await listener.task


async def test_a_closed_client_ends_it(ari: FakeAri, client: Client) -> None:
    listener = Listener(client)
    await ari.sockets.get()
    await listener.until(lambda: listener.states == [CONNECTED])
    await client.close()
    await listener.task
    assert listener.states == [CONNECTED, DISCONNECTED]


async def test_nobody_listens(closed_port: int) -> None:
    async with Client(f"http://127.0.0.1:{closed_port}", USERNAME, PASSWORD, APP) as client:
        listener = Listener(client)
        await listener.until(lambda: len(listener.sleeps) == 8)
        assert listener.sleeps[:8] == pytest.approx([0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0])
        assert not client.link.up
        assert listener.states == []
        await listener.socket.close()
        await listener.task


async def test_a_handshake_has_a_deadline(ari: FakeAri, client: Client) -> None:
    ari.refuse_handshakes = [0]
    listener = Listener(client.within(0.05))
    await ari.sockets.get()
    await listener.until(lambda: listener.states == [CONNECTED])
    assert len(listener.sleeps) == 1
    await listener.socket.close()
    await listener.task


async def test_a_redirection_is_not_followed() -> None:
    asked: list[str] = []

    async def redirects(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path != "/ari/events":
            raise web.HTTPServiceUnavailable
        raise web.HTTPFound("/elsewhere")

    app = web.Application()
    app.router.add_get("/{path:.*}", redirects)
    async with serving(app) as url, Client(url, USERNAME, PASSWORD, APP) as client:
        listener = Listener(client)
        with structlog.testing.capture_logs() as logs:
            await listener.until(lambda: bool(listener.sleeps))
        await listener.socket.close()
        await listener.task
    assert logs[0]["code"] == "ari_malformed"
    assert set(asked) == {"/ari/events"}


@pytest.mark.parametrize(("status", "code"), [(401, "ari_unauthorized"), (403, "ari_forbidden")])
async def test_wrong_credentials_are_final(
    ari: FakeAri, client: Client, status: int, code: str
) -> None:
    ari.refuse_handshakes = [status]
    listener = Listener(client)
    with pytest.raises(AriUnauthorized) as caught:
        await listener.task
    assert caught.value.code == code
    assert listener.sleeps == []
    assert len(ari.handshakes) == 1


async def test_a_user_who_may_only_read_is_final(ari: FakeAri, client: Client) -> None:
    ari.answer("PUT", f"/applications/{APP}/eventFilter", Answer(403))
    listener = Listener(client)
    with pytest.raises(AriUnauthorized) as caught:
        await listener.task
    assert caught.value.code == "ari_forbidden"
    assert CONNECTED not in listener.states
    assert listener.sleeps == []


async def test_a_wrong_password_is_final(ari: FakeAri) -> None:
    async with Client(ari.url, USERNAME, "wrong", APP) as client:
        with pytest.raises(AriUnauthorized) as caught:
            await Listener(client).task
    assert "wrong" not in str(caught.value)


async def test_a_replaced_application_is_not_taken_back(ari: FakeAri, client: Client) -> None:
    listener = Listener(client)
    server = await ari.sockets.get()
    await send(server, "ApplicationReplaced")
    await listener.task
    assert listener.states == [CONNECTED, REPLACED]
    assert [seen.type for seen in listener.events] == ["ApplicationReplaced"]
    assert listener.sleeps == []
    assert len(ari.handshakes) == 1
    assert server.closed


async def test_a_silent_peer_counts_as_dead(ari: FakeAri, client: Client) -> None:
    ari.answer_pings = False
    listener = Listener(client, ping_seconds=0.02)
    await ari.sockets.get()
    await ari.sockets.get()
    assert listener.states[:2] == [CONNECTED, DISCONNECTED]
    await listener.socket.close()
    await listener.task


async def test_a_peer_that_answers_pings_is_kept(ari: FakeAri, client: Client) -> None:
    listener = Listener(client, ping_seconds=0.02)
    server = await ari.sockets.get()
    # Several pings' time, in which nothing else is said.
    await asyncio.sleep(0.1)
    await send(server, "StasisEnd", channel=channel())
    await listener.until(lambda: len(listener.events) == 1)
    assert listener.states == [CONNECTED]
    await listener.socket.close()
    await listener.task


async def test_an_event_that_is_too_long_costs_the_connection(ari: FakeAri, client: Client) -> None:
    listener = Listener(client, max_message_bytes=1000)
    server = await ari.sockets.get()
    await send(server, "ChannelVarset", variable="X", value="x" * 2000)
    await ari.sockets.get()
    await listener.until(lambda: len(listener.states) == 3)
    assert listener.events == []
    await listener.socket.close()
    await listener.task


async def test_closing_ends_a_wait(closed_port: int) -> None:
    waiting = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async with Client(f"http://127.0.0.1:{closed_port}", USERNAME, PASSWORD, APP) as nowhere:
        events = EventSocket(nowhere, print, print, sleep=sleep)
        task = asyncio.create_task(events.run())
        await waiting.wait()
        await events.close()
        await events.close()
        await task
        # It is closed for good.
        await events.run()


async def test_cancelling_closes_the_socket(ari: FakeAri, client: Client) -> None:
    listener = Listener(client)
    server = await ari.sockets.get()
    await listener.until(lambda: listener.states == [CONNECTED])
    listener.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listener.task
    assert listener.states == [CONNECTED, DISCONNECTED]
    assert server.closed
    await listener.socket.close()


async def test_it_runs_once_at_a_time(ari: FakeAri, client: Client) -> None:
    listener = Listener(client)
    await ari.sockets.get()
    with pytest.raises(RuntimeError, match="already"):
        await listener.socket.run()
    await listener.socket.close()
    await listener.task
