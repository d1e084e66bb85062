from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.call.turns import TurnMeter

FRAME = 0.02
LOUD = (np.sin(np.arange(160) * 0.8) * 3000).astype("<i2").tobytes()
FAINT = (np.sin(np.arange(160) * 0.8) * 60).astype("<i2").tobytes()
SILENT = bytes(320)


class Talk:
    """Plays frames of both sides into a meter, 20 ms at a time."""

    def __init__(self) -> None:
        self.meter = TurnMeter()
        self.now = 50.0

    def caller(self, seconds: float, pcm: bytes = LOUD, agent: bytes | None = None) -> None:
        for _ in range(round(seconds / FRAME)):
            self.now += FRAME
            self.meter.heard(pcm, FRAME, self.now)
            if agent is not None:
                self.meter.said(agent, self.now)

    def agent(self, seconds: float) -> None:
        self.caller(seconds, SILENT, LOUD)

    @property
    def measured(self) -> list[float]:
        return [response.seconds for response in self.meter.responses]


def test_the_time_from_the_end_of_speech_to_the_first_sound() -> None:
    talk = Talk()
    talk.caller(1.0)
    talk.caller(0.8, SILENT)
    talk.agent(2.0)
    assert talk.measured == [pytest.approx(0.82)]
    assert talk.meter.responses[0].at == pytest.approx(51.82)


def test_a_pause_within_a_sentence_is_no_end() -> None:
    talk = Talk()
    talk.caller(0.5)
    talk.caller(0.2, FAINT)
    talk.caller(0.5)
    talk.caller(0.6, FAINT)
    talk.agent(1.0)
    assert talk.measured == [pytest.approx(0.62)]


def test_the_quiet_start_of_an_answer_is_not_its_first_sound() -> None:
    talk = Talk()
    talk.caller(1.0)
    talk.caller(0.5, SILENT, agent=SILENT)
    talk.agent(0.5)
    assert talk.measured == [pytest.approx(0.52)]


def test_every_turn_counts_once() -> None:
    talk = Talk()
    for pause in (0.4, 0.6, 1.0):
        talk.caller(0.8)
        talk.caller(pause, SILENT)
        talk.agent(1.0)
    assert talk.measured == [pytest.approx(pause + FRAME) for pause in (0.4, 0.6, 1.0)]


def test_a_greeting_and_a_click_are_no_turns() -> None:
    talk = Talk()
    talk.agent(1.0)
    talk.caller(0.06)
    talk.caller(0.5, SILENT)
    talk.agent(1.0)
    assert talk.measured == []


def test_an_agent_that_speaks_over_the_caller_has_not_answered() -> None:
    talk = Talk()
    talk.caller(1.0, LOUD, agent=LOUD)
    assert talk.measured == []
    talk.caller(0.5, SILENT)
    talk.agent(0.1)
    assert talk.measured == [pytest.approx(0.52)]


def test_a_phone_that_stops_sending_has_stopped_speaking() -> None:
    talk = Talk()
    talk.caller(1.0)
    talk.now += 0.5
    talk.meter.quiet(talk.now)
    response = talk.meter.said(LOUD, talk.now)
    assert response is not None
    assert response.seconds == pytest.approx(0.5)
    assert talk.meter.said(LOUD, talk.now) is None


@pytest.mark.parametrize("rate_hz", [8000, 12000, 16000, 24000])
def test_a_tone_of_any_frequency_is_sound(rate_hz: int) -> None:
    at = np.arange(rate_hz // 50) / rate_hz
    for frequency in range(100, 3900, 25):
        meter = TurnMeter()
        pcm = (np.sin(2 * np.pi * frequency * at + 0.3) * 2000).astype("<i2").tobytes()
        for index in range(10):
            meter.heard(pcm, FRAME, index * FRAME)
        meter.quiet(1.0)
        assert meter.said(LOUD, 1.0) is not None, frequency


def test_an_empty_frame_is_silence() -> None:
    meter = TurnMeter()
    meter.heard(b"", 0.0, 1.0)
    assert meter.said(b"", 1.0) is None


@given(st.lists(st.sampled_from([(LOUD, SILENT), (SILENT, LOUD), (SILENT, SILENT)]), max_size=200))
def test_no_time_is_negative_or_longer_than_the_call(frames: list[tuple[bytes, bytes]]) -> None:
    talk = Talk()
    for caller, agent in frames:
        talk.caller(FRAME, caller, agent)
    assert all(0 <= seconds <= len(frames) * FRAME for seconds in talk.measured)


def test_what_is_kept_has_a_bound() -> None:
    talk = Talk()
    for _ in range(501):
        talk.caller(0.12)
        talk.caller(0.12, SILENT)
        talk.agent(FRAME)
    assert len(talk.measured) == 500
