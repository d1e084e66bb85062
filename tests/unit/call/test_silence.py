from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ari_app.call.attention import SilenceWatch, Verdict
from ari_app.line.interface import PhoneHeld
from audiosocket.frames import SLIN
from lab.softphone.sounds import babble, silence
from tests.session_view import Session
from tests.unit.audiosocket.client import pcm_source
from tests.unit.call.stage import Stage, now
from tests.waiting import until


class Watched:
    """A watch with a limit of 10 s, looked at every second."""

    def __init__(self) -> None:
        self.watch = SilenceWatch(10)
        self.now = 100.0
        self.spoke_at = self.answered_at = 0.0

    def run(self, seconds: int, *, excused: bool = False) -> list[tuple[float, Verdict]]:
        """What it says, and how long after the beginning."""
        found = []
        for _ in range(seconds):
            self.now += 1
            verdict = self.watch.look(
                self.now, spoke_at=self.spoke_at, answered_at=self.answered_at, excused=excused
            )
            if verdict is not None:
                found.append((self.now - 100, verdict))
        return found

    def speak(self) -> None:
        self.spoke_at = self.now

    def answer(self) -> None:
        self.answered_at = self.now


def test_an_agent_is_told_once_and_then_given_up() -> None:
    call = Watched()
    call.speak()
    assert call.run(20)[:2] == [(10, Verdict.TELL), (20, Verdict.GIVE_UP)]


def test_a_caller_who_has_said_nothing_waits_for_nothing() -> None:
    assert Watched().run(1000) == []


def test_an_answer_in_time_ends_it() -> None:
    call = Watched()
    call.speak()
    call.run(9)
    call.answer()
    assert call.run(100) == []


def test_an_agent_that_answers_when_told_is_told_again_the_next_time() -> None:
    call = Watched()
    for _ in range(2):
        call.speak()
        assert [verdict for _, verdict in call.run(12)] == [Verdict.TELL]
        call.answer()
        assert call.run(30) == []


def test_who_asks_again_does_not_begin_the_time_anew() -> None:
    call = Watched()
    found = []
    for _ in range(6):
        call.speak()
        found += call.run(4)
    assert found[:2] == [(10, Verdict.TELL), (20, Verdict.GIVE_UP)]


def test_nobody_interrupts_a_caller_who_speaks_on() -> None:
    call = Watched()
    for _ in range(30):
        call.speak()
        assert call.run(1) == []
    assert call.run(3) == [(31, Verdict.TELL)]


def test_what_explains_a_silence_begins_the_time_anew() -> None:
    call = Watched()
    call.speak()
    call.run(9)
    assert call.run(60, excused=True) == []
    assert call.run(10) == [(79, Verdict.TELL)]


def test_without_a_limit_nothing_is_watched() -> None:
    watch = SilenceWatch(0)
    assert watch.look(1000, spoke_at=1, answered_at=0, excused=False) is None


# --- on a call


@pytest.fixture
async def watched(stage: Stage) -> Stage:
    stage.with_policy(silence_timeout_seconds=10)
    return stage


def speak(session: Session, seconds: float = 1.0) -> None:
    """The line has carried speech until now."""
    session.sound.hearing.heard(babble(seconds * 1000), now())


def nudges(stage: Stage) -> int:
    return sum(way == "text" for way, _ in stage.agent().told)


async def test_an_agent_that_says_nothing_has_failed(watched: Stage) -> None:
    session = await watched.talk()
    began = now()
    speak(session)
    await asyncio.sleep(9)
    assert nudges(watched) == 0
    await asyncio.sleep(2.5)
    assert nudges(watched) == 1
    await session.ended.wait()
    assert now() - began == pytest.approx(20, abs=2)
    landed = watched.landed(session)
    assert (landed.status, landed.reason) == ("FAILED", "agent_silent")
    assert watched.left_behind() == []


async def test_to_fall_silent_when_it_is_told_is_no_answer(watched: Stage) -> None:
    """What we send as text interrupts an agent, and it says so, be it silent or not."""
    session = await watched.talk()
    began = now()
    speak(session)
    await until(lambda: nudges(watched) == 1)
    watched.agent().handler.interruption(2)
    await session.ended.wait()
    assert now() - began == pytest.approx(20, abs=2)
    assert watched.landed(session).reason == "agent_silent"


async def test_a_transcript_is_as_good_as_the_callers_voice(watched: Stage) -> None:
    session = await watched.talk()
    watched.agent().handler.user_transcript("Hello?", 1)
    await asyncio.sleep(12)
    assert nudges(watched) == 1
    watched.agent().says(500)
    await asyncio.sleep(60)
    assert nudges(watched) == 1
    assert session.outcome is None


async def test_a_transcript_that_comes_after_the_answer_asks_for_none(watched: Stage) -> None:
    session = await watched.talk()
    speak(session)
    await asyncio.sleep(1)
    watched.agent().says(200)
    watched.agent().handler.user_transcript("Hello?", 1)
    await asyncio.sleep(30)
    assert nudges(watched) == 0


async def test_a_cough_asks_for_no_answer(watched: Stage) -> None:
    session = await watched.talk()
    speak(session, 0.3)
    await asyncio.sleep(60)
    assert nudges(watched) == 0


def hiss(seconds: float) -> bytes:
    """-48 dBFS RMS."""
    sound = np.random.default_rng(0).standard_normal(round(seconds * 8000))
    return (sound * 32768 * 10 ** (-48 / 20)).astype("<i2").tobytes()


CLICKS = (silence(4000) + babble(20, -10)) * 15
LINES = {"hiss": hiss(60), "clicks": CLICKS, "a fan": silence(4000) + hiss(40)}


@pytest.mark.parametrize("line", LINES)
async def test_noise_asks_for_no_answer(watched: Stage, line: str) -> None:
    session = await watched.talk()
    watched.media(session).source = pcm_source(SLIN, LINES[line])
    await asyncio.sleep(60)
    assert nudges(watched) == 0
    assert session.outcome is None


@pytest.mark.parametrize("line", LINES)
async def test_noise_is_no_speech(stage: Stage, line: str) -> None:
    stage.with_policy(no_speech_timeout_seconds=6)
    session = await stage.talk()
    began = now()
    stage.media(session).source = pcm_source(SLIN, LINES[line])
    await session.ended.wait()
    assert now() - began == pytest.approx(6, abs=0.8)
    assert stage.landed(session).reason == "no_speech"


async def test_a_call_may_have_a_limit_of_its_own(stage: Stage) -> None:
    stage.with_policy(no_speech_timeout_seconds=60)
    stage.planned["no_speech_timeout_seconds"] = 6
    session = await stage.talk()
    began = now()
    await session.ended.wait()
    assert now() - began == pytest.approx(6, abs=0.8)
    assert stage.landed(session).reason == "no_speech"


async def test_a_tool_of_theirs_explains_the_silence(watched: Stage) -> None:
    session = await watched.talk()
    handler = watched.agent().handler
    speak(session)
    await asyncio.sleep(1)
    handler.their_tool_begins("look_up", "t1", 30)
    await asyncio.sleep(25)
    assert nudges(watched) == 0
    handler.tool_response("look_up", "t1", "success", False)
    await asyncio.sleep(12)
    assert nudges(watched) == 1


@pytest.mark.parametrize("seconds", [200.0, 1e9, float("inf")])
async def test_no_tool_of_theirs_explains_it_for_ever(watched: Stage, seconds: float) -> None:
    session = await watched.talk()
    speak(session)
    await asyncio.sleep(1)
    watched.agent().handler.their_tool_begins("look_up", "t1", seconds)
    await asyncio.sleep(115)
    assert nudges(watched) == 0
    await asyncio.sleep(25)
    assert nudges(watched) == 1


async def test_a_silence_that_is_meant_is_none(watched: Stage) -> None:
    session = await watched.talk()
    speak(session)
    await asyncio.sleep(1)
    watched.agent().handler.tool_response("skip_turn", "t1", "success", False)
    await asyncio.sleep(60)
    assert nudges(watched) == 0
    assert session.outcome is None


async def test_a_caller_whose_phone_holds_us_waits_for_nothing(watched: Stage) -> None:
    session = await watched.talk()
    speak(session)
    session.tells(PhoneHeld(True))
    await asyncio.sleep(60)
    assert nudges(watched) == 0
    told = watched.agent().told
    assert told.count(("activity", "")) == 20, "it does not ask who is there"
    session.tells(PhoneHeld(False))
    await asyncio.sleep(12)
    assert told.count(("activity", "")) == 20
    assert nudges(watched) == 1
