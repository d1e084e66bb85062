from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import numpy as np
import pytest
from structlog.testing import capture_logs

from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.call.signals import ConsultRequested, EndRequested
from ari_app.call.states import State
from ari_app.line.interface import Outcome, Status, TargetLost
from ari_app.records.events import CallerInterrupted, CallEvent, StateChanged, ToolRan
from ari_app.records.record import CallRecord
from audiosocket.frames import SLIN
from lab.softphone.sounds import babble
from tests.recordings import sides_of
from tests.unit.audiosocket.client import pcm_source, tone_source
from tests.unit.call.fake_ari import (
    CONTINUE,
    DESTROY_BRIDGE,
    HANGUP,
    RING,
    SEND_DTMF,
    SET_VARIABLE,
    never,
)
from tests.unit.call.stage import Stage, heard_ms, now

LEVEL = 8000
RELEASED = [State.RELEASING, State.ENDED]

# --- time


async def test_a_call_ends_after_its_longest_time() -> None:
    async with Stage(ticking=False) as stage:
        session = await stage.talk()
        began = now()
        await session.ended.wait()
        assert now() - began == pytest.approx(600, abs=0.01)
        assert (stage.landed(session).status, stage.landed(session).reason) == (
            "TIMEOUT",
            "call_timeout",
        )
        assert stage.left_behind() == []


class TestTheAgentEndsTheCall:
    """After its `end_call` the agent's last words are heard, and it need not close itself."""

    async def test_it_has_said_all(self, stage: Stage) -> None:
        session = await stage.talk()
        await asyncio.sleep(10)
        began = now()
        stage.agent().handler.tool_response("end_call", "1", "success", False)
        assert session.state is State.CLOSING
        await session.ended.wait()
        assert now() - began == pytest.approx(1.5, abs=0.05)
        assert (stage.landed(session).status, stage.landed(session).reason) == (
            "COMPLETED",
            "agent_ended",
        )

    async def test_its_last_words_are_still_queued(self, stage: Stage) -> None:
        session = await stage.talk()
        began = now()
        stage.agent().says(4000, final=True)
        stage.agent().handler.tool_response("end_call", "1", "success", False)
        await session.ended.wait()
        assert heard_ms(stage.media(session)) == 4000
        assert now() - began == pytest.approx(4 + 1.5, abs=0.1)

    async def test_its_last_words_are_still_coming(self, stage: Stage) -> None:
        session = await stage.talk()
        began = now()
        stage.agent().handler.tool_response("end_call", "1", "success", False)
        for _ in range(3):
            await asyncio.sleep(1.2)
            stage.agent().says(100)
        await session.ended.wait()
        # Between them the response runs dry, so that each piece fades out and in.
        assert heard_ms(stage.media(session)) == pytest.approx(300, abs=20)
        assert now() - began == pytest.approx(3 * 1.2 + 1.5, abs=0.2)

    async def test_it_closes_as_it_should(self, stage: Stage) -> None:
        session = await stage.talk()
        stage.agent().says(1000, final=True)
        stage.agent().handler.tool_response("end_call", "1", "success", False)
        await asyncio.sleep(0.2)
        stage.agent().closes()
        assert session.state is State.DRAINING
        await session.ended.wait()
        assert heard_ms(stage.media(session)) == 1000
        assert session.call.context.duration() == pytest.approx(1 + 0.06, abs=0.05)

    async def test_it_goes_on_and_on(self, stage: Stage) -> None:
        session = await stage.talk()
        began = now()
        stage.agent().handler.tool_response("end_call", "1", "success", False)
        while session.state is State.CLOSING and now() - began < 30:
            stage.agent().says(500)
            await asyncio.sleep(0.5)
        assert now() - began == pytest.approx(20, abs=0.5)
        await session.ended.wait()
        assert stage.landed(session).reason == "agent_ended"

    @pytest.mark.parametrize(("name", "said"), [("end_call", "error"), ("other", "success")])
    async def test_what_is_no_end(self, stage: Stage, name: str, said: str) -> None:
        session = await stage.talk()
        stage.agent().handler.tool_response(name, "1", said, False)
        assert session.state is State.TALKING


# --- the conversation


async def test_a_response_that_is_complete_is_played_to_its_end(stage: Stage) -> None:
    stage.agents.output_format = "pcm_16000"
    session = await stage.talk()
    stage.agent().says(500)
    stage.agent().handler.response_complete(1)
    await asyncio.sleep(1)
    assert heard_ms(stage.media(session)) == pytest.approx(500, abs=2)
    assert session.sound.playout.stats.underruns == 0


async def test_an_interruption_silences_the_agent_and_is_counted(stage: Stage) -> None:
    told: list[CallEvent] = []
    stage.journal.listen(lambda record, event: told.append(event))
    session = await stage.talk()
    agent = stage.agent()
    agent.says(3000)
    await asyncio.sleep(1)
    agent.handler.interruption(1)
    await asyncio.sleep(1)
    assert session.sound.interruptions == 1
    (line,) = session.transcript
    assert line.who == "interruption"
    after, unheard = (float(word) for word in line.text.split() if word.isdigit())
    assert after == pytest.approx(1000, abs=40)
    assert after + unheard == 3000
    (event,) = (each for each in told if isinstance(each, CallerInterrupted))
    assert [event.heard_ms, event.unheard_ms] == pytest.approx([after, unheard], abs=0.5)
    assert heard_ms(stage.media(session)) == pytest.approx(after, abs=1), "it has fallen silent"
    agent.handler.interruption(2)
    assert session.sound.interruptions == 2


async def test_a_response_is_measured(stage: Stage) -> None:
    session = await stage.talk()
    media = stage.media(session)
    media.source = pcm_source(SLIN, babble(1000))
    await asyncio.sleep(1.8)
    stage.agent().says(500)
    await asyncio.sleep(0.2)
    (response,) = stage.notes.responses
    assert response == pytest.approx(0.8, abs=0.05)


async def test_the_transcript(stage: Stage) -> None:
    session = await stage.talk()
    handler = stage.agent().handler
    handler.agent_response("Hello.", 1)
    await asyncio.sleep(2)
    handler.user_transcript("I need help.", 2)
    handler.agent_response_correction("Certainly, I", "Certainly", 3)
    handler.tool_call("open_door", "call_1", {}, True)
    await stage.settle()
    said = [(line.who, line.text) for line in session.transcript]
    assert said[:3] == [
        ("agent", "Hello."),
        ("caller", "I need help."),
        ("correction", "Certainly"),
    ]
    assert said[3][0] == "tool" and said[3][1].startswith("open_door: There is no tool")
    assert session.transcript[1].at_seconds == pytest.approx(2, abs=0.01)
    assert stage.notes.said == list(session.transcript)
    for number in range(600):
        handler.agent_response(str(number), None)
    assert len(session.transcript) == 500
    assert session.transcript[-1].text == "599"


async def test_a_transfer(stage: Stage) -> None:
    session = await stage.talk()
    agent = stage.agent()
    agent.handler.tool_call("transfer_call", "call_1", {"to": "support"}, True)
    await stage.settle()
    assert agent.results == [("call_1", "The caller is transferred after your last words.", False)]
    agent.says(500, final=True)
    agent.closes()
    await session.ended.wait()
    assert stage.landed(session).variables == {
        "AGENT_STATUS": "TRANSFER",
        "AGENT_REASON": "agent_transfer",
        "AGENT_SESSION_ID": session.session_id,
        "AGENT_CONVERSATION_ID": "conv_of_agent_default",
        "AGENT_TRANSFER_TO": "support",
    }
    assert heard_ms(stage.media(session)) == 500


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("step", ["media", "caller"])
async def test_an_end_that_the_agent_wants_before_the_caller_is_there_comes_when_it_was_heard(
    stage: Stage, step: str, closes: bool
) -> None:
    event = f"ChannelEnteredBridge of {step}"
    stage.asterisk.withheld.add(event)
    session = await stage.enter()
    await stage.settle()
    agent = stage.agent()
    agent.says(500, final=True)
    agent.handler.tool_call("transfer_call", "call_1", {"to": "support"}, True)
    await stage.settle()
    agent.handler.tool_call("hang_up", "call_2", {}, True)
    await stage.settle()
    assert [is_error for _, _, is_error in agent.results] == [False, True]
    if closes:
        agent.closes(CloseKind.LOST, 1006)
    await asyncio.sleep(1)
    stage.asterisk.tell(event)
    await session.ended.wait()
    assert stage.landed(session).variables["AGENT_TRANSFER_TO"] == "support"
    assert heard_ms(stage.media(session)) == 500


async def test_a_tool_that_expects_no_answer_gets_none(stage: Stage) -> None:
    session = await stage.talk()
    stage.agent().handler.tool_call("hang_up", "call_1", {}, False)
    assert stage.agent().results == []
    await session.ended.wait()
    assert stage.landed(session).reason == "agent_hung_up"


async def test_an_agent_is_made_to_speak_when_a_transfer_from_outside_comes_to_nothing(
    stage: Stage,
) -> None:
    session = await stage.talk()
    session.post(ConsultRequested("+493023125001"))
    await stage.settle()
    session.tells(TargetLost("busy"))
    way, text = stage.agent().told[-1]
    assert (way, "came to nothing" in text) == ("text", True)


async def test_a_failing_tool_does_not_end_the_call(stage: Stage) -> None:
    session = await stage.talk()
    stage.agent().handler.tool_call("transfer_call", "call_1", {"to": "a b"}, True)
    await stage.settle()
    assert [is_error for _, _, is_error in stage.agent().results] == [True]
    assert session.state is State.TALKING


async def test_a_tool_that_the_end_of_the_call_cuts_off_is_kept(stage: Stage) -> None:
    ran: list[CallEvent] = []
    stage.journal.listen(lambda _, event: ran.append(event) if isinstance(event, ToolRan) else None)
    session = await stage.talk()
    stage.asterisk.before[SEND_DTMF] = never
    stage.agent().handler.tool_call("send_dtmf", "call_1", {"digits": "12#"}, True)
    await stage.settle()
    assert stage.agent().results == []
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()
    (told,) = ran
    assert isinstance(told, ToolRan)
    assert (told.name, told.arguments, told.is_error) == ("send_dtmf", {"digits": "12#"}, True)
    assert told.result.startswith("The call ended before there was a result")


# --- recording


def recorded(folder: Path) -> list[Path]:
    return list(folder.glob("*/*"))


async def test_both_sides_are_recorded(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path, recorded=True) as stage:
        session = await stage.talk()
        stage.media(session).source = tone_source(SLIN, 400)
        stage.agent().says(1000, final=True)
        await asyncio.sleep(2)
        stage.asterisk.hang_up(session.call_id)
        await session.ended.wait()
    (path,) = recorded(tmp_path)
    caller, agent = sides_of(path).T
    assert len(caller) / 8000 == pytest.approx(2, abs=0.1)
    assert np.count_nonzero(abs(agent) == LEVEL) == pytest.approx(8000, abs=80)
    assert np.sqrt(np.mean(caller.astype(float) ** 2)) > 3000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_call_goes_well_though_its_recording_does_not(tmp_path: Path) -> None:
    async with Stage(recordings=tmp_path / "missing", recorded=True) as stage:
        with capture_logs() as logs:
            session = await stage.talk()
            stage.agent().says(500, final=True)
            stage.agent().closes()
            await session.ended.wait()
            assert stage.landed(session).status == "COMPLETED"
            assert stage.services.recordings is not None
            await stage.services.recordings.close()
    (incomplete,) = (entry for entry in logs if entry["event"] == "recording_incomplete")
    assert "No such file" in incomplete["failure"]


# --- the end


async def test_no_task_of_a_call_outlives_it(stage: Stage) -> None:
    stage.asterisk.before[RING] = never
    session = await stage.talk()
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()
    await stage.settle()
    assert stage.left_behind() == []


async def test_a_listener_may_end_the_call_that_it_is_told_of(stage: Stage) -> None:
    def impatient(record: CallRecord, event: CallEvent) -> None:
        if event == StateChanged("talking", "active"):
            session = stage.session(record.session_id)
            session.post(EndRequested(Outcome(Status.COMPLETED, "seen_enough")))
            assert session.state is State.TALKING, "one thing after the other"

    stage.journal.listen(impatient)
    session = await stage.enter()
    await session.ended.wait()
    assert stage.landed(session).reason == "seen_enough"
    assert stage.notes.states == [State.CONNECTING, State.JOINING, State.TALKING, *RELEASED]


async def test_a_release_asked_for_twice_happens_once(stage: Stage) -> None:
    session = await stage.talk()
    for _ in range(2):
        stage.asterisk.hang_up(session.call_id)
        stage.calls.end_all("twice")
        stage.agent().closes()
    await session.ended.wait()
    await stage.settle()
    assert len(stage.asterisk.requests(HANGUP)) == len(stage.asterisk.requests(DESTROY_BRIDGE)) == 1
    assert stage.notes.states[-2:] == RELEASED


async def test_the_line_ends_before_asterisk_is_asked_for_anything(stage: Stage) -> None:
    session = await stage.talk()
    ended: list[str | None] = []

    def look() -> None:
        ended.append(stage.media(session).close_reason)

    for operation in (SET_VARIABLE, CONTINUE, HANGUP, DESTROY_BRIDGE):
        stage.asterisk.before[operation] = look
    stage.agent().closes()
    await session.ended.wait()
    assert ended and set(ended) == {"hangup"}
