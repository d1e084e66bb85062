"""The sound of one call through Asterisk: the port of its transports, and AudioSocket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import repeat
from typing import TYPE_CHECKING, Final, Protocol, Required, TypedDict
from uuid import uuid4

import structlog

from ari_app.audio.formats import AgentFormats
from ari_app.line.asterisk.ari.models import Channel
from ari_app.line.interface import LineSound
from audiosocket.connection import AudioSocketConnection, ConnectionStats, silence
from audiosocket.frames import SLIN, SLIN16, SLIN24, Kind, SlinFormat
from audiosocket.server import AudioSocketServer

if TYPE_CHECKING:
    from ari_app.audio.sound_file import SoundFile

log = structlog.get_logger(__name__)


OnLost = Callable[[str, bool], None]
"""Called when a connection ends without our doing: with the reason, and with whether it broke, that
is, whether Asterisk has not ended the channel on purpose."""


OnKey = Callable[[str], None]
"""Called with each key that is pressed by somebody in the channel's bridge."""


class MediaRequest(TypedDict, total=False):
    """The parameters of `ChannelsResource.external_media`."""

    external_host: Required[str]
    format: Required[str]
    encapsulation: str
    transport: str
    connection_type: str
    transport_data: str
    data: str


class Media(Protocol):
    """The transport of one call's sound between Asterisk and us, from its request on.

    Attributes:
        keeps_company: While there is nothing else to be heard, play a soft tone now and then: it
            tells the caller that somebody is still there.
        on_key: Called with keys, where this Asterisk tells them on the media channel.
        frames_not_read: How many frames were left out because Asterisk did not take them.
        renewable: A channel that breaks may be replaced by another one.
    """

    keeps_company: bool
    on_key: OnKey
    renewable: bool

    @property
    def frames_not_read(self) -> int: ...

    def request(self) -> MediaRequest:
        """Return the parameters of the request for the media channel, but for its id."""
        ...

    async def made(self, channel: Channel) -> bool:
        """Take the media channel that Asterisk has made, and connect to it where that is our part.

        Returns:
            False if the channel does not tell where to connect.

        Raises:
            AriError: It cannot be connected to.
        """
        ...

    def flow(self) -> None:
        """Let sound flow: the channel is in the bridge, and what is sent is heard."""
        ...

    def take_back(self) -> float:
        """Throw away what was taken ahead of time and is not yet heard; return how much, in ms."""
        ...

    def renew(self) -> None:
        """Give up the channel, and get ready for another one; only if `renewable`."""
        ...

    async def heard_out(self) -> None:
        """Wait, for a moment at most, until the caller has heard what was said last."""
        ...

    def hang_up(self) -> None:
        """Close now, without calling `OnLost`. May be called twice."""
        ...


MakeMedia = Callable[[SlinFormat, LineSound, float, OnLost], Media]
"""Makes the transport of a call's sound, given the line's format, the sound, how many seconds the
connection is waited for, and what to call when it is lost."""


class AudioSocketMedia:
    """A call's sound over AudioSocket: waits for Asterisk's connection, and handles it; an
    `audiosocket.ConnectionHandler`.

    Args:
        server: Where Asterisk will connect.
        target: The address that it connects to: `host:port`.
        line_format: The audio format of the line.
        sound: The call's sound.
        seconds: How long the connection is waited for.
        on_lost: Called once when it ends without our doing. Asterisk ends a connection in the same
            way as a network that cuts it, so it never counts as broken.

    Attributes:
        uuid: What Asterisk identifies the connection by.
        keeps_company, on_key: See `Media`.
    """

    renewable = False

    def __init__(
        self,
        server: AudioSocketServer,
        target: str,
        line_format: SlinFormat,
        sound: LineSound,
        seconds: float,
        on_lost: OnLost,
    ) -> None:
        self.uuid = uuid4()
        self.keeps_company = False
        self.on_key: OnKey = no_key
        self._tone: Iterator[bytes | None] = now_and_then(line_format)
        self._server = server
        self._target = target
        self._format = line_format
        self._kind = line_format.kind
        self._sound = sound
        self._on_lost = on_lost
        self._connection: AudioSocketConnection | None = None
        self._stats = ConnectionStats()
        self._flows = self._closed = False
        server.expect(self.uuid, self, line_format, ttl=seconds)

    @property
    def frames_not_read(self) -> int:
        """How many frames were left out because Asterisk did not read."""
        return self._stats.frames_skipped_backpressure

    def request(self) -> MediaRequest:
        return {
            "external_host": self._target,
            "format": self._format.name,
            "data": str(self.uuid),
        }

    async def made(self, channel: Channel) -> bool:
        return True  # Asterisk has connected already

    def flow(self) -> None:
        # Silence flows from the first moment, for Asterisk must never wait for a frame
        # (asterisk#2089).
        self._flows = True

    def take_back(self) -> float:
        return 0.0  # Asterisk plays what it has at once

    def renew(self) -> None:
        raise NotImplementedError("not renewable")

    async def heard_out(self) -> None:
        """Do nothing: Asterisk has played it already."""

    def hang_up(self) -> None:
        """Close now, with 0x00 before: that frees the thread of Asterisk's that reads."""
        if self._closed:
            return
        self._closed = True
        self._server.forget(self.uuid)
        self._let_go(hang_up=True)

    def _let_go(self, *, hang_up: bool = False) -> None:
        # Neither call anybody any more, nor keep them in memory.
        self._on_lost = lambda reason, broken: None
        self.on_key = no_key
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.next_frame = silence
            if hang_up:
                connection.hang_up()

    # --- audiosocket.ConnectionHandler

    def line_connected(self, line: AudioSocketConnection) -> None:
        if self._closed:
            line.hang_up()
            return
        self._connection = line
        self._stats = line.stats
        line.next_frame = self._next_frame
        line.read_together(self._sound.frames_at_once)

    def _next_frame(self) -> bytes | None:
        frame = self._sound.next_frame() if self._flows else None
        return next(self._tone) if frame is None and self.keeps_company else frame

    def audio_received(self, payload: bytes, kind: Kind) -> None:
        # Sound of another rate would be heard at the wrong speed.
        if kind is self._kind and not self._closed:
            self._sound.heard(payload)

    def digit_received(self, digit: str) -> None:
        self.on_key(digit)

    def tick(self, frames_due: int) -> None:
        if not self._closed:
            self._sound.tick()

    def line_lost(self, reason: str) -> None:
        if not self._closed:
            self._closed = True
            tell = self._on_lost
            self._let_go()
            tell(f"line_{reason}", False)


def no_key(digit: str) -> None:
    """Ignore a key."""


_COMPANY_FRAMES: Final = 100


@cache
def _company() -> SoundFile:
    # Here, for a check of the media channel makes no sound, and should not wait for numpy.
    from ari_app.audio.sound_file import SoundFile

    return SoundFile.tone(425, 0.4, 3000)


def now_and_then(line_format: SlinFormat) -> Iterator[bytes | None]:
    """Yield a soft tone every two seconds, frame by frame, and None in between; first a pause."""
    pcm, size = _company().at(line_format.rate_hz), line_format.frame_bytes
    tone = [pcm[at : at + size].ljust(size, b"\0") for at in range(0, len(pcm), size)]
    while True:
        yield from repeat(None, _COMPANY_FRAMES - len(tone))
        yield from tone


_CANDIDATES: Final = (SLIN, SLIN16, SLIN24)

# Asterisk's names of the codecs that carry more than 8 kHz (main/codec_builtin.c). What is not here
# counts as 8 kHz.
_WIDE_CODECS_HZ: Final = {
    "g722": 16000,
    "siren7": 16000,
    "speex16": 16000,
    "silk16": 16000,
    "slin16": 16000,
    "slin24": 24000,
    "silk24": 24000,
    "siren14": 32000,
    "speex32": 32000,
    "slin32": 32000,
    "slin44": 44100,
    "opus": 48000,
    "slin48": 48000,
    "slin96": 96000,
    "slin192": 192000,
}


def codec_rate_hz(codec: str) -> int:
    """Return the rate of one of Asterisk's codecs, such as `ulaw`, `g722` or `(opus)`."""
    return _WIDE_CODECS_HZ.get(codec.strip().strip("()").lower(), 8000)


def choose_line_format(
    wanted: str, *, wide: bool, caller_codec: str, agent: AgentFormats
) -> SlinFormat:
    """Choose the audio format of a call's line.

    Args:
        wanted: `AUDIOSOCKET_FORMAT`: a name, or `auto`.
        wide: This Asterisk has more than `slin`; an older one would label 16 kHz as 8 kHz.
        caller_codec: Asterisk's name of the caller's codec; empty when it is not known.
        agent: The formats that the agent announced the last time.
    """
    if not wide:
        return SLIN
    if wanted != "auto":
        return SlinFormat.by_name(wanted)
    caller_hz = codec_rate_hz(caller_codec)
    possible = [line for line in _CANDIDATES if line.rate_hz <= caller_hz]

    def effort(line: SlinFormat) -> tuple[int, int]:
        conversions = sum(line.rate_hz != side.rate_hz for side in (agent.hears, agent.speaks))
        # At equal effort the better sound wins, up to what the agent can make use of.
        useful = min(line.rate_hz, max(agent.hears.rate_hz, agent.speaks.rate_hz))
        return conversions, -useful

    return min(possible, key=effort)
