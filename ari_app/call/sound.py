"""A call's line as an :class:`AudioInterface`: the AudioSocket connection that Asterisk opened to
us."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from ari_app.audio.convert import Converter, make_converter
from ari_app.audio.formats import SAMPLE_BYTES, AudioFormat
from ari_app.call.hearing import Hearing, ResponseTime
from ari_app.errors import LineError
from ari_app.records.recording import StereoRecorder
from audiosocket.connection import AudioSocketConnection
from audiosocket.frames import Kind, LineFormat
from linekit.playout import PlayoutBuffer


@dataclass(slots=True)
class DownlinkStats:
    """What came from the agent and what was made of it."""

    chunks: int = 0
    bytes_in: int = 0
    """In the agent's format."""
    bytes_out: int = 0
    """In the line's format."""


class Downlink:
    """One call's stream from the agent.

    Args:
        converter: from the agent's format to the line's; this stream's own.
        write: takes the line's PCM and the id of the response that it belongs to.
    """

    def __init__(self, converter: Converter, write: Callable[[bytes, int], object]) -> None:
        self._converter = converter
        self._write = write
        self._response_id = 0
        self.stats = DownlinkStats()

    def audio(self, response_id: int, data: bytes) -> None:
        """Converts a chunk in the agent's format and hands it over."""
        self.stats.chunks += 1
        self.stats.bytes_in += len(data)
        self._response_id = response_id
        self._hand_over(self._converter.process(data))

    def end_of_response(self) -> None:
        """Hands over the last samples of the response; the next chunk begins a new stream."""
        self._hand_over(self._converter.flush())
        self._converter.reset()

    def tail(self) -> bytes:
        """The samples held back, for a buffer that runs dry before the response has ended."""
        tail = self._converter.flush()
        self.stats.bytes_out += len(tail)
        return tail

    def reset(self) -> None:
        """Forgets the samples held back: an interruption has overtaken them."""
        self._converter.reset()

    def _hand_over(self, pcm: bytes) -> None:
        if pcm:
            self.stats.bytes_out += len(pcm)
            self._write(pcm, self._response_id)


_FILL_MS: Final = 20
"""Silence is made in whole frames. Where a phone's clock is slow this is one short gap every few
minutes, not a click of a few samples every second."""

_QUIET_AHEAD_SECONDS: Final = 0.01
"""Silence that comes when the stream is further ahead of the clock than this is surplus."""
_AHEAD_SECONDS: Final = 0.04
"""And so is anything else from here on. Packets of one voice come early by less."""
_BURST_SPEED: Final = 5
"""What was held up comes so many times faster than speech at least; three streams do not."""
_MAX_LATE_SECONDS: Final = 5.0
_KEPT_AHEAD_SECONDS: Final = 0.3
"""So far a line that holds packets up may stay ahead: then the next hold-up makes no gap."""
_FORGOTTEN_BY_HALF_SECONDS: Final = 30.0


@dataclass(slots=True)
class UplinkStats:
    """What went into the stream, at the line's rate."""

    received_samples: int = 0
    filled_samples: int = 0
    gaps: int = 0
    """Stretches of filling without any audio between."""
    surplus_quiet_samples: int = 0
    surplus_samples: int = 0
    """Dropped, for there was no time for them, silence and anything else; not among those
    received."""

    @property
    def all_surplus_samples(self) -> int:
        """Both kinds."""
        return self.surplus_quiet_samples + self.surplus_samples


class Uplink:
    """One call's stream to the agent.

    At every `tick`, what was received and filled is at most `slack_ms` behind the wall clock.

    Args:
        line_rate_hz: rate of the caller's 16-bit PCM.
        converter: from the line's format to the agent's; this stream's own.
        chunk_ms: length of each chunk that is handed out.
        slack_ms: how far the audio may lag behind the wall clock before silence is filled in.

    Attributes:
        ends_at: the moment that the stream has come to; while it lies ahead there may be surplus.
    """

    def __init__(
        self, line_rate_hz: int, converter: Converter, chunk_ms: int, slack_ms: int = 60
    ) -> None:
        self._rate_hz = line_rate_hz
        self._converter = converter
        self._chunk_bytes = line_rate_hz * chunk_ms // 1000 * SAMPLE_BYTES
        self._slack_seconds = slack_ms / 1000
        self._bytes_per_second = line_rate_hz * SAMPLE_BYTES
        self._fill_samples = line_rate_hz * _FILL_MS // 1000
        self._pending = bytearray()
        self._started: float | None = None
        self._ticked = 0.0
        self._reading_until = 0.0
        self.ends_at = 0.0
        self._in_gap = False
        self._gap_samples = 0
        self._late_samples = 0
        self._burst_began = 0.0
        self._burst_from = 0
        self._late_seconds = 0.0
        self._late_at = 0.0
        self.stats = UplinkStats()

    def start(self, now: float) -> None:
        """Begins the stream: from `now` (seconds, monotonic) on every moment is heard by the agent.

        The converter is primed, so that the first chunk is as long as every other.
        """
        self._started = self._ticked = self.ends_at = now
        self._converter.prime()

    def convert_with(self, converter: Converter) -> None:
        """Goes on in another format; what has not been handed out yet comes in that one."""
        converter.prime()
        self._converter = converter

    def is_surplus(self, pcm: bytes, now: float, is_quiet: Callable[[bytes], bool]) -> bool:
        """Whether there is no time for this audio: it is counted, and not to be pushed.

        Args:
            pcm: The caller's audio, whole samples of any number.
            now: When it came.
            is_quiet: Tells whether there is nothing in it; rarely asked.
        """
        ahead = self.ends_at - now
        return ahead > _QUIET_AHEAD_SECONDS and self._has_no_room(pcm, now, ahead, is_quiet)

    def _has_no_room(
        self, pcm: bytes, now: float, ahead: float, is_quiet: Callable[[bytes], bool]
    ) -> bool:
        # What late audio has put the stream ahead is no surplus, and is worked off in silence.
        samples = len(pcm) // SAMPLE_BYTES
        if is_quiet(pcm):
            kept = min(self._late_seconds, _KEPT_AHEAD_SECONDS)
            kept *= 0.5 ** ((now - self._late_at) / _FORGOTTEN_BY_HALF_SECONDS)
            if ahead <= _QUIET_AHEAD_SECONDS + kept:
                return False
            self._late_seconds = min(self._late_seconds, ahead)
            self.stats.surplus_quiet_samples += samples
            return True
        if ahead <= _AHEAD_SECONDS + self._late_seconds:
            return False
        if self._comes_late(samples, now):
            self._late_samples -= samples
            self._late_seconds += samples / self._rate_hz
            self._late_at = now
            return False
        self.stats.surplus_samples += samples
        return True

    def _comes_late(self, samples: int, now: float) -> bool:
        """Whether audio is part of a burst, in the place of which silence was filled in."""
        if self._in_gap:
            return self._gap_samples >= samples
        came = (self.stats.received_samples - self._burst_from) / self._rate_hz
        fast = came >= _BURST_SPEED * (now - self._burst_began)
        return fast and self._late_samples >= samples

    def push(self, pcm: bytes, now: float) -> list[bytes]:
        """Takes the caller's audio, whole samples of any number; returns the chunks it completes.

        The first audio begins the stream if `start` has not.
        """
        if self._started is None:
            self.start(now)
        stats = self.stats
        stats.received_samples += len(pcm) // SAMPLE_BYTES
        self.ends_at += len(pcm) / self._bytes_per_second
        if self._in_gap:
            self._in_gap = False
            self._late_samples = min(self._gap_samples, round(_MAX_LATE_SECONDS * self._rate_hz))
            self._burst_began, self._burst_from = now, stats.received_samples
        self._pending += pcm
        return self._chunks()

    def tick(self, now: float) -> list[bytes]:
        """Fills what is missing at `now`; returns the chunks it completes. Called every 20 ms.

        A tick that is itself late tells that this process was held up, and what came meanwhile is
        still to be read. It goes by the time of the tick before. The next tick may come at once,
        before anything has been read: it waits, too.
        """
        if self._started is None:
            return []
        wall = now
        if now - self._ticked > self._slack_seconds:
            wall = self._ticked
            self._reading_until = now + _FILL_MS / 1000
        elif now < self._reading_until:
            return []
        self._ticked = now
        missing = round((wall - self.ends_at - self._slack_seconds) * self._rate_hz)
        if missing <= 0:
            return []
        stats = self.stats
        filled = -(-missing // self._fill_samples) * self._fill_samples
        stats.filled_samples += filled
        self.ends_at += filled / self._rate_hz
        if not self._in_gap:
            self._in_gap = True
            self._gap_samples = 0
            self._late_seconds = 0.0
            stats.gaps += 1
        self._gap_samples += filled
        self._pending += bytes(filled * SAMPLE_BYTES)
        return self._chunks()

    def finish(self) -> list[bytes]:
        """Ends the stream: the rest, shorter than a chunk, if there is any. May be called twice."""
        if self._started is None:
            return []
        self._started = None
        rest = self._converter.process(bytes(self._pending)) + self._converter.flush()
        self._pending.clear()
        return [rest] if rest else []

    def _chunks(self) -> list[bytes]:
        chunks = []
        while len(self._pending) >= self._chunk_bytes:
            chunks.append(self._converter.process(bytes(self._pending[: self._chunk_bytes])))
            del self._pending[: self._chunk_bytes]
        return chunks


@dataclass(frozen=True, slots=True)
class Cleared:
    """What an interruption left of a response.

    Attributes:
        response_id: The response that was playing; 0 when none was.
        heard_ms: How much of it had been played.
        dropped_ms: How much will never be heard.
    """

    response_id: int
    heard_ms: float
    dropped_ms: float


class AudioInterface(ABC):
    """Abstract interface for audio input and output.

    Attributes:
        rate_hz: Samples a second on the line, where audio is 16-bit PCM, little endian, mono.
        on_dry: Asked once for the last samples of a response whose end was not announced, when
            playing runs out of them.
        on_chunk: Where it is set, an interface that can do so hands over each chunk the moment that
            it is complete. :meth:`read_audio_chunk` then only waits for the end: to wake a task for
            every chunk of every call is a good part of what a call costs.
    """

    rate_hz: int
    on_dry: Callable[[], bytes] | None = None
    on_chunk: Callable[[bytes], None] | None = None

    @abstractmethod
    def start(self, heard_as: AudioFormat) -> None:
        """Begin to listen and to play; what was written before is played from its first sample.

        Called again, it goes on in another format.

        Args:
            heard_as: The format that :meth:`read_audio_chunk` returns.
        """

    @abstractmethod
    async def read_audio_chunk(self) -> bytes:
        """Wait for the next chunk from the source, in the format that was given to :meth:`start`.

        Chunks follow the wall clock: where the source pauses they hold silence, so that a listener
        who counts samples knows the time.

        Raises:
            LineError: The interface has been closed.
        """

    @abstractmethod
    def write_audio_chunk(self, audio: bytes, response_id: int = 0) -> None:
        """Queue audio for playing; returns at once, for a queue holds minutes.

        Args:
            audio: PCM at ``rate_hz``, any length.
            response_id: Which of the agent's responses it belongs to.
        """

    @abstractmethod
    def end_response(self) -> None:
        """Say that what was written last completes a response."""

    @abstractmethod
    def clear(self) -> Cleared:
        """Throw away what is queued and fall silent, without a click."""

    @abstractmethod
    async def drained(self) -> None:
        """Wait until all that was written has been played; on a closed interface not at all."""

    @abstractmethod
    async def close(self) -> None:
        """Close audio streams. May be called twice."""


class AgentAudio(Protocol):
    """What the streamer needs of :class:`ari_app.agent.elevenlabs.client.AgentConnection`."""

    @property
    def input_format(self) -> str:
        """The format that the agent wants to hear, as announced."""
        ...

    @property
    def output_format(self) -> str:
        """The format that the agent speaks, as announced."""
        ...

    def send_audio(self, data: bytes) -> None:
        """Send audio in the input format; never waits."""
        ...


class ConversationStreamer:
    """Uplink and downlink of one conversation.

    The uplink is :meth:`run`, a task; the downlink is driven by the agent's messages.

    Args:
        audio_interface: The line.
        agent: The agent's connection; its announced formats are obeyed, each direction for itself.
    """

    def __init__(self, audio_interface: AudioInterface, agent: AgentAudio) -> None:
        self.audio_interface = audio_interface
        self._runs = False
        self._carry(agent)

    def _carry(self, agent: AgentAudio) -> None:
        audio = self.audio_interface
        self._agent = agent
        self._agent_hears = AudioFormat.parse(agent.input_format)
        self._downlink = Downlink(
            make_converter(AudioFormat.parse(agent.output_format), AudioFormat.pcm(audio.rate_hz)),
            audio.write_audio_chunk,
        )
        audio.on_dry = self._downlink.tail

    def replace(self, agent: AgentAudio) -> None:
        """Go on with another agent, in its formats; what is queued of the last one is still played.

        Raises:
            ValueError: It announces a format that cannot be.
        """
        self._carry(agent)
        if self._runs:
            self._listen()

    def _listen(self) -> None:
        self.audio_interface.on_chunk = self._agent.send_audio
        self.audio_interface.start(self._agent_hears)

    async def run(self) -> None:
        """Let the line begin, and send what it hears to the agent until it is closed."""
        self._runs = True
        self._listen()
        read = self.audio_interface.read_audio_chunk
        try:
            while True:
                chunk = await read()
                self._agent.send_audio(chunk)
        except LineError:
            return

    def agent_audio(self, response_id: int, data: bytes, *, is_final: bool) -> None:
        """Queue a piece of the agent's response, in the agent's output format."""
        self._downlink.audio(response_id, data)
        if is_final:
            self.response_complete()

    def response_complete(self) -> None:
        """Take note that nothing more of the response will come whose audio came last."""
        self._downlink.end_of_response()
        self.audio_interface.end_response()

    def interrupt(self) -> Cleared:
        """Fall silent: the caller speaks."""
        self._downlink.reset()
        return self.audio_interface.clear()


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
        self._line: AudioSocketConnection | None = None
        self._closed = False
        self._chunks: deque[bytes] = deque(maxlen=_MAX_WAITING_CHUNKS)
        self._reader: asyncio.Future[None] | None = None
        self._drained: asyncio.Event | None = None
        self.foreign_frames = 0

    @property
    def line(self) -> AudioSocketConnection | None:
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

    def line_connected(self, line: AudioSocketConnection) -> None:
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
