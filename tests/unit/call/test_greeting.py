from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest

from ari_app.call.greeting import GreetingEar
from lab.softphone.sounds import babble, tone

RATE = 8000
FRAME = RATE // 50 * 2


def listen(ear: GreetingEar, pcm: bytes, now: float) -> float:
    """Let it hear a sound, frame by frame; the time at its end."""
    for at in range(0, len(pcm) - FRAME + 1, FRAME):
        now += 0.02
        ear.heard(pcm[at : at + FRAME], now)
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


def test_a_phone_that_sends_nothing_in_silence_is_as_good() -> None:
    ear = GreetingEar(RATE)
    now = listen(ear, babble(1000, -20), 0.0)
    assert ear.over(now + 2)


@pytest.mark.parametrize("hz", [440, 1000, 1400, 2000])
def test_a_beep_is_the_end(hz: int) -> None:
    ear = GreetingEar(RATE)
    now = listen(ear, babble(1000, -20) + silence(0.5), 0.0)
    assert not ear.over(now)
    now = listen(ear, tone(hz, 400, -15), now)
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
