"""What every line keeps to, whatever is behind it: see `ari_app.line.interface`.

A new way in gets a `FarSide` here, and has to pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Protocol
from unittest.mock import ANY

import numpy as np
import pytest
from yarl import URL

from ari_app.audio.formats import DEFAULT_AGENT_FORMATS
from ari_app.errors import LineError
from ari_app.line.asterisk.gateway import AsteriskGateway
from ari_app.line.asterisk.line import AsteriskLine, AsteriskOptions
from ari_app.line.dialer.api import DialerApi, DialerOptions
from ari_app.line.dialer.gateway import DialerGateway
from ari_app.line.dialer.line import DialerLine
from ari_app.line.interface import (
    Ability,
    Answered,
    Arrival,
    CallEnd,
    Connected,
    Ended,
    Gateway,
    Line,
    LineEvent,
    Opened,
    Outcome,
    OwnAudio,
    Placing,
    Screened,
    Status,
    TargetConnected,
    TargetLost,
)
from ari_app.line.microphone import MicrophoneGateway, MicrophoneLine
from ari_app.line.twilio.gateway import TwilioGateway
from ari_app.line.twilio.leg import TwilioOptions
from ari_app.line.twilio.line import TwilioLine
from ari_app.line.twilio.signature import Signatures
from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from linekit.playout import PlayoutBuffer
from tests.unit.call.fake_ari import APP, FakeAsterisk, FakeClient
from tests.unit.line.fake_card import BLOCK_SECONDS, FakeCard
from tests.unit.line.fake_line import FakeGateway, FakeLine
from tests.unit.line.fake_socket import Player
from tests.unit.line.fake_sound import FakeSound
from tests.unit.line.fake_twilio import ACCOUNT, PUBLIC_URL, FakeRest, FakeTwilio
from tests.unit.virtual_loop import make_entrance
from tests.waiting import until

OVER = Outcome(Status.COMPLETED, "agent_ended")
END = CallEnd("session-1", "conv-1")
LEVEL = 988
"""One that µ-law has, too."""
HOW = Placing(caller_id="+15550100001")
SOON = 1.0


class FarSide(Protocol):
    """A way in, and what happens at its other end. Sound flows by itself while a line is open."""

    gateway: Gateway
    comes_in: bool
    """Somebody comes in by themselves; otherwise every call is asked for."""
    most_ahead: int
    """How many frames may be taken before they are heard."""
    coarse: int
    """How many frames more or less may have been heard than is known."""

    @property
    def how(self) -> Placing:
        """How somebody is called."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def arrives(self) -> Line:
        """Somebody comes in."""
        ...

    async def answers(self, line: Line) -> None:
        """Whom we call answers, if nobody does so by themselves."""
        ...

    def hangs_up(self, line: Line) -> None: ...

    async def third_answers(self, line: Line) -> None:
        """Whoever is brought in answers, where that can be."""
        ...

    def third_hangs_up(self, line: Line) -> None: ...

    def heard(self, line: Line) -> bytes:
        """All that the far side has heard of the line."""
        ...

    def left(self) -> list[str]:
        """What is still held there."""
        ...


class FakeSide:
    """The fake that the tests of `call` use."""

    comes_in, most_ahead, coarse = True, 4, 0
    how = HOW

    def __init__(self) -> None:
        self.gateway = FakeGateway()
        self._lines: list[FakeLine] = []

    async def start(self) -> None:
        self._beat = asyncio.create_task(self._beats())

    async def stop(self) -> None:
        self._beat.cancel()

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BLOCK_SECONDS)
            for line in (*self._lines, *self.gateway.lines):
                if line.sound is not None:
                    line.beats()

    async def arrives(self) -> Line:
        self._lines.append(FakeLine(f"line-{len(self._lines)}"))
        return self._lines[-1]

    async def answers(self, line: Line) -> None:
        """It does so by itself."""

    def hangs_up(self, line: Line) -> None:
        assert isinstance(line, FakeLine)
        line.tells(Ended("caller_hung_up"))

    async def third_answers(self, line: Line) -> None:
        """They do so by themselves."""

    def third_hangs_up(self, line: Line) -> None:
        assert isinstance(line, FakeLine)
        line.tells(TargetLost("hung_up"))

    def heard(self, line: Line) -> bytes:
        assert isinstance(line, FakeLine)
        return b"".join(frame or b"" for frame in line.heard)

    def left(self) -> list[str]:
        return [line.id for line in self._lines if line.sound is not None]


class MicrophoneSide:
    """The microphone of this machine, with a fake sound card."""

    comes_in, most_ahead, coarse = True, 4, 0
    how = HOW

    def __init__(self) -> None:
        self.card = FakeCard(16000)
        self.gateway = MicrophoneGateway(self.card)

    async def start(self) -> None:
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        run = asyncio.create_task(self.gateway.run(self._arrivals.put_nowait))
        self._tasks = [run, asyncio.create_task(self._beats())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BLOCK_SECONDS)
            self.card.beat()

    async def arrives(self) -> Line:
        await self.gateway.talk()
        return (await self._arrivals.get()).line

    async def answers(self, line: Line) -> None:
        """Whoever sits here has asked for it."""

    def hangs_up(self, line: Line) -> None:
        assert isinstance(line, MicrophoneLine)
        line.hang_up()

    async def third_answers(self, line: Line) -> None:
        """Nobody can be called."""

    def third_hangs_up(self, line: Line) -> None:
        """Nobody is there."""

    def heard(self, line: Line) -> bytes:
        return b"".join(self.card.played)

    def left(self) -> list[str]:
        return ["stream"] * self.card.open_streams


class AsteriskSide:
    """A fake Asterisk, whose sound comes over a real AudioSocket server."""

    comes_in, most_ahead, coarse = True, 4, 0
    how = HOW
    transport = "audiosocket"

    async def start(self) -> None:
        self._clock = FrameClock()
        self._clock.start()
        self._server = AudioSocketServer(self._clock, entrance=make_entrance)
        host, port = await self._server.start("127.0.0.1", 0)
        self.asterisk = FakeAsterisk(clock=self._clock)
        self.gateway = AsteriskGateway(
            FakeClient(self.asterisk),
            self._clock,
            self._server,
            AsteriskOptions(APP, f"{host}:{port}", media_transport=self.transport),
        )
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        self.gateway.take = self._arrivals.put_nowait
        self.asterisk.on_event = self.gateway.handle
        self._count = 0

    async def stop(self) -> None:
        await self.gateway.close()
        await self.asterisk.close()
        await self._server.close()
        self._clock.stop()

    async def arrives(self) -> Line:
        self._count += 1
        self.asterisk.enter(f"sip-{self._count}")
        return (await self._arrivals.get()).line

    async def answers(self, line: Line) -> None:
        await asyncio.sleep(0.1)
        self.asterisk.enter(line.id, answered=True)

    def hangs_up(self, line: Line) -> None:
        self.asterisk.hang_up(line.id)

    async def third_answers(self, line: Line) -> None:
        assert isinstance(line, AsteriskLine)
        await until(lambda: line.target_id in self.asterisk.world.channels)
        self.asterisk.enter(line.target_id, answered=True)

    def third_hangs_up(self, line: Line) -> None:
        assert isinstance(line, AsteriskLine)
        self.asterisk.hang_up(line.target_id)

    def heard(self, line: Line) -> bytes:
        media = [client for name, client in self.asterisk.media.items() if "session-1" in name]
        return b"".join(frame.payload for client in media for frame in client.heard)

    def left(self) -> list[str]:
        world = self.asterisk.world
        lines = ["line"] * (self._server.lines + self._server.expected)
        return [*world.channels, *world.bridges, *lines]


class WebSocketAsteriskSide(AsteriskSide):
    """A fake Asterisk, which we connect to, and which plays in its own time."""

    most_ahead, coarse = 23, 2
    transport = "websocket"

    def heard(self, line: Line) -> bytes:
        sockets = [each for name, each in self.asterisk.sockets.items() if "session-1" in name]
        return b"".join(frame for each in sockets for frame in each.heard)

    def left(self) -> list[str]:
        sockets = [name for name, each in self.asterisk.sockets.items() if not each.over]
        return [*super().left(), *sockets]


class DialerSide:
    """A dialer of one's own, which sends silence in real time."""

    comes_in, most_ahead, coarse = False, 4, 0
    theirs = False

    @property
    def how(self) -> Placing:
        audio = OwnAudio("pcm_16000", theirs=self.theirs, abilities=Ability.BRING_IN)
        return replace(HOW, audio=audio)

    async def start(self) -> None:
        self._clock = FrameClock()
        self._clock.start()
        self.gateway = DialerGateway(self._clock, DialerApi(DialerOptions()))
        self._players: dict[str, Player] = {}
        self._serving: list[asyncio.Task[None]] = []
        self._beat = asyncio.create_task(self._beats())

    async def stop(self) -> None:
        self._beat.cancel()
        await self.gateway.close()
        self._clock.stop()

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BLOCK_SECONDS)
            for player in self._players.values():
                player.beat(bytes(640))

    async def arrives(self) -> Line:
        line = self.gateway.place(f"session-{len(self._players)}", "+15550100002", self.how)
        line.dial()
        await self.answers(line)
        return line

    async def answers(self, line: Line) -> None:
        assert isinstance(line, DialerLine)
        player = self._players[line.id] = Player(theirs=self.theirs)
        self._serving.append(asyncio.create_task(line.serve(player.socket, player.socket)))
        await asyncio.sleep(0)

    def player(self, line: Line) -> Player:
        return self._players[line.id]

    def hangs_up(self, line: Line) -> None:
        self.player(line).socket.says("hang_up")

    async def third_answers(self, line: Line) -> None:
        await asyncio.sleep(0.1)
        self._third(line, state="answered")

    def third_hangs_up(self, line: Line) -> None:
        self._third(line, state="lost", result="hung_up")

    def _third(self, line: Line, **said: str) -> None:
        socket = self.player(line).socket
        socket.says("target", id=socket.told("transfer")[-1]["id"], **said)

    def heard(self, line: Line) -> bytes:
        return b"".join(self.player(line).heard)

    def left(self) -> list[str]:
        lines = [name for name, each in self._players.items() if each.socket.close_code is None]
        return [*lines, *["expected"] * self.gateway.expected]


class PacingDialerSide(DialerSide):
    """One that sets the pace: it plays a frame every 20 ms, and says so every other time."""

    most_ahead, coarse = 54, 3
    theirs = True


class FakeApi(DialerApi):
    """A dialer to which we connect: a player for each address."""

    def __init__(self) -> None:
        super().__init__(DialerOptions(audio_hosts=("dialer.example",)))
        self.players: dict[str, Player] = {}

    async def connect(self, url: URL) -> Any:
        await asyncio.sleep(0.01)
        self.players[str(url)] = Player(theirs=False)
        return self.players[str(url)].socket


class VisitedDialerSide(DialerSide):
    """A dialer of one's own, to which we connect."""

    @property
    def how(self) -> Placing:
        self._count += 1
        url = f"wss://dialer.example/{self._count}"
        return replace(HOW, audio=OwnAudio("pcm_16000", url=url, abilities=Ability.BRING_IN))

    async def start(self) -> None:
        await super().start()
        self._count = 0
        api = FakeApi()
        self.gateway = DialerGateway(self._clock, api)
        self._players = api.players

    def player(self, line: Line) -> Player:
        assert isinstance(line, DialerLine) and line.audio.url is not None
        return self._players[line.audio.url]

    async def answers(self, line: Line) -> None:
        await asyncio.sleep(0.02)


class TwilioSide:
    """Twilio, which sends silence in real time and plays what it is sent."""

    comes_in, most_ahead, coarse = True, 10, 3
    how = HOW

    async def start(self) -> None:
        self._clock = FrameClock()
        self._clock.start()
        rest = FakeRest()
        options = TwilioOptions(PUBLIC_URL, ACCOUNT)
        signatures = Signatures(PUBLIC_URL, ["token"])
        self.gateway = TwilioGateway(options, rest, signatures, self._clock)
        self._twilio = FakeTwilio(self.gateway, rest)
        self._arrivals: asyncio.Queue[Arrival] = asyncio.Queue()
        run = asyncio.create_task(self.gateway.run(self._arrivals.put_nowait))
        self._tasks = [run, asyncio.create_task(self._beats())]
        self._count = 0
        await asyncio.sleep(0)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self._twilio.close()
        await self.gateway.close()
        self._clock.stop()

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BLOCK_SECONDS)
            for stream in tuple(self._twilio.streams.values()):
                stream.beat()

    async def arrives(self) -> Line:
        self._count += 1
        self._twilio.calls(f"CA{self._count:032d}")
        return (await self._arrivals.get()).line

    async def answers(self, line: Line) -> None:
        assert isinstance(line, TwilioLine)
        await self._twilio.answers(line)

    def hangs_up(self, line: Line) -> None:
        assert isinstance(line, TwilioLine)
        self._twilio.hangs_up(line.call_sid)

    async def third_answers(self, line: Line) -> None:
        assert isinstance(line, TwilioLine)
        await until(lambda: len(line.calls) == 2)
        self._twilio.follows(line.calls[1], str(self._twilio.rest.made[-1]["Twiml"]))

    def third_hangs_up(self, line: Line) -> None:
        assert isinstance(line, TwilioLine)
        self._twilio.hangs_up(line.calls[1])

    def heard(self, line: Line) -> bytes:
        assert isinstance(line, TwilioLine)
        return b"".join(self._twilio.streams[line.call_sid].heard)

    def left(self) -> list[str]:
        streams = self._twilio.streams.items()
        lines = [name for name, each in streams if each.socket.close_code is None]
        return [*lines, *["expected"] * self.gateway.expected]


class SoundInPieces(FakeSound):
    """A call's sound as it is, with the agent's voice as it comes."""

    def __init__(self, rate_hz: int) -> None:
        super().__init__()
        self.playout = PlayoutBuffer(rate_hz // 50 * 2, rate_hz)

    def next_frame(self) -> bytes | None:
        return self.playout.next_frame()

    @property
    def frames_ready(self) -> int:
        return self.playout.frames_ready


@pytest.fixture(
    params=[
        FakeSide,
        MicrophoneSide,
        AsteriskSide,
        WebSocketAsteriskSide,
        DialerSide,
        PacingDialerSide,
        VisitedDialerSide,
        TwilioSide,
    ],
    ids=[
        "fake",
        "mic",
        "asterisk",
        "asterisk-websocket",
        "dialer",
        "pacing-dialer",
        "visited-dialer",
        "twilio",
    ],
)
async def side(request: pytest.FixtureRequest) -> AsyncIterator[FarSide]:
    before = asyncio.all_tasks()
    side: FarSide = request.param()
    await side.start()
    yield side
    await side.stop()
    await asyncio.sleep(0.1)
    left = {task for task in asyncio.all_tasks() - before if not task.done()}
    assert left <= {asyncio.current_task()}, left


class Talk:
    """A line, what it tells, and the sound that it was given."""

    def __init__(self, side: FarSide, line: Line) -> None:
        self.side, self.line = side, line
        self.told: list[LineEvent] = []
        self.third = bytearray()
        self.line.name("session-1")
        self.line.listen(self.told.append)

    async def opens(self, make_sound: Callable[[int], FakeSound] | None = None) -> None:
        line_format = await self.line.prepare(DEFAULT_AGENT_FORMATS)
        self.rate_hz = line_format.rate_hz
        self.sound = FakeSound() if make_sound is None else make_sound(self.rate_hz)
        self.line.open(self.sound, 5)
        await self.until(Opened)

    async def connects(self) -> None:
        self.line.connect()
        await self.until(Connected)

    def brings_in(self) -> None:
        self.line.bring_in("+15550100003", 30, self.third.extend)

    async def until(self, kind: type[Any]) -> None:
        """Wait until the last that was told is of a kind."""
        await until(lambda: bool(self.told) and isinstance(self.told[-1], kind))

    async def closes(self) -> None:
        await self.line.close(OVER, END)

    def says(self, frames: int) -> None:
        """Let the agent say so many frames."""
        self.sound.frames += [np.full(self.rate_hz // 50, LEVEL, "<i2").tobytes()] * frames

    def frames_audible(self) -> float:
        samples = np.frombuffer(self.side.heard(self.line), "<i2")
        return float(np.count_nonzero(samples == LEVEL) / (self.rate_hz // 50))


async def arrived(side: FarSide) -> Talk:
    return Talk(side, await side.arrives())


async def talking(side: FarSide) -> Talk:
    talk = await arrived(side)
    await talk.opens()
    await talk.connects()
    return talk


# --- coming up


async def test_it_opens_and_connects_and_tells_each_once(side: FarSide) -> None:
    talk = await arrived(side)
    assert talk.line.placed is not side.comes_in
    await talk.opens()
    assert talk.rate_hz in (8000, 16000, 24000, 48000)
    await talk.connects()
    assert talk.line.answered
    await asyncio.sleep(SOON)
    assert talk.told == [Opened(), Connected()]
    assert talk.line.reachable
    await talk.closes()


async def test_nothing_is_told_before_the_call_that_asked_has_returned(side: FarSide) -> None:
    talk = await arrived(side)
    await talk.line.prepare(DEFAULT_AGENT_FORMATS)
    talk.line.open(FakeSound(), 5)
    assert talk.told == []
    await talk.until(Opened)
    talk.line.connect()
    assert talk.told == [Opened()]
    await talk.closes()


def test_only_asterisk_has_a_channel_for_variables_and_headers(side: FarSide) -> None:
    assert side.gateway.serves(side.how)
    for how in (
        replace(side.how, channel_variables={"TRUNK": "b"}),
        replace(side.how, sip_headers={"X-Campaign": "b"}),
    ):
        assert side.gateway.serves(how) is (side.gateway.name == "asterisk")


async def test_whom_we_call_answers(side: FarSide) -> None:
    placed = side.gateway.place("session-1", "+15550100002", side.how)
    assert (placed.placed, placed.answered) == (True, False)
    assert placed.called == "+15550100002"
    talk = Talk(side, placed)
    talk.line.dial()
    assert talk.told == []
    await side.answers(placed)
    await talk.until(Answered)
    assert placed.answered
    await talk.opens()
    await talk.connects()
    await talk.closes()
    assert side.left() == []


async def test_each_line_has_a_name_of_its_own(side: FarSide) -> None:
    lines = [await side.arrives(), await side.arrives()]
    assert lines[0].id != lines[1].id
    for number, line in enumerate(lines):
        line.name(f"session-{number}")
        await line.close(OVER, END)


# --- sound


async def test_sound_flows_both_ways_in_real_time(side: FarSide) -> None:
    talk = await talking(side)
    before = talk.sound.ticks, len(talk.sound.bytes_heard)
    talk.says(50)
    await asyncio.sleep(2)
    assert talk.sound.ticks - before[0] == pytest.approx(100, abs=3)
    seconds = (len(talk.sound.bytes_heard) - before[1]) / 2 / talk.rate_hz
    assert seconds == pytest.approx(2, abs=0.06)
    assert talk.sound.pulled == 50
    assert talk.frames_audible() == 50, "neither lost nor heard twice"
    await talk.closes()


@pytest.mark.parametrize("every_ms", [50, 180], ids=["fast", "just in time"])
async def test_an_agents_pieces_are_heard_as_one(side: FarSide, every_ms: int) -> None:
    talk = await arrived(side)
    await talk.opens(SoundInPieces)
    await talk.connects()
    assert isinstance(talk.sound, SoundInPieces)
    playout, piece = talk.sound.playout, np.full(talk.rate_hz // 4, LEVEL, "<i2").tobytes()
    playout.write(piece)  # 12 frames and a half, as each of them
    for _ in range(12):
        await asyncio.sleep(every_ms / 1000)
        playout.write(piece)
    playout.end_response()
    await asyncio.sleep(5)
    assert playout.stats.underruns == 0
    samples = np.frombuffer(talk.side.heard(talk.line), "<i2")
    (sounding,) = np.nonzero(samples == LEVEL)
    assert len(sounding) == sounding[-1] - sounding[0] + 1 == 13 * talk.rate_hz // 4
    await talk.closes()


async def test_it_is_no_further_ahead_than_it_may_be(side: FarSide) -> None:
    talk = await talking(side)
    talk.says(1000)
    await asyncio.sleep(1)
    assert talk.sound.pulled - talk.frames_audible() <= side.most_ahead
    await talk.closes()


async def test_what_is_taken_back_is_not_heard(side: FarSide) -> None:
    talk = await talking(side)
    talk.says(1000)
    await asyncio.sleep(1)
    talk.sound.frames.clear()
    frames = talk.line.take_back() / 20
    await asyncio.sleep(1)
    known = talk.sound.pulled - frames
    assert talk.frames_audible() == pytest.approx(known, abs=side.coarse)
    assert talk.line.take_back() == 0
    await talk.closes()


async def test_music_is_instead_of_us_until_connect(side: FarSide) -> None:
    talk = await talking(side)
    talk.line.music()
    await asyncio.sleep(0.5)
    assert talk.told == [Opened(), Connected()], "nothing follows"
    assert talk.sound.ticks > 20, "time goes on"
    talk.told.clear()
    await talk.connects()
    talk.says(10)
    before = talk.frames_audible()
    await asyncio.sleep(1)
    assert talk.frames_audible() - before == 10
    await talk.closes()


# --- a third party

ALONE = [Opened(), Connected()]


@pytest.fixture
async def talk(side: FarSide) -> Talk:
    """Caller and we, on a line that can bring in a third party."""
    talk = await talking(side)
    if Ability.BRING_IN not in talk.line.abilities:
        await talk.closes()
        pytest.skip("this line has nobody to call")
    return talk


async def hears(talk: Talk, frames: int) -> None:
    """The caller hears so many frames of us, each once."""
    before = talk.frames_audible()
    talk.says(frames)
    await asyncio.sleep(0.7)
    assert talk.frames_audible() - before == frames


async def test_a_third_party_is_called_while_the_caller_hears_us(talk: Talk) -> None:
    talk.brings_in()
    assert talk.told == ALONE
    await hears(talk, 10)
    await talk.side.third_answers(talk.line)
    await talk.until(TargetConnected)
    before = talk.sound.ticks, len(talk.sound.bytes_heard)
    await asyncio.sleep(2)
    assert talk.sound.ticks - before[0] == pytest.approx(100, abs=3), "time goes on"
    seconds = (len(talk.sound.bytes_heard) - before[1]) / 2 / talk.rate_hz
    assert seconds == pytest.approx(2, abs=0.06), "and is kept"
    assert talk.told == [*ALONE, TargetConnected()]
    talk.line.drop_target()
    await hears(talk, 10)
    assert talk.told == [*ALONE, TargetConnected()], "the caller was never away"
    await talk.closes()
    assert talk.side.left() == []


async def test_a_third_party_that_leaves_is_told_once(talk: Talk) -> None:
    talk.brings_in()
    await talk.side.third_answers(talk.line)
    await talk.until(TargetConnected)
    talk.side.third_hangs_up(talk.line)
    await asyncio.sleep(SOON)
    assert talk.told[len(ALONE) :] == [TargetConnected(), TargetLost("hung_up", ANY)]
    talk.line.drop_target()
    await hears(talk, 10)
    talk.brings_in()
    await talk.side.third_answers(talk.line)
    await talk.until(TargetConnected)
    await talk.closes()
    assert talk.side.left() == []


# --- the end


async def test_an_end_is_told_once(side: FarSide) -> None:
    talk = await talking(side)
    side.hangs_up(talk.line)
    await asyncio.sleep(SOON)
    assert talk.told[2:] == [Ended("caller_hung_up")]
    await talk.closes()
    assert side.left() == []


async def test_who_listens_late_is_told_of_the_end_at_once(side: FarSide) -> None:
    line = await side.arrives()
    line.name("session-1")
    line.listen(lambda event: None)
    side.hangs_up(line)
    await asyncio.sleep(SOON)
    told: list[LineEvent] = []
    line.listen(told.append)
    assert told == [Ended("caller_hung_up")]
    await line.close(OVER, END)


MOMENTS: dict[str, Callable[[Talk], Any]] = {
    "before it is opened": lambda talk: asyncio.sleep(0),
    "while it opens": lambda talk: opening(talk),
    "opened": lambda talk: talk.opens(),
    "while it connects": lambda talk: connecting(talk),
    "connected": lambda talk: both(talk),
    "in music": lambda talk: in_music(talk),
    "while it calls a third party": lambda talk: calling(talk),
    "with a third party": lambda talk: in_company(talk),
    "after its end": lambda talk: ended(talk),
}


async def opening(talk: Talk) -> None:
    await talk.line.prepare(DEFAULT_AGENT_FORMATS)
    talk.sound = FakeSound()
    talk.line.open(talk.sound, 5)


async def connecting(talk: Talk) -> None:
    await talk.opens()
    talk.line.connect()


async def both(talk: Talk) -> None:
    await talk.opens()
    await talk.connects()


async def in_music(talk: Talk) -> None:
    await both(talk)
    talk.line.music()


async def calling(talk: Talk) -> None:
    await both(talk)
    talk.brings_in()


async def in_company(talk: Talk) -> None:
    await calling(talk)
    if Ability.BRING_IN in talk.line.abilities:
        await talk.side.third_answers(talk.line)
        await talk.until(TargetConnected)


async def ended(talk: Talk) -> None:
    await both(talk)
    talk.side.hangs_up(talk.line)
    await talk.until(Ended)


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda name: name.replace(" ", "-"))
async def test_a_closed_line_is_silent_and_leaves_nothing(side: FarSide, moment: str) -> None:
    talk = await arrived(side)
    await MOMENTS[moment](talk)
    closing = asyncio.create_task(talk.closes())
    await asyncio.sleep(0)
    talk.told.clear()
    await closing
    sound = getattr(talk, "sound", FakeSound())
    before = sound.ticks, sound.bytes_heard
    side.hangs_up(talk.line)
    await asyncio.sleep(5)
    assert talk.told == []
    assert (sound.ticks, sound.bytes_heard) == before
    assert side.left() == []
    again = await arrived(side)
    await again.opens()
    await again.connects()
    await again.closes()


# --- what it cannot do


async def test_what_it_cannot_do_is_answered_and_never_raised(side: FarSide) -> None:
    talk = await talking(side)
    can = talk.line.abilities
    if Ability.RING not in can:
        talk.line.ring()
    if Ability.SCREEN not in can:
        talk.line.screen()
        await talk.until(Screened)
        assert talk.told[-1].status == "HUMAN"  # type: ignore[union-attr]
    if Ability.CONSULT not in can:
        talk.line.consult("+15550100003", 30)
        await talk.until(TargetLost)
        talk.line.drop_target()
    if Ability.BRING_IN not in can:
        talk.told.clear()
        talk.brings_in()
        await talk.until(TargetLost)
        talk.line.drop_target()
    if Ability.SEND_KEYS not in can:
        with pytest.raises(LineError):
            await talk.line.send_keys("1")
    if Ability.SET_VARIABLE not in can:
        with pytest.raises(LineError):
            await talk.line.set_variable("TOPIC", "rain")
    talk.says(5)
    await asyncio.sleep(0.5)
    assert talk.frames_audible() == 5, "the call goes on"
    await talk.closes()
