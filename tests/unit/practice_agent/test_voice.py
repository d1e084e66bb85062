"""The voices: level, length, determinism, and a program that fails."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from lab.practice_agent.formats import AudioFormat, Samples
from lab.practice_agent.rendering import Renderer
from lab.practice_agent.syllables import HIGHEST_HZ, speak_syllables
from lab.practice_agent.vad import SpeechDetector, SpeechStarted, level_dbfs
from lab.practice_agent.voice import BuiltInVoice, EspeakVoice, find_voice, finish

TEXT = "Good morning, how can I help you? Just speak."


def active_level(samples: Samples, rate_hz: int) -> float:
    window = rate_hz // 50
    windows = samples[: len(samples) - len(samples) % window].reshape(-1, window)
    loud = windows[[level_dbfs(piece) > -50 for piece in windows]]
    return level_dbfs(loud.reshape(-1))


@pytest.mark.parametrize("rate_hz", sorted({name.rate_hz for name in AudioFormat}))
def test_the_built_in_voice_at_every_rate(rate_hz: int) -> None:
    samples = BuiltInVoice().speak(TEXT, rate_hz)
    assert samples.dtype == np.int16
    assert len(samples) / rate_hz == pytest.approx(len(speak_syllables(TEXT)[0]) / 22050, rel=0.01)
    assert active_level(samples, rate_hz) == pytest.approx(-16, abs=1)
    assert np.abs(samples.astype(int)).max() < 32767
    assert SpeechStarted() in SpeechDetector(rate_hz).feed(samples)


def test_it_is_deterministic_and_different_texts_differ() -> None:
    voice = BuiltInVoice()
    assert np.array_equal(voice.speak(TEXT, 8000), voice.speak(TEXT, 8000))
    assert not np.array_equal(voice.speak("One", 8000), voice.speak("Two", 8000))


def test_length_follows_the_text() -> None:
    short, _ = speak_syllables("Good morning.")
    long, _ = speak_syllables("Good morning. " * 4)
    assert len(long) == 4 * len(short)
    assert 0.5 < len(short) / 22050 < 1.5


def test_the_voice_fits_through_a_telephone() -> None:
    samples, rate_hz = speak_syllables("aeiou")
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    assert power[frequencies > HIGHEST_HZ + 100].sum() < power.sum() * 1e-4


@pytest.mark.parametrize("text", ["", "...", "- !"])
def test_nothing_to_say(text: str) -> None:
    assert len(BuiltInVoice().speak(text, 16000)) == 0


@pytest.mark.parametrize("text", ["123 #", "Hm", "Zürich, naïve; ok:", "pst"])
def test_any_letters_make_a_sound(text: str) -> None:
    assert len(BuiltInVoice().speak(text, 16000)) > 1000


def test_silence_stays_silent_and_loud_sound_is_rounded_off() -> None:
    assert not finish(np.zeros(8000, np.float32), 8000, 8000).any()
    spiky = np.zeros(8000, np.float32)
    spiky[::100] = 1.0
    finished = finish(spiky, 8000, 8000)
    assert 0.9 * 32767 < finished.max() < 32767


def program(path: Path, body: str) -> EspeakVoice:
    file = path / "espeak-ng"
    file.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return EspeakVoice(str(file))


SPEAKING = """
import math, struct, sys
length = len(sys.stdin.read())
pcm = b"".join(struct.pack("<h", int(3000 * math.sin(n / 9))) for n in range(length * 1000))
# A program that writes to a pipe does not know the length beforehand.
header = struct.pack(
    "<4sI4s4sIHHIIHH4sI", b"RIFF", 0x7FFFF024, b"WAVE", b"fmt ", 16, 1, CHANNELS, 22050,
    44100 * CHANNELS, 2 * CHANNELS, 16, b"data", 0x7FFFF000,
)
sys.stdout.buffer.write(header + pcm)
"""


def test_a_program_that_speaks(tmp_path: Path) -> None:
    voice = program(tmp_path, SPEAKING.replace("CHANNELS", "1"))
    samples = voice.speak("x" * 22, 8000)
    assert len(samples) / 8000 == pytest.approx(22000 / 22050, abs=0.01)
    assert level_dbfs(samples) == pytest.approx(-16, abs=0.5)


@pytest.mark.parametrize(
    "body",
    ["raise SystemExit(1)", "print('no sound')", "pass", SPEAKING.replace("CHANNELS", "2")],
)
def test_the_built_in_voice_takes_over(tmp_path: Path, body: str) -> None:
    samples = program(tmp_path, body).speak(TEXT, 8000)
    assert np.array_equal(samples, BuiltInVoice().speak(TEXT, 8000))


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    voice = EspeakVoice(str(tmp_path / "none"))
    assert len(voice.speak(TEXT, 8000))


def test_the_program_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isinstance(find_voice(), BuiltInVoice)
    program(tmp_path, "pass")
    assert isinstance(find_voice(), EspeakVoice)


class CountingVoice:
    """Counts how often it speaks; 100 samples a letter."""

    def __init__(self) -> None:
        self.count = 0

    def speak(self, text: str, rate_hz: int) -> Samples:
        self.count += 1
        return np.ones(100 * len(text), np.int16)


async def test_a_text_is_rendered_once_for_each_format() -> None:
    voice = CountingVoice()
    renderer = Renderer(voice)
    same = await asyncio.gather(*(renderer.render("a", AudioFormat.PCM_8000) for _ in range(5)))
    assert len(set(same)) == 1
    assert len(same[0]) == 200
    assert voice.count == 1
    assert len(await renderer.render("a", AudioFormat.ULAW_8000)) == 100
    assert voice.count == 2


async def test_the_least_recently_used_speech_goes_first() -> None:
    voice = CountingVoice()
    renderer = Renderer(voice, max_bytes=400)
    for text in ("a", "b", "a", "c", "a"):
        await renderer.render(text, AudioFormat.PCM_8000)
    assert voice.count == 3
    await renderer.render("b", AudioFormat.PCM_8000)
    assert voice.count == 4


async def test_one_long_speech_is_kept_though_it_is_too_big() -> None:
    voice = CountingVoice()
    renderer = Renderer(voice, max_bytes=10)
    for _ in range(2):
        await renderer.render("long", AudioFormat.PCM_8000)
    assert voice.count == 1
