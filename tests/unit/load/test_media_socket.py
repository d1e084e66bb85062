"""Our side of chan_websocket against the generator's, over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter

from ari_app.line.asterisk.websocket_media import WebSocketMedia
from audiosocket.frames import SLIN
from linekit.clock import FrameClock
from tests.unit.load.test_server import a_bench
from tests.waiting import until


class Sound:
    """What comes, by how many frames came at once; nothing is said."""

    frames_ready = 0
    frames_at_once = 1

    def __init__(self) -> None:
        self.frames = self._turn = 0
        self.at_once: Counter[int] = Counter()

    def heard(self, pcm: bytes) -> None:
        assert len(pcm) == 320
        self.frames += 1
        self._turn += 1
        if self._turn == 1:
            asyncio.get_running_loop().call_soon(self._read)

    def _read(self) -> None:
        self.at_once[self._turn] += 1
        self._turn = 0

    def next_frame(self) -> bytes | None:
        return None

    def tick(self) -> None: ...


async def heard(*, busy: bool) -> None:
    """Have a caller heard as is due, who falls silent in the middle of a pair."""
    clock, sound = FrameClock(), Sound()
    clock.start()
    async with a_bench() as bench:
        await bench.steer("POST", "calls?count=1&per_second=100")
        await until(lambda: "StasisStart" in bench.kinds())
        client, caller = bench.client, next(iter(bench.load.generator.calls))
        media = WebSocketMedia(
            client.rest, clock, lambda: busy, SLIN, sound, lambda reason, broken: None
        )
        await client.bridges.create_with_id("b", name="a call")
        channel = await client.channels.external_media("m", **media.request())
        assert await media.made(channel)
        await until(lambda: bench.kinds().count("StasisStart") == 2)
        await client.bridges.add_channel("b", "m")
        media.flow()
        await asyncio.sleep(0.1)
        await client.channels.answer(caller)
        await client.bridges.add_channel("b", caller)
        line = bench.load.generator.calls[caller].line
        assert line is not None
        # Busy or not, a machine that is held up has some that come together.
        await until(lambda: sound.at_once[2 if busy else 1] >= 5)
        await until(lambda: line.frames_sent % 2)
        line.talking = False
        await until(lambda: sound.frames == line.frames_sent)
        media.hang_up()
        await until(lambda: "ChannelDestroyed" in bench.kinds())
    clock.stop()


async def test_each_frame_is_heard_as_it_comes() -> None:
    await heard(busy=False)


async def test_frames_come_in_pairs_where_many_calls_run_and_the_last_is_not_left() -> None:
    await heard(busy=True)
