"""This machine's microphone and loudspeaker as a telephone.

The sound card's callback drives the line: it runs in a thread of PortAudio's, hands what it has
recorded to the event loop, and takes what is to be played from a short queue that the loop keeps
filled a little ahead. `MicrophoneLine.take_back` empties that queue, so that an interruption cuts
inside a piece of speech. Whatever may wait for the sound card is done in a thread.

PortAudio has to be given a block size (with 0, blocks of one sample come), and its callback may
stop without a word; both are seen to here. Nothing takes the loudspeaker's sound out of the
microphone: with a headset there is none in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import structlog

from ari_app.audio.formats import AgentFormats
from ari_app.errors import ConfigError, LineError
from ari_app.line.base import BaseLine
from ari_app.line.interface import (
    Ability,
    Answered,
    Arrival,
    CallEnd,
    Connected,
    EndCause,
    Ended,
    Hear,
    LineFailed,
    LineFormat,
    LineSound,
    Opened,
    Outcome,
    Placing,
    Result,
    Screened,
    TargetLost,
)

log = structlog.get_logger(__name__)

FRAME_MS: Final = 20
LEAD_FRAMES: Final = 3
"""Frames that wait for the loudspeaker: what a busy event loop may be late."""
STALL_SECONDS: Final = 2.0
"""A callback that has not come for so long has stopped."""
_LOOK_AGAIN_SECONDS: Final = 5.0
_RATES_HZ: Final = (16000, 48000, 24000, 8000)
_FULL_SCALE: Final = 32768.0
_SILENT_DBFS: Final = -96.0
_BOTH: Final = "microphone and loudspeaker"


class Stream(Protocol):
    """An open sound card, as `sounddevice.RawStream` is one."""

    def start(self) -> None: ...

    def abort(self) -> None: ...

    def close(self) -> None: ...


Callback = Callable[[Any, Any, int, Any, Any], None]
"""Called by the sound card with what was recorded and room for what is to be played."""


class SoundCard(Protocol):
    """A source of streams; `PortAudio` is the real one."""

    def rate_hz(self, wanted: int) -> int:
        """Say at which rate the devices work, `wanted` if they can.

        Raises:
            ConfigError: They cannot be used: a sentence.
        """
        ...

    def open(self, rate_hz: int, block: int, callback: Callback) -> Stream:
        """Open the devices, for 16-bit mono in blocks of `block` samples.

        Raises:
            ConfigError: They cannot be used: a sentence.
        """
        ...


class PortAudio:
    """The sound cards of this machine.

    Args:
        device: Part of a device's name, or its number in the list; None: the system's own choice.
    """

    def __init__(self, device: str | None = None) -> None:
        self._device: str | int | None = (
            int(device) if device is not None and device.isdecimal() else device
        )

    def rate_hz(self, wanted: int) -> int:
        portaudio = _portaudio()
        if not len(portaudio.query_devices()):
            raise ConfigError(
                "this machine has no sound device that can be used. Plug in a headset; on a server "
                "without one, talk over a telephone."
            )
        first: dict[str, Exception] = {}
        for rate in (wanted, *(rate for rate in _RATES_HZ if rate != wanted)):
            settings = {"device": self._device, "channels": 1, "dtype": "int16", "samplerate": rate}
            found: dict[str, Exception] = {}
            for what, check in (
                ("microphone", portaudio.check_input_settings),
                ("loudspeaker", portaudio.check_output_settings),
            ):
                try:
                    check(**settings)
                except (ValueError, portaudio.PortAudioError) as error:
                    found[what] = error
            if not found:
                return rate
            first = first or found
        raise ConfigError(_unusable(first))

    def open(self, rate_hz: int, block: int, callback: Callback) -> Stream:
        portaudio = _portaudio()
        try:
            stream: Stream = portaudio.RawStream(
                samplerate=rate_hz,
                blocksize=block,
                device=self._device,
                channels=1,
                dtype="int16",
                latency="low",
                callback=callback,
            )
        except (ValueError, portaudio.PortAudioError) as error:
            raise ConfigError(_unusable({_BOTH: error})) from None
        return stream


def devices() -> list[str]:
    """List the sound devices, a line each, as `--device` takes them.

    Raises:
        ConfigError: PortAudio is missing.
    """
    return [
        f"{number}: {device['name']} "
        f"(in {device['max_input_channels']}, out {device['max_output_channels']})"
        for number, device in enumerate(_portaudio().query_devices())
    ]


def _portaudio() -> Any:
    try:
        import sounddevice
    except OSError:
        raise ConfigError(
            "PortAudio is missing, which brings microphone and loudspeaker. Install it: "
            "`apt-get install libportaudio2`."
        ) from None
    return sounddevice


def _unusable(problems: Mapping[str, Exception]) -> str:
    """Say why devices cannot be used, each by itself unless it is the same for both."""
    whose: dict[str, list[str]] = {}
    for what, error in problems.items():
        # Where a name fits several devices the library lists them, a line each.
        why, *_ = str(error).splitlines() or [""]
        whose.setdefault(why.rstrip(".:"), []).append(what)
    said = "; ".join(f"{' and '.join(what)} cannot be used: {why}" for why, what in whose.items())
    return (
        f"{said}. `ari-app talk --list-devices` shows what this machine has; name one by its "
        "number."
    )


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of both sides, in dB below full scale."""

    microphone: float = _SILENT_DBFS
    loudspeaker: float = _SILENT_DBFS


class MicrophoneLine(BaseLine):
    """One talk at this machine.

    Args:
        gateway: What it belongs to; only one line of it can be open.
        line_id: Its name.
        placed: It was asked for as a call to somebody.

    Attributes:
        levels: How loud both sides are just now.
        problem: Why there is no sound: a sentence; empty where there is, or may be.
        outcome: How the call ended; None while it has not.
        closed: Set when everything has been given back.
    """

    way = "local"
    trunk = ""
    abilities = Ability.NOTHING
    rtp = None
    cause = EndCause()
    frames_not_read = 0
    reachable = True

    def __init__(self, gateway: MicrophoneGateway, line_id: str, *, placed: bool = False) -> None:
        super().__init__()
        self.id = line_id
        self.caller = "microphone"
        self.called = ""
        self.placed = placed
        self.answered = not placed
        self.levels = Levels()
        self.problem = ""
        self.outcome: Outcome | None = None
        self.closed = asyncio.Event()
        self._gateway = gateway
        self._sound: LineSound | None = None
        self._stream: Stream | None = None
        self._rate_hz = _RATES_HZ[0]
        self._hears_us = False
        self._opening: asyncio.Task[None] | None = None
        # Shared with the sound card's thread: deque's ends are safe.
        self._ahead: deque[bytes] = deque()
        self._called_at = 0.0

    # --- ari_app.line.interface.Line

    def name(self, session_id: str) -> None:
        """Do nothing: nothing of it is named after a call."""

    async def prepare(self, agent: AgentFormats) -> LineFormat:
        try:
            self._rate_hz = await asyncio.to_thread(self._gateway.card.rate_hz, agent.hears.rate_hz)
        except ConfigError as error:
            # `open` fails for the same reason.
            self._gateway.problem = self.problem = str(error)
        return LineFormat(f"microphone {self._rate_hz}", self._rate_hz)

    def ring(self) -> None:
        """Do nothing: nobody waits for the sound of ringing at this machine."""

    def dial(self) -> None:
        self.answered = True
        self._soon(Answered())

    def screen(self) -> None:
        self._soon(Screened("HUMAN", "microphone"))

    def open(self, sound: LineSound, seconds: float) -> None:
        if not self._gateway.occupy(self):
            self.problem = "Somebody talks at this machine already."
            self._fail("microphone_in_use")
            return
        self._sound = sound
        self._opening = self._loop.create_task(self._open(), name=f"call {self.id}")
        self._alarm.call_in(seconds, self._too_late)

    def connect(self) -> None:
        self._hears_us = True
        self._soon(Connected())

    def music(self) -> None:
        # There is none: silence, until `connect`.
        self._hears_us = False
        self._ahead.clear()

    def consult(self, target: str, ring_seconds: float) -> None:
        self._soon(TargetLost(Result.FAILED.value))

    def bring_in(self, target: str, ring_seconds: float, hear: Hear) -> None:
        self.consult(target, ring_seconds)

    def drop_target(self) -> None:
        """Do nothing: there is no third party."""

    def hand_over(self) -> None:
        """Do nothing: there is nobody to join with."""

    def take_back(self) -> float:
        frames = len(self._ahead)
        self._ahead.clear()
        return float(frames * FRAME_MS)

    async def send_keys(self, keys: str) -> None:
        raise LineError("a microphone takes no keys", code="not_possible")

    async def set_variable(self, name: str, value: str) -> None:
        raise LineError("a microphone has no variables", code="not_possible")

    def checkpoint(self) -> None:
        """Keep nothing: the far end's connection ends with this process."""

    async def close(self, outcome: Outcome, end: CallEnd) -> None:
        self.outcome = outcome
        self._closed = True
        self._tell = None
        self._sound = None
        self._ahead.clear()
        self._alarm.stop()
        stream, self._stream = self._stream, None
        if stream is not None:
            await self._give_back(stream)
        elif self._opening is None or self._opening.done():
            self._gateway.leave(self)
        else:
            # Opened just now, it is given back there; nobody waits for a card that hangs.
            await asyncio.wait({self._opening}, timeout=STALL_SECONDS)
        self.closed.set()

    # --- what the person at the machine does

    def hang_up(self) -> None:
        """End the talk."""
        self._end(Ended("caller_hung_up"))

    # --- inside

    def _fail(self, reason: str) -> None:
        log.warning(reason, call=self.id, problem=self.problem)
        self._soon(LineFailed(reason))

    async def _open(self) -> None:
        block = self._rate_hz * FRAME_MS // 1000
        card = self._gateway.card

        def opened() -> Stream:
            stream = card.open(self._rate_hz, block, self._callback)
            try:
                stream.start()
            except Exception:
                stream.close()
                raise
            return stream

        try:
            stream = await asyncio.to_thread(opened)
        except Exception as error:
            if self._closed:
                self._gateway.leave(self)
            else:
                self._alarm.stop()
                self._gateway.problem = self.problem = str(error)
                self._fail("microphone_unusable")
            return
        self._gateway.problem = ""
        if self._closed:
            await self._give_back(stream)
            return
        self._stream = stream
        self._alarm.stop()
        self._called_at = self._loop.time()
        self._look()
        self._tell_call(Opened())

    async def _give_back(self, stream: Stream) -> None:
        """Close the sound card, which waits for the callback that is running; who wants the card
        next waits for that, and nobody else for longer than it takes a sound card that is well."""
        closing = self._loop.create_task(asyncio.to_thread(_close, stream))
        closing.add_done_callback(lambda _: self._gateway.leave(self))
        await asyncio.wait({closing}, timeout=STALL_SECONDS)

    def _too_late(self) -> None:
        self.problem = "The sound card does not open."
        self._fail("microphone_unusable")

    def _callback(self, recorded: Any, played: Any, frames: int, time: Any, status: Any) -> None:
        # In the sound card's thread, which must not wait.
        try:
            frame = self._ahead.popleft()
        except IndexError:
            frame = b""
        played[:] = frame.ljust(len(played), b"\0")[: len(played)]
        # Once the loop has been closed nobody listens.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._beat, bytes(recorded), frame)

    def _beat(self, recorded: bytes, played: bytes) -> None:
        if self._closed or self._sound is None:
            return
        self._called_at = self._loop.time()
        self.levels = Levels(_dbfs(recorded), _dbfs(played))
        sound = self._sound
        sound.heard(recorded)
        sound.tick()
        # What is no whole frame yet may go on: it is left until nothing else is there.
        while len(self._ahead) < LEAD_FRAMES and (sound.frames_ready or not self._ahead):
            frame = sound.next_frame()
            if frame is None or not self._hears_us:
                break
            self._ahead.append(frame)

    def _look(self) -> None:
        if self._closed:
            return
        if self._loop.time() - self._called_at >= STALL_SECONDS:
            self.problem = f"The sound card has stopped: nothing came for {STALL_SECONDS:g} s."
            self._fail("microphone_stopped")
            return
        self._alarm.call_in(STALL_SECONDS / 4, self._look)


class MicrophoneGateway:
    """The way in and out through this machine's own sound.

    Args:
        card: Where its streams come from.

    Attributes:
        problem: Why there was no sound when it was looked for last: a sentence; empty where there
            was.
    """

    name = "microphone"
    routes = ()
    connected = True

    def __init__(self, card: SoundCard | None = None) -> None:
        self.card: SoundCard = card or PortAudio()
        self._take: asyncio.Future[Callable[[Arrival], object]] = (
            asyncio.get_running_loop().create_future()
        )
        self.problem = ""
        self._line: MicrophoneLine | None = None
        self._count = 0

    async def run(self, take: Callable[[Arrival], object]) -> None:
        """Take calls in until cancelled: whoever sits here begins them with `talk`."""
        self._take.set_result(take)
        while True:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            # Who watches `problems` begins no talk that would show that all is well again.
            if self.problem and self._line is None:
                self.problem = await asyncio.to_thread(self._why_not)

    def _why_not(self) -> str:
        try:
            self.card.rate_hz(_RATES_HZ[0])
        except ConfigError as error:
            return str(error)
        return ""

    async def talk(
        self, agent_id: str | None = None, variables: Mapping[str, str] | None = None
    ) -> MicrophoneLine:
        """Begin a talk, as soon as `run` runs."""
        take = await self._take
        line = MicrophoneLine(self, self._name())
        take(Arrival(line, agent_id=agent_id, variables=variables or {}))
        return line

    def serves(self, how: Placing) -> bool:
        """Whether we are the ones who call."""
        return how.audio is None and not how.needs_channel

    def place(self, session_id: str, number: str, how: Placing) -> MicrophoneLine:
        """Make a line to whoever sits here, whatever the number."""
        line = MicrophoneLine(self, self._name(), placed=True)
        line.called = number
        return line

    def problems(self) -> list[str]:
        """Say why nobody can talk now; empty when all is well."""
        return [self.problem] if self.problem else []

    def adopt(self, session_id: str, kept: Mapping[str, Any], begin: Callable[[], None]) -> None:
        """Adopt none: their sound ended with the process that they came to."""

    async def mend(self, *, expected: bool, adopting: bool = False) -> None:
        """Do nothing: nothing of it outlives its process."""

    async def close(self) -> None:
        """Do nothing: nothing runs in the background."""

    def occupy(self, line: MicrophoneLine) -> bool:
        """Take the sound card for a line; False: another one has it."""
        if self._line is not None and self._line is not line:
            return False
        self._line = line
        return True

    def leave(self, line: MicrophoneLine) -> None:
        """Give the sound card back."""
        if self._line is line:
            self._line = None

    def _name(self) -> str:
        self._count += 1
        return f"microphone-{self._count}"


def _close(stream: Stream) -> None:
    # What has been unplugged refuses both.
    with contextlib.suppress(Exception):
        stream.abort()
    with contextlib.suppress(Exception):
        stream.close()


def _dbfs(pcm: bytes) -> float:
    if not pcm:
        return _SILENT_DBFS
    samples = np.frombuffer(pcm, np.int16).astype(np.float32)
    rms = float(np.sqrt(np.mean(samples * samples)))
    return _SILENT_DBFS if rms < 1 else 20 * float(np.log10(rms / _FULL_SCALE))
