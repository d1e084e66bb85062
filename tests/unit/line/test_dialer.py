"""A dialer of one's own: what it may send, what it is told, and who may come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

from ari_app.audio.formats import DEFAULT_AGENT_FORMATS
from ari_app.line.dialer.api import DialerApi, DialerOptions
from ari_app.line.dialer.gateway import DialerGateway
from ari_app.line.dialer.protocol import read_text
from ari_app.line.dialer.sound import CODINGS, Lead
from ari_app.line.interface import (
    Ability,
    Answered,
    CallEnd,
    Connected,
    Ended,
    KeyPressed,
    LineEvent,
    LineFailed,
    Noticed,
    Opened,
    Outcome,
    OwnAudio,
    OwnAudioFormat,
    PhoneHeld,
    Placing,
    Result,
    SoundLost,
    Status,
    TargetConnected,
    TargetLost,
)
from ari_app.line.websocket_input import BadInput
from linekit.clock import FrameClock
from tests.unit.line.fake_socket import FakeSocket
from tests.unit.line.fake_sound import FakeSound

END = CallEnd("session-1", "conv-1")
OVER = Outcome(Status.COMPLETED, "agent_ended")
TOLD = [Answered(), Opened(), Connected()]


class Scene:
    """A line whose dialer has come, or will."""

    def __init__(
        self,
        audio_format: OwnAudioFormat = "pcm_8000",
        *,
        theirs: bool = False,
        abilities: Ability = Ability.NOTHING,
    ) -> None:
        self.refused: list[str] = []
        self.clock = FrameClock()
        self.clock.start()
        self.gateway = DialerGateway(self.clock, DialerApi(DialerOptions()), self.refused.append)
        self.told: list[LineEvent] = []
        self.sound = FakeSound()
        self.socket = FakeSocket()
        how = Placing(audio=OwnAudio(audio_format, theirs=theirs, abilities=abilities))
        self.line = self.gateway.place("session-1", "", how)
        self.line.name("session-1")
        self.line.listen(self.told.append)
        self.line.dial()

    async def comes(self) -> None:
        """The dialer connects."""
        self.serving = asyncio.create_task(self.line.serve(self.socket, self.socket))
        await asyncio.sleep(0.01)

    async def talks(self) -> None:
        """It is with the agent."""
        await self.comes()
        await self.line.prepare(DEFAULT_AGENT_FORMATS)
        self.line.open(self.sound, 5)
        self.line.connect()
        await asyncio.sleep(0.01)

    async def closes(self, outcome: Outcome = OVER) -> None:
        await self.line.close(outcome, END)
        self.clock.stop()


# --- what it may send


@pytest.mark.parametrize("name", CODINGS)
async def test_sound_of_any_length_goes_both_ways(name: OwnAudioFormat) -> None:
    coding = CODINGS[name]
    loud = np.tile(np.array([8000, -8000], "<i2"), coding.rate_hz // 100).tobytes()
    scene = Scene(name)
    await scene.talks()
    written = coding.encode(loud)
    for piece in (written[: coding.sample_bytes], written[coding.sample_bytes :], written * 30):
        scene.socket.sends(piece)
    scene.sound.frames.append(loud)
    await asyncio.sleep(0.05)
    assert scene.sound.bytes_heard == coding.decode(written) * 31
    assert written in scene.socket.frames
    assert {len(frame) for frame in scene.socket.frames} == {
        coding.rate_hz // 50 * coding.sample_bytes
    }
    await scene.closes()
    assert scene.refused == []


async def test_keys_and_hold_are_told() -> None:
    scene = Scene()
    await scene.talks()
    scene.socket.says("digit", digit="7")
    scene.socket.says("hold")
    await asyncio.sleep(60)
    assert scene.told == [*TOLD, KeyPressed("7"), PhoneHeld(True)], "who holds may be silent"
    scene.socket.says("unhold")
    await asyncio.sleep(9.9)
    assert scene.told[5:] == [PhoneHeld(False)]
    await asyncio.sleep(0.2)
    assert scene.told[6:] == [LineFailed("dialer_silent")]
    await scene.closes()


async def test_a_socket_that_is_closed_is_a_caller_who_hung_up() -> None:
    for code, event in ((1000, Ended("caller_hung_up")), (1001, Ended("caller_hung_up"))):
        scene = Scene()
        await scene.talks()
        scene.socket.drops(code)
        await asyncio.sleep(0.01)
        assert scene.told == [*TOLD, event]
        await scene.closes()


async def test_a_socket_that_breaks_is_no_hang_up() -> None:
    scene = Scene()
    await scene.talks()
    scene.socket.drops(1006)
    await asyncio.sleep(0.01)
    assert scene.told == [*TOLD, SoundLost("line_lost")]
    assert scene.refused == []
    await scene.closes()


async def test_it_may_hang_up_before_it_is_ready() -> None:
    scene = Scene()
    await scene.comes()
    scene.socket.says("hang_up", reason="the callee has gone")
    await asyncio.sleep(0.01)
    assert scene.told == [Answered(), Ended("caller_hung_up")]
    await scene.closes()


# --- what it is told


async def test_it_is_told_when_to_begin_and_how_it_ended() -> None:
    scene = Scene("ulaw_8000")
    await scene.talks()
    await scene.line.send_keys("12#")
    await scene.closes(Outcome(Status.TRANSFER, "transfer_requested", "+15550100009"))
    assert scene.socket.told() == [
        {
            "type": "ready",
            "session_id": "session-1",
            "format": "ulaw_8000",
            "frame_ms": 20,
            "pacing": "ours",
        },
        {"type": "send_digits", "digits": "12#"},
        {"type": "transfer", "to": "+15550100009", "mode": "blind"},
        {
            "type": "hang_up",
            "status": "TRANSFER",
            "reason": "transfer_requested",
            "session_id": "session-1",
            "conversation_id": "conv-1",
        },
    ]
    assert scene.socket.close_code == 1000
    await asyncio.wait_for(scene.serving, 1)


async def test_an_interruption_is_told_at_once_and_only_where_something_was_said() -> None:
    scene = Scene()
    await scene.talks()
    assert scene.line.take_back() == 0
    await asyncio.sleep(0.1)
    assert scene.socket.told("clear") == []
    scene.sound.frames += [b"\1\0" * 160] * 50
    await asyncio.sleep(0.1)
    scene.sound.frames.clear()
    scene.line.take_back()
    await asyncio.sleep(0)
    assert scene.socket.got[-1] == '{"type":"clear"}'
    await asyncio.sleep(0.1)
    scene.line.take_back()
    await asyncio.sleep(0.1)
    assert len(scene.socket.told("clear")) == 1
    await scene.closes()


async def test_a_dialer_that_does_not_read_gets_no_burst_later() -> None:
    scene = Scene()
    await scene.talks()
    scene.socket.reads.clear()
    before = len(scene.socket.frames)
    for _ in range(20):
        scene.socket.sends(bytes(320))
        await asyncio.sleep(0.1)
    scene.socket.reads.set()
    await asyncio.sleep(0.01)
    assert len(scene.socket.frames) - before <= 6
    assert scene.line.frames_not_read == pytest.approx(96, abs=3)
    await scene.closes()


async def test_one_that_reads_nothing_any_more_is_given_up() -> None:
    scene = Scene()
    await scene.talks()
    talking = asyncio.create_task(talk(scene))
    await asyncio.sleep(20)
    scene.socket.reads.clear()
    await asyncio.sleep(9)
    assert scene.refused == []
    await asyncio.sleep(2)
    assert scene.told[-1] == LineFailed("dialer_stalled")
    assert scene.refused == ["stalled"]
    talking.cancel()
    await scene.closes()


async def test_one_that_paces_gets_no_more_than_a_second_ahead_until_it_says_what_it_played() -> (
    None
):
    scene = Scene(theirs=True)
    await scene.talks()
    scene.sound.frames += [b"\1\0" * 160] * 200
    await asyncio.sleep(0.1)
    assert len(scene.socket.frames) == 50
    scene.socket.says("mark", name=scene.socket.told("mark")[4]["name"])
    await asyncio.sleep(0.1)
    assert len(scene.socket.frames) == 60
    assert scene.line.take_back() == 50 * 20
    await scene.closes()


@pytest.mark.parametrize("frames", [200, 10], ids=["of a long answer", "of last words"])
async def test_one_that_plays_nothing_any_more_is_not_waited_for(frames: int) -> None:
    scene = Scene(theirs=True)
    await scene.talks()
    talking = asyncio.create_task(talk(scene))
    scene.sound.frames += [b"\1\0" * 160] * frames
    await asyncio.sleep(9.5)
    assert scene.refused == []
    await asyncio.sleep(2)
    assert scene.told[-1] == LineFailed("dialer_no_marks")
    assert scene.refused == ["no_marks"]
    talking.cancel()
    await scene.closes()


@pytest.mark.parametrize("why", ["held by the phone", "on hold", "nothing is said", "played late"])
async def test_who_owes_no_mark_is_waited_for(why: str) -> None:
    scene = Scene(theirs=True, abilities=Ability.MUSIC)
    await scene.talks()
    talking = asyncio.create_task(talk(scene))
    if why != "nothing is said":
        scene.sound.frames += [b"\1\0" * 160] * 20
    await asyncio.sleep(0.1)
    match why:
        case "held by the phone":
            scene.socket.says("hold")
            await asyncio.sleep(60)
            scene.socket.says("unhold")
        case "on hold":
            scene.line.music()
            await asyncio.sleep(60)
            scene.line.connect()
        case "played late":
            await asyncio.sleep(8)
            for mark in scene.socket.told("mark"):
                scene.socket.says("mark", name=mark["name"])
    await asyncio.sleep(9)
    assert scene.refused == []
    talking.cancel()
    await scene.closes()


async def talk(scene: Scene) -> None:
    """The caller is heard, be it as silence."""
    while True:
        scene.socket.sends(bytes(320))
        await asyncio.sleep(0.02)


def test_a_mark_from_before_a_clear_says_nothing() -> None:
    lead = Lead()
    names = [lead.sent(last=False) for _ in range(6)]
    assert names == [None, "2", None, "4", None, "6"]
    assert lead.sent(last=True) is None
    lead.sent(last=False)
    assert lead.sent(last=True) == "7"
    lead.heard("4")
    assert lead.clear() == 3
    lead.sent(last=False)
    lead.heard("6")
    assert lead.frames == 1
    with pytest.raises(BadInput):
        lead.heard("8")


# --- hold and attended transfers

CONSULTS = OwnAudio.abilities_of(["attended_transfer"])


async def consulting() -> Scene:
    """Caller on hold, target asked for."""
    scene = Scene(abilities=CONSULTS)
    await scene.talks()
    scene.line.music()
    scene.line.consult("+15550100003", 30)
    await asyncio.sleep(0.01)
    assert scene.socket.told()[1:] == [
        {"type": "hold"},
        {
            "type": "transfer",
            "to": "+15550100003",
            "mode": "attended",
            "id": "1",
            "ring_seconds": 30,
        },
    ]
    scene.told.clear()
    return scene


def test_what_a_dialer_can_do_is_what_it_says() -> None:
    assert OwnAudio.abilities_of([]) == Ability.NOTHING
    assert OwnAudio.abilities_of(["hold"]) == Ability.MUSIC
    assert CONSULTS == Ability.CONSULT | Ability.MUSIC
    assert OwnAudio.abilities_of(["take_over"]) == Ability.BRING_IN


async def test_without_the_ability_nothing_is_said_of_hold() -> None:
    scene = Scene()
    assert Ability.MUSIC not in scene.line.abilities
    await scene.talks()
    scene.line.music()
    scene.line.connect()
    await asyncio.sleep(0.01)
    assert [said["type"] for said in scene.socket.told()] == ["ready"]
    await scene.closes()


async def test_whoever_is_on_hold_is_neither_heard_nor_missed() -> None:
    scene = Scene(abilities=Ability.MUSIC)
    await scene.talks()
    scene.line.music()
    await asyncio.sleep(0.01)
    before = len(scene.socket.frames)
    scene.socket.sends(b"\1\0" * 160)
    await asyncio.sleep(60)
    assert (scene.sound.bytes_heard, len(scene.socket.frames)) == (b"", before)
    assert scene.told == TOLD
    scene.line.connect()
    await asyncio.sleep(1)
    assert [said["type"] for said in scene.socket.told()] == ["ready", "hold", "unhold"]
    assert len(scene.socket.frames) > before
    await asyncio.sleep(10)
    assert scene.told[-1] == LineFailed("dialer_silent"), "from now on sound is owed again"
    await scene.closes()


async def test_what_a_hold_has_thrown_away_takes_no_room_afterwards() -> None:
    scene = Scene(theirs=True, abilities=Ability.MUSIC)
    await scene.talks()
    scene.sound.frames += [b"\1\0" * 160] * 200
    await asyncio.sleep(0.1)
    assert len(scene.socket.frames) == 50
    scene.line.music()
    await asyncio.sleep(0.1)
    assert len(scene.socket.frames) == 50, "nobody hears us"
    scene.line.connect()
    await asyncio.sleep(0.1)
    assert len(scene.socket.frames) == 100, "a second ahead again, without a mark"
    await scene.closes()


async def test_a_target_hears_us_and_is_joined_with_the_caller() -> None:
    scene = await consulting()
    scene.socket.sends(b"\1\0" * 160)
    scene.socket.says("target", id="1", state="ringing")
    await asyncio.sleep(15)
    assert (scene.told, scene.sound.bytes_heard) == ([], b"")
    scene.socket.says("target", id="1", state="answered")
    scene.socket.says("target", id="1", state="answered")
    scene.socket.sends(b"\2\0" * 160)
    scene.sound.frames.append(b"\3\0" * 160)
    await asyncio.sleep(0.1)
    assert scene.told == [TargetConnected()]
    assert scene.sound.bytes_heard == b"\2\0" * 160, "of the target, not of the caller"
    assert b"\3\0" * 160 in scene.socket.frames
    scene.line.hand_over()
    await asyncio.sleep(0.01)
    assert scene.told[1:] == [Connected()]
    assert scene.socket.told()[-1] == {"type": "hand_over", "id": "1"}
    before = len(scene.socket.frames)
    await asyncio.sleep(600)
    assert len(scene.socket.frames) == before
    assert scene.told[2:] == [], "nobody owes sound any more"
    scene.socket.says("target", id="1", state="lost", result="hung_up")
    await asyncio.sleep(0.01)
    assert scene.told[2:] == [TargetLost("hung_up")]
    await scene.closes()
    assert scene.refused == []


@pytest.mark.parametrize("answered", [False, True])
async def test_a_target_that_is_lost_leaves_the_caller_waiting_until_we_are_back(
    answered: bool,
) -> None:
    scene = await consulting()
    if answered:
        scene.socket.says("target", id="1", state="answered")
    scene.socket.says("target", id="1", state="lost", result="busy")
    scene.socket.sends(b"\1\0" * 160)
    await asyncio.sleep(0.1)
    assert scene.told[-1] == TargetLost("busy")
    assert scene.sound.bytes_heard == b""
    scene.line.drop_target()
    scene.line.connect()
    scene.socket.sends(b"\2\0" * 160)
    await asyncio.sleep(0.1)
    assert scene.socket.told()[-1] == {"type": "unhold"}, "there is nobody to drop"
    assert scene.sound.bytes_heard == b"\2\0" * 160
    await scene.closes()


async def test_a_target_that_was_given_up_says_nothing_of_the_next_one() -> None:
    scene = await consulting()
    scene.line.drop_target()
    scene.line.consult("+15550100004", 30)
    await asyncio.sleep(0.01)
    scene.socket.says("target", id="1", state="answered")
    await asyncio.sleep(0.01)
    assert scene.told == []
    scene.socket.says("target", id="2", state="answered")
    await asyncio.sleep(0.01)
    assert scene.told == [TargetConnected()]
    said = [(each["type"], each.get("id")) for each in scene.socket.told()[2:]]
    assert said == [("transfer", "1"), ("drop_target", "1"), ("transfer", "2")]
    await scene.closes()


async def test_a_supervisor_is_called_while_caller_and_we_go_on() -> None:
    scene = Scene(abilities=Ability.BRING_IN)
    await scene.talks()
    scene.line.bring_in("+15550100003", 30, lambda pcm: None)
    scene.socket.sends(b"\1\0" * 160)
    scene.socket.says("target", id="1", state="ringing")
    await asyncio.sleep(0.1)
    (asked,) = scene.socket.told("transfer")
    assert (asked["to"], asked["mode"], asked["id"]) == ("+15550100003", "take_over", "1")
    assert scene.told == TOLD
    for _ in range(2):
        scene.socket.says("target", id="1", state="answered")
    scene.socket.sends(b"\2\0" * 160)
    await asyncio.sleep(0.1)
    assert scene.told == [*TOLD, TargetConnected()]
    assert scene.sound.bytes_heard == b"\1\0" * 160 + b"\2\0" * 160, "both, in one"
    scene.line.drop_target()
    await asyncio.sleep(0.1)
    assert [said["type"] for said in scene.socket.told()] == ["ready", "transfer", "drop_target"]
    scene.line.bring_in("+15550100003", 30, lambda pcm: None)
    await asyncio.sleep(0.1)
    scene.socket.says("target", id="2", state="answered")
    await asyncio.sleep(0.1)
    scene.socket.drops(1006)
    await asyncio.sleep(0.1)
    assert scene.told[-1] == LineFailed("line_lost"), "nothing is known of the two any more"
    await scene.closes()


@pytest.mark.parametrize(
    ("code", "event"), [(1000, Ended("caller_hung_up")), (1006, Ended("transferred"))]
)
async def test_a_socket_that_goes_after_the_hand_over_ends_the_call_well(
    code: int, event: Ended
) -> None:
    scene = await consulting()
    scene.socket.says("target", id="1", state="answered")
    await asyncio.sleep(0.01)
    scene.line.hand_over()
    await asyncio.sleep(0.01)
    scene.socket.drops(code)
    await asyncio.sleep(0.01)
    assert scene.told[-1] == event
    await scene.closes()


@pytest.mark.parametrize("by", ["transfer", "supervisor"])
async def test_two_who_speak_are_left_alone_when_the_service_stops(by: str) -> None:
    if by == "transfer":
        scene = await consulting()
    else:
        scene = Scene(abilities=Ability.BRING_IN)
        await scene.talks()
        scene.line.bring_in("+15550100003", 30, lambda pcm: None)
    scene.socket.says("target", id="1", state="answered")
    await asyncio.sleep(0.01)
    if by == "transfer":
        scene.line.hand_over()
        await asyncio.sleep(0.01)
    await scene.closes(Outcome(Status.FAILED, "shutting_down"))
    assert scene.socket.told("hang_up") == []
    assert scene.socket.close_code == 1001


async def test_two_who_speak_are_hung_up_on_where_that_is_asked_for() -> None:
    scene = await consulting()
    scene.socket.says("target", id="1", state="answered")
    await asyncio.sleep(0.01)
    scene.line.hand_over()
    await asyncio.sleep(0.01)
    await scene.closes(Outcome(Status.COMPLETED, "end_requested"))
    assert [said["reason"] for said in scene.socket.told("hang_up")] == ["end_requested"]


async def test_a_socket_that_breaks_while_the_target_is_told_leaves_nobody_to_hand_over_to() -> (
    None
):
    scene = await consulting()
    scene.socket.says("target", id="1", state="answered")
    await asyncio.sleep(0.01)
    scene.socket.drops(1006)
    await asyncio.sleep(0.01)
    assert scene.told == [TargetConnected(), LineFailed("line_lost")]
    await scene.closes()


# --- sound of another rate than announced


async def sends_for(scene: Scene, seconds: float, ratio: float) -> None:
    """Send as much as the format has, times a ratio, in messages of 20 ms."""
    size = round(CODINGS[scene.line.audio.format or "pcm_8000"].bytes_a_second * ratio / 50 / 2) * 2
    for _ in range(round(seconds * 50)):
        scene.socket.sends(bytes(size))
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("announced", "ratio", "words"),
    [
        (
            "pcm_16000",
            0.5,
            "16,000 bytes of sound come in a second where pcm_16000 has 32,000, whi",
        ),
        ("pcm_8000", 2, "32,000 bytes of sound come in a second where pcm_8000 has 16,000, which"),
        ("pcm_8000", 0.5, "8,000 bytes of sound come in a second where pcm_8000 has 16,000, which"),
        ("pcm_16000", 1.5, "48,000 bytes of sound come in a second where pcm_16000 has 32,000."),
    ],
)
async def test_sound_of_another_rate_is_told_once_and_the_call_goes_on(
    announced: OwnAudioFormat, ratio: float, words: str
) -> None:
    scene = Scene(announced)
    await scene.talks()
    await sends_for(scene, 30, ratio)
    (error,) = scene.socket.told("error")
    assert error["code"] == "rate" and error["message"].startswith(words)
    assert scene.told == [*TOLD, Noticed(error["message"])]
    assert scene.refused == ["rate"]
    await scene.closes()


async def test_sound_that_comes_in_fits_and_starts_is_not_of_another_rate() -> None:
    scene = Scene("pcm_16000")
    await scene.talks()
    for ratio in (1, 0.3, 1.7, 0.5, 1.9, 0.1, 1.1, 0.6):
        await sends_for(scene, 2, ratio)
    await asyncio.sleep(8)
    await sends_for(scene, 2, 4)
    await sends_for(scene, 10, 1)
    scene.socket.says("hold")
    await sends_for(scene, 30, 0.5)
    scene.socket.says("unhold")
    await sends_for(scene, 10, 1)
    assert scene.told[3:] == [PhoneHeld(True), PhoneHeld(False)]
    assert scene.refused == []
    await scene.closes()


async def test_whoever_leaves_silence_out_sends_no_other_rate() -> None:
    scene = Scene("pcm_16000")
    await scene.talks()
    for _ in range(60):
        scene.socket.sends(bytes(640))
        await asyncio.sleep(1)
    assert scene.refused == []
    await scene.closes()


# --- where it vanishes


async def test_a_dialer_that_vanishes_in_its_handshake_frees_its_place_at_once() -> None:
    scene = Scene()
    scene.line.vanished()
    assert scene.told == [Ended("no_answer", Result.NO_ANSWER)]
    assert scene.refused == ["vanished"]
    await scene.closes()


# --- bad input


Bad = Callable[[FakeSocket], None]
BAD: dict[str, tuple[str, Bad]] = {
    "no json": ("malformed", lambda socket: socket.sends("hello")),
    "no object": ("malformed", lambda socket: socket.sends("[]")),
    "nested deep": ("malformed", lambda socket: socket.sends("[" * 60_000)),
    "no type": ("malformed", lambda socket: socket.sends("{}")),
    "another type": ("malformed", lambda socket: socket.says("sing")),
    "another field": ("malformed", lambda socket: socket.says("hold", on=True)),
    "no key": ("malformed", lambda socket: socket.says("digit", digit="10")),
    "a key that is a number": ("malformed", lambda socket: socket.says("digit", digit=1)),
    "half a sample": ("audio_length", lambda socket: socket.sends(bytes(321))),
    "nothing": ("audio_length", lambda socket: socket.sends(b"")),
    "a sound file": (
        "audio_with_header",
        lambda socket: socket.sends(b"RIFF____WAVE" + bytes(308)),
    ),
    "a target of nobody's": (
        "unknown_target",
        lambda socket: socket.says("target", id="1", state="answered"),
    ),
    "a mark of nobody's": ("unknown_mark", lambda socket: socket.says("mark", name="1")),
    "too long": ("oversized", lambda socket: socket.breaks(1009)),
    "no websocket frame": ("malformed", lambda socket: socket.breaks(1002)),
}


@pytest.mark.parametrize("what", BAD, ids=lambda name: name.replace(" ", "-"))
@pytest.mark.parametrize("theirs", [False, True], ids=["ours", "theirs"])
async def test_what_cannot_be_used_ends_the_call_and_is_counted(what: str, theirs: bool) -> None:
    reason, sends = BAD[what]
    scene = Scene(theirs=theirs)
    await scene.talks()
    sends(scene.socket)
    sends(scene.socket)
    await asyncio.sleep(0.01)
    assert scene.told == [*TOLD, LineFailed(f"dialer_{reason}")]
    assert scene.refused == [reason]
    await scene.closes(Outcome(Status.FAILED, f"dialer_{reason}"))
    if scene.socket.close_code not in (1009, 1002):
        said, end = scene.socket.told()[-2:]
        assert (said["type"], said["code"]) == ("error", reason)
        assert said["message"].endswith(".")
        assert end["reason"] == f"dialer_{reason}"
        assert scene.socket.close_code == 1008


@pytest.mark.parametrize("sends", ["sound", "digit"])
async def test_what_comes_too_early(sends: str) -> None:
    scene = Scene()
    await scene.comes()
    if sends == "sound":
        scene.socket.sends(bytes(320))
    else:
        scene.socket.says("digit", digit="1")
    await asyncio.sleep(0.01)
    assert scene.told == [Answered(), LineFailed("dialer_too_early")]
    assert scene.refused == ["too_early"]
    await scene.closes()


@pytest.mark.parametrize("kind", ["sound", "text"])
async def test_a_flood_is_ended(kind: str) -> None:
    scene = Scene()
    await scene.talks()
    for _ in range(31 * 50):
        if kind == "sound":
            scene.socket.sends(bytes(320))
        else:
            scene.socket.says("unhold")
    await asyncio.sleep(0.1)
    assert scene.told[-1] == LineFailed("dialer_too_fast")
    assert scene.refused == ["too_fast"]
    await scene.closes()


async def test_silence_after_ready_ends_the_call_after_ten_seconds() -> None:
    scene = Scene()
    await scene.talks()
    await asyncio.sleep(9.9)
    assert scene.told == TOLD
    await asyncio.sleep(0.2)
    assert scene.told == [*TOLD, LineFailed("dialer_silent")]
    assert scene.refused == ["silent"]
    await scene.closes()


async def test_a_dialer_that_does_not_come() -> None:
    scene = Scene()
    await asyncio.sleep(29.9)
    assert scene.told == [] and scene.gateway.expected == 1
    await asyncio.sleep(0.2)
    assert scene.told == [Ended("no_answer", Result.NO_ANSWER)]
    assert scene.refused == ["never_came"] and scene.gateway.expected == 0
    await scene.comes()
    assert scene.socket.close_code == 1013, "it came too late, while the handshake was answered"
    await scene.closes()


async def test_a_slow_dialer_has_time_for_the_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    await scene.talks()
    aborted: list[float] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(scene.socket, "abort", lambda: aborted.append(loop.time()))
    await scene.closes()
    began = loop.time()
    await asyncio.sleep(4)
    assert aborted == []
    await asyncio.sleep(2)
    assert [at - began for at in aborted] == [pytest.approx(5, abs=0.1)], "it is not kept for ever"


async def test_a_dialer_that_neither_reads_nor_closes_holds_up_nothing() -> None:
    scene = Scene()
    await scene.talks()
    scene.socket.reads.clear()
    before = asyncio.get_running_loop().time()
    await scene.closes()
    assert asyncio.get_running_loop().time() - before <= 1.6
    assert scene.socket.close_code == 1006


@pytest.mark.parametrize("text", ['{"type": "hang_up", "reason": "%s"}' % ("x" * 201), "\ud800"])
def test_a_text_that_says_nothing(text: str) -> None:
    with pytest.raises(BadInput):
        read_text(text)
