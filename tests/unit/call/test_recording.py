"""A call and its recording, on the virtual clock."""

from __future__ import annotations

import asyncio
import threading
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ari_app.audio.sound_file import SoundFile
from ari_app.call.plan import Announcement
from ari_app.call.signals import HoldRequested
from ari_app.call.sound import CallSound
from ari_app.line.interface import PhoneHeld
from ari_app.records.recording.writer import Recordings
from tests.recordings import sides_of
from tests.session_view import Session
from tests.unit.call.stage import Stage, now, sound
from tests.unit.call.test_sound import Voice
from tests.unit.virtual_loop import VirtualLoop
from tests.waiting import PATIENCE_SECONDS

RATE_HZ = 8000
FRAME = 160
SAID, SECRET = 1000, 6660


def recorded(folder: Path) -> list[npt.NDArray[np.int16]]:
    """The recordings, in their order."""
    return [sides_of(path) for path in sorted(folder.glob("*/*.wav"))]


def caller_says(stage: Stage, session: Session, level: int) -> None:
    stage.media(session).source = repeat(np.full(FRAME, level, "<i2").tobytes()).__next__


async def over(stage: Stage, session: Session) -> None:
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()


def switch(stage: Stage, session: Session, on: bool) -> str | None:
    call = stage.calls.call(session.session_id)
    assert call is not None
    return call.set_recording(on)


def notes(stage: Stage) -> list[str]:
    return [line.text for line in stage.notes.said if line.who == "note"]


async def test_nothing_of_a_pause_is_on_the_disk(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path, recorded=True) as stage:
        session = await stage.talk()
        caller_says(stage, session, SAID)
        await asyncio.sleep(2)
        assert session.record.recording == "on"
        assert switch(stage, session, False) is None
        assert session.record.recording == "paused"
        caller_says(stage, session, SECRET)
        stage.agent().says(1000, level=SECRET, final=True)
        await asyncio.sleep(3)
        caller_says(stage, session, SAID + 1)
        await asyncio.sleep(0.1)
        assert switch(stage, session, True) is None
        await asyncio.sleep(1)
        await over(stage, session)
    (sides,) = recorded(tmp_path)
    assert SECRET not in sides and -SECRET not in sides
    assert len(sides) / RATE_HZ == pytest.approx(6.1, abs=0.05)
    before, after = (np.flatnonzero(sides[:, 0] == level) for level in (SAID, SAID + 1))
    assert before[-1] / RATE_HZ == pytest.approx(2, abs=0.05)
    assert after[0] / RATE_HZ == pytest.approx(5.1, abs=0.05)
    assert notes(stage) == ["the recording pauses", "the recording goes on"]


async def test_it_begins_when_it_is_asked_for(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path) as stage:
        session = await stage.talk()
        caller_says(stage, session, SECRET)
        await asyncio.sleep(1)
        assert switch(stage, session, False) is None, "as it is"
        caller_says(stage, session, SAID)
        await asyncio.sleep(0.1)
        assert switch(stage, session, True) is None
        assert switch(stage, session, True) is None
        await asyncio.sleep(1)
        await over(stage, session)
        assert stage.services.recordings is not None
        await stage.services.recordings.close()
        (part,) = stage.services.recordings.parts(session.session_id)
    (sides,) = recorded(tmp_path)
    assert set(sides[:, 0]) <= {0, SAID}
    assert part["seconds"] == pytest.approx(1, abs=0.05)
    assert part["from"] == pytest.approx(session.record.seconds or 0, abs=1.1)
    assert notes(stage) == ["the recording begins"]


@pytest.mark.parametrize("recorded_first", [True, False])
async def test_what_is_said_before_the_caller_is_there_counts(
    tmp_path: Path, recorded_first: bool
) -> None:
    async with Stage(recordings=tmp_path, recorded=recorded_first) as stage:
        stage.agents.ready.clear()
        session = await stage.enter()
        assert switch(stage, session, not recorded_first) is None
        stage.agents.ready.set()
        await asyncio.sleep(2)
        await over(stage, session)
    assert len(recorded(tmp_path)) == (0 if recorded_first else 1)
    assert notes(stage) == []


async def test_where_nothing_is_recorded(stage: Stage) -> None:
    session = await stage.talk()
    assert switch(stage, session, True) == "calls are not recorded here"
    stage.agent().handler.tool_call("record_call", "t1", {"on": True}, True)
    await asyncio.sleep(0.1)
    ((_, told, is_error),) = stage.agent().results
    assert is_error
    assert told.startswith("There is no tool 'record_call'")


async def test_the_agent_pauses_and_goes_on(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path, recorded=True) as stage:
        session = await stage.talk()
        for number, on in enumerate((False, True, True)):
            stage.agent().handler.tool_call("record_call", f"t{number}", {"on": on}, True)
            await asyncio.sleep(1)
        assert stage.agent().results == [
            ("t0", "Nothing is recorded until you go on.", False),
            ("t1", "The call is recorded from now on.", False),
            ("t2", "The call is recorded from now on.", False),
        ]
        assert session.record.recording == "on"
        await over(stage, session)
    assert len(recorded(tmp_path)) == 1


async def test_after_a_failure_another_file_is_begun(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path, recorded=True) as stage:
        session = await stage.talk()
        await asyncio.sleep(3)
        recorder, recordings = session.sound.recorder, stage.services.recordings
        assert recorder is not None
        assert recordings is not None
        written = threading.Event()
        recordings.writer._work.put(written.set)
        assert written.wait(PATIENCE_SECONDS)
        recorder._file.fail("the disk is full")
        assert switch(stage, session, True) is None
        await asyncio.sleep(1)
        await over(stage, session)
    assert len(recorded(tmp_path)) == 2


async def test_no_recording_begins_without_room(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path) as stage:
        assert stage.services.recordings is not None
        stage.services.recordings.stats.free_bytes = 0
        session = await stage.talk()
        assert switch(stage, session, True) == "there is no room for a recording just now"
        assert switch(stage, session, False) is None
        assert session.record.recording == "off"
        await over(stage, session)
    assert notes(stage) == ["the recording could not begin"]


async def test_a_call_that_could_not_be_recorded_has_nothing_to_pause(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path, recorded=True) as stage:
        assert stage.services.recordings is not None
        stage.services.recordings.stats.free_bytes = 0
        session = await stage.talk()
        assert switch(stage, session, False) is None
        assert session.record.recording == "off"
        stage.services.recordings.stats.free_bytes = None
        assert switch(stage, session, True) is None
        assert session.record.recording == "on"
        await over(stage, session)
    assert notes(stage) == ["the recording begins"]


# --- the announcement

SAYS = SoundFile(np.full(RATE_HZ, 777, "<i2").tobytes(), RATE_HZ)
ANNOUNCEMENT = {Announcement.RECORDING: SAYS}


async def test_the_announcement_comes_first_and_is_not_interrupted(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path, announcements=ANNOUNCEMENT, recorded=True) as stage:
        session = await stage.talk()
        stage.agent().says(1000, level=SAID, event_id=1)
        await asyncio.sleep(0.3)
        session.sound.clear()
        stage.agent().says(500, level=2000, event_id=2, final=True)
        assert session.sound.queued_seconds == pytest.approx(1.2, abs=0.05)
        await session.sound.drained()
        await asyncio.sleep(0.5)
        await over(stage, session)
    assert session.record.sound.barge_in_ms == (), "the agent was not heard yet"
    (sides,) = recorded(tmp_path)
    agent = sides[:, 1]
    assert np.count_nonzero(agent == 777) == RATE_HZ
    assert np.flatnonzero(agent == 777)[-1] < np.flatnonzero(agent == 2000)[0]
    assert SAID not in agent


async def test_that_somebody_may_listen_comes_first_whether_or_not_it_is_recorded(
    tmp_path: Path,
) -> None:
    listening = SoundFile(np.full(RATE_HZ // 2, 555, "<i2").tobytes(), RATE_HZ)
    both = {**ANNOUNCEMENT, Announcement.LISTENING: listening}
    async with Stage(recordings=tmp_path, announcements=both, recorded=True) as stage:
        session = await stage.talk()
        stage.agent().says(500, level=SAID, event_id=1, final=True)
        await session.sound.drained()
        heard = sound(stage.media(session))
        await over(stage, session)
    firsts = [int(np.flatnonzero(heard == level)[0]) for level in (555, 777, SAID)]
    assert firsts == sorted(firsts), "before anything that the agent says"
    assert np.count_nonzero(heard == 555) == RATE_HZ // 2
    async with Stage(announcements=both) as stage:
        session = await stage.talk()
        assert session.sound.queued_seconds == pytest.approx(0.5)


async def test_it_is_heard_once_and_only_by_whom_is_recorded(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path, announcements=ANNOUNCEMENT) as stage:
        session = await stage.talk()
        await asyncio.sleep(1)
        assert session.sound.queued_seconds == 0
        for on in (True, False, True):
            switch(stage, session, on)
        assert session.sound.queued_seconds == pytest.approx(1)
        await over(stage, session)


async def test_an_interruption_does_not_cut_what_is_announced_in_mid_call(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path, announcements=ANNOUNCEMENT) as stage:
        session = await stage.talk()
        stage.agent().says(3000, level=SAID, event_id=1)
        await asyncio.sleep(0.3)
        switch(stage, session, True)
        stage.agent().says(3000, level=SAID, event_id=1, final=True)
        await asyncio.sleep(0.3)
        stage.agent().handler.interruption(1)
        await asyncio.sleep(0.5)
        stage.agent().handler.interruption(2)
        stage.agent().says(500, level=2000, event_id=3, final=True)
        await asyncio.sleep(2)
        heard = sound(stage.media(session))
        await over(stage, session)
    first, announced, last = (np.flatnonzero(heard == level) for level in (SAID, 777, 2000))
    assert len(announced) == RATE_HZ
    assert first[-1] < announced[0] and announced[-1] < last[0]
    assert announced[-1] - announced[0] == RATE_HZ - 1, "in one piece"
    assert max(session.record.sound.barge_in_ms) < 50


@pytest.mark.parametrize("held", ["before", "while it is announced"])
async def test_who_hears_music_is_told_once_they_hear_us(tmp_path: Path, held: str) -> None:
    async with Stage(recordings=tmp_path, announcements=ANNOUNCEMENT) as stage:
        session = await stage.talk()
        call = stage.calls.call(session.session_id)
        assert call is not None
        if held != "before":
            switch(stage, session, True)
            await asyncio.sleep(0.5)
        call.context.post(HoldRequested(on=True))
        switch(stage, session, True)
        await asyncio.sleep(3)
        before = np.count_nonzero(sound(stage.media(session)) == 777)
        assert before < RATE_HZ
        call.context.post(HoldRequested(on=False))
        await asyncio.sleep(2)
        assert np.count_nonzero(sound(stage.media(session)) == 777) == before + RATE_HZ
        call.on_line(PhoneHeld(on=True))
        call.on_line(PhoneHeld(on=False))
        await asyncio.sleep(2)
        assert np.count_nonzero(sound(stage.media(session)) == 777) == before + RATE_HZ, "once"
        await over(stage, session)


# --- together for an hour


def lag(side: npt.NDArray[np.int16], said: npt.NDArray[np.int16], at: int) -> int:
    """How much later than `at` it was said, in samples, by correlation."""
    reach = RATE_HZ // 4
    around = side[at - reach : at + len(said) + reach].astype(float)
    return int(np.argmax(np.correlate(around, said.astype(float), "valid"))) - reach


@pytest.mark.parametrize("drift_ppm", [0, 150, -150])
async def test_both_sides_stay_together_for_an_hour(tmp_path: Path, drift_ppm: int) -> None:
    """The phone's clock is a little wrong, and its packets are up to 15 ms late."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    random = np.random.default_rng(1)
    sound = CallSound(RATE_HZ, chunk_ms=40)
    sound.carry(Voice())
    began = now()
    recordings = Recordings(max_waiting_bytes=1 << 30)
    sound.recorder = recordings.start(tmp_path / "call.wav", RATE_HZ, began)
    sound.start()
    said = random.normal(0, 4000, RATE_HZ // 2).astype("<i2")
    pieces = [said[at : at + FRAME].tobytes() for at in range(0, len(said), FRAME)]
    quiet, late = bytes(2 * FRAME), random.uniform(0, 0.015, 3600 * 51)
    # When what the caller says arrives whole: 20 ms after it begins.
    step, sent, speaks = 0.02 / (1 + drift_ppm / 1e6), 0, {}
    for tick in range(3600 * 50):
        at = tick * 0.02
        while (arrives := (sent + 1) * step) <= at:
            loop.now = began + arrives + late[sent] / 50
            minute, piece = divmod(sent, 3000)
            if piece == 500:
                speaks[minute] = round(sent * step * RATE_HZ)
            spoken = pieces[piece - 500] if 500 <= piece < 525 else quiet
            sound.heard(spoken)
            sent += 1
        loop.now = began + at
        if tick % 3000 == 500:
            sound.say(tick, said.tobytes(), is_final=True)
        sound.tick()
        sound.next_frame()
    sound.stop()
    await recordings.close(60)
    sides = sides_of(tmp_path / "call.wav")
    assert len(sides) / RATE_HZ == pytest.approx(3600, abs=0.05)
    callers = [lag(sides[:, 0], said, at) for at in speaks.values()]
    agents = [lag(sides[:, 1], said, (tick * 3000 + 500) * FRAME) for tick in range(60)]
    assert len(callers) >= 59
    limit = RATE_HZ * 20 // 1000
    assert all(abs(each) <= limit for each in [*callers, *agents]), (callers, agents)
