"""A call's sound: everything between a line's frames and an agent's audio.

`CallSound` is what the line drives: it pulls the agent's voice frame by frame and brings the
caller's. `Downlink` is the agent's voice on its way to the line, `Uplink` the caller's on its way
to the agent. A line delivers nothing while the phone sends nothing (voice activity detection, hold,
a lost packet). The agent decides that a turn has ended by hearing silence, so silence is made here,
by the loop's clock.

A phone may also send more than there is time for: after a hold some send two or three streams at
once, most of it silence. An agent that got all of it would hear the caller at twice the speed. So
what puts the stream ahead of the clock and is not late is surplus: silence is dropped at once,
anything else when it is more than packets that come early. Where one of the streams is silent, as
it mostly is, just the voice is left. Two voices at once cannot be told apart, for nothing says
which packet is whose; the agent then hears pieces of both, in real time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from ari_app.audio.convert import Converter
from ari_app.audio.formats import SAMPLE_BYTES, AudioFormat
from ari_app.call.hearing import Hearing, ResponseTime, level_dbfs
from ari_app.call.listening import Ear
from ari_app.records.record import SoundReport
from ari_app.records.recording.writer import StereoRecorder
from linekit.playout import PlayoutBuffer


class AgentVoice(Protocol):
    """The part of a conversation that sound needs."""

    hears: AudioFormat
    speaks: AudioFormat

    def hear(self, data: bytes) -> None: ...


class Downlink:
    """One call's stream from the agent.

    Args:
        converter: From the agent's format to the line's; this stream's own.
        write: Takes the line's PCM and the id of the response that it belongs to.
    """

    def __init__(self, converter: Converter, write: Callable[[bytes, int], object]) -> None:
        self._converter = converter
        self._write = write
        self._response_id = 0

    def audio(self, response_id: int, data: bytes) -> None:
        """Convert a chunk in the agent's format and hand it over."""
        self._response_id = response_id
        self._hand_over(self._converter.process(data))

    def end_of_response(self) -> None:
        """Hand over the last samples of the response; the next chunk begins a new stream."""
        self._hand_over(self._converter.flush())
        self._converter.reset()

    def tail(self) -> bytes:
        """Return the samples that the converter holds back, for a buffer that runs dry before the
        response has ended."""
        return self._converter.flush()

    def reset(self) -> None:
        """Forget the samples that the converter holds back: they were interrupted."""
        self._converter.reset()

    def _hand_over(self, pcm: bytes) -> None:
        if pcm:
            self._write(pcm, self._response_id)


_FRAME_MS: Final = 20
"""Silence, too, is made in whole frames. Where a phone's clock is slow this is one short gap every
few minutes, not a click of a few samples every second."""

_QUIET_AHEAD_SECONDS: Final = 0.01
"""Silence is surplus where the stream is ahead of the clock by more than this."""
_AHEAD_SECONDS: Final = 0.04
"""Sound is surplus where it is ahead by more than this. Packets of one voice come early by less."""
_BURST_SPEED: Final = 5
"""Audio that was held up comes at least so many times as fast as speech; three streams do not."""
_CATCHES_UP_SECONDS: Final = 1.0
"""And may come more slowly for so long after a hold-up: TCP begins with a packet a round trip."""
_MAX_LATE_SECONDS: Final = 5.0
"""The network holds nothing up for longer than this; a phone that holds us does."""
_SHORT_GAP_SECONDS: Final = 0.5
"""A longer gap is no loss of packets: the phone is silent, or holds us."""
_KEPT_AHEAD_SECONDS: Final = 0.3
"""A line that holds packets up may stay ahead by this much: then the next hold-up makes no gap."""
_FORGOTTEN_BY_HALF_SECONDS: Final = 30.0
"""The half-life of that allowance."""
_QUIET_CHUNK_MS: Final = 200
"""The length of chunks while the caller is quiet: a message costs the same whatever it holds."""
_QUIET_SECONDS: Final = 2.0
"""How long the caller must have been quiet for such chunks: in the silence right after sound the
agent hears the end of a turn."""
_QUIET_SECONDS_BESIDE: Final = 1.0
"""The same while the agent speaks, for then it has heard that end."""


@dataclass(slots=True)
class UplinkStats:
    """Counters of the caller's stream, at the line's rate."""

    received_samples: int = 0
    filled_samples: int = 0
    surplus_quiet_samples: int = 0
    """Silence that was dropped because it was surplus; not among those received."""
    surplus_samples: int = 0
    """The same of anything else."""
    gaps: int = 0
    short_gap_samples: int = 0
    longest_gap_samples: int = 0
    late_ticks: int = 0
    """Ticks that came later than the slack allows."""
    latest_seconds: float = 0.0
    """By how much the latest of them was late."""

    @property
    def all_surplus_samples(self) -> int:
        """Samples that were dropped because they were surplus."""
        return self.surplus_quiet_samples + self.surplus_samples


class Uplink:
    """One call's stream to the agent.

    At every `tick`, what was received and filled is at most `slack_ms` behind the wall clock.

    Args:
        line_rate_hz: rate of the caller's 16-bit PCM.
        converter: from the line's format to the agent's; this stream's own.
        chunk_ms: length of each chunk that is handed out; less than twice that where more comes at
            once.
        slack_ms: how far the audio may lag behind the wall clock before silence is filled in.
        quiet_chunk_ms: the same as `chunk_ms` while it is quiet; with the first that is not, all
            that has been gathered is handed out.

    Attributes:
        ends_at: the moment that the stream has come to; while it lies ahead there may be surplus.
    """

    def __init__(
        self,
        line_rate_hz: int,
        converter: Converter,
        chunk_ms: int,
        slack_ms: int = 60,
        quiet_chunk_ms: int = 0,
    ) -> None:
        self._rate_hz = line_rate_hz
        self._converter = converter
        self._chunk_bytes = line_rate_hz * chunk_ms // 1000 * SAMPLE_BYTES
        quiet_bytes = line_rate_hz * quiet_chunk_ms // 1000 * SAMPLE_BYTES
        self._quiet_bytes = max(self._chunk_bytes, quiet_bytes)
        self._at_once_bytes = self._quiet_bytes + self._chunk_bytes
        self._slack_seconds = slack_ms / 1000
        self._bytes_per_second = line_rate_hz * SAMPLE_BYTES
        self._fill_samples = line_rate_hz * _FRAME_MS // 1000
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
        self._catches_up_until = 0.0
        self._late_seconds = 0.0
        self._late_at = 0.0
        self.stats = UplinkStats()

    def start(self, now: float) -> None:
        """Begin the stream at `now` (seconds, monotonic); from then on every moment is heard.

        The converter is primed, so that the first chunk is as long as every other.
        """
        self._started = self._ticked = self.ends_at = now
        self._converter.prime()

    def convert_with(self, converter: Converter) -> None:
        """Go on in another format, with all that has not been handed out yet."""
        converter.prime()
        self._converter = converter

    def is_surplus(self, pcm: bytes, now: float, is_quiet: Callable[[bytes], bool]) -> bool:
        """Return whether audio is surplus; if so it is counted here, and must not be pushed.

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
        # Where late audio has put the stream ahead, that lead is no surplus: silence works it off.
        samples = len(pcm) // SAMPLE_BYTES
        if is_quiet(pcm):
            kept = min(self._late_seconds, _KEPT_AHEAD_SECONDS)
            kept *= 0.5 ** ((now - self._late_at) / _FORGOTTEN_BY_HALF_SECONDS)
            if ahead <= _QUIET_AHEAD_SECONDS + kept:
                return False
            self._late_seconds = min(self._late_seconds, ahead)
            self.stats.surplus_quiet_samples += samples
            return True
        lead = ahead - self._late_seconds
        if lead > _QUIET_AHEAD_SECONDS and self._comes_late(samples, now):
            self._late_samples -= samples
            self._late_seconds += samples / self._rate_hz
            self._late_at = now
            return False
        if lead <= _AHEAD_SECONDS:
            return False
        self.stats.surplus_samples += samples
        return True

    def _comes_late(self, samples: int, now: float) -> bool:
        """Return whether audio is part of a burst that was held up, and silence filled in its
        place."""
        if self._late_samples < samples:
            return False
        came = (self.stats.received_samples - self._burst_from) / self._rate_hz
        is_fast = came >= _BURST_SPEED * (now - self._burst_began)
        return is_fast or now < self._catches_up_until

    def push(self, pcm: bytes, now: float, is_quiet: bool = False) -> list[bytes]:
        """Take the caller's audio, whole samples of any number; return the chunks it completes.

        The first audio begins the stream if `start` has not.
        """
        if self._started is None:
            self.start(now)
        stats = self.stats
        stats.received_samples += len(pcm) // SAMPLE_BYTES
        if self._in_gap:
            self._in_gap = False
            if self._gap_samples <= _SHORT_GAP_SECONDS * self._rate_hz:
                stats.short_gap_samples += self._gap_samples
            else:
                self._catch_up(len(pcm) / self._bytes_per_second, now)
            late = self._late_samples + self._gap_samples
            self._late_samples = min(late, round(_MAX_LATE_SECONDS * self._rate_hz))
            self._burst_began, self._burst_from = now, stats.received_samples
            held_up = self._gap_samples <= _MAX_LATE_SECONDS * self._rate_hz
            self._catches_up_until = now + _CATCHES_UP_SECONDS if held_up else now
        self.ends_at += len(pcm) / self._bytes_per_second
        self._pending += pcm
        return self._chunks(is_quiet)

    def tick(self, now: float, is_quiet: bool = False) -> list[bytes]:
        """Fill what is missing at `now`; return the chunks it completes. Called every 20 ms.

        A tick that is itself late means that this process was held up, and audio that came
        meanwhile has not been read yet. So a late tick fills only up to the time of the tick
        before, and one that follows at once fills nothing.
        """
        if self._started is None:
            return []
        wall = now
        if now - self._ticked > self._slack_seconds:
            wall = self._ticked
            self._reading_until = now + _FRAME_MS / 1000
            self.stats.late_ticks += 1
            late = now - self._ticked - _FRAME_MS / 1000
            self.stats.latest_seconds = max(self.stats.latest_seconds, late)
        elif now < self._reading_until:
            return []
        self._ticked = now
        behind = wall - self.ends_at - self._slack_seconds
        if behind <= 0 or not (missing := round(behind * self._rate_hz)):
            return []
        if not self._in_gap:
            self._in_gap = True
            self._gap_samples = 0
            # The lead that earlier audio had is used up: what comes in its place is late as well.
            if now - self._burst_began > _MAX_LATE_SECONDS:
                self._late_samples = 0
            self._late_samples += round(self._late_seconds * self._rate_hz)
            self._late_seconds = 0.0
            self.stats.gaps += 1
        self._fill(-(-missing // self._fill_samples) * self._fill_samples)
        return self._chunks(is_quiet)

    def _catch_up(self, seconds: float, now: float) -> None:
        """Fill the silence up to the audio that ends a pause: `seconds` of it, come at `now`.

        Silence is filled with a lag of up to the slack. Without this, the next packet that is a
        little late would have silence put before it, in the middle of a word.
        """
        lacks = now + max(0.0, seconds - _AHEAD_SECONDS) - seconds - self.ends_at
        # Where more is lacking we were held up, and it is still to be read.
        if 0 < lacks <= self._slack_seconds + _FRAME_MS / 1000:
            self._fill(round(lacks * self._rate_hz))

    def _fill(self, samples: int) -> None:
        """Make silence, in a gap."""
        stats = self.stats
        stats.filled_samples += samples
        self.ends_at += samples / self._rate_hz
        self._gap_samples += samples
        stats.longest_gap_samples = max(stats.longest_gap_samples, self._gap_samples)
        self._pending += bytes(samples * SAMPLE_BYTES)

    def finish(self) -> list[bytes]:
        """End the stream, and return the rest, shorter than a chunk, if any. May be called
        twice."""
        if self._started is None:
            return []
        self._started = None
        rest = self._converter.process(bytes(self._pending)) + self._converter.flush()
        self._pending.clear()
        return [rest] if rest else []

    def _chunks(self, is_quiet: bool) -> list[bytes]:
        pending, size = self._pending, self._chunk_bytes
        if len(pending) < (self._quiet_bytes if is_quiet else size):
            return []
        if len(pending) < self._at_once_bytes:
            # Once in a while this is more than a chunk: whoever brings several frames at once is in
            # step with us from then on.
            chunk = bytes(pending)
            pending.clear()
            return [self._converter.process(chunk)]
        chunks = []
        while len(pending) >= size:
            chunks.append(self._converter.process(bytes(pending[:size])))
            del pending[:size]
        return chunks


@dataclass(frozen=True, slots=True)
class Cleared:
    """The result of an interruption.

    Attributes:
        response_id: The response that was playing; 0 when none was.
        heard_ms: How much of it had been heard.
        dropped_ms: How much will never be heard.
    """

    response_id: int
    heard_ms: float
    dropped_ms: float


# A line hands a frame on at once, and the phone's jitter buffer takes the rest: a line that is
# closed in the same moment as its last frame was taken would cut it.
_TAIL_SECONDS = 0.06
_FRAME_SECONDS: Final = _FRAME_MS / 1000
_HELD_UP_SECONDS: Final = 0.06
"""A frame taken up to this late still follows the last one: after a stall three come together."""
_AT_ONCE_SECONDS: Final = 0.025
"""A frame taken up to this early counts as heard at once, for ticks are not quite even."""
_EARLY_SECONDS: Final = 0.001
"""A frame that waits counts as heard up to this early."""
_MAX_BARGE_INS: Final = 1000


class CallSound:
    """Everything between a line's frames and an agent's audio; the `LineSound` of one call.

    The line drives it: what it brings goes to the agent at once, and it pulls the agent's voice
    frame by frame. It carries silence until `start`. A line whose far end sets the pace pulls many
    frames ahead of time. Recording and listeners then get each frame when the caller hears it, and
    never get one that was taken back.

    Args:
        rate_hz: Of the line's 16-bit PCM.
        chunk_ms: How much the agent is given at once.
        on_response: Called when an answer begins to sound, with the caller's wait for it.
        take_back: Throws away what the line has taken ahead of time and not yet played; returns
            how much that was, in ms.
        on_announced: Called when the line has taken all that was announced.

    Attributes:
        hearing: When the caller speaks, and how long answers take.
        recorder: Gets both sides as they sound on the line, from `start` on.
        muted: The agent hears silence instead of the caller.
        overhear: Gets what the line brings until `start`, with the time.
        interruptions: How often the caller has spoken over the agent; counted by who is told.
        frames_at_once: See `LineSound`.
    """

    def __init__(
        self,
        rate_hz: int,
        *,
        chunk_ms: int,
        on_response: Callable[[ResponseTime], None] = lambda response: None,
        take_back: Callable[[], float] = lambda: 0.0,
        on_announced: Callable[[], None] = lambda: None,
    ) -> None:
        self.rate_hz = rate_hz
        self._frame_bytes = rate_hz * _FRAME_MS // 1000 * SAMPLE_BYTES
        self.playout = PlayoutBuffer(self._frame_bytes, rate_hz)
        self.hearing = Hearing(rate_hz)
        self.recorder: StereoRecorder | None = None
        self.muted = False
        self.overhear: Callable[[bytes, float], None] | None = None
        self.interruptions = 0
        self.frames_at_once = next((n for n in (3, 2) if chunk_ms % (n * _FRAME_MS) == 0), 1)
        self._chunk_ms = chunk_ms
        self._on_response = on_response
        self._take_back = take_back
        self._on_announced = on_announced
        self._loop = asyncio.get_running_loop()
        self._uplink: Uplink | None = None
        self._downlink: Downlink | None = None
        self._agent_hears: AudioFormat | None = None
        self._to_agent: Callable[[bytes], None] = lambda chunk: None
        self._stopped = False
        self._drained: asyncio.Event | None = None
        # The response whose audio came last, by the id of its first piece; whether nothing more of
        # it comes; whether this agent says so at the end of its responses.
        self._response_id = 0
        self._response_over, self._ends_are_told = True, False
        self._last_heard = b""
        self._last_said: bytes | None = None
        self._cleared_at: float | None = None
        self._barge_in_ms: list[float] = []
        # Whether somebody wants to know of the next silence.
        self._awaits_silence = False
        # What is to be announced, and whether it is its turn.
        self._announced: list[bytes] = []
        self._announces = False
        # What the line has taken and the caller hears later, and when; the end of all that.
        self._ahead: list[tuple[float, bytes]] = []
        self._said_until = self._announced_until = 0.0
        self._ears: tuple[Ear, ...] = ()

    # --- the agent

    def carry(self, agent: AgentVoice) -> None:
        """Connect an agent, in its own formats. What is queued of the last one is still heard."""
        playout = self.playout
        self._downlink = Downlink(
            Converter(agent.speaks, AudioFormat.pcm(self.rate_hz)),
            lambda pcm, response_id: playout.write(pcm, tag=response_id),
        )
        self.playout.refill = self._downlink.tail
        self._response_over, self._ends_are_told = True, False
        self._agent_hears, self._to_agent = agent.hears, agent.hear
        if self._uplink is not None:
            self._uplink.convert_with(self._converter(agent.hears))

    def start(self) -> None:
        """Let sound flow both ways, from the agent's first sample on. Until `carry` has brought an
        agent, nobody hears the caller."""
        if self._uplink is None and not self._stopped:
            heard_as = self._agent_hears or AudioFormat.pcm(self.rate_hz)
            now = self._loop.time()
            self._uplink = Uplink(
                self.rate_hz,
                self._converter(heard_as),
                self._chunk_ms,
                quiet_chunk_ms=_QUIET_CHUNK_MS,
            )
            self._uplink.start(now)
            self.hearing.loud_at = now

    def say(self, response_id: int, data: bytes, *, is_final: bool = False) -> None:
        """Queue a piece of the agent's response, in the agent's format.

        Each piece may have an id of its own. An agent that says where a response ends goes on with
        it until then; of any other nobody knows, and another id counts as another response.
        """
        if self._downlink is not None and not self._stopped:
            if self._cleared_at is not None:
                self._barged_in()
            if self._response_over or not self._ends_are_told:
                self._response_id, self._response_over = response_id, False
            self._downlink.audio(self._response_id, data)
            if is_final:
                self.end_response()

    def play(self, pcm: bytes) -> None:
        """Queue sound of our own, at the line's rate."""
        if not self._stopped:
            self.playout.write(pcm)
            self.playout.end_response()

    def announce(self, pcm: bytes) -> None:
        """Let the caller hear sound of our own, at the line's rate; no interruption cuts it.

        Until `start` it comes before all that is queued; later on as soon as there is silence,
        after what is queued, or after an interruption of that.
        """
        size = self._frame_bytes
        pcm += bytes(-len(pcm) % size)
        self._announced.extend(pcm[at : at + size] for at in range(0, len(pcm), size))
        self._announces = self._announces or self._uplink is None

    def announce_no_more(self) -> None:
        """Forget what the line has not taken of what is announced."""
        self._announced.clear()
        self._announces = False

    def end_response(self) -> None:
        """Complete the response whose audio came last."""
        if self._downlink is not None:
            self._downlink.end_of_response()
        self.playout.end_response()
        self._response_over = self._ends_are_told = True

    def clear(self, *, measured: bool = True) -> Cleared:
        """Throw away all that is queued.

        Args:
            measured: Count the time until the line is silent as `barge_in_ms`.
        """
        if self._downlink is not None:
            self._downlink.reset()
        self._response_over = True
        now, taken_ms, taken_back = self._loop.time(), 0.0, b""
        # Of what was announced the line may have taken much, and would throw that away as well.
        if now >= self._announced_until and (taken_ms := self._take_back()):
            if self._ahead:
                taken_back = self._ahead[0][1]
                self._ahead.clear()
            self._said_until = now
        sounds = taken_ms or not (self.playout.idle or self._announces)
        if measured and sounds and self._uplink is not None:
            self._cleared_at, self._awaits_silence = now, True
        result = self.playout.flush(taken_back)
        return Cleared(
            result.tag or 0,
            max(0.0, result.played_ms - taken_ms),
            result.dropped_ms + result.others_dropped_ms + taken_ms,
        )

    @property
    def flows(self) -> bool:
        """Whether `start` has been called: the caller hears what is queued."""
        return self._uplink is not None

    @property
    def queued_seconds(self) -> float:
        """Seconds that the caller has still to hear; 0 once the sound has stopped."""
        if self._stopped:
            return 0.0
        frames = len(self._announced) + len(self._ahead)
        return (self.playout.pending_ms + frames * _FRAME_MS) / 1000

    @property
    def waiting_seconds(self) -> float:
        """Seconds of that which wait until there is silence."""
        waits = self._announced and not self._announces and not self._stopped
        return len(self._announced) * _FRAME_SECONDS if waits else 0.0

    async def drained(self) -> None:
        """Wait until all that is queued has been heard, or the sound has stopped."""
        idle = self.playout.idle and not self._announced
        if self._stopped or (self._uplink is not None and idle):
            return
        if self._drained is None or self._drained.is_set():
            self._drained = asyncio.Event()
            self._awaits_silence = True
        await self._drained.wait()
        if not self._stopped:
            await asyncio.sleep(_TAIL_SECONDS)

    def stop(self) -> None:
        """Carry nothing any more. May be called twice."""
        self._stopped = True
        self.overhear = self.playout.refill = self._downlink = None
        # Line and call have this: it must not have them when they end.
        self._to_agent = lambda chunk: None
        self._on_response = lambda response: None
        self._take_back = lambda: 0.0
        self._on_announced = lambda: None
        if self.recorder is not None:
            self.recorder.finish(self._loop.time())
        if self._drained is not None:
            self._drained.set()
        for ear in self._ears:
            ear.over = True

    def report(self, frames_not_read: int = 0) -> SoundReport:
        """Return the figures of the sound so far."""
        samples_per_ms = self.rate_hz / 1000
        uplink, playout = self.uplink_stats, self.playout.stats
        return SoundReport(
            heard_by_agent_ms=uplink.received_samples / samples_per_ms,
            silence_filled_ms=uplink.filled_samples / samples_per_ms,
            surplus_ms=uplink.all_surplus_samples / samples_per_ms,
            said_to_caller_ms=playout.samples_played / samples_per_ms,
            dropped_ms=playout.samples_dropped / samples_per_ms,
            queued_ms=self.playout.pending_ms,
            underruns=playout.underruns,
            interruptions=self.interruptions,
            frames_not_read=frames_not_read,
            gaps=uplink.gaps,
            short_gaps_ms=uplink.short_gap_samples / samples_per_ms,
            longest_gap_ms=uplink.longest_gap_samples / samples_per_ms,
            late_ticks=uplink.late_ticks,
            latest_ms=round(uplink.latest_seconds * 1000, 1),
            barge_in_ms=tuple(self._barge_in_ms),
        )

    def levels(self) -> tuple[int, int]:
        """Return how loud caller and agent are just now, in dBFS, for the page."""
        # A frame that has not been replaced until the next look is over.
        heard, self._last_heard = self._last_heard, b""
        return level_dbfs(heard), level_dbfs(self._last_said or b"")

    def add_ear(self) -> Ear:
        """Add a listener to both sides, until `remove_ear`."""
        ear = Ear(self.rate_hz)
        ear.over = self._stopped
        self._ears = (*self._ears, ear)
        return ear

    def remove_ear(self, ear: Ear) -> None:
        """Remove a listener."""
        self._ears = tuple(each for each in self._ears if each is not ear)

    @property
    def uplink_stats(self) -> UplinkStats:
        """Counters of the caller's stream."""
        return UplinkStats() if self._uplink is None else self._uplink.stats

    def heard_target(self, pcm: bytes) -> None:
        """Take a supervisor's sound, where the line brings it apart from the caller's."""
        if self._stopped:
            return
        self._last_said = pcm
        if self.recorder is not None:
            self.recorder.add_agent(pcm, self._loop.time())
        for ear in self._ears:
            ear.hear_agent(pcm)

    # --- ari_app.line.interface.LineSound

    def heard(self, pcm: bytes) -> None:
        uplink = self._uplink
        now = self._loop.time()
        if uplink is None or self._stopped:
            if self.overhear is not None:
                self.overhear(pcm, now)
            return
        self._last_heard = pcm
        hearing = self.hearing
        if uplink.ends_at > now and uplink.is_surplus(pcm, now, hearing.is_quiet):
            return
        if self.recorder is not None:
            self.recorder.add_caller(pcm, now)
        for ear in self._ears:
            ear.hear_caller(pcm)
        if self.muted:
            pcm = bytes(len(pcm))
        hearing.heard(pcm, now)
        for chunk in uplink.push(pcm, now, self._is_quiet(now)):
            self._to_agent(chunk)

    def tick(self) -> None:
        if self._uplink is not None and not self._stopped:
            now = self._loop.time()
            if self._ahead:
                self._sound_ahead(now)
            if filled := self._uplink.tick(now, self._is_quiet(now)):
                self.hearing.quiet(now)
                for chunk in filled:
                    self._to_agent(chunk)

    def next_frame(self) -> bytes | None:
        if self._uplink is None or self._stopped:
            return None
        if self._announces:
            return self._next_announced()
        frame = self.playout.next_frame()
        if frame is None:
            if self._announced:
                if self._cleared_at is not None:
                    self._barged_in()
                self._announces = True
                return self._next_announced()
            if not self._ahead:
                self._last_said = None
            if self._awaits_silence:
                self._fell_silent()
            return None
        self._taken(frame, self._loop.time())
        return frame

    @property
    def frames_ready(self) -> int:
        if self._uplink is None or self._stopped:
            return 0
        return len(self._announced) if self._announces else self.playout.frames_ready

    def _next_announced(self) -> bytes:
        announced, now = self._announced.pop(0), self._loop.time()
        self._announced_until = max(self._said_until, now) + _FRAME_SECONDS
        self._taken(announced, now)
        if not self._announced:
            self._announces = False
            self._on_announced()
        return announced

    def _taken(self, frame: bytes, now: float) -> None:
        """Note that the line has taken a frame: as heard now, or as heard later where the line is
        ahead."""
        begins = self._said_until
        if begins < now - _HELD_UP_SECONDS:
            begins = now
        self._said_until = begins + _FRAME_SECONDS
        if self._ahead or begins - now > _AT_ONCE_SECONDS:
            self._ahead.append((begins, frame))
        else:
            self._sounds(frame, now)

    def _sound_ahead(self, now: float) -> None:
        """Note the frames taken ahead of time that the caller has come to hear by `now`."""
        ahead = self._ahead
        while ahead and ahead[0][0] <= now + _EARLY_SECONDS:
            begins, frame = ahead.pop(0)
            self._sounds(frame, begins)

    def _sounds(self, frame: bytes, now: float) -> None:
        """Note that the caller hears a frame from `now` on."""
        self._last_said = frame
        # What is announced is no answer.
        if now >= self._announced_until:
            response = self.hearing.said(frame, now)
            if response is not None:
                self._on_response(response)
        if self.recorder is not None:
            self.recorder.add_agent(frame, now)
        for ear in self._ears:
            ear.hear_agent(frame)

    def _is_quiet(self, now: float) -> bool:
        enough = _QUIET_SECONDS if self._last_said is None else _QUIET_SECONDS_BESIDE
        return now - self.hearing.loud_at > enough

    def _fell_silent(self) -> None:
        self._awaits_silence = False
        if self._cleared_at is not None:
            self._barged_in()
        if self._drained is not None:
            self._drained.set()

    def _barged_in(self) -> None:
        if self._cleared_at is not None and len(self._barge_in_ms) < _MAX_BARGE_INS:
            self._barge_in_ms.append(round((self._loop.time() - self._cleared_at) * 1000, 1))
        self._cleared_at = None

    def _converter(self, heard_as: AudioFormat) -> Converter:
        return Converter(AudioFormat.pcm(self.rate_hz), heard_as)
