"""The sound of one call over AudioSocket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Final
from uuid import uuid4

import structlog

from ari_app.audio.formats import AgentFormats
from ari_app.audio.sound_file import SoundFile
from ari_app.line.interface import LineSound
from audiosocket.connection import AudioSocketConnection, ConnectionStats, silence
from audiosocket.frames import SLIN, SLIN16, SLIN24, Kind, LineFormat
from audiosocket.server import AudioSocketServer

log = structlog.get_logger(__name__)


class AudioSocketMedia:
    """One AudioSocket connection, before, while and after it is there; an
    `audiosocket.ConnectionHandler`.

    Args:
        server: Where Asterisk will connect.
        line_format: What is spoken on the line.
        sound: The call's sound.
        seconds: How long the connection is waited for.
        on_lost: Called once with a reason when it ends without our doing.

    Attributes:
        uuid: What Asterisk identifies the connection by.
        keeps_company: While there is nothing else to be heard, a tone is, now and then: somebody is
            still there.
    """

    def __init__(
        self,
        server: AudioSocketServer,
        line_format: LineFormat,
        sound: LineSound,
        seconds: float,
        on_lost: Callable[[str], None],
    ) -> None:
        self.uuid = uuid4()
        self.keeps_company = False
        self._tone: Iterator[bytes | None] = _now_and_then(line_format)
        self._server = server
        self._kind = line_format.kind
        self._sound = sound
        self._on_lost = on_lost
        self._connection: AudioSocketConnection | None = None
        self._stats = ConnectionStats()
        self._closed = False
        server.expect(self.uuid, self, line_format, ttl=seconds)

    @property
    def frames_not_read(self) -> int:
        """How many frames were left out because Asterisk did not read."""
        return self._stats.frames_skipped_backpressure

    def hang_up(self) -> None:
        """Close now: Asterisk is told so first, which also frees a thread of its that reads."""
        if self._closed:
            return
        self._closed = True
        self._server.forget(self.uuid)
        self._let_go(hang_up=True)

    def _let_go(self, *, hang_up: bool = False) -> None:
        # Nobody is told any more, and nobody kept.
        self._on_lost = lambda reason: None
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

    def _next_frame(self) -> bytes | None:
        frame = self._sound.next_frame()
        return next(self._tone) if frame is None and self.keeps_company else frame

    def audio_received(self, payload: bytes, kind: Kind) -> None:
        # Sound of another rate would be heard at the wrong speed.
        if kind is self._kind and not self._closed:
            self._sound.heard(payload)

    def digit_received(self, digit: str) -> None:
        """Ignore it: Asterisk reports each key as an event of ARI's as well."""

    def tick(self, frames_due: int) -> None:
        if not self._closed:
            self._sound.tick()

    def line_lost(self, reason: str) -> None:
        if not self._closed:
            self._closed = True
            tell = self._on_lost
            self._let_go()
            tell(f"line_{reason}")


_COMPANY_FRAMES: Final = 100
_COMPANY: Final = SoundFile.tone(425, 0.4, 3000)


def _now_and_then(line_format: LineFormat) -> Iterator[bytes | None]:
    """Make a tone every two seconds, frame by frame; not at once."""
    pcm, size = _COMPANY.at(line_format.rate_hz), line_format.frame_bytes
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
) -> LineFormat:
    """Decide what is spoken on a call's line.

    Args:
        wanted: `AUDIOSOCKET_FORMAT`: a name, or `auto`.
        wide: This Asterisk has more than `slin`; an older one would label 16 kHz as 8 kHz.
        caller_codec: Asterisk's name of what the caller sends; empty when it is not known.
        agent: What the agent announced the last time.
    """
    if not wide:
        return SLIN
    if wanted != "auto":
        return LineFormat.by_name(wanted)
    caller_hz = codec_rate_hz(caller_codec)
    possible = [line for line in _CANDIDATES if line.rate_hz <= caller_hz]

    def effort(line: LineFormat) -> tuple[int, int]:
        conversions = sum(line.rate_hz != side.rate_hz for side in (agent.hears, agent.speaks))
        # At equal effort the better sound wins, up to what the agent can make use of.
        useful = min(line.rate_hz, max(agent.hears.rate_hz, agent.speaks.rate_hz))
        return conversions, -useful

    return min(possible, key=effort)
