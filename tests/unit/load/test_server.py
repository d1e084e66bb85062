"""The whole generator against our own ARI client and AudioSocket server: one call, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import aiohttp
import pytest

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import (
    AriConflict,
    AriNotFound,
    AriServerError,
    AriUnauthorized,
)
from ari_app.line.asterisk.ari.events import ApplicationReplaced
from ari_app.line.asterisk.ari.events import AriEvent as AriEvent
from ari_app.line.asterisk.ari.socket import EventSocket
from audiosocket.connection import AudioSocketConnection
from audiosocket.frames import SLIN, Kind
from audiosocket.server import AudioSocketServer
from lab.load.server import LoadServer
from lab.load.voice import TalkPattern
from linekit.clock import FrameClock
from tests.waiting import until

APP, USER, PASSWORD = "voice-agent", "load", "secret"
PATTERN = TalkPattern(talk_seconds=0.1, pause_seconds=0.1)


class Ear:
    """Our side of a line: counts what comes, says nothing."""

    def __init__(self) -> None:
        self.line: AudioSocketConnection | None = None
        self.frames = 0
        self.lost: list[str] = []

    def line_connected(self, line: AudioSocketConnection) -> None:
        self.line = line

    def audio_received(self, payload: bytes, kind: Kind) -> None:
        self.frames += 1

    def digit_received(self, digit: str) -> None: ...

    def tick(self, frames_due: int) -> None: ...

    def line_lost(self, reason: str) -> None:
        self.lost.append(reason)


class Bench:
    """A load server, our client and its events."""

    def __init__(self, load: LoadServer, url: str, client: Client) -> None:
        self.load = load
        self.url = url
        self.client = client
        self.events: list[AriEvent] = []

    def kinds(self) -> list[str]:
        return [event.type for event in self.events]

    async def steer(self, method: str, path: str) -> dict[str, object]:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"{self.url}/load/{path}") as answer,
        ):
            answer.raise_for_status()
            found: dict[str, object] = await answer.json() if answer.status == 200 else {}
            return found


@asynccontextmanager
async def a_bench() -> AsyncIterator[Bench]:
    load = LoadServer(APP, USER, PASSWORD, pattern=PATTERN)
    url = await load.start()
    async with Client(url, USER, PASSWORD, APP) as client:
        bench = Bench(load, url, client)
        socket = EventSocket(client, bench.events.append, lambda state: None)
        task = asyncio.create_task(socket.run())
        await until(lambda: socket.connected)
        try:
            yield bench
        finally:
            await socket.close()
            await task
            await load.close()
            await load.close()


@asynccontextmanager
async def a_line_server() -> AsyncIterator[tuple[AudioSocketServer, str]]:
    clock = FrameClock()
    clock.start()
    server = AudioSocketServer(clock)
    host, port = await server.start("127.0.0.1", 0)
    try:
        yield server, f"{host}:{port}"
    finally:
        await server.close()
        clock.stop()


async def test_a_call_from_ringing_to_hanging_up() -> None:
    async with a_bench() as bench, a_line_server() as (lines, target):
        await bench.steer("POST", "calls?count=1&per_second=100&arg=agent_id=a")
        await until(lambda: "StasisStart" in bench.kinds())
        client, caller = bench.client, next(iter(bench.load.generator.calls))
        ear, name = Ear(), uuid4()

        await client.channels.ring(caller)
        await client.bridges.create_with_id("b", name="a call")
        lines.expect(name, ear, SLIN)
        await client.channels.external_media("m", target, format="slin", data=str(name))
        await until(lambda: bench.kinds().count("StasisStart") == 2)
        await client.bridges.add_channel("b", "m")
        await client.channels.answer(caller)
        assert ear.frames == 0, "nothing is heard before the caller is in the bridge"
        await client.bridges.add_channel("b", caller)
        await until(lambda: ear.frames >= 5)

        assert {channel.id for channel in await client.channels.list()} == {caller, "m"}
        assert (await client.channels.get(caller)).state == "Up"
        assert [bridge.id for bridge in await client.bridges.list()] == ["b"]
        assert (await client.applications.get(APP)).channel_ids == (caller, "m")

        await bench.steer("POST", "window")
        await bench.steer("POST", "quiet")
        await until(lambda: len(bench.load.generator.calls[caller].line.arrivals) > 3)  # type: ignore[union-attr]
        report = await bench.steer("GET", "report")
        assert report["talking"] == report["calls"] == 1
        assert report["heard"]["frames"] > 3  # type: ignore[index]

        await bench.steer("DELETE", "calls?count=1")
        await until(lambda: "StasisEnd" in bench.kinds())
        await client.channels.hangup("m")
        await until(lambda: ear.lost)
        await client.bridges.destroy("b")
        assert not bench.load.generator.world.channels


async def test_a_server_that_hangs_up_ends_the_media_channel() -> None:
    async with a_bench() as bench, a_line_server() as (lines, target):
        ear, name = Ear(), uuid4()
        lines.expect(name, ear, SLIN)
        await bench.client.channels.external_media("m", target, format="slin", data=str(name))
        await until(lambda: ear.line is not None and "StasisStart" in bench.kinds())
        assert ear.line is not None
        ear.line.hang_up()
        await until(lambda: "ChannelDestroyed" in bench.kinds())
        assert bench.load.generator.report()()["closed_lines"] == {"hangup": 1}


async def test_a_caller_who_is_given_back_leaves_stasis() -> None:
    async with a_bench() as bench:
        await bench.steer("POST", "calls?count=1&per_second=100")
        await until(lambda: "StasisStart" in bench.kinds())
        caller = next(iter(bench.load.generator.calls))
        await bench.client.channels.set_channel_var(caller, "AGENT_STATUS", "COMPLETED")
        assert await bench.client.channels.get_channel_var(caller, "AGENT_STATUS") == "COMPLETED"
        await bench.client.channels.continue_in_dialplan(caller)
        await until(lambda: "StasisEnd" in bench.kinds())
        await bench.steer("DELETE", "calls")
        assert "ChannelHangupRequest" not in bench.kinds()
        assert not bench.load.generator.calls


async def test_what_asterisk_is_asked_before_the_first_call() -> None:
    async with a_bench() as bench:
        info = await bench.client.asterisk.get_info()
        assert info.version == "22.10.1"
        modules = {each.name: each.status for each in await bench.client.asterisk.list_modules()}
        assert modules["chan_audiosocket.so"] == "Running"


async def test_events_that_nobody_wants_are_not_sent() -> None:
    async with a_bench() as bench:
        await bench.client.applications.hear_only(("StasisEnd",))
        await bench.steer("POST", "calls?count=1&per_second=100")
        await until(lambda: bench.load.generator.calls)
        await bench.steer("DELETE", "calls?count=1")
        await until(lambda: bench.events)
        assert bench.kinds() == ["StasisEnd"]


async def test_refusals_are_asterisks() -> None:
    async with a_bench() as bench:
        channels = bench.client.channels
        with pytest.raises(AriNotFound):
            await channels.get("x")
        with pytest.raises(AriNotFound):
            await channels.continue_in_dialplan("x")
        with pytest.raises(AriNotFound):
            await bench.client.applications.get("other")
        for target, fmt, data in (
            ("127.0.0.1:1", "slin", str(uuid4())),
            ("127.0.0.1:9", "opus", str(uuid4())),
            ("127.0.0.1:9", "slin", "no uuid"),
        ):
            with pytest.raises(AriServerError):
                await channels.external_media("m", target, format=fmt, data=data)
        assert not bench.load.generator.world.channels
        with pytest.raises(aiohttp.ClientResponseError):
            await bench.steer("POST", "calls?count=many")
        async with Client(bench.url, USER, "wrong", APP) as stranger:
            with pytest.raises(AriUnauthorized):
                await stranger.channels.list()


async def test_media_cannot_join_before_it_has_started() -> None:
    async with a_bench() as bench:
        world = bench.load.generator.world
        world.open_media("m", "127.0.0.1:9", str(uuid4()), "now")
        await bench.client.bridges.create_with_id("b", name="")
        with pytest.raises(AriConflict):
            await bench.client.bridges.add_channel("b", "m")


async def test_a_second_listener_replaces_the_first() -> None:
    async with a_bench() as bench:
        second: list[AriEvent] = []
        socket = EventSocket(bench.client, second.append, lambda state: None)
        task = asyncio.create_task(socket.run())
        await until(lambda: bench.events)
        assert isinstance(bench.events[0], ApplicationReplaced)
        await bench.steer("POST", "calls?count=1&per_second=100")
        await until(lambda: second)
        assert bench.kinds() == ["ApplicationReplaced"]
        await socket.close()
        await task


async def test_there_is_a_limit_to_calls() -> None:
    async with a_bench() as bench:
        with pytest.raises(ValueError, match="at most"):
            await bench.load.generator.start_calls(100_000, 10.0)


def test_a_server_has_no_generator_before_it_starts() -> None:
    with pytest.raises(RuntimeError):
        _ = LoadServer(APP, USER, PASSWORD).generator
