from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from ari_app.audio.formats import AudioFormat
from ari_app.audio.g711 import pcm_to_ulaw
from ari_app.call.hearing import ResponseTime
from ari_app.call.sound import CallSound, Cleared
from ari_app.records.recording.writer import Recordings, RecordingStats
from audiosocket.connection import FrameSource
from audiosocket.frames import SLIN, SLIN16
from lab.softphone.sounds import babble
from tests.recordings import sides_of
from tests.unit.audiosocket.client import pcm_source, tone_source

FRAME = 320


class Voice:
    """An agent's conversation, as sound sees it."""

    def __init__(self, hears: str = "pcm_8000", speaks: str = "pcm_8000") -> None:
        self.hears = AudioFormat.parse(hears)
        self.speaks = AudioFormat.parse(speaks)
        self.got: list[bytes] = []
        self.got_at: list[float] = []

    def hear(self, data: bytes) -> None:
        self.got.append(data)
        self.got_at.append(asyncio.get_running_loop().time())

    @property
    def heard(self) -> bytes:
        return b"".join(self.got)


class Phone:
    """A line that drives one call's sound, 20 ms after 20 ms.

    Attributes:
        source: What the caller says in each; None: nothing comes.
        played: What the caller heard, frame by frame.
        ahead_ms: What is taken back when it is asked for.
    """

    def __init__(self, rate_hz: int = 8000, *, chunk_ms: int = 40) -> None:
        self.rate_hz = rate_hz
        self.source: FrameSource = lambda: None
        self.played: list[bytes] = []
        self.ahead_ms = 0.0
        self.responses: list[ResponseTime] = []
        self.sound = CallSound(
            rate_hz,
            chunk_ms=chunk_ms,
            on_response=self.responses.append,
            take_back=lambda: self.ahead_ms,
        )
        self.agent = Voice()
        self.sound.carry(self.agent)
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due, frame_bytes = loop.time(), self.rate_hz // 25
        while True:
            due += 0.02
            await asyncio.sleep(due - loop.time())
            self.sound.tick()
            if (frame := self.source()) is not None:
                self.sound.heard(frame)
            self.played.append(self.sound.next_frame() or bytes(frame_bytes))

    @property
    def heard(self) -> bytes:
        """What the caller heard, without the silence before and after it."""
        return b"".join(self.played).strip(b"\0")

    def carry(self, agent: Voice) -> Voice:
        self.agent = agent
        self.sound.carry(agent)
        return agent

    async def close(self) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])
        self.sound.stop()


@pytest.fixture
async def phone() -> AsyncIterator[Phone]:
    phone = Phone()
    yield phone
    await phone.close()


def pcm(ms: int, level: int = 0x1111) -> bytes:
    return level.to_bytes(2, "little") * (8 * ms)


def ramp(samples: int) -> bytes:
    return np.arange(1, samples + 1, dtype="<i2").tobytes()


def queued(sound: CallSound) -> int:
    """How many samples have been given to the line."""
    return sound.playout.stats.samples_in


# --- hearing


async def test_a_line_carries_silence_until_the_start(phone: Phone) -> None:
    phone.sound.say(1, pcm(100), is_final=True)
    await asyncio.sleep(1)
    assert len(phone.played) == pytest.approx(50, abs=1)
    assert phone.heard == b""
    phone.sound.start()
    await asyncio.sleep(1)
    assert phone.heard == pcm(100)


async def test_what_was_said_before_the_start_is_not_heard(phone: Phone) -> None:
    overheard: list[bytes] = []
    phone.sound.overhear = lambda pcm, now: overheard.append(pcm)
    phone.source = tone_source(SLIN, 400)
    await asyncio.sleep(1)
    assert phone.sound.uplink_stats.received_samples == 0
    assert phone.agent.got == []
    assert len(overheard) == pytest.approx(50, abs=1)
    phone.sound.start()
    await asyncio.sleep(0.41)
    assert {len(chunk) for chunk in phone.agent.got} == {640}
    assert phone.sound.uplink_stats.received_samples == pytest.approx(3200, abs=320)
    assert phone.sound.uplink_stats.filled_samples == 0


async def test_it_goes_on_with_another_agent_in_its_formats_without_a_gap(phone: Phone) -> None:
    first = phone.agent
    phone.source = tone_source(SLIN, 400)
    phone.sound.start()
    phone.sound.say(1, ramp(1600), is_final=True)
    await asyncio.sleep(0.1)
    second = phone.carry(Voice("pcm_16000", "pcm_16000"))
    before = len(first.got)
    phone.sound.say(2, ramp(1600), is_final=True)
    assert queued(phone.sound) == 1600 + 800, "what the first one said is still played"
    await asyncio.sleep(0.4)
    assert len(first.got) == before
    assert {len(chunk) for chunk in second.got} == {1280}
    samples = np.abs(np.frombuffer(b"".join(second.got[1:]), "<i2").astype(float))
    assert np.percentile(samples, 90) > 1000, "the tone is there"
    assert phone.sound.uplink_stats.received_samples == pytest.approx(4000, abs=320)
    assert phone.sound.uplink_stats.filled_samples == 0


async def test_another_agent_before_the_start(phone: Phone) -> None:
    first = phone.agent
    second = phone.carry(Voice("ulaw_8000"))
    phone.sound.start()
    await asyncio.sleep(0.5)
    assert first.got == []
    assert {len(chunk) for chunk in second.got} == {320}
    assert set(second.heard) == {0xFF}, "silence in mu-law"


async def test_chunks_follow_the_wall_clock_though_the_phone_sends_nothing(phone: Phone) -> None:
    phone.sound.start()
    await asyncio.sleep(2.1)
    agent = phone.agent
    assert {len(chunk) for chunk in agent.got} == {640}
    assert not any(agent.heard)
    assert len(agent.got) == pytest.approx(50, abs=2)
    lasted = agent.got_at[-1] - agent.got_at[0]
    assert lasted == pytest.approx(0.04 * (len(agent.got) - 1), abs=0.03)


async def test_what_is_quiet_goes_in_longer_messages_and_speech_as_ever(phone: Phone) -> None:
    loop, agent = asyncio.get_running_loop(), phone.agent
    noise, speech = pcm(20, 6), np.tile(np.array([0, 6000], "<i2"), 80).tobytes()
    phone.source = lambda: noise
    phone.sound.start()
    await asyncio.sleep(4.1)
    quiet = len(agent.got)
    phone.source = lambda: speech
    began = loop.time()
    await asyncio.sleep(1.01)
    phone.source = lambda: noise
    ended = loop.time()
    await asyncio.sleep(4.5)

    sizes = [len(chunk) // 640 for chunk in agent.got]
    # For two seconds after the beginning and after speech nothing is quiet.
    assert set(sizes[:50]) == {1} and set(sizes[50:quiet]) == {5}
    first = next(i for i, chunk in enumerate(agent.got) if speech in chunk)
    assert agent.got_at[first] - began < 0.041
    assert agent.got[first].endswith(speech)
    after = [size for at, size in zip(agent.got_at, sizes, strict=True) if at > began + 0.05]
    assert set(after[:74]) == {1} and set(after[76:]) == {5}
    assert loop.time() - ended > 4

    # Beside the agent's own voice it is quiet sooner.
    del agent.got[:], agent.got_at[:]
    phone.source = lambda: speech
    await asyncio.sleep(0.5)
    phone.source = lambda: noise
    phone.sound.say(1, pcm(2000, 5000))
    await asyncio.sleep(1.9)
    sizes = [len(chunk) // 640 for chunk in agent.got]
    assert sizes[-2:] == [5, 5] and sizes.count(1) == pytest.approx(37, abs=2)


async def test_each_direction_obeys_its_own_format(phone: Phone) -> None:
    agent = phone.carry(Voice("pcm_16000", "ulaw_8000"))
    phone.sound.start()
    phone.sound.say(7, pcm_to_ulaw(ramp(800)), is_final=True)
    assert queued(phone.sound) == 800
    await asyncio.sleep(0.5)
    assert {len(chunk) for chunk in agent.got} == {1280}


async def test_who_is_muted_is_heard_as_silence(phone: Phone) -> None:
    phone.source = tone_source(SLIN, 400)
    phone.sound.start()
    phone.sound.muted = True
    await asyncio.sleep(0.5)
    assert len(phone.agent.heard) > 0 and not any(phone.agent.heard)
    assert phone.sound.uplink_stats.filled_samples == 0


@pytest.mark.parametrize("streams", [2, 3])
async def test_a_phone_that_sends_several_streams_at_once_is_heard_in_real_time(
    phone: Phone, streams: int
) -> None:
    phone.sound.start()
    said = babble(30_000)
    frames = [said[at : at + FRAME] for at in range(0, len(said), FRAME)]
    phone.source = iter(frames).__next__
    for _ in frames[:-1]:
        await asyncio.sleep(0.02)
        for _ in range(streams - 1):
            phone.sound.heard(bytes(FRAME))
    told = phone.agent.heard
    assert len(told) / 16000 == pytest.approx(30, abs=0.06)
    loud = [frame for frame in frames if not phone.sound.hearing.is_quiet(frame)]
    assert len(loud) > 1400
    assert sum(frame in told for frame in loud) >= len(loud) - 5, "the voice is whole"
    stats = phone.sound.uplink_stats
    assert stats.surplus_samples == 0
    assert stats.surplus_quiet_samples / 8000 == pytest.approx(30 * (streams - 1), abs=0.2)
    assert phone.sound.hearing.noise_at == 0


async def test_a_wide_line() -> None:
    phone = Phone(16000)
    phone.carry(Voice("pcm_16000", "pcm_16000"))
    phone.source = tone_source(SLIN16, 400)
    phone.sound.start()
    phone.sound.say(1, b"\1\1" * 1600, is_final=True)
    await phone.sound.drained()
    assert phone.heard == b"\1\1" * 1600
    assert {len(chunk) for chunk in phone.agent.got} == {1280}
    await phone.close()


# --- playing


async def test_clear_says_what_was_heard_and_what_was_not(phone: Phone) -> None:
    phone.sound.start()
    assert phone.sound.clear() == Cleared(0, 0.0, 0.0)
    phone.sound.say(3, pcm(500))
    phone.sound.say(4, pcm(200))
    await asyncio.sleep(0.21)
    cleared = phone.sound.clear()
    assert cleared.response_id == 3
    assert cleared.heard_ms == pytest.approx(200, abs=40)
    assert cleared.heard_ms + cleared.dropped_ms == 700
    await asyncio.sleep(0.5)
    assert len(phone.heard) / 16 == pytest.approx(cleared.heard_ms, abs=1)


async def test_what_the_line_had_taken_ahead_was_not_heard(phone: Phone) -> None:
    phone.sound.start()
    phone.sound.say(3, pcm(500))
    await asyncio.sleep(0.21)
    phone.ahead_ms = 60.0
    cleared = phone.sound.clear()
    assert cleared.heard_ms == pytest.approx(140, abs=20)
    assert cleared.heard_ms + cleared.dropped_ms == 500


@pytest.mark.parametrize("announced", ["with the last chunk", "alone"])
async def test_a_response_is_complete_to_its_last_sample(phone: Phone, announced: str) -> None:
    phone.carry(Voice(speaks="pcm_16000"))
    phone.sound.say(1, ramp(1600), is_final=announced != "alone")
    if announced == "alone":
        assert queued(phone.sound) < 800, "some are held back"
        phone.sound.end_response()
    assert queued(phone.sound) == 800


async def test_a_response_whose_end_is_not_announced_is_asked_for_its_tail(phone: Phone) -> None:
    phone.carry(Voice(speaks="pcm_16000"))
    phone.sound.start()
    phone.sound.say(1, np.full(1760, 0x1111, "<i2").tobytes())
    held_back = 880 - queued(phone.sound)
    assert held_back > 0
    await asyncio.sleep(0.5)
    assert queued(phone.sound) == 880
    assert len(phone.heard) / 16 == pytest.approx(110, abs=1)


async def test_a_response_is_one_though_each_piece_has_an_id_of_its_own(phone: Phone) -> None:
    phone.sound.start()
    phone.sound.say(1, pcm(100), is_final=True)
    await asyncio.sleep(0.3)
    phone.sound.say(2, pcm(100))
    await asyncio.sleep(0.3)
    assert phone.sound.playout.stats.underruns == 0
    phone.sound.say(3, pcm(200))
    assert phone.sound.playout.stats.underruns == 1, "its voice broke off"
    phone.sound.say(4, pcm(400))
    await asyncio.sleep(0.3)
    cleared = phone.sound.clear()
    assert cleared.heard_ms == pytest.approx(100 + 300, abs=40)
    assert cleared.heard_ms + cleared.dropped_ms == 700
    await asyncio.sleep(0.1)
    phone.sound.say(5, pcm(100))
    assert phone.sound.playout.stats.underruns == 1
    assert phone.sound.clear() == Cleared(5, 0.0, 100.0)


async def test_an_interruption_forgets_what_is_held_back(phone: Phone) -> None:
    phone.carry(Voice(speaks="pcm_16000"))
    phone.sound.say(1, ramp(1600))
    phone.sound.clear()
    before = queued(phone.sound)
    phone.sound.end_response()
    assert queued(phone.sound) == before


async def test_nothing_is_asked_of_nobody(phone: Phone) -> None:
    phone.sound.start()
    phone.sound.say(1, pcm(100))
    phone.sound.say(1, b"")
    await asyncio.sleep(0.5)
    assert len(phone.heard) / 16 >= 95


async def test_sound_of_our_own_is_played_at_the_lines_rate(phone: Phone) -> None:
    phone.carry(Voice(speaks="pcm_48000"))
    phone.sound.start()
    phone.sound.play(pcm(100))
    await phone.sound.drained()
    assert phone.heard == pcm(100)


async def test_drained_waits_for_the_last_sample_and_for_the_phone_to_hear_it(
    phone: Phone,
) -> None:
    phone.sound.start()
    began = asyncio.get_running_loop().time()
    await phone.sound.drained()
    assert asyncio.get_running_loop().time() == began, "nothing was queued"
    phone.sound.say(1, pcm(1000), is_final=True)
    await phone.sound.drained()
    assert asyncio.get_running_loop().time() - began == pytest.approx(1.0 + 0.06, abs=0.05)
    assert phone.heard == pcm(1000)


async def test_drained_may_be_awaited_by_several_and_again(phone: Phone) -> None:
    phone.sound.start()
    for _ in range(2):
        phone.sound.say(1, pcm(200), is_final=True)
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(5):
            await asyncio.gather(phone.sound.drained(), phone.sound.drained())
        assert asyncio.get_running_loop().time() - began > 0.2


async def test_what_never_begins_to_play_is_drained_when_the_sound_stops(phone: Phone) -> None:
    phone.sound.say(1, pcm(1000))
    waiting = asyncio.create_task(phone.sound.drained())
    await asyncio.sleep(1)
    assert not waiting.done()
    phone.sound.stop()
    await waiting
    await phone.sound.drained()


async def test_an_answer_is_measured(phone: Phone) -> None:
    phone.sound.start()
    phone.source = pcm_source(SLIN, babble(1000))
    await asyncio.sleep(1.01)
    phone.source = lambda: None
    await asyncio.sleep(1.19)
    phone.sound.say(1, np.array([9000, -9000, 0] * 400, "<i2").tobytes())
    await asyncio.sleep(0.1)
    (response,) = phone.responses
    assert response.seconds == pytest.approx(1.2, abs=0.05)
    assert phone.sound.hearing.responses == [response]


# --- recording


async def test_both_sides_are_recorded_from_the_start_on(phone: Phone, tmp_path: Path) -> None:
    phone.source = tone_source(SLIN, 400)
    phone.sound.start()
    recordings = Recordings()
    began = asyncio.get_running_loop().time()
    recorder = recordings.start(tmp_path / "a.wav", 8000, began)
    assert recorder is not None
    phone.sound.recorder = recorder
    phone.sound.say(1, pcm(1000))
    await asyncio.sleep(1.5)
    phone.sound.stop()
    await recordings.close()
    assert recordings.stats == RecordingStats(saved=1)
    sides = sides_of(tmp_path / "a.wav")
    assert len(sides) / 8000 == pytest.approx(1.5, abs=0.1)
    assert all(np.count_nonzero(side) > 7000 for side in sides.T)


class AheadPhone:
    """A line whose far end sets the pace: it takes up to `LEAD` frames before they are played.

    Attributes:
        heard: What the caller heard, frame by frame; silence is empty.
        overheard: What a listener got of the agent.
    """

    LEAD = 20

    def __init__(self) -> None:
        self.sound = CallSound(8000, chunk_ms=40, take_back=self._take_back)
        self.sound.carry(Voice())
        self.heard: list[bytes] = []
        self.overheard = b""
        self.began = asyncio.get_running_loop().time()
        self._ahead: list[bytes] = []
        self._ear = self.sound.add_ear()

    def _take_back(self) -> float:
        taken, self._ahead = self._ahead, []
        return len(taken) * 20.0

    async def run(self, frames: int) -> None:
        for _ in range(frames):
            self.sound.tick()
            if len(self._ahead) < self.LEAD // 2:
                while len(self._ahead) < self.LEAD and (frame := self.sound.next_frame()):
                    self._ahead.append(frame)
            self.heard.append(self._ahead.pop(0) if self._ahead else b"")
            if len(self.heard) % 3 == 0:
                self.overheard += np.frombuffer(self._ear.take(60), "<i2")[1::2].tobytes()
            await asyncio.sleep(0.02)

    def record(self, recordings: Recordings, path: Path) -> None:
        self.sound.recorder = recordings.start(path, 8000, self.began)


def some_noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(1).integers(500, 20000, round(8000 * seconds)).astype("<i2")


async def test_what_a_line_takes_ahead_is_recorded_and_overheard_when_it_is_heard(
    tmp_path: Path,
) -> None:
    line, recordings = AheadPhone(), Recordings()
    line.record(recordings, tmp_path / "a.wav")
    said = some_noise(5)
    said[16000:20000] = said[30000:34000] = 0  # the agent's own pauses
    line.sound.start()
    line.sound.say(1, said.tobytes(), is_final=True)
    await line.run(200)
    assert line.sound.queued_seconds == pytest.approx(1, abs=0.05)
    await line.run(100)
    assert line.sound.queued_seconds == 0
    line.sound.stop()
    await recordings.close()
    assert b"".join(line.heard) == said.tobytes()
    recorded = sides_of(tmp_path / "a.wav")[:, 1]
    assert recorded[: len(said)].tobytes() == said.tobytes(), "nothing is moved, nor cut"
    overheard = line.overheard.index(said.tobytes())
    assert overheard / 16 <= 120, "and all of it, soon"


async def test_what_is_taken_back_is_neither_recorded_nor_overheard(tmp_path: Path) -> None:
    line, recordings = AheadPhone(), Recordings()
    line.record(recordings, tmp_path / "a.wav")
    said = some_noise(5)
    line.sound.start()
    line.sound.say(1, said.tobytes(), is_final=True)
    await line.run(100)
    cleared = line.sound.clear()
    await line.run(50)
    line.sound.stop()
    await recordings.close()
    heard_ms = sum(len(frame) for frame in line.heard) / 16
    assert cleared.heard_ms == pytest.approx(2000)
    assert heard_ms == 2020, "the last frame fades"
    heard = np.frombuffer(b"".join(line.heard), "<i2")
    faded, so_far = heard[16000:16016], said[16000:16016]
    assert np.all(np.abs(faded) <= np.abs(so_far)), "it is what would have come next that fades"
    assert faded[0] == so_far[0]
    recorded = sides_of(tmp_path / "a.wav")[:, 1][: len(heard)]
    assert np.count_nonzero(recorded != heard) <= 160
    assert np.count_nonzero(recorded) == pytest.approx(np.count_nonzero(heard), abs=160)
    overheard = np.frombuffer(line.overheard, "<i2")
    assert np.count_nonzero(overheard) == pytest.approx(np.count_nonzero(heard), abs=160)


async def test_an_interruption_takes_nothing_back_of_what_is_announced() -> None:
    line = AheadPhone()
    announced, said = some_noise(1), some_noise(3) + 1
    line.sound.announce(announced.tobytes())
    line.sound.say(1, said.tobytes(), is_final=True)
    line.sound.start()
    await line.run(10)
    line.sound.clear()
    await line.run(60)
    assert b"".join(line.heard).strip(b"\0") == announced.tobytes()
    assert announced.tobytes() in line.overheard
    line.sound.say(2, said.tobytes(), is_final=True)
    await line.run(10)
    assert line.sound.clear().heard_ms == pytest.approx(200, abs=5)
    line.sound.stop()


# --- the end


async def test_nothing_happens_once_it_has_stopped(phone: Phone) -> None:
    phone.sound.start()
    phone.source = tone_source(SLIN, 400)
    phone.sound.say(1, pcm(60_000))
    await asyncio.sleep(0.2)
    phone.sound.stop()
    before = phone.sound.report()
    chunks, phone.played = len(phone.agent.got), []
    phone.sound.start()
    phone.sound.say(2, pcm(100))
    phone.sound.play(pcm(100))
    phone.sound.overhear = lambda pcm, now: None
    await asyncio.sleep(0.5)
    assert phone.sound.report() == before
    assert len(phone.agent.got) == chunks
    assert phone.heard == b""
    phone.sound.stop()


async def test_it_is_reported_what_became_of_it(phone: Phone) -> None:
    phone.sound.start()
    phone.source = pcm_source(SLIN, babble(1000))
    phone.sound.say(1, pcm(500))
    await asyncio.sleep(0.21)
    phone.sound.clear()
    phone.sound.interruptions += 1
    phone.sound.say(2, pcm(500), is_final=True)
    await asyncio.sleep(0.11)
    report = phone.sound.report(frames_not_read=7)
    assert report.heard_by_agent_ms == pytest.approx(320, abs=40)
    assert report.silence_filled_ms == 0
    assert report.said_to_caller_ms + report.dropped_ms + report.queued_ms == 1000
    assert report.queued_ms == pytest.approx(400, abs=40)
    assert (report.interruptions, report.frames_not_read) == (1, 7)


async def test_it_is_measured_how_soon_there_is_silence(phone: Phone) -> None:
    phone.sound.clear()
    phone.sound.say(1, pcm(3000))
    await asyncio.sleep(0.1)
    phone.sound.start()
    await asyncio.sleep(0.5)
    phone.sound.clear()
    await asyncio.sleep(0.5)
    phone.sound.clear()
    phone.sound.say(2, pcm(1000))
    await asyncio.sleep(0.5)
    phone.sound.clear()
    phone.sound.say(3, pcm(100))
    barge_in_ms = phone.sound.report().barge_in_ms
    assert len(barge_in_ms) == 2, "an interruption of nothing does not count"
    assert 20 <= barge_in_ms[0] <= 60
    assert barge_in_ms[1] <= 20, "the next answer has begun"


async def test_gaps_are_counted_and_short_ones_told_from_pauses(phone: Phone) -> None:
    phone.sound.start()
    for seconds, source in (
        (1.0, tone_source(SLIN, 400)),
        (0.3, lambda: None),
        (1.0, tone_source(SLIN, 400)),
        (2.0, lambda: None),
        (1.0, tone_source(SLIN, 400)),
    ):
        phone.source = source
        await asyncio.sleep(seconds)
    report = phone.sound.report()
    assert report.gaps == 2
    assert report.short_gaps_ms == pytest.approx(260, abs=60)
    assert report.longest_gap_ms == pytest.approx(2000, abs=60)
    both = report.short_gaps_ms + report.longest_gap_ms
    assert report.silence_filled_ms == pytest.approx(both)
    assert (report.late_ticks, report.latest_ms) == (0, 0)
