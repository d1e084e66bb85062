from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import numpy as np
import pytest

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import (
    AriConflict,
    AriMalformed,
    AriNotFound,
    AriUnreached,
)
from ari_app.line.asterisk.ari.models import Channel
from ari_app.line.asterisk.chan_websocket import REPORT_DRAINED
from ari_app.line.asterisk.websocket_media import WebSocketMedia
from audiosocket.frames import SLIN
from lab.load.media_socket import CAUSE_NORMAL, MediaSocket
from linekit.clock import FrameClock
from tests.unit.call.fake_ari import FakeAsterisk, FakeClient, PlayedMedia
from tests.unit.line.fake_sound import FakeSound
from tests.waiting import until

LOUD = b"\x11\x11" * 160
SILENT = bytes(320)


class Bench:
    """Our side, and an Asterisk in memory."""

    def __init__(self) -> None:
        self.clock = FrameClock()
        self.asterisk = FakeAsterisk(clock=self.clock)
        self.client = FakeClient(self.asterisk)
        self.sound = FakeSound()
        self.lost: list[tuple[str, bool]] = []
        self.causes: list[int] = []
        self.media = WebSocketMedia(
            self.asterisk,
            self.clock,
            lambda: True,
            SLIN,
            self.sound,
            lambda *why: self.lost.append(why),
        )
        self.count = 0

    async def makes(self) -> Channel:
        """Asterisk makes a channel."""
        self.count += 1
        return await self.client.channels.external_media(f"m{self.count}", **self.media.request())

    async def opens(self) -> PlayedMedia:
        """It makes one, we connect, and it comes into a bridge."""
        assert await self.media.made(await self.makes())
        far = self.far
        await until(lambda: self.asterisk.world.channels[far.channel.channel_id].in_stasis)
        await self.client.bridges.create_with_id("b", name="")
        await self.client.bridges.add_channel("b", far.channel.channel_id)
        self.media.flow()
        return far

    @property
    def far(self) -> PlayedMedia:
        return self.asterisk.sockets[f"m{self.count}"]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    bench.clock.start()
    yield bench
    bench.media.hang_up()
    await asyncio.sleep(0.1)
    await bench.asterisk.close()
    bench.clock.stop()


async def test_what_asterisk_is_asked_for_is_made_of_constants(bench: Bench) -> None:
    assert bench.media.request() == {
        "external_host": "",
        "encapsulation": "none",
        "transport": "websocket",
        "connection_type": "server",
        "transport_data": "f(json)",
        "format": "slin",
    }


async def test_nothing_is_sent_before_the_bridge_and_time_goes_on(bench: Bench) -> None:
    bench.sound.frames = [LOUD] * 100
    assert await bench.media.made(await bench.makes())
    await asyncio.sleep(1)
    assert (bench.sound.asked, len(bench.far.channel.queue)) == (0, 0)
    assert bench.sound.ticks == pytest.approx(50, abs=2)
    await bench.client.bridges.create_with_id("b", name="")
    await bench.client.bridges.add_channel("b", "m1")
    bench.media.flow()
    await asyncio.sleep(3)
    assert bench.far.channel.early_bytes == 0
    assert bench.far.heard[:100] == [LOUD] * 100
    assert set(bench.far.heard[100:]) == {SILENT}
    assert bench.far.gaps == 0


async def test_messages_are_written_at_once_and_none_is_joined_to_another(bench: Bench) -> None:
    await bench.opens()
    used = bench.media._socket
    assert used is not None
    written: list[list[int]] = []

    class Transport(asyncio.Transport):
        def writelines(self, list_of_data: Iterable[Any]) -> None:
            # Over TLS each of them is a record.
            written.append([len(data) for data in list_of_data])

    before, used._transport = used._transport, Transport()
    used.send([bytes(3840), bytes(3840), REPORT_DRAINED])
    used._transport = before
    assert written == [[3848, 3848, 6 + len(REPORT_DRAINED)]]


async def test_the_callers_sound_comes_as_it_comes(bench: Bench) -> None:
    far = await bench.opens()
    far.sends = LOUD
    await asyncio.sleep(1)
    assert bench.sound.came.count(LOUD) == pytest.approx(50, abs=2)
    socket = far.channel.socket
    assert socket is not None
    far.sends = None
    await asyncio.sleep(0.1)
    bench.sound.came.clear()
    for piece in (b"\1\1" * 30, LOUD + LOUD[:80], LOUD[:-1]):
        socket.send(piece)
    await asyncio.sleep(0.1)
    assert bench.sound.came == [b"\1\1" * 30, LOUD + LOUD[:80], LOUD[:-2]], "whole samples"


async def test_messages_in_any_pieces_are_heard_whole(bench: Bench) -> None:
    far = await bench.opens()
    far.sends = None
    transport = far.channel.socket._transport  # type: ignore[union-attr]
    assert transport is not None
    await asyncio.sleep(0.1)
    bench.sound.came.clear()
    sound = b"\x82\x7e\x01\x40" + LOUD
    ping = b"\x89\x02hi"
    wire = sound + sound + ping + sound + b'\x81\x15{"event":"MEDIA_XON"}' + sound + sound
    for size in (1, 3, 7, 320, 324, 325, len(wire)):
        for at in range(0, len(wire), size):
            transport.write(wire[at : at + size])
        await asyncio.sleep(0.1)
        assert bench.sound.bytes_heard == LOUD * 5, size
        bench.sound.came.clear()
    assert bench.lost == []


async def test_an_interruption_is_flushed_at_once(bench: Bench) -> None:
    far = await bench.opens()
    bench.sound.frames = [LOUD] * 1000
    await asyncio.sleep(2)
    heard = len([frame for frame in far.heard if frame == LOUD])
    pulled = bench.sound.pulled
    bench.sound.frames.clear()
    taken = bench.media.take_back() / 20
    assert pulled - taken == pytest.approx(heard, abs=2), "right to 40 ms"
    await asyncio.sleep(1)
    assert len([frame for frame in far.heard if frame == LOUD]) <= heard + 1
    assert far.channel.queue.flushes >= 1
    assert bench.media.take_back() == 0


async def test_the_end_of_what_is_said_is_waited_for(bench: Bench) -> None:
    far = await bench.opens()
    bench.sound.frames = [LOUD] * 20
    await until(lambda: not bench.sound.frames)
    loop = asyncio.get_running_loop()
    await until(lambda: far.heard.count(LOUD) == 20)
    await asyncio.sleep(0.06)
    began = loop.time()
    await bench.media.heard_out()
    assert len(far.channel.queue) == 0
    assert loop.time() - began < 0.2
    await asyncio.sleep(1)
    began = loop.time()
    await bench.media.heard_out()
    assert loop.time() == began, "it has been heard long ago"


async def test_who_waits_hears_now_and_then_that_somebody_is_there(bench: Bench) -> None:
    far = await bench.opens()
    bench.media.keeps_company = True
    await asyncio.sleep(6.5)
    played = np.frombuffer(b"".join(far.heard), "<i2")
    loud = np.count_nonzero(played.reshape(-1, 160), axis=1) > 0
    assert not loud[:50].any(), "not at once"
    assert np.count_nonzero(loud) == pytest.approx(3 * 20, abs=4)


async def test_a_connection_that_breaks_is_told_and_the_next_channel_goes_on(bench: Bench) -> None:
    far = await bench.opens()
    bench.sound.frames = [LOUD] * 200
    await asyncio.sleep(2)
    first = far.heard.count(LOUD)
    far.breaks()
    await until(lambda: bool(bench.lost))
    assert bench.lost == [("line_peer_closed", True)]
    ticks = bench.sound.ticks
    bench.media.renew()
    far = await bench.opens()
    await asyncio.sleep(4)
    assert first + far.heard.count(LOUD) == pytest.approx(200, abs=2)
    assert bench.sound.ticks > ticks + 190


async def test_an_end_on_purpose_is_not_a_break(bench: Bench) -> None:
    far = await bench.opens()
    far.channel.hang_up()
    await until(lambda: bool(bench.lost))
    assert bench.lost == [("line_peer_closed", False)]


async def test_our_own_end_is_told_to_asterisk_as_such_and_to_nobody_else(bench: Bench) -> None:
    far = await bench.opens()
    causes: list[int] = []
    far._tell_ended = causes.append
    bench.media.hang_up()
    bench.media.hang_up()
    await asyncio.sleep(0.2)
    assert (causes, bench.lost) == ([CAUSE_NORMAL], [])
    ticks = bench.sound.ticks
    await asyncio.sleep(0.2)
    assert bench.sound.ticks == ticks


async def test_an_asterisk_that_does_not_play_is_given_up(bench: Bench) -> None:
    far = await bench.opens()
    bench.sound.frames = [LOUD] * 10_000
    await asyncio.sleep(1)
    far._stop()
    await asyncio.sleep(10)
    assert bench.lost == [("line_peer_closed", True)]
    assert bench.media.frames_not_read > 100
    assert len(far.channel.queue) < 150, "and gets no more than it can be late by"


async def test_a_channel_that_does_not_let_us_in(bench: Bench) -> None:
    channel = await bench.makes()
    variables = channel.channelvars
    unknown = channel.model_copy(
        update={"channelvars": {"MEDIA_WEBSOCKET_CONNECTION_ID": "id-of-nobody"}}
    )
    with pytest.raises(AriNotFound):
        await bench.media.made(unknown)
    assert await bench.media.made(channel)
    with pytest.raises(AriConflict):
        await bench.media.made(channel)
    assert variables
    assert not await bench.media.made(channel.model_copy(update={"channelvars": {}}))


async def test_nobody_is_there(bench: Bench) -> None:
    channel = await bench.makes()
    assert bench.asterisk._server is not None
    bench.asterisk._server.close()
    with pytest.raises(AriUnreached, match="refused"):
        await bench.media.made(channel)


async def test_what_is_no_websocket_is_not_taken_for_one(bench: Bench) -> None:
    channel = await bench.makes()
    for answer in (b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""):

        class Other(MediaSocket):
            said = answer

            def data_received(self, data: bytes) -> None:
                assert self._transport is not None
                self._transport.write(self.said)
                self._transport.close()

        bench.asterisk._server.factory = lambda: Other(lambda name: None)  # type: ignore[union-attr]
        with pytest.raises((AriUnreached, AriMalformed)):
            await bench.media.made(channel)


async def test_over_tls_with_a_certificate_of_ones_own(tmp_path: object) -> None:
    client = Client("https://asterisk.test:8089/pbx", "lab", "x", "app")
    assert str(client.rest.base) == "https://asterisk.test:8089/pbx"
    assert client.rest.tls
    assert not Client("http://127.0.0.1:8088", "lab", "x", "app").rest.tls
