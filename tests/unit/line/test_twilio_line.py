"""What a line of Twilio's does when Twilio does not do as it should; in virtual time."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from ari_app.audio.formats import DEFAULT_AGENT_FORMATS
from ari_app.audio.g711 import pcm_to_ulaw, ulaw_to_pcm
from ari_app.errors import LineError
from ari_app.line.interface import (
    Ability,
    Answered,
    Arrival,
    CallEnd,
    Connected,
    Ended,
    LineEvent,
    LineFailed,
    Opened,
    Outcome,
    Placing,
    Result,
    Screened,
    SoundLost,
    Status,
    TargetConnected,
    TargetLost,
)
from ari_app.line.twilio.gateway import TwilioGateway
from ari_app.line.twilio.leg import TwilioOptions
from ari_app.line.twilio.line import TwilioLine
from ari_app.line.twilio.rest import TwilioError
from ari_app.line.twilio.signature import Signatures
from ari_app.line.twilio.stream import MediaStream
from ari_app.line.twilio.twiml import Elsewhere
from ari_app.line.websocket_input import BadInput
from linekit.clock import FrameClock
from tests.unit.line.fake_sound import FakeSound
from tests.unit.line.fake_twilio import ACCOUNT, PUBLIC_URL, FakeRest, FakeStream, FakeTwilio, parse
from tests.waiting import until

CALL, TARGET = "CA1", "+15550100004"
DONE = Outcome(Status.COMPLETED, "agent_ended")
FAILED = Outcome(Status.FAILED, "agent_lost")
END = CallEnd("session-1", "conv_1")
FRAME = b"\x10\x27" * 160


def level(pcm: bytes) -> int:
    """The loudest sample."""
    return int(np.frombuffer(pcm, "<i2").max(initial=0))


class Scene:
    """A gateway, a Twilio around it, and the line of one call."""

    def __init__(self) -> None:
        self.rest = FakeRest()
        self.clock = FrameClock()
        self.refused: list[str] = []
        options = TwilioOptions(
            PUBLIC_URL, ACCOUNT, "+15550100002", Elsewhere("https://ivr.example/next")
        )
        self.gateway = TwilioGateway(
            options, self.rest, Signatures(PUBLIC_URL, ["t"]), self.clock, self.refused.append
        )
        self.twilio = FakeTwilio(self.gateway, self.rest)
        self.told: list[LineEvent] = []
        self.sound = FakeSound()
        self.arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self.beating = True

    async def beats(self) -> None:
        while True:
            await asyncio.sleep(0.02)
            if self.beating:
                for stream in tuple(self.twilio.streams.values()):
                    stream.beat()

    @property
    def stream(self) -> FakeStream:
        return self.twilio.streams[CALL]

    async def arrives(self) -> TwilioLine:
        self.twilio.calls(CALL)
        line = (await self.arrivals.get()).line
        assert isinstance(line, TwilioLine)
        return self.takes(line)

    def takes(self, line: TwilioLine) -> TwilioLine:
        line.name("session-1")
        line.listen(self.told.append)
        return line

    async def talks(self) -> TwilioLine:
        line = await self.arrives()
        await line.prepare(DEFAULT_AGENT_FORMATS)
        line.open(self.sound, 5)
        line.connect()
        await self.until(Connected)
        return line

    async def until(self, kind: type[Any]) -> None:
        await until(lambda: bool(self.told) and isinstance(self.told[-1], kind))

    def last(self) -> LineEvent:
        """What was told last."""
        return self.told[-1]

    def documents(self, verb: str) -> int:
        """How many documents began so, of those by REST."""
        texts = [str(fields.get("Twiml", "")) for _, fields in self.rest.updated]
        return sum(text != "" and parse(text)[0].tag == verb for text in texts)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    scene.clock.start()
    tasks = [
        asyncio.create_task(scene.gateway.run(scene.arrivals.put_nowait)),
        asyncio.create_task(scene.beats()),
    ]
    await asyncio.sleep(0)
    yield scene
    await scene.twilio.close()
    for task in tasks:
        task.cancel()
    await scene.gateway.close()
    scene.clock.stop()
    assert scene.gateway.expected == 0


# --- the webhook


async def test_a_call_that_takes_too_long_to_be_decided_is_answered(scene: Scene) -> None:
    line = await scene.arrives()
    await asyncio.sleep(13)
    assert line.answered, "Twilio would have given up"
    line.open(scene.sound, 5)
    line.connect()
    await scene.until(Connected)
    await line.close(DONE, END)


async def test_who_is_refused_is_not_answered(scene: Scene) -> None:
    line = await scene.arrives()
    await line.close(Outcome(Status.REJECTED, "at_capacity"), END)
    await until(lambda: bool(scene.twilio.documents))
    assert parse(scene.twilio.documents[0])[0].tag == "Redirect"
    assert scene.rest.updated == []


async def test_who_hangs_up_while_it_rings_is_noticed_when_no_stream_comes(scene: Scene) -> None:
    line = await scene.arrives()
    scene.rest.status = "completed"
    scene.twilio.comes = False
    line.open(scene.sound, 5)
    line.connect()
    await asyncio.sleep(3)
    assert scene.last() == Ended("caller_hung_up")
    await line.close(DONE, END)


# --- the stream


async def test_a_frame_is_not_taken_early_where_the_queue_would_run_dry(scene: Scene) -> None:
    line = await scene.talks()
    scene.sound.frames = [FRAME] * 100
    await asyncio.sleep(0.2)
    assert scene.sound.pulled - len(scene.stream.heard) <= 9
    scene.sound.frames.clear()
    await asyncio.sleep(1)
    heard = len(b"".join(scene.stream.heard)) // 320
    assert heard == scene.sound.pulled
    await line.close(DONE, END)


async def test_last_words_are_waited_for_but_not_for_ever(scene: Scene) -> None:
    line = await scene.talks()
    loop = asyncio.get_running_loop()
    scene.sound.frames = [FRAME] * 8
    await asyncio.sleep(0.05)
    scene.beating = False
    began = loop.time()
    await line.close(DONE, END)
    assert 2.0 < loop.time() - began < 6.5


async def test_silence_is_looked_into_and_given_up(scene: Scene) -> None:
    line = await scene.talks()
    scene.stream.stops = True
    await asyncio.sleep(6)
    assert scene.rest.looks == 1
    assert scene.last() == Connected()
    await asyncio.sleep(5)
    assert scene.last() == SoundLost("line_silent")
    assert scene.refused == ["silent"]
    await line.close(FAILED, END)


async def test_a_silent_stream_of_a_call_that_has_ended_is_a_hang_up(scene: Scene) -> None:
    line = await scene.talks()
    scene.stream.stops = True
    scene.rest.status = "completed"
    await asyncio.sleep(6)
    assert scene.last() == Ended("caller_hung_up")
    await line.close(DONE, END)
    assert scene.rest.updated == []


async def test_where_twilio_does_not_ask_it_is_told(scene: Scene) -> None:
    line = await scene.talks()
    scene.twilio.asks = False
    scene.stream.socket.drops(1006)
    await asyncio.sleep(2)
    assert scene.last() == SoundLost("line_lost")
    await line.close(FAILED, END)
    (call_sid, fields), *_ = scene.rest.updated
    assert call_sid == CALL
    assert "AGENT_REASON=agent_lost" in str(fields["Twiml"])


# --- music, keys, transfers


async def test_what_was_wished_last_counts(scene: Scene) -> None:
    line = await scene.talks()
    line.music()
    line.connect()
    line.music()
    line.connect()
    await asyncio.sleep(1)
    assert scene.last() == Connected()
    assert scene.documents("Connect") == scene.documents("Dial")
    scene.sound.frames = [FRAME] * 5
    await asyncio.sleep(1)
    assert scene.sound.pulled == 5
    await line.close(DONE, END)


async def test_music_that_is_wished_on_the_way_to_the_stream_is_heard(scene: Scene) -> None:
    line = await scene.talks()
    for comes in (True, False):
        line.music()
        await asyncio.sleep(0.1)
        scene.twilio.comes = comes
        line.connect()
        await asyncio.sleep(0)
        line.music()
        await asyncio.sleep(1)
        assert parse(str(scene.rest.updated[-1][1]["Twiml"]))[0].tag == "Dial"
        scene.twilio.comes = True
        line.connect()
        await asyncio.sleep(1)
        assert parse(str(scene.rest.updated[-1][1]["Twiml"]))[0].tag == "Connect"
    assert scene.last() == Connected()
    scene.sound.frames = [FRAME] * 5
    await asyncio.sleep(0.5)
    assert scene.sound.pulled == 5
    await line.close(DONE, END)


@pytest.mark.parametrize("moves", ["music", "keys"])
async def test_who_hangs_up_while_they_are_moved_is_noticed(scene: Scene, moves: str) -> None:
    line = await scene.talks()
    scene.rest.gone, scene.rest.status = True, "completed"
    if moves == "music":
        line.music()
    else:
        keys = asyncio.create_task(line.send_keys("1"))
    await asyncio.sleep(0.01)
    scene.twilio.hangs_up(CALL)
    await asyncio.sleep(2)
    assert scene.last() == Ended("caller_hung_up")
    if moves == "keys":
        with pytest.raises(LineError):
            await keys
    await line.close(DONE, END)


async def test_who_has_hung_up_in_the_waiting_room_is_not_taken_for_a_failure(
    scene: Scene,
) -> None:
    line = await scene.talks()
    line.music()
    await asyncio.sleep(0.1)
    scene.rest.gone, scene.rest.status = True, "completed"
    line.connect()
    await asyncio.sleep(1)
    assert scene.last() == Ended("caller_hung_up")
    await line.close(DONE, END)


async def test_music_that_cannot_be_is_silence(scene: Scene) -> None:
    line = await scene.talks()
    scene.rest.update_failure = TwilioError("no", code="twilio_failed")
    line.music()
    await asyncio.sleep(0.1)
    line.connect()
    await asyncio.sleep(0.1)
    assert scene.last() == Connected()
    await line.close(DONE, END)


async def test_who_cannot_be_brought_back_has_failed(scene: Scene) -> None:
    line = await scene.talks()
    line.music()
    await asyncio.sleep(0.1)
    scene.rest.update_failure = TwilioError("no", code="twilio_failed")
    line.connect()
    await asyncio.sleep(0.1)
    assert scene.last() == LineFailed("twilio_not_moved")
    scene.rest.update_failure = None
    await line.close(FAILED, END)
    assert "Redirect" in str(scene.rest.updated[-1][1])


async def test_who_waits_is_given_back_as_soon_as_twilio_does_it(scene: Scene) -> None:
    line = await scene.talks()
    line.music()
    await asyncio.sleep(0.1)
    before = len(scene.rest.updated)
    scene.rest.update_failure = TwilioError("no", code="twilio_failed", may_be_done=True)
    line.connect()
    await asyncio.sleep(5)
    assert scene.last() == LineFailed("twilio_not_moved")
    await line.close(FAILED, END)
    await asyncio.sleep(600)
    scene.rest.update_failure = None
    await asyncio.sleep(31)
    ((call_sid, fields),) = scene.rest.updated[before:]
    assert call_sid == CALL
    assert "AGENT_REASON=agent_lost" in str(fields["Twiml"])
    await asyncio.sleep(600)
    assert len(scene.rest.updated) == before + 1, "it is not taken away again"


async def test_who_waits_is_given_back_though_the_service_stops(scene: Scene) -> None:
    line = await scene.talks()
    line.music()
    await asyncio.sleep(0.1)
    scene.rest.update_failure = TwilioError("no", code="twilio_busy")
    await line.close(Outcome(Status.FAILED, "shutting_down"), END)
    closing = asyncio.create_task(scene.gateway.close())
    await asyncio.sleep(3)
    scene.rest.update_failure = None
    await closing
    assert "AGENT_REASON=shutting_down" in str(scene.rest.updated[-1][1]["Twiml"])


async def test_a_document_that_is_too_long_for_rest_is_fetched(scene: Scene) -> None:
    line = await scene.talks()
    for name in ("SUMMARY", "WISH"):
        await line.set_variable(name, "\u00e4" * 1000)
    line.music()
    await asyncio.sleep(0.1)
    await line.close(FAILED, END)
    fields = scene.rest.updated[-1][1]
    assert fields == {"Url": f"{PUBLIC_URL}/twilio/after", "Method": "POST"}
    document = await scene.gateway.comes_after(scene.twilio.form(CALL, "in-progress"), "")
    assert "SUMMARY" in document and "AGENT_REASON=agent_lost" in document


async def test_what_twilio_refuses_is_not_asked_for_again(scene: Scene) -> None:
    line = await scene.talks()
    line.music()
    await asyncio.sleep(0.1)
    scene.rest.update_failure = TwilioError("no")
    await line.close(FAILED, END)
    await asyncio.sleep(3)
    scene.rest.update_failure = None
    before = len(scene.rest.updated)
    await asyncio.sleep(600)
    assert len(scene.rest.updated) == before


async def test_who_hangs_up_in_the_waiting_room_is_noticed(scene: Scene) -> None:
    line = await scene.talks()
    line.music()
    await asyncio.sleep(0.1)
    scene.rest.status = "completed"
    await asyncio.sleep(4)
    assert scene.last() == Ended("caller_hung_up")
    await line.close(DONE, END)


async def test_keys_are_pressed_and_the_call_comes_back(scene: Scene) -> None:
    line = await scene.talks()
    assert Ability.SEND_KEYS in line.abilities
    await line.send_keys("12#")
    await asyncio.sleep(0.5)
    document = parse(str(scene.rest.updated[0][1]["Twiml"]))
    assert (document[0].tag, document[0].attrib) == ("Play", {"digits": "12#"})
    scene.sound.frames = [FRAME] * 5
    await asyncio.sleep(0.5)
    assert scene.sound.pulled == 5
    for keys in ("A", "", "w", "1" * 33):
        with pytest.raises(LineError):
            await line.send_keys(keys)
    await line.close(DONE, END)


async def test_who_was_moved_is_not_moved_again_though_the_answer_was_lost(scene: Scene) -> None:
    line = await scene.talks()
    scene.rest.unanswered = 1
    line.music()
    await asyncio.sleep(2)
    assert scene.documents("Dial") == 1
    scene.rest.unanswered = 1
    line.connect()
    await scene.until(Connected)
    await asyncio.sleep(2)
    assert scene.documents("Connect") == 1, "its stream is there, and the token is used"
    scene.rest.unanswered = 1
    await line.send_keys("12")
    await asyncio.sleep(2)
    assert scene.documents("Play") == 1, "no key twice"
    assert not any(isinstance(event, Ended) for event in scene.told)
    scene.sound.frames = [FRAME] * 5
    await asyncio.sleep(0.5)
    assert scene.sound.pulled == 5
    await line.close(DONE, END)


async def test_what_was_not_done_is_asked_for_again(scene: Scene) -> None:
    line = await scene.talks()
    lost = TwilioError("late", code="twilio_timeout", may_be_done=True)
    scene.rest.update_failure = lost
    line.music()
    await asyncio.sleep(0.5)
    scene.rest.update_failure = None
    await asyncio.sleep(1)
    assert scene.documents("Dial") == 1
    assert line.reachable
    await line.close(DONE, END)


async def test_a_target_that_has_joined_does_not_leave_again_though_the_answer_was_lost(
    scene: Scene,
) -> None:
    line = await scene.talks()
    line.music()
    line.consult(TARGET, 20)
    await until(lambda: bool(scene.rest.made))
    scene.twilio.follows("CAout1", str(scene.rest.made[0]["Twiml"]))
    await scene.until(TargetConnected)
    scene.rest.unanswered = 1
    line.hand_over()
    await asyncio.sleep(2)
    assert [call_sid for call_sid, _ in scene.rest.updated] == [CALL, "CAout1"]
    assert not any(isinstance(event, TargetLost) for event in scene.told)
    await line.close(Outcome(Status.COMPLETED, "transferred"), END)


async def test_a_target_hears_the_agent_and_then_the_caller(scene: Scene) -> None:
    line = await scene.talks()
    line.music()
    line.consult(TARGET, 20)
    await until(lambda: bool(scene.rest.made))
    made = scene.rest.made[0]
    assert (made["To"], made["From"], made["Timeout"]) == (TARGET, "+15550100002", "20")
    scene.twilio.follows("CAout1", str(made["Twiml"]))
    await scene.until(TargetConnected)
    scene.sound.frames = [FRAME] * 5
    await asyncio.sleep(0.5)
    assert len(scene.twilio.streams["CAout1"].heard) == 5
    line.hand_over()
    await asyncio.sleep(0.5)
    rooms = [parse(str(fields["Twiml"]))[0][0] for _, fields in scene.rest.updated]
    assert [room.text for room in rooms] == ["ari-app-session-1"] * 2
    assert [room.attrib["startConferenceOnEnter"] for room in rooms] == ["false", "true"]
    assert isinstance(scene.last(), TargetConnected), "their streams stop, and that is no end"
    scene.twilio.tells("CAout1", "completed")
    assert scene.last() == TargetLost("hung_up")
    await line.close(Outcome(Status.COMPLETED, "transferred"), END)


async def test_two_who_speak_are_left_alone_when_the_service_stops(scene: Scene) -> None:
    line = await scene.talks()
    line.music()
    line.consult(TARGET, 20)
    await until(lambda: bool(scene.rest.made))
    scene.twilio.follows("CAout1", str(scene.rest.made[0]["Twiml"]))
    await scene.until(TargetConnected)
    line.hand_over()
    await asyncio.sleep(0.5)
    before = len(scene.rest.updated)
    await line.close(Outcome(Status.FAILED, "shutting_down"), END)
    assert len(scene.rest.updated) == before


async def briefed(scene: Scene) -> TwilioLine:
    """A caller who waits, and a target who hears the agent."""
    line = await scene.talks()
    line.music()
    line.consult(TARGET, 20)
    await until(lambda: bool(scene.rest.made))
    scene.twilio.follows("CAout1", str(scene.rest.made[0]["Twiml"]))
    await scene.until(TargetConnected)
    return line


@pytest.mark.parametrize("why", ["refused", "hung up"])
async def test_a_caller_who_is_not_joined_with_the_target_goes_on_elsewhere(
    scene: Scene, why: str
) -> None:
    line = await briefed(scene)
    if why == "refused":
        scene.rest.update_failure = TwilioError("no", code="twilio_failed")
        line.hand_over()
        await asyncio.sleep(6)
    else:
        scene.rest.gone = True
        line.hand_over()
        scene.twilio.tells("CAout1", "completed")
        await asyncio.sleep(1)
    assert scene.last() == LineFailed("twilio_not_joined")
    scene.rest.update_failure, scene.rest.gone = None, False
    await line.close(Outcome(Status.FAILED, "twilio_not_joined"), END)
    told = [str(fields.get("Twiml")) for call_sid, fields in scene.rest.updated if call_sid == CALL]
    assert "AGENT_REASON=twilio_not_joined" in told[-1]


async def test_a_target_who_goes_as_they_are_joined_ends_the_call(scene: Scene) -> None:
    line = await briefed(scene)
    scene.rest.unanswered = 2
    line.hand_over()
    await asyncio.sleep(0.05)
    scene.twilio.tells("CAout1", "completed")
    await asyncio.sleep(3)
    assert scene.last() == TargetLost("hung_up")
    await line.close(Outcome(Status.COMPLETED, "transferred"), END)


async def test_two_who_are_just_joined_are_left_alone_when_the_service_stops(scene: Scene) -> None:
    line = await briefed(scene)
    scene.rest.update_failure = TwilioError("no", code="twilio_failed")
    line.hand_over()
    await asyncio.sleep(0.5)
    scene.rest.update_failure = None
    await line.close(Outcome(Status.FAILED, "shutting_down"), END)
    rooms = [(each, parse(str(fields["Twiml"]))[0].tag) for each, fields in scene.rest.updated]
    assert rooms == [(CALL, "Dial"), ("CAout1", "Dial")]


async def test_a_caller_whose_stream_breaks_while_the_target_is_told_is_not_handed_over(
    scene: Scene,
) -> None:
    line = await scene.talks()
    scene.rest.update_failure = TwilioError("no", code="twilio_failed")
    line.music()
    line.consult(TARGET, 20)
    await until(lambda: bool(scene.rest.made))
    scene.twilio.follows("CAout1", str(scene.rest.made[0]["Twiml"]))
    await scene.until(TargetConnected)
    scene.rest.update_failure = None
    scene.stream.socket.drops(1006)
    await asyncio.sleep(2)
    assert scene.last() == LineFailed("line_lost")
    await line.close(FAILED, END)
    assert ("CAout1", {"Status": "completed"}) in scene.rest.updated


@pytest.mark.parametrize(("status", "result"), [("busy", "busy"), ("no-answer", "no_answer")])
async def test_a_target_that_is_not_reached(scene: Scene, status: str, result: str) -> None:
    line = await scene.talks()
    line.music()
    line.consult(TARGET, 20)
    await until(lambda: "CAout1" in line.calls)
    scene.twilio.tells("CAout1", status)
    assert scene.last() == TargetLost(result)
    line.drop_target()
    line.connect()
    await scene.until(Connected)
    scene.twilio.tells("CAout1", "completed", "call=session-1&leg=target1")
    await asyncio.sleep(0)
    assert scene.last() == Connected(), "it is nobody's any more"
    await line.close(DONE, END)


async def test_a_target_that_is_given_up_is_called_no_longer(scene: Scene) -> None:
    line = await scene.talks()
    line.music()
    line.consult(TARGET, 20)
    await until(lambda: "CAout1" in line.calls)
    line.drop_target()
    line.connect()
    await asyncio.sleep(5)
    assert ("CAout1", {"Status": "completed"}) in scene.rest.updated
    looks = scene.rest.looks
    await asyncio.sleep(60)
    assert scene.rest.looks == looks, "nobody asks what becomes of it"
    await line.close(DONE, END)


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_target_that_is_just_being_called_does_not_ring_on(
    scene: Scene, given_up: bool
) -> None:
    line = await scene.talks()
    scene.rest.create_seconds = 3
    line.music()
    line.consult(TARGET, 20)
    await asyncio.sleep(1)
    if given_up:
        line.drop_target()
    scene.twilio.hangs_up(CALL)
    scene.twilio.tells(CALL, "completed")
    await line.close(Outcome(Status.COMPLETED, "caller_hung_up"), END)
    assert ("CAout1", {"Status": "completed"}) in scene.rest.updated


@pytest.mark.parametrize("late", ["ringing", "canceled"])
async def test_what_is_told_late_of_a_target_is_not_taken_for_the_next_one(
    scene: Scene, late: str
) -> None:
    line = await scene.talks()
    line.music()
    line.consult(TARGET, 20)
    await until(lambda: "CAout1" in line.calls)
    line.drop_target()
    await asyncio.sleep(0.1)
    line.consult("+15550100006", 20)
    # The second call has no name yet.
    query = str(scene.rest.made[0]["StatusCallback"]).partition("?")[2]
    scene.twilio.tells("CAout1", late, query)
    await until(lambda: len(scene.rest.made) == 2)
    scene.twilio.follows("CAout2", str(scene.rest.made[1]["Twiml"]))
    await scene.until(TargetConnected)
    assert not any(isinstance(event, TargetLost) for event in scene.told)
    await line.close(DONE, END)
    assert ("CAout2", {"Status": "completed"}) in scene.rest.updated


# --- a supervisor


async def supervised(scene: Scene) -> tuple[TwilioLine, FakeStream, bytearray]:
    """Caller and supervisor; the supervisor's stream, and what is kept of their voice."""
    line = await scene.talks()
    kept = bytearray()
    line.bring_in(TARGET, 20, kept.extend)
    await until(lambda: bool(scene.rest.made))
    scene.twilio.follows("CAout1", str(scene.rest.made[0]["Twiml"]))
    await scene.until(TargetConnected)
    return line, scene.twilio.streams["CAout1"], kept


def voice(loud: int) -> bytes:
    """20 ms as Twilio sends them."""
    return pcm_to_ulaw(np.full(160, loud, "<i2").tobytes())


async def test_the_two_hear_each_other_and_not_us(scene: Scene) -> None:
    line, supervisor, kept = await supervised(scene)
    before = len(scene.stream.heard)
    scene.stream.voice, supervisor.voice = voice(1000), voice(4000)
    await asyncio.sleep(3)
    for stream, other in ((scene.stream, supervisor), (supervisor, scene.stream)):
        frames = [frame for frame in stream.heard[before:] if level(frame)]
        assert 3 / 0.02 - len(frames) < 12, "without a hole, and not late"
        assert {level(frame) for frame in frames} == {level(ulaw_to_pcm(other.voice))}
    assert level(scene.sound.bytes_heard) == level(ulaw_to_pcm(scene.stream.voice)), (
        "we hear the caller"
    )
    assert level(bytes(kept)) == level(ulaw_to_pcm(supervisor.voice)), "and the supervisor apart"
    assert scene.documents("Dial") == 0, "nobody was moved"
    line.drop_target()
    await asyncio.sleep(0.5)
    at = len(scene.stream.heard)
    scene.sound.frames = [FRAME] * 5
    await asyncio.sleep(0.5)
    assert len(scene.stream.heard) == at + 5, "the caller hears us, and nothing else"
    await line.close(DONE, END)


async def test_a_caller_who_hangs_up_takes_the_supervisor_along(scene: Scene) -> None:
    line, _, _ = await supervised(scene)
    scene.twilio.hangs_up(CALL)
    await scene.until(Ended)
    await line.close(DONE, END)
    assert ("CAout1", {"Status": "completed"}) in scene.rest.updated


async def test_the_two_go_on_when_the_service_stops(scene: Scene) -> None:
    line, _, _ = await supervised(scene)
    await line.close(Outcome(Status.FAILED, "shutting_down"), END)
    begins = "startConferenceOnEnter"
    assert [
        (call_sid, parse(str(fields["Twiml"]))[0][0].attrib[begins])
        for call_sid, fields in scene.rest.updated
    ] == [(CALL, "false"), ("CAout1", "true")]


async def test_who_cannot_go_on_with_a_supervisor_is_given_back(scene: Scene) -> None:
    line, _, _ = await supervised(scene)
    scene.rest.update_failure = TwilioError("no", code="twilio_failed")
    await line.close(Outcome(Status.FAILED, "shutting_down"), END)
    assert any("AGENT_REASON=shutting_down" in text for text in scene.twilio.documents)


async def test_without_the_callers_stream_the_two_do_not_speak(scene: Scene) -> None:
    line, _, _ = await supervised(scene)
    scene.stream.socket.drops(1006)
    await scene.until(LineFailed)
    assert scene.last() == LineFailed("line_lost")
    await line.close(FAILED, END)


# --- placing


def placed(scene: Scene, **how: Any) -> TwilioLine:
    return scene.takes(scene.gateway.place("session-1", "+15550100005", Placing(**how)))


async def test_a_lost_answer_that_nobody_finds_is_a_failure(scene: Scene) -> None:
    scene.rest.failure = TwilioError("late", code="twilio_timeout", may_be_done=True)
    line = placed(scene)
    line.dial()
    await asyncio.sleep(5)
    assert scene.told == [Ended("failed", Result.FAILED)]
    assert len(scene.rest.made) == 1
    await line.close(FAILED, END)
    scene.twilio.tells("CAlate", "ringing", "call=session-1")
    await asyncio.sleep(0.1)
    assert scene.rest.updated == [("CAlate", {"Status": "completed"})], "it rings after all"


@pytest.mark.parametrize("by", ["list", "callback"])
async def test_a_lost_answer_is_made_good_by_what_is_heard(scene: Scene, by: str) -> None:
    scene.rest.failure = TwilioError("late", code="twilio_timeout", may_be_done=True)
    scene.rest.listed = ["CAfound"] if by == "list" else []
    line = placed(scene)
    line.dial()
    await asyncio.sleep(0.5)
    if by == "callback":
        scene.twilio.tells("CAfound", "ringing", "call=session-1")
    await asyncio.sleep(4)
    assert line.call_sid == "CAfound"
    assert not any(isinstance(event, Ended) for event in scene.told)
    await line.close(FAILED, END)
    assert scene.rest.updated[-1] == ("CAfound", {"Status": "completed"})


async def test_it_is_ended_while_it_is_being_placed(scene: Scene) -> None:
    line = placed(scene)
    line.dial()
    await line.close(FAILED, END)
    assert scene.rest.updated == [("CAout1", {"Status": "completed"})]


async def test_no_verdict_is_not_sure(scene: Scene) -> None:
    line = placed(scene, screened=True)
    line.dial()
    await scene.twilio.answers(line)
    await scene.until(Answered)
    line.screen()
    await asyncio.sleep(11)
    assert scene.last() == Screened("NOTSURE", "no_verdict")
    line.judged("CAout1", Screened("HUMAN", "human"))
    assert scene.last() == Screened("NOTSURE", "no_verdict"), "the first counts"
    await line.close(DONE, END)


async def test_a_verdict_may_come_before_it_is_asked_for(scene: Scene) -> None:
    line = placed(scene, screened=True)
    line.dial()
    await scene.twilio.answers(line)
    await scene.until(Answered)
    line.judged("CAout1", Screened("MACHINE", "machine_start"))
    assert isinstance(scene.last(), Answered)
    line.screen()
    await scene.until(Screened)
    line.open(scene.sound, 5)
    line.connect()
    await asyncio.sleep(0.5)
    assert scene.told[-2:] == [Opened(), Connected()]
    await line.close(DONE, END)


async def test_what_is_told_late_of_a_stream_that_was_left_ends_nothing(scene: Scene) -> None:
    line = await scene.talks()
    form = scene.twilio.form(CALL, "in-progress", StreamEvent="stream-error", StreamError="31921")
    scene.gateway.is_told(form | {"StreamSid": ["MZleft"]}, "")
    assert scene.last() == Connected()
    scene.gateway.is_told(form | {"StreamSid": [scene.stream.sid]}, "")
    assert scene.last() == SoundLost("line_lost")
    await line.close(FAILED, END)


async def test_a_status_of_another_call_is_refused(scene: Scene) -> None:
    line = placed(scene)
    line.dial()
    await until(lambda: bool(line.call_sid))
    with pytest.raises(BadInput):
        scene.twilio.tells("CAother", "completed", "call=session-1")
    await line.close(DONE, END)


async def test_without_a_number_nobody_is_called(scene: Scene) -> None:
    options = TwilioOptions(PUBLIC_URL, ACCOUNT)
    gateway = TwilioGateway(options, scene.rest, Signatures(PUBLIC_URL, ["t"]), scene.clock)
    line = scene.takes(gateway.place("session-1", "+15550100005", Placing()))
    line.dial()
    await scene.until(Ended)
    assert "TWILIO_PHONE_NUMBER" in (line.cause.detail or "")
    await line.close(FAILED, END)


# --- what comes after a service that was lost


async def test_who_was_left_without_a_stream_goes_on_elsewhere(scene: Scene) -> None:
    form = scene.twilio.form("CAlost", "in-progress")
    redirect = parse(await scene.gateway.comes_after(form, ""))[0]
    assert "AGENT_REASON=worker_lost&AGENT_STATUS=FAILED" in (redirect.text or "")
    form = scene.twilio.form("CAlost", "in-progress", Direction="outbound-api")
    assert parse(await scene.gateway.comes_after(form, ""))[0].tag == "Hangup"


async def test_twilio_may_ask_twice_what_comes_after(scene: Scene) -> None:
    line = await scene.talks()
    await line.close(FAILED, END)
    await until(lambda: len(scene.twilio.documents) == 2)
    again = await scene.gateway.comes_after(scene.twilio.form(CALL, "in-progress"), "")
    assert again == scene.twilio.documents[1]
    assert "AGENT_REASON=agent_lost" in again


async def test_a_call_that_comes_before_the_service_is_there_goes_on_elsewhere() -> None:
    clock, rest = FrameClock(), FakeRest()
    gateway = TwilioGateway(
        TwilioOptions(PUBLIC_URL, ACCOUNT), rest, Signatures(PUBLIC_URL, ["t"]), clock
    )
    twilio = FakeTwilio(gateway, rest)
    assert "<Reject" in await gateway.comes_in(twilio.form(CALL, "ringing"), "")
    assert "<Hangup" in await gateway.comes_in(twilio.form(CALL, "completed"), "")
    with pytest.raises(BadInput):
        await gateway.comes_in(twilio.form("../x", "ringing"), "")


# --- what is left of it


async def hangs_up(scene: Scene) -> TwilioLine:
    line = await scene.talks()
    scene.twilio.hangs_up(CALL)
    return line


async def breaks(scene: Scene) -> TwilioLine:
    line = await scene.talks()
    scene.stream.socket.drops(1006)
    return line


async def says_what_is_no_message(scene: Scene) -> TwilioLine:
    line = await scene.talks()
    scene.stream.socket.sends("{")
    return line


async def waits_in_music(scene: Scene) -> TwilioLine:
    line = await scene.talks()
    line.music()
    await asyncio.sleep(20)
    line.connect()
    await asyncio.sleep(0)
    return line


async def is_handed_over(scene: Scene) -> TwilioLine:
    line = await scene.talks()
    line.music()
    line.consult(TARGET, 20)
    await until(lambda: bool(scene.rest.made))
    scene.twilio.follows("CAout1", str(scene.rest.made[0]["Twiml"]))
    await scene.until(TargetConnected)
    line.hand_over()
    return line


async def loses_its_target(scene: Scene) -> TwilioLine:
    line = await scene.talks()
    line.music()
    line.consult(TARGET, 20)
    await until(lambda: "CAout1" in line.calls)
    line.drop_target()
    return line


async def is_taken_over(scene: Scene) -> TwilioLine:
    line = await scene.talks()
    line.bring_in(TARGET, 20, scene.sound.heard_target)
    await until(lambda: bool(scene.rest.made))
    scene.twilio.follows("CAout1", str(scene.rest.made[0]["Twiml"]))
    await scene.until(TargetConnected)
    scene.sound.knows = line
    scene.sound = FakeSound()
    return line


async def is_refused(scene: Scene) -> TwilioLine:
    return await scene.arrives()


async def is_called(scene: Scene) -> TwilioLine:
    line = scene.takes(scene.gateway.place("session-1", "+15550100003", Placing(screened=True)))
    line.dial()
    await scene.twilio.answers(line)
    await scene.until(Answered)
    line.screen()
    return line


def streams_in_memory() -> int:
    return sum(type(each) is MediaStream for each in gc.get_objects())


@pytest.mark.parametrize(
    "happens",
    [
        hangs_up,
        breaks,
        says_what_is_no_message,
        waits_in_music,
        is_handed_over,
        loses_its_target,
        is_taken_over,
        is_refused,
        is_called,
    ],
)
async def test_an_ended_call_and_its_streams_need_no_collector(
    scene: Scene, happens: Callable[[Scene], Awaitable[TwilioLine]]
) -> None:
    gc.collect()
    gc.disable()
    try:
        before = streams_in_memory()
        line = await happens(scene)
        await line.close(FAILED, END)
        await asyncio.sleep(30)
        ended = weakref.ref(line)
        del line
        assert ended() is None
        assert streams_in_memory() == before
    finally:
        gc.enable()
