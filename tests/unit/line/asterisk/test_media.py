from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from ari_app.line.asterisk.media import AudioSocketMedia
from audiosocket.frames import SLIN, SLIN16, Audio, SlinFormat, encode
from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from tests.unit.audiosocket.client import AudioSocketClient
from tests.unit.line.fake_sound import FakeSound
from tests.unit.virtual_loop import make_entrance
from tests.waiting import until

LOUD = b"\x11\x11" * 160


class Bench:
    """A line between a real server and a client that does what Asterisk does."""

    def __init__(self) -> None:
        self.clock = FrameClock()
        self.server = AudioSocketServer(self.clock, entrance=make_entrance)
        self.lost: list[tuple[str, bool]] = []
        self.sound = FakeSound()
        self.media = self.make()

    def make(self, line_format: SlinFormat = SLIN, seconds: float = 10.0) -> AudioSocketMedia:
        self.media = AudioSocketMedia(self.server, "", line_format, self.sound, seconds, self._lost)
        self.line_format = line_format
        return self.media

    def _lost(self, reason: str, broken: bool) -> None:
        self.lost.append((reason, broken))

    async def dial(self) -> AudioSocketClient:
        client = AudioSocketClient(self.media.uuid, self.line_format, clock=self.clock)
        await client.connect(*self.address)
        await until(lambda: self.server.lines > 0)
        return client

    async def start(self) -> None:
        self.clock.start()
        self.address = await self.server.start("127.0.0.1", 0)

    async def close(self) -> None:
        self.media.hang_up()
        await self.server.close()
        self.clock.stop()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.start()
    yield bench
    await bench.close()


async def test_sound_flows_both_ways(bench: Bench) -> None:
    client = await bench.dial()
    client.source = lambda: LOUD
    bench.sound.frames = [LOUD[::-1]] * 1000
    await asyncio.sleep(0.1)
    assert {heard.payload for heard in client.heard} == {bytes(320)}, "nobody would hear it"
    bench.media.flow()
    await asyncio.sleep(0.1)
    bench.sound.came.clear()
    bench.sound.ticks = 0
    client.heard.clear()
    await asyncio.sleep(1)
    assert set(bench.sound.came) == {LOUD}
    assert len(bench.sound.came) == pytest.approx(50, abs=1)
    assert bench.sound.ticks == pytest.approx(50, abs=1)
    assert {heard.payload for heard in client.heard} == {LOUD[::-1]}
    bench.sound.frames.clear()
    await asyncio.sleep(0.1)
    assert client.heard[-1].payload == bytes(320), "silence is sent, and not nothing"


async def test_a_wide_line(bench: Bench) -> None:
    bench.server.forget(bench.media.uuid)
    bench.make(SLIN16)
    client = await bench.dial()
    client.source = lambda: LOUD * 2
    bench.media.flow()
    bench.sound.frames = [LOUD * 2] * 1000
    await asyncio.sleep(0.5)
    assert {heard.kind for heard in client.heard} == {SLIN16.kind}
    assert client.heard[-1].payload == LOUD * 2
    assert set(bench.sound.came) == {LOUD * 2}


async def test_sound_of_another_rate_is_not_heard_at_the_wrong_speed(bench: Bench) -> None:
    client = await bench.dial()
    client.sending = False
    client.send_raw(encode(Audio(SLIN16.kind, b"\1\1" * 320)))
    await asyncio.sleep(0.1)
    assert bench.sound.came == []
    assert bench.lost == []


async def test_keys_are_told_until_the_end(bench: Bench) -> None:
    keys: list[str] = []
    client = await bench.dial()
    client.send_digit("4")
    await asyncio.sleep(0.1)
    bench.media.on_key = keys.append
    client.send_digit("5")
    await asyncio.sleep(0.1)
    assert (keys, bench.lost) == (["5"], [])
    client.source = lambda: LOUD
    await asyncio.sleep(0.1)
    assert bench.sound.came[-1] == LOUD, "the line goes on"
    bench.media.hang_up()
    bench.media.digit_received("6")
    assert keys == ["5"]


async def test_who_waits_hears_now_and_then_that_somebody_is_there(bench: Bench) -> None:
    client = await bench.dial()
    bench.media.flow()
    bench.media.keeps_company = True
    await asyncio.sleep(6)
    played = np.frombuffer(b"".join(heard.payload for heard in client.heard), "<i2")
    loud = np.count_nonzero(played.reshape(-1, 160), axis=1) > 0
    assert not loud[:50].any(), "not at once"
    assert np.count_nonzero(loud) == pytest.approx(3 * 20, abs=3)
    bench.sound.frames = [LOUD] * 1000
    await asyncio.sleep(4)
    assert {heard.payload for heard in list(client.heard)[-190:]} == {LOUD}, "never over a voice"


async def test_how_much_asterisk_did_not_read_is_known(bench: Bench) -> None:
    assert bench.media.frames_not_read == 0
    await bench.dial()
    assert bench.media.frames_not_read == 0
    stats = bench.media._stats
    stats.frames_skipped_backpressure = 3
    bench.media.hang_up()
    assert bench.media.frames_not_read == 3, "still after the end"


# --- the end


async def test_asterisk_is_told_when_we_hang_up(bench: Bench) -> None:
    client = await bench.dial()
    client.source = lambda: LOUD
    bench.media.hang_up()
    bench.media.hang_up()
    asked, ticks = bench.sound.asked, bench.sound.ticks
    assert await client.wait_closed() == "hangup"
    await asyncio.sleep(0.1)
    assert bench.lost == [], "it was our doing"
    assert (bench.sound.asked, bench.sound.ticks, bench.sound.came) == (asked, ticks, [])


async def test_who_dials_after_the_end_is_hung_up_on(bench: Bench) -> None:
    bench.media.hang_up()
    assert bench.server.expected == 0
    bench.server.expect(bench.media.uuid, bench.media, SLIN)
    client = AudioSocketClient(bench.media.uuid, clock=bench.clock)
    await client.connect(*bench.address)
    assert await client.wait_closed() == "hangup"
    assert bench.sound.asked == 0
    assert bench.lost == []


async def test_it_is_waited_for_only_so_long(bench: Bench) -> None:
    bench.server.forget(bench.media.uuid)
    bench.make(seconds=2.0)
    await asyncio.sleep(1.9)
    assert bench.server.expected == 1
    await asyncio.sleep(0.2)
    assert bench.server.expected == 0


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_line_that_is_lost_is_reported_once(bench: Bench, how: str) -> None:
    client = await bench.dial()
    await asyncio.sleep(0.1)
    getattr(client, how)()
    await asyncio.sleep(0.1)
    assert bench.lost == [("line_peer_closed", False)]
    asked, ticks = bench.sound.asked, bench.sound.ticks
    bench.media.hang_up()
    bench.media.audio_received(LOUD, SLIN.kind)
    bench.media.tick(1)
    await asyncio.sleep(0.1)
    assert bench.lost == [("line_peer_closed", False)]
    assert (bench.sound.asked, bench.sound.ticks) == (asked, ticks)
    assert LOUD not in bench.sound.came
