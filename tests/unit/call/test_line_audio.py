from __future__ import annotations

import asyncio
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from ari_app.audio.formats import AudioFormat
from ari_app.call.hearing import ResponseTime
from ari_app.call.sound import Cleared, LineAudio
from ari_app.errors import LineError
from ari_app.records.recording import Recordings, RecordingStats
from audiosocket.frames import SLIN, SLIN16, Audio, LineFormat, encode
from audiosocket.server import AudioSocketServer
from lab.load.audiosocket_client import AudioSocketClient, pcm_source, tone_source
from lab.softphone.sounds import babble
from linekit.clock import FrameClock
from tests.unit.call.stage import until
from tests.unit.virtual_loop import make_entrance

PCM8 = AudioFormat.pcm(8000)
FRAME = 320


class Bench:
    """A line between a real server and a client that does what Asterisk does."""

    def __init__(self) -> None:
        self.clock = FrameClock()
        self.server = AudioSocketServer(self.clock, entrance=make_entrance)
        self.lost: list[str] = []
        self.responses: list[ResponseTime] = []
        self.audio = self.make()

    def make(self, line_format: LineFormat = SLIN, *, chunk_ms: int = 40) -> LineAudio:
        self.audio = LineAudio(
            line_format,
            chunk_ms=chunk_ms,
            on_lost=self.lost.append,
            on_response=self.responses.append,
        )
        return self.audio

    async def dial(self, line_format: LineFormat = SLIN) -> AudioSocketClient:
        uuid = uuid4()
        self.server.expect(uuid, self.audio, line_format)
        client = AudioSocketClient(uuid, line_format, clock=self.clock, record_frames=100_000)
        await client.connect(*self.address)
        await until(lambda: self.server.lines > 0)
        return client

    async def start(self) -> None:
        self.clock.start()
        self.address = await self.server.start("127.0.0.1", 0)

    async def close(self) -> None:
        self.audio.hang_up()
        await self.server.close()
        self.clock.stop()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.start()
    yield bench
    await bench.close()


def sound(client: AudioSocketClient) -> bytes:
    """What was heard, without the silence before and after it."""
    return b"".join(heard.payload for heard in client.heard).strip(b"\0")


def pcm(ms: int, level: int = 0x1111) -> bytes:
    return level.to_bytes(2, "little") * (8 * ms)


async def read(audio: LineAudio, count: int) -> list[bytes]:
    return [await audio.read_audio_chunk() for _ in range(count)]


async def test_the_line_carries_silence_until_the_start(bench: Bench) -> None:
    client = await bench.dial()
    bench.audio.write_audio_chunk(pcm(100), 1)
    bench.audio.end_response()
    await asyncio.sleep(1)
    assert client.stats.frames_heard == pytest.approx(50, abs=1)
    assert sound(client) == b""
    bench.audio.start(PCM8)
    await asyncio.sleep(1)
    assert sound(client) == pcm(100)


async def test_what_was_said_before_the_start_is_not_heard(bench: Bench) -> None:
    client = await bench.dial()
    client.source = tone_source(SLIN, 400)
    await asyncio.sleep(1)
    assert bench.audio.uplink_stats.received_samples == 0
    bench.audio.start(PCM8)
    chunks = await read(bench.audio, 10)
    assert {len(chunk) for chunk in chunks} == {640}
    assert bench.audio.uplink_stats.received_samples == pytest.approx(3200, abs=320)
    assert bench.audio.uplink_stats.filled_samples == 0


async def test_it_goes_on_in_another_format_without_a_gap(bench: Bench) -> None:
    client = await bench.dial()
    client.source = tone_source(SLIN, 400)
    bench.audio.start(PCM8)
    await read(bench.audio, 10)
    bench.audio.start(AudioFormat.pcm(16000))
    chunks = await read(bench.audio, 10)
    assert {len(chunk) for chunk in chunks} == {1280}
    samples = np.abs(np.frombuffer(b"".join(chunks[1:]), "<i2").astype(float))
    assert np.percentile(samples, 90) > 1000, "the tone is there"
    assert bench.audio.uplink_stats.received_samples == pytest.approx(6400, abs=320)
    assert bench.audio.uplink_stats.filled_samples == 0
    bench.audio.hang_up()
    bench.audio.start(PCM8)


async def test_chunks_follow_the_wall_clock_though_the_phone_sends_nothing(bench: Bench) -> None:
    client = await bench.dial()
    client.sending = False
    bench.audio.start(PCM8)
    began = asyncio.get_running_loop().time()
    chunks = await read(bench.audio, 50)
    lasted = asyncio.get_running_loop().time() - began
    assert lasted == pytest.approx(2.0, abs=0.1)
    assert b"".join(chunks) == bytes(2 * 16000)


async def test_a_listener_is_handed_each_chunk_when_it_is_complete(bench: Bench) -> None:
    client = await bench.dial()
    client.sending = False
    heard: list[tuple[float, bytes]] = []
    loop = asyncio.get_running_loop()
    bench.audio.on_chunk = lambda chunk: heard.append((loop.time(), chunk))
    bench.audio.start(PCM8)
    reading = asyncio.create_task(bench.audio.read_audio_chunk())
    await asyncio.sleep(1)
    assert not reading.done(), "nothing is left for a reader"
    assert b"".join(chunk for _, chunk in heard) == bytes(640 * len(heard))
    assert len(heard) == pytest.approx(24, abs=2)
    assert heard[-1][0] - heard[0][0] == pytest.approx(0.04 * (len(heard) - 1), abs=0.03)
    bench.audio.hang_up()
    with pytest.raises(LineError):
        await reading


async def test_a_chunk_comes_in_the_format_that_is_wanted(bench: Bench) -> None:
    await bench.dial()
    bench.audio.start(AudioFormat.parse("ulaw_8000"))
    (chunk,) = await read(bench.audio, 1)
    assert len(chunk) == 320
    assert set(chunk) == {0xFF}, "silence in mu-law"


async def test_sound_of_another_rate_is_not_heard_at_the_wrong_speed(bench: Bench) -> None:
    client = await bench.dial()
    client.sending = False
    bench.audio.start(PCM8)
    client.send_raw(encode(Audio(SLIN16.kind, b"\1\1" * 320)))
    await asyncio.sleep(0.1)
    assert bench.audio.foreign_frames == 1
    assert bench.audio.uplink_stats.received_samples == 0


@pytest.mark.parametrize("streams", [2, 3])
async def test_a_phone_that_sends_several_streams_at_once_is_heard_in_real_time(
    bench: Bench, streams: int
) -> None:
    client = await bench.dial()
    bench.audio.start(PCM8)
    said = babble(30_000)
    frames = [said[at : at + FRAME] for at in range(0, len(said), FRAME)]
    heard: list[bytes] = []
    bench.audio.on_chunk = heard.append
    client.source = iter(frames).__next__
    for _ in frames[:-1]:
        await asyncio.sleep(0.02)
        for _ in range(streams - 1):
            client.send_raw(encode(Audio(SLIN.kind, bytes(FRAME))))
    assert bench.lost == []
    assert len(b"".join(heard)) / 16000 == pytest.approx(30, abs=0.06)
    loud = [frame for frame in frames if not bench.audio.hearing.is_quiet(frame)]
    assert len(loud) > 1400
    told = b"".join(heard)
    assert sum(frame in told for frame in loud) >= len(loud) - 5, "the voice is whole"
    stats = bench.audio.uplink_stats
    assert stats.surplus_samples == 0
    assert stats.surplus_quiet_samples / 8000 == pytest.approx(30 * (streams - 1), abs=0.2)
    assert bench.audio.hearing.noise_at == 0


async def test_a_wide_line(bench: Bench) -> None:
    bench.make(SLIN16)
    client = await bench.dial(SLIN16)
    bench.audio.start(AudioFormat.pcm(16000))
    bench.audio.write_audio_chunk(b"\1\1" * 1600, 1)
    bench.audio.end_response()
    await bench.audio.drained()
    assert sound(client) == b"\1\1" * 1600
    assert {heard.kind for heard in client.heard} == {SLIN16.kind}


async def test_a_reader_that_falls_behind_gets_what_is_newest(bench: Bench) -> None:
    client = await bench.dial()
    client.sending = False
    bench.audio.start(PCM8)
    await asyncio.sleep(10)
    chunks = 0
    async with asyncio.timeout(0.01):
        while chunks < 50:
            await bench.audio.read_audio_chunk()
            chunks += 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await bench.audio.read_audio_chunk()


async def test_keys_are_left_to_asterisks_event(bench: Bench) -> None:
    client = await bench.dial()
    client.send_digit("5")
    await asyncio.sleep(0.1)
    assert bench.lost == []
    assert bench.audio.line is not None
    assert bench.audio.line.stats.digits_received == 1


# --- playing


async def test_clear_says_what_was_heard_and_what_was_not(bench: Bench) -> None:
    client = await bench.dial()
    bench.audio.start(PCM8)
    assert bench.audio.clear() == Cleared(0, 0.0, 0.0)
    bench.audio.write_audio_chunk(pcm(500), 3)
    bench.audio.write_audio_chunk(pcm(200), 4)
    await asyncio.sleep(0.2)
    cleared = bench.audio.clear()
    assert cleared.response_id == 3
    assert cleared.heard_ms == pytest.approx(200, abs=40)
    assert cleared.heard_ms + cleared.dropped_ms == 700
    await asyncio.sleep(0.5)
    assert len(sound(client)) / 16 == pytest.approx(cleared.heard_ms, abs=1)


async def test_a_response_whose_end_is_not_announced_is_asked_for_its_tail(bench: Bench) -> None:
    client = await bench.dial()
    bench.audio.start(PCM8)
    asked: list[int] = []

    def tail() -> bytes:
        asked.append(1)
        return pcm(10)

    bench.audio.on_dry = tail
    bench.audio.write_audio_chunk(pcm(100), 1)
    await asyncio.sleep(0.5)
    assert asked == [1]
    assert len(sound(client)) / 16 == pytest.approx(110, abs=1)


async def test_nothing_is_asked_of_nobody(bench: Bench) -> None:
    client = await bench.dial()
    bench.audio.start(PCM8)
    bench.audio.write_audio_chunk(pcm(100), 1)
    bench.audio.write_audio_chunk(b"", 1)
    await asyncio.sleep(0.5)
    assert len(sound(client)) / 16 >= 95


async def test_drained_waits_for_the_last_sample_and_for_the_phone_to_hear_it(
    bench: Bench,
) -> None:
    client = await bench.dial()
    bench.audio.start(PCM8)
    began = asyncio.get_running_loop().time()
    await bench.audio.drained()
    assert asyncio.get_running_loop().time() == began, "nothing was queued"
    bench.audio.write_audio_chunk(pcm(1000), 1)
    bench.audio.end_response()
    await bench.audio.drained()
    assert asyncio.get_running_loop().time() - began == pytest.approx(1.0 + 0.06, abs=0.05)
    assert sound(client) == pcm(1000)


async def test_drained_may_be_awaited_by_several_and_again(bench: Bench) -> None:
    await bench.dial()
    bench.audio.start(PCM8)
    for _ in range(2):
        bench.audio.write_audio_chunk(pcm(200), 1)
        bench.audio.end_response()
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(5):
            await asyncio.gather(bench.audio.drained(), bench.audio.drained())
        assert asyncio.get_running_loop().time() - began > 0.2


async def test_what_never_begins_to_play_is_drained_when_the_line_closes(bench: Bench) -> None:
    await bench.dial()
    bench.audio.write_audio_chunk(pcm(1000), 1)
    waiting = asyncio.create_task(bench.audio.drained())
    await asyncio.sleep(1)
    assert not waiting.done()
    await bench.audio.close()
    await waiting
    await bench.audio.drained()


async def test_an_answer_is_measured(bench: Bench) -> None:
    client = await bench.dial()
    bench.audio.start(PCM8)
    client.source = pcm_source(SLIN, babble(1000))
    await asyncio.sleep(1)
    client.sending = False
    await asyncio.sleep(1.2)
    bench.audio.write_audio_chunk(np.array([9000, -9000, 0] * 400, "<i2").tobytes(), 1)
    await asyncio.sleep(0.1)
    (response,) = bench.responses
    assert response.seconds == pytest.approx(1.2, abs=0.05)
    assert bench.audio.hearing.responses == [response]


# --- recording


async def test_both_sides_are_recorded_from_the_start_on(bench: Bench, tmp_path: Path) -> None:
    client = await bench.dial()
    client.source = tone_source(SLIN, 400)
    bench.audio.start(PCM8)
    loop = asyncio.get_running_loop()
    recordings = Recordings()
    recorder = recordings.start(tmp_path / "a.wav", 8000, loop.time())
    assert recorder is not None
    bench.audio.recorder = recorder
    bench.audio.write_audio_chunk(pcm(1000), 1)
    await asyncio.sleep(1.5)
    bench.audio.hang_up()
    recorder.finish()
    await recordings.close()
    assert recordings.stats == RecordingStats(saved=1)
    with wave.open(str(tmp_path / "a.wav")) as wav:
        assert wav.getnframes() / 8000 == pytest.approx(1.5, abs=0.1)


# --- the end


async def test_asterisk_is_told_when_we_hang_up(bench: Bench) -> None:
    client = await bench.dial()
    bench.audio.hang_up()
    bench.audio.hang_up()
    assert await client.wait_closed() == "hangup"
    assert bench.lost == [], "it was our doing"


async def test_who_dials_after_the_end_is_hung_up_on(bench: Bench) -> None:
    await bench.audio.close()
    uuid = uuid4()
    bench.server.expect(uuid, bench.audio, SLIN)
    client = AudioSocketClient(uuid, clock=bench.clock)
    await client.connect(*bench.address)
    assert await client.wait_closed() == "hangup"
    assert bench.audio.line is None
    assert bench.lost == []


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_line_that_is_lost_is_reported_once(bench: Bench, how: str) -> None:
    client = await bench.dial()
    bench.audio.start(PCM8)
    reading = asyncio.create_task(read(bench.audio, 1000))
    draining = asyncio.create_task(_drain(bench.audio))
    await asyncio.sleep(0.1)
    getattr(client, how)()
    with pytest.raises(LineError) as caught:
        await reading
    assert caught.value.code == "line_closed"
    await draining
    assert bench.lost == ["peer_closed"]
    bench.audio.hang_up()


async def _drain(audio: LineAudio) -> None:
    audio.write_audio_chunk(pcm(60_000), 1)
    await audio.drained()


async def test_nothing_happens_on_a_closed_line(bench: Bench) -> None:
    await bench.dial()
    await bench.audio.close()
    bench.audio.start(PCM8)
    bench.audio.write_audio_chunk(pcm(100), 1)
    bench.audio.audio_received(pcm(20), SLIN.kind)
    bench.audio.tick(1)
    assert bench.audio.playout.stats.samples_in == 0
    assert bench.audio.uplink_stats.received_samples == 0
    with pytest.raises(LineError):
        await bench.audio.read_audio_chunk()


async def test_what_was_heard_before_the_end_can_still_be_read(bench: Bench) -> None:
    await bench.dial()
    bench.audio.start(PCM8)
    await asyncio.sleep(0.2)
    await bench.audio.close()
    assert await bench.audio.read_audio_chunk() != b""
    with pytest.raises(LineError):
        await read(bench.audio, 100)


async def test_a_reader_that_gives_up_leaves_no_trace(bench: Bench) -> None:
    await bench.dial()
    bench.audio.start(PCM8)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await bench.audio.read_audio_chunk()
    assert len(await bench.audio.read_audio_chunk()) == 640
