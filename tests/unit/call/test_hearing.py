from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.hearing import GreetingEar, Hearing
from lab.softphone.sounds import babble, tone

RATE = 8000
FRAME = 0.02
FRAME_BYTES = 320
LOUD = babble(20, -20)
SILENT = bytes(FRAME_BYTES)

Sound = npt.NDArray[np.float64]


def at_level(sound: Sound, dbfs: float) -> Sound:
    """With this RMS level; 0 is a full-scale sine."""
    gain = 32768 * 10 ** (dbfs / 20) / math.sqrt(2 * float(np.mean(sound**2)))
    return np.multiply(sound, gain)


def noise(seconds: float, dbfs: float, *, slope: float = 0.0, seed: int = 0) -> Sound:
    """Hiss, and with a slope of 1 the rumble of a fan, which falls by 6 dB an octave."""
    count = int(seconds * RATE)
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    hz = np.maximum(np.fft.rfftfreq(count, 1 / RATE), 200)
    return at_level(np.fft.irfft(spectrum / hz**slope, count), dbfs)


def hum(seconds: float, dbfs: float, hz: float = 50.0) -> Sound:
    """Mains hum, with its harmonics."""
    at = np.arange(int(seconds * RATE)) / RATE
    parts = ((1, 1.0), (2, 0.5), (3, 0.7), (5, 0.3), (7, 0.2))
    tones = [part * np.sin(2 * np.pi * hz * number * at + number) for number, part in parts]
    return at_level(np.sum(tones, axis=0), dbfs)


def voice(seconds: float, dbfs: float, seed: int = 0) -> Sound:
    return np.frombuffer(babble(seconds * 1000, dbfs, seed=seed), "<i2").astype(np.float64)


def pcm(sound: Sound) -> bytes:
    return np.clip(np.round(sound), -32768, 32767).astype("<i2").tobytes()


NOISES: dict[str, Callable[[float, float], Sound]] = {
    "hiss": noise,
    "a fan": lambda seconds, dbfs: noise(seconds, dbfs, slope=1.0),
    "hum of 50 Hz": hum,
    "hum of 60 Hz": lambda seconds, dbfs: hum(seconds, dbfs, 60.0),
}


class Talk:
    """Lets somebody hear both sides, 20 ms at a time."""

    def __init__(self) -> None:
        self.hearing = Hearing(RATE)
        self.now = 50.0
        self.said = 0

    def hear(self, sound: bytes | Sound) -> None:
        """What the caller's line brings."""
        data = sound if isinstance(sound, bytes) else pcm(sound)
        for at in range(0, len(data) - FRAME_BYTES + 1, FRAME_BYTES):
            self.now += FRAME
            self.hearing.heard(data[at : at + FRAME_BYTES], self.now)

    def caller(self, seconds: float) -> None:
        self.hear(babble(seconds * 1000, -20, seed=self.said))
        self.said += 1

    def pause(self, seconds: float) -> None:
        self.hear(bytes(round(seconds * RATE) * 2))

    def agent(self, seconds: float, frame: bytes = LOUD) -> None:
        for _ in range(round(seconds / FRAME)):
            self.hear(SILENT)
            self.hearing.said(frame, self.now)

    @property
    def measured(self) -> list[float]:
        return [response.seconds for response in self.hearing.responses]


# --- noise


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("dbfs", [-60, -55, -50, -48, -45, -40, -30])
def test_steady_noise_is_silence(kind: str, dbfs: float) -> None:
    talk = Talk()
    talk.hear(NOISES[kind](10, dbfs))
    assert talk.hearing.last_speech_at == talk.hearing.last_utterance_at == 0
    assert talk.hearing.said(LOUD, talk.now) is None


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("louder", [6, 12, 20, 30])
@pytest.mark.parametrize("start_seconds", [0.0, 0.5, 3.0])
def test_noise_that_begins_in_mid_call_is_silence(
    kind: str, louder: float, start_seconds: float
) -> None:
    line = noise(15, -60, seed=1)
    fan = NOISES[kind](10, -60 + louder)
    rise = int(start_seconds * RATE)
    fan[:rise] *= np.linspace(0, 1, rise)
    line[5 * RATE :] += fan
    talk = Talk()
    talk.hear(line)
    assert talk.hearing.last_speech_at == talk.hearing.last_utterance_at == 0


def test_what_was_said_before_a_noise_stays_said() -> None:
    talk = Talk()
    talk.caller(1.0)
    spoken = talk.now
    talk.hear(noise(5, -35))
    assert talk.hearing.last_speech_at == pytest.approx(spoken, abs=0.1)
    assert talk.hearing.last_utterance_at == pytest.approx(spoken, abs=0.1)
    response = talk.hearing.said(LOUD, talk.now)
    assert response is not None
    assert response.seconds == pytest.approx(5, abs=0.1)


def test_an_answer_before_a_noise_is_not_given_twice() -> None:
    talk = Talk()
    talk.caller(1.0)
    talk.pause(0.6)
    talk.hear(noise(0.2, -35))
    talk.hearing.said(LOUD, talk.now + 0.11)
    talk.hear(noise(3, -35))
    assert talk.hearing.said(LOUD, talk.now) is None
    assert len(talk.measured) == 1


@pytest.mark.parametrize("ms", [1, 5, 20, 40])
@pytest.mark.parametrize("line_dbfs", [-90, -60, -48])
def test_clicks_are_silence(ms: int, line_dbfs: float) -> None:
    line = noise(30, line_dbfs)
    for second in range(2, 29):
        start = second * RATE + second * 37
        line[start : start + ms * RATE // 1000] += noise(ms / 1000, -10, seed=second)
    talk = Talk()
    talk.hear(line)
    assert talk.hearing.last_speech_at == 0


def test_comfort_noise_that_comes_and_goes_is_silence() -> None:
    talk = Talk()
    talk.hear(noise(3, -50))
    for seed in range(20):
        talk.pause(0.7)
        talk.hear(noise(0.5, -50, seed=seed))
    assert talk.hearing.last_speech_at == 0


# --- speech


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("dbfs", [-60, -50, -40])
@pytest.mark.parametrize("late", [0, 40, 80, 120])
def test_quiet_speech_is_heard_within_100_ms(kind: str, dbfs: float, late: int) -> None:
    line = NOISES[kind](6, dbfs)
    # From the loud part of a syllable on.
    start = 5 * RATE + late
    line[start:] += voice(2, dbfs + 15)[RATE // 10 :][: len(line) - start]
    talk = Talk()
    talk.hear(line[: 5 * RATE])
    began = talk.now + late / RATE
    while talk.hearing.last_speech_at == 0:
        at = round((talk.now - 50) * RATE)
        talk.hear(line[at : at + RATE // 50])
    assert talk.now - began <= 0.1


def test_a_voice_is_never_taken_for_noise() -> None:
    talk = Talk()
    talk.hear(noise(60, -50) + voice(60, -35))
    assert talk.hearing.noise_at == 0
    assert talk.hearing.last_utterance_at == pytest.approx(talk.now, abs=0.3)


def test_speech_after_a_loud_noise_is_heard() -> None:
    talk = Talk()
    talk.hear(noise(5, -25))
    talk.hear(noise(0.3, -60))
    talk.hear(voice(1, -40))
    assert talk.hearing.last_utterance_at == pytest.approx(talk.now, abs=0.2)


def test_the_agents_echo_is_not_the_caller() -> None:
    talk = Talk()
    echo = babble(3000, -46)
    for at in range(0, len(echo), FRAME_BYTES):
        talk.hearing.said(LOUD, talk.now)
        talk.hear(echo[at : at + FRAME_BYTES])
    talk.hear(babble(300, -46, seed=1))
    assert talk.hearing.last_speech_at == 0
    talk.pause(0.5)
    talk.hear(babble(500, -46))
    assert talk.hearing.last_speech_at == pytest.approx(talk.now, abs=0.1)


@pytest.mark.parametrize("ms", [10, 30, 60, 7])
def test_packets_of_any_length_are_heard_alike(ms: int) -> None:
    hearing, now = Hearing(RATE), 50.0
    sound = pcm(noise(2, -60)) + pcm(noise(1, -60) + voice(1, -40))
    size = ms * RATE // 1000 * 2
    for at in range(0, len(sound), size):
        piece = sound[at : at + size]
        now += len(piece) / 2 / RATE
        hearing.heard(piece, now)
    whole = Talk()
    whole.hear(sound)
    assert hearing.last_speech_at == pytest.approx(whole.hearing.last_speech_at, abs=0.021)


@pytest.mark.parametrize("rate_hz", [8000, 12000, 16000, 24000])
def test_a_tone_of_any_frequency_is_sound(rate_hz: int) -> None:
    at = np.arange(rate_hz // 50) / rate_hz
    for frequency in range(100, 3900, 25):
        hearing = Hearing(rate_hz)
        sound = pcm(np.sin(2 * np.pi * frequency * at + 0.3) * 2000)
        for index in range(10):
            hearing.heard(sound, index * FRAME)
        assert hearing.said(LOUD, 1.0) is not None, frequency


def test_an_empty_frame_is_silence() -> None:
    hearing = Hearing(RATE)
    hearing.heard(b"", 1.0)
    assert hearing.said(b"", 1.0) is None


@given(st.lists(st.binary(max_size=700).filter(lambda data: len(data) % 2 == 0), max_size=50))
def test_any_sound_is_taken(frames: list[bytes]) -> None:
    hearing = Hearing(RATE)
    for index, frame in enumerate(frames):
        hearing.heard(frame, index * FRAME)
        hearing.said(frame, index * FRAME)
    assert hearing.last_utterance_at <= hearing.last_speech_at <= len(frames) * FRAME


# --- answers


def test_the_time_from_the_end_of_speech_to_the_first_sound() -> None:
    talk = Talk()
    talk.caller(1.0)
    talk.pause(0.8)
    talk.agent(2.0)
    assert talk.measured == [pytest.approx(0.82, abs=0.05)]
    assert talk.hearing.responses[0].at == pytest.approx(51.82)


def test_a_pause_within_a_sentence_is_no_end() -> None:
    talk = Talk()
    talk.caller(0.5)
    talk.hear(noise(0.2, -55))
    talk.caller(0.5)
    talk.hear(noise(0.6, -55))
    talk.agent(1.0)
    assert talk.measured == [pytest.approx(0.62, abs=0.05)]


def test_the_quiet_start_of_an_answer_is_not_its_first_sound() -> None:
    talk = Talk()
    talk.caller(1.0)
    talk.agent(0.5, SILENT)
    talk.agent(0.5)
    assert talk.measured == [pytest.approx(0.52, abs=0.05)]


def test_every_turn_counts_once() -> None:
    talk = Talk()
    for pause in (0.4, 0.6, 1.0):
        talk.caller(0.8)
        talk.pause(pause)
        talk.agent(1.0)
    assert talk.measured == [pytest.approx(pause + FRAME, abs=0.06) for pause in (0.4, 0.6, 1.0)]


def test_a_greeting_and_a_click_are_no_turns() -> None:
    talk = Talk()
    talk.agent(1.0)
    talk.pause(0.5)
    talk.caller(0.04)
    talk.pause(0.5)
    talk.agent(1.0)
    assert talk.measured == []


def test_an_agent_that_speaks_over_the_caller_has_not_answered() -> None:
    talk = Talk()
    voice_of_caller = babble(1000, -20)
    for at in range(0, len(voice_of_caller), FRAME_BYTES):
        talk.hear(voice_of_caller[at : at + FRAME_BYTES])
        talk.hearing.said(LOUD, talk.now)
    assert talk.measured == []
    talk.pause(0.5)
    talk.agent(0.1)
    assert talk.measured == [pytest.approx(0.52, abs=0.05)]


def test_a_phone_that_stops_sending_has_stopped_speaking() -> None:
    talk = Talk()
    talk.caller(1.0)
    response = talk.hearing.said(LOUD, talk.now + 0.5)
    assert response is not None
    assert response.seconds == pytest.approx(0.5, abs=0.05)
    assert talk.hearing.said(LOUD, talk.now + 0.5) is None


def test_a_click_is_found_out_though_nothing_comes_after_it() -> None:
    talk = Talk()
    talk.hear(noise(0.06, -10))
    talk.hearing.quiet(talk.now + 0.4)
    assert talk.hearing.last_speech_at == 0


@given(st.lists(st.sampled_from([(LOUD, SILENT), (SILENT, LOUD), (SILENT, SILENT)]), max_size=200))
def test_no_time_is_negative_or_longer_than_the_call(frames: list[tuple[bytes, bytes]]) -> None:
    talk = Talk()
    for caller, agent in frames:
        talk.hear(caller)
        talk.hearing.said(agent, talk.now)
    assert all(0 <= seconds <= len(frames) * FRAME for seconds in talk.measured)


def test_what_is_kept_has_a_bound() -> None:
    talk = Talk()
    for _ in range(501):
        talk.caller(0.14)
        talk.pause(0.32)
        talk.agent(FRAME)
        talk.pause(0.4)
    assert len(talk.measured) == 500


# --- a machine's greeting


def listen(ear: GreetingEar, sound: bytes, now: float) -> float:
    """Let it hear a sound, frame by frame; the time at its end."""
    for at in range(0, len(sound) - FRAME_BYTES + 1, FRAME_BYTES):
        now += FRAME
        ear.heard(sound[at : at + FRAME_BYTES], now)
    return now


def silence(seconds: float) -> bytes:
    return bytes(int(seconds * RATE) * 2)


def test_nothing_has_been_said() -> None:
    ear = GreetingEar(RATE)
    now = listen(ear, silence(3), 0.0)
    assert not ear.spoke
    assert not ear.over(now)


def test_speech_ends_with_a_long_silence() -> None:
    ear = GreetingEar(RATE)
    now = listen(ear, babble(2000, -20), 10.0)
    assert ear.spoke
    assert not ear.over(now + 1.0), "a pause"
    assert ear.over(now + 1.6)


def test_a_greeting_on_a_noisy_line_ends_too() -> None:
    ear = GreetingEar(RATE)
    line = noise(8, -40)
    line[3 * RATE : 5 * RATE] += voice(2, -20)
    now = listen(ear, pcm(line[: 6 * RATE]), 10.0)
    assert ear.spoke
    assert not ear.over(now), "a pause"
    assert ear.over(listen(ear, pcm(line[6 * RATE :]), now))


def test_noise_alone_does_not_hold_the_agent_up() -> None:
    ear = GreetingEar(RATE)
    assert ear.over(listen(ear, pcm(noise(3.5, -40)), 0.0))


def test_a_phone_that_sends_nothing_in_silence_is_as_good() -> None:
    ear = GreetingEar(RATE)
    now = listen(ear, babble(1000, -20), 0.0)
    assert ear.over(now + 2)


@pytest.mark.parametrize("hz", [440, 1000, 1400, 2000])
@pytest.mark.parametrize("ms", [400, 4000])
def test_a_beep_is_the_end(hz: int, ms: int) -> None:
    ear = GreetingEar(RATE)
    now = listen(ear, babble(1000, -20) + silence(0.5), 0.0)
    assert not ear.over(now)
    now = listen(ear, tone(hz, ms, -15), now)
    assert not ear.over(now), "it still sounds"
    assert ear.over(now + 0.3)


def test_speech_after_a_beep_goes_on() -> None:
    ear = GreetingEar(RATE)
    now = listen(ear, tone(1000, 400, -15), 0.0)
    now = listen(ear, babble(1000, -20), now)
    assert not ear.over(now + 0.3)


def test_a_tone_that_moves_is_no_beep() -> None:
    ear = GreetingEar(RATE)
    sounds: Iterable[bytes] = (tone(hz, 60, -15) for hz in (500, 900, 1300, 600))
    now = listen(ear, b"".join(sounds), 0.0)
    assert not ear.over(now + 0.3)


def test_a_click_is_not_speech() -> None:
    ear = GreetingEar(RATE)
    click = np.full(RATE // 50, 8000, "<i2").tobytes()
    now = listen(ear, click + silence(3), 0.0)
    assert not ear.over(now)


def test_an_empty_frame_is_nothing() -> None:
    ear = GreetingEar(RATE)
    ear.heard(b"", 1.0)
    assert not ear.spoke


# --- turns


def near(seconds: float) -> Any:
    return pytest.approx(seconds, abs=0.05)


def hears(hearing: Hearing, sound: bytes, now: float) -> float:
    """The line brings this; the time afterwards."""
    for at in range(0, len(sound), FRAME_BYTES):
        now += FRAME
        hearing.heard(sound[at : at + FRAME_BYTES], now)
    return now


def test_a_turn_is_from_its_first_word_to_its_last() -> None:
    hearing = Hearing(RATE)
    assert hearing.take_turn(0.0) is None
    now = hears(hearing, bytes(RATE * 2), 10.0)
    for _ in range(2):
        now = hears(hearing, babble(1000, -20) + bytes(RATE), now)
    turn = hearing.take_turn(now)
    assert turn == (near(11.0), near(13.5))
    assert hearing.take_turn(now) is None, "nothing has been said since"


def test_whoever_still_speaks_has_begun_the_next_turn() -> None:
    hearing = Hearing(RATE)
    now = hears(hearing, babble(1000, -20), 10.0)
    assert hearing.take_turn(now) == (near(10.0), now)
    later = hears(hearing, babble(600, -20) + bytes(RATE), now)
    assert hearing.take_turn(later) == (now, near(now + 0.6))


def test_what_was_long_before_is_no_part_of_a_turn() -> None:
    hearing = Hearing(RATE)
    now = hears(hearing, babble(300, -20) + bytes(RATE * 2 * 5), 10.0)
    began = now
    now = hears(hearing, babble(1000, -20), now)
    assert hearing.take_turn(now) == (near(began), now)


def test_a_click_begins_no_turn() -> None:
    hearing = Hearing(RATE)
    now = hears(hearing, babble(60, -20) + bytes(RATE * 2), 10.0)
    assert hearing.take_turn(now) is None
