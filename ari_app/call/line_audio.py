"""A call's line as an :class:`AudioInterface`: the AudioSocket connection that Asterisk opened to
us."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from ari_app.audio.convert import make_converter
from ari_app.audio.formats import AudioFormat
from ari_app.audio.recording import StereoRecorder
from ari_app.audio_interface import AudioInterface, Cleared
from ari_app.call.hearing import Hearing, ResponseTime
from ari_app.call.uplink import Uplink, UplinkStats
from ari_app.errors import LineError
from audiosocket import Kind, Line, LineFormat, PlayoutBuffer

log = structlog.get_logger(__name__)

# What a reader that has fallen behind may still get: older sound than this is of no use to a
# listener.
_MAX_WAITING_CHUNKS = 50

# Asterisk hands a frame to RTP at once, and the phone's jitter buffer takes the rest: a channel
# that is taken away in the same moment as its last frame was written would cut it.
_TAIL_SECONDS = 0.06


class LineAudio(AudioInterface):
    """One AudioSocket connection, before, while and after it is there.

    It is handed to :meth:`audiosocket.AudioSocketServer.expect`; from then on the server calls the
    methods of :class:`audiosocket.LineHandler` on it. The line carries silence until :meth:`start`.

    Args:
        line_format: What is spoken on the line.
        chunk_ms: How much :meth:`read_audio_chunk` returns.
        on_lost: Called once with a reason when the connection ends without our doing.
        on_response: Called when an answer begins to sound, with the caller's wait for it.

    Attributes:
        hearing: What is known of the caller's voice, from :meth:`start` on.
        recorder: Gets both sides as they sound on the line, from :meth:`start` on.
        muted: Silence is heard instead of the line.
        overhear: Gets what the line brings until :meth:`start`, with the time.
    """

    def __init__(
        self,
        line_format: LineFormat,
        *,
        chunk_ms: int,
        on_lost: Callable[[str], None],
        on_response: Callable[[ResponseTime], None],
    ) -> None:
        self.rate_hz = line_format.rate_hz
        self.playout = PlayoutBuffer(line_format.frame_bytes, line_format.rate_hz)
        self._uplink: Uplink | None = None
        self._chunk_ms = chunk_ms
        self._kind: Kind = line_format.kind
        self._on_lost = on_lost
        self._on_response = on_response
        self.hearing = Hearing(line_format.rate_hz)
        self.recorder: StereoRecorder | None = None
        self.muted = False
        self.overhear: Callable[[bytes, float], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._line: Line | None = None
        self._closed = False
        self._chunks: deque[bytes] = deque(maxlen=_MAX_WAITING_CHUNKS)
        self._reader: asyncio.Future[None] | None = None
        self._drained: asyncio.Event | None = None
        self.foreign_frames = 0

    @property
    def line(self) -> Line | None:
        """The connection, once Asterisk has made it."""
        return self._line

    @property
    def uplink_stats(self) -> UplinkStats:
        """What was heard, and what was filled with silence; at the line's rate."""
        return UplinkStats() if self._uplink is None else self._uplink.stats

    # --- AudioInterface

    def start(self, heard_as: AudioFormat) -> None:
        if self._closed:
            return
        converter = make_converter(AudioFormat.pcm(self.rate_hz), heard_as)
        if self._uplink is None:
            self._uplink = Uplink(self.rate_hz, converter, self._chunk_ms)
            self._uplink.start(self._loop.time())
        else:
            self._uplink.convert_with(converter)

    async def read_audio_chunk(self) -> bytes:
        while not self._chunks:
            if self._closed:
                raise LineError("the line is closed", code="line_closed")
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._chunks.popleft()

    def write_audio_chunk(self, audio: bytes, response_id: int = 0) -> None:
        if audio and not self._closed:
            self.playout.write(audio, tag=response_id)

    def end_response(self) -> None:
        self.playout.end_response()

    def clear(self) -> Cleared:
        result = self.playout.flush()
        return Cleared(
            result.tag or 0, result.played_ms, result.dropped_ms + result.others_dropped_ms
        )

    async def drained(self) -> None:
        if self._closed or (self._uplink is not None and self.playout.idle):
            return
        if self._drained is None or self._drained.is_set():
            self._drained = asyncio.Event()
        await self._drained.wait()
        if not self._closed:
            await asyncio.sleep(_TAIL_SECONDS)

    async def close(self) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        """Close the line now: Asterisk is told so first, which also frees a thread of its that
        reads."""
        self._let_go()
        if self._closed:
            return
        self._closed = True
        if self._line is not None:
            self._line.hang_up()
        self._wake()

    # --- audiosocket.LineHandler

    def line_connected(self, line: Line) -> None:
        if self._closed:
            line.hang_up()
            return
        self._line = line
        self.playout.refill = self._refill
        line.next_frame = self._next_frame

    def audio_received(self, payload: bytes, kind: Kind) -> None:
        if self._uplink is None or self._closed:
            if self.overhear is not None and kind is self._kind:
                self.overhear(payload, self._loop.time())
            return
        if kind is not self._kind:
            # Sound of another rate would be heard at the wrong speed.
            self.foreign_frames += 1
            return
        now = self._loop.time()
        uplink, hearing = self._uplink, self.hearing
        if uplink.ends_at > now and uplink.is_surplus(payload, now, hearing.is_quiet):
            return
        if self.recorder is not None:
            self.recorder.add_caller(payload, now)
        if self.muted:
            payload = bytes(len(payload))
        hearing.heard(payload, now)
        self._deliver(uplink.push(payload, now))

    def digit_received(self, digit: str) -> None:
        """Keys count by ARI's event alone: Asterisk reports each of them both ways."""

    def tick(self, frames_due: int) -> None:
        if self._uplink is not None and not self._closed:
            now = self._loop.time()
            if filled := self._uplink.tick(now):
                self.hearing.quiet(now)
                self._deliver(filled)

    def line_lost(self, reason: str) -> None:
        self._let_go()
        if not self._closed:
            self._closed = True
            self._wake()
            self._on_lost(reason)

    # --- inside

    def _next_frame(self) -> bytes | None:
        if self._uplink is None:
            return None
        frame = self.playout.next_frame()
        if frame is None:
            if self._drained is not None:
                self._drained.set()
        else:
            now = self._loop.time()
            if (response := self.hearing.said(frame, now)) is not None:
                self._on_response(response)
            if self.recorder is not None:
                self.recorder.add_agent(frame, now)
        return frame

    def _let_go(self) -> None:
        """Forget who hears and who speaks: they know this line, and none would free the other."""
        self.on_dry = self.on_chunk = self.playout.refill = self.overhear = None

    def _refill(self) -> bytes:
        return self.on_dry() if self.on_dry is not None else b""

    def _deliver(self, chunks: list[bytes]) -> None:
        if not chunks:
            return
        if self.on_chunk is not None:
            for chunk in chunks:
                self.on_chunk(chunk)
        else:
            self._chunks.extend(chunks)
            if self._reader is not None and not self._reader.done():
                self._reader.set_result(None)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        if self._drained is not None:
            self._drained.set()
