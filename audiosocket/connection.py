"""One identified connection: Asterisk's media channel on one side, a handler on the other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, cast
from uuid import UUID

import structlog

from audiosocket.frames import (
    FORMATS,
    FRAME_MS,
    HEADER_BYTES,
    SAMPLE_BYTES,
    Audio,
    Decoder,
    Dtmf,
    Error,
    FrameSizeError,
    Hangup,
    Kind,
    Message,
    ProtocolError,
    SlinFormat,
    UnexpectedKind,
    audio_header,
    encode,
)
from audiosocket.rhythm import Rhythm
from linekit.clock import SLOTS, FrameClock, Membership
from linekit.transport import SocketTransport

_HEADROOM: Final = 10.0
"""So many streams at once: 500 packets a second."""
_BURST_SECONDS: Final = 30.0
"""What may come at once after a hold-up, of the network's or of our own."""


class Pace:
    """Allows sound at some times the pace of speech, and what was held up to come at once."""

    def __init__(self, *, now: float) -> None:
        self._allowed = _BURST_SECONDS
        self._at = now
        self._seen = 0.0

    def keeps(self, spoken_seconds: float, *, now: float) -> bool:
        """Say whether a peer that has sent so much sound in all, in seconds of it, is no flood."""
        left = self._allowed + (now - self._at) * _HEADROOM - (spoken_seconds - self._seen)
        self._allowed = min(_BURST_SECONDS, left)
        self._at, self._seen = now, spoken_seconds
        return left >= 0


_PERIOD: Final = FRAME_MS / 1000
_PROBE_TICKS: Final = 125
"""After so many it is looked again when frames come: every 2.5 s, in which clocks drift by half a
millisecond at most."""
_PROBE_SOONER: Final = 13
"""So many fewer for each time that a frame was not there in time."""


_WRITE_AFTER_SLOTS: Final = 3
"""A frame is written so much later than the caller's are read: 6 ms."""


class Readable(Protocol):
    """What reads when it is told to, and else whenever something comes."""

    def read_now(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Reading:
    """Decides when a line is read: as soon as something comes, or at every n-th tick.

    At first, and whenever a peer does not keep its rhythm, something is read as soon as it is
    there. Once it is known when frames come, ticks are moved to shortly after, and `every` frames
    are read in one go, by the tick at which the last of them has come: the kernel is asked half as
    often, and wakes nobody. For a frame that is late it is asked once more, and then it is awaited.
    Now and then it is looked whether the rhythm is still the same.

    Args:
        transport: What is read.
        shift: Moves the line's ticks by so many slots of its clock.
        slot: The time that slots are apart, in seconds.
        now: Tells the time.
        on_known: Called once, when the rhythm is known for the first time.

    Attributes:
        every: So many frames are read in one go.
        due_in: Ticks until something is read; 0: it is read as soon as it comes.
        came: Frames that have come since this was set to 0.
        late: Frames that have not come by their tick, and for which to `look_again`.
    """

    def __init__(
        self,
        transport: Readable,
        shift: Callable[[int], None],
        slot: float,
        now: Callable[[], float],
        on_known: Callable[[], None] = lambda: None,
    ) -> None:
        self.every = 1
        self.due_in = 0
        self.came = 0
        self.late = 0
        self._transport = transport
        self._shift = shift
        self._now = now
        self._on_known = on_known
        self._is_known = False
        self._rhythm = Rhythm(_PERIOD, slot)
        self._slot = slot
        self._awaited = 0
        """Frames to be read so before it is left to the ticks again; 0: until the rhythm is known.
        """
        self._until_probe = _PROBE_TICKS
        self._probing = False
        self._ticked_at = self._came_at = 0.0

    def tick(self, frames_due: int = 1) -> None:
        """Read, if it is time; called by the clock."""
        if self.due_in:
            self.due_in -= 1
            if self.due_in:
                return
            self.came = 0
            every = self.due_in = self.every
            self._transport.read_now()
            missing = every - self.came
            self._until_probe -= every if missing <= 0 else _PROBE_SOONER
            if self._until_probe <= 0:
                self._until_probe = _PROBE_TICKS
                self._probing = True
            if missing > 0:
                if self._probing:
                    self._await(missing)
                else:
                    self.late = missing
            elif missing < 0 or self._probing:
                # Where more came than was due there may be more: all of it is read.
                self._await(every)
        if not self.due_in or self.late:
            self._ticked_at = self._now()

    def look_again(self) -> None:
        """Read what was late, and await what still is; called some time after the tick."""
        late, self.late, self.came = self.late, 0, 0
        if self.due_in:
            self._transport.read_now()
            if self.came < late:
                self._await(late - self.came)

    def frames_came(self, number: int) -> None:
        """Take note of so many whole frames that were read together."""
        self.came += number
        if self.due_in:
            return
        at, rhythm = self._now(), self._rhythm
        since, self._came_at = at - self._came_at, at
        learning = self._probing or not self._awaited
        if learning and number == 1:
            rhythm.came(at - self._ticked_at)
        if self._awaited > number:
            self._awaited -= number
            return
        in_rhythm = _PERIOD / 2 <= since <= (self.every + 1) * _PERIOD
        if self._awaited and (number > 1 or not in_rhythm):
            # What was held up, or has waited for us: it is read as it comes, to its end. Read tick
            # by tick, it would look as though it came no faster than several voices at once.
            self._awaited = 1
            return
        if not self._awaited and not rhythm.known:
            return
        ticks_in = self._ticked_at + _PERIOD - at
        if learning and (slots := rhythm.take_shift()):
            self._shift(slots)
            ticks_in += slots * self._slot
        # The next tick is this frame's, or already that of the one after it.
        self.due_in = self.every + (ticks_in < _PERIOD / 2)
        self._awaited = 0
        self._probing = False
        self._transport.pause_reading()
        if not self._is_known:
            self._is_known = True
            self._on_known()

    def stop(self) -> None:
        """Read whatever comes, to the end."""
        self._await(0)

    def _await(self, frames: int) -> None:
        self.due_in = 0
        self._awaited = frames
        self._transport.resume_reading()


log = structlog.get_logger(__name__)

FrameSource = Callable[[], bytes | None]
"""Gives exactly one frame, or None for silence."""
HANGUP: Final = encode(Hangup())
ABORT_SECONDS: Final = 1.0
"""How long the peer may take to close, once we have."""
MAX_FRAMES_AHEAD: Final = 3
"""Frames that may wait for a peer that does not read: 60 ms."""
_BYTES_PER_SECOND: Final = {fmt.kind: fmt.rate_hz * SAMPLE_BYTES for fmt in FORMATS}


class ConnectionHandler(Protocol):
    """The application's side of a line.

    All methods are called on the event loop, in order, and must not block. What they raise is
    logged and ends the line, and no other.
    """

    def line_connected(self, line: AudioSocketConnection) -> None:
        """Handle the expected UUID having connected. Silence goes out until `line.next_frame` is
        set."""

    def audio_received(self, payload: bytes, kind: Kind) -> None:
        """Take PCM from Asterisk: 16-bit little endian, mono, of any duration."""

    def digit_received(self, digit: str) -> None:
        """Take a key, once it is released."""

    def tick(self, frames_due: int) -> None:
        """Count 20 ms (times `frames_due`), just before as many frames are written."""

    def line_lost(self, reason: str) -> None:
        """Handle the line being gone: once for each `line_connected`.

        `reason` is what was given to `AudioSocketConnection.hang_up`, or one of `peer_closed` (end
        of stream or reset), `peer_hangup`, `peer_error`, `malformed`, `too_fast` (a flood: ten
        times more sound than time has passed), `stalled` (the peer does not read), `handler_error`
        and `server_closed`.
        """


@dataclass(slots=True)
class ConnectionStats:
    """Counters of one line.

    Attributes:
        frames_sent: With the silent ones.
        frames_skipped_backpressure: Not written, because three frames were still waiting for the
            peer to read.
    """

    frames_sent: int = 0
    frames_skipped_backpressure: int = 0


def silence() -> None:
    """Return None: the source of a line that has nothing to say."""
    return


class AudioSocketConnection:
    """Writes one frame per tick to Asterisk, from its UUID on until the end.

    Asterisk 22 waits for the next header with the channel locked, so an idle server blocks the
    channel (asterisk#2089): silence is written when there is nothing else. Each message is a
    single write, for Asterisk hangs up when the pieces of one come more than 5 ms apart
    (`res_audiosocket.c`). Reading never stops: a full socket makes Asterisk hang up. A peer that
    floods the line is hung up on; one that sends a few times too much is left to the handler.
    """

    _transport: asyncio.Transport
    # For mypyc: these attributes may be deleted.
    __deletable__: ClassVar = ["_handler"]

    def __init__(
        self,
        *,
        uuid: UUID,
        fmt: SlinFormat,
        handler: ConnectionHandler,
        on_open: Callable[[AudioSocketConnection], None],
        on_refused: Callable[[str, str], None],
        on_closed: Callable[[AudioSocketConnection], None],
        stall_timeout: float,
    ) -> None:
        self.uuid = uuid
        self.format = fmt
        self.peer = "unknown"
        self.next_frame: FrameSource = silence
        """Gives exactly one frame of 20 ms, or None for silence; may be replaced at any time."""
        self.stats = ConnectionStats()

        self._handler = handler
        self._loop = asyncio.get_running_loop()
        # The UUID has been read already: a second one is a fault.
        self._decoder = Decoder(expect_identify=False)
        self._pace = Pace(now=self._loop.time())
        self._spoken_seconds = 0.0
        self._pace_in_question = False
        self._on_open = on_open
        self._on_refused = on_refused
        self._on_closed = on_closed
        self._header = audio_header(fmt.kind, fmt.frame_bytes)
        self._silence = self._header + bytes(fmt.frame_bytes)
        self._message_bytes = len(self._silence)
        self._due_bytes = 0
        self._bare: SocketTransport | None = None
        """The transport, where it is one: a compiled class is asked without looking up its name."""
        self._reading: Reading | None = None
        self._writes: Membership | None = None
        self._slots_owed = 0
        """By how much the ticks that write are to move as soon as nothing is being said."""
        self._slots_paid = 0
        """By how much they have moved in all; below 0: they come earlier."""
        self._max_waiting = MAX_FRAMES_AHEAD * len(self._silence)
        self._stall_timeout = stall_timeout
        self._stalled_since: float | None = None
        self._lost_reason: str | None = None
        self._abort_timer: asyncio.TimerHandle | None = None

    @property
    def closing(self) -> bool:
        """Whether the end has begun: nothing is written or handed over any more."""
        return self._lost_reason is not None

    def hang_up(self, reason: str = "hung_up") -> None:
        """Tell Asterisk that the call is over (0x00) and close; `line_lost(reason)` follows.

        It follows when the peer has closed too, or after a second, when the connection is
        aborted. May be called twice; the first reason counts.
        """
        if not self.closing:
            self._begin_end(reason)
            say_goodbye(self._transport)

    def write_frames(self, frames_due: int) -> None:
        """Let the handler act, then write the frames that are due; called by the clock."""
        if self._lost_reason is not None:
            return
        if self._pace_in_question:
            self._pace_in_question = False
            if not self._pace.keeps(self._spoken_seconds, now=self._loop.time()):
                log.warning("line too fast", peer=self.peer, seconds=round(self._spoken_seconds, 1))
                self._end_as_refused("too_fast")
                return
        reading = self._reading
        try:
            if reading is not None and reading.late:
                reading.look_again()
                if self.closing:
                    return
            self._handler.tick(frames_due)
            for _ in range(frames_due):
                self._write_frame()
        except Exception:
            self._handler_failed("tick")

    def tick_with(self, clock: FrameClock) -> Callable[[], None]:
        """Write at each tick, until what is returned is called.

        Where the transport can be read at will, the line is read at ticks, too, which it moves to
        when frames come, and writes a little later: what an agent answers to them at once, as that
        it falls silent, is in time for this frame, and not just too late for it. What it says
        has no hole for that: where it is speaking, writing moves in its next silence.
        """
        writes = self._writes = clock.add(self.write_frames)
        if not hasattr(self._transport, "read_now"):
            return writes

        def shift(slots: int) -> None:
            reads.shift(slots)
            self._slots_owed += slots

        def leave() -> None:
            reads()
            writes()

        def part() -> None:
            self._slots_owed += _WRITE_AFTER_SLOTS

        self._reading = reading = Reading(
            cast(Readable, self._transport), shift, clock.slot_seconds, self._loop.time, part
        )
        reads = clock.add(reading.tick)
        return leave

    def read_together(self, frames: int) -> None:
        """Let so many frames of a steady peer come to the handler at once, 1 to 3.

        The earlier ones come later for it, together with the last.
        """
        if self._reading is not None:
            self._reading.every = frames
            self._due_bytes = frames * self._message_bytes if frames > 1 else 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._bare = transport if isinstance(transport, SocketTransport) else None
        self.peer = peer_name(self._transport)
        set_no_delay(self._transport)
        _limit_unsent(self._transport, self._max_waiting)
        self._on_open(self)
        try:
            self._handler.line_connected(self)
        except Exception:
            self._handler_failed("line_connected")

    def pause_writing(self) -> None:
        """Do nothing: before each frame it is looked what the peer has not taken."""

    def resume_writing(self) -> None:
        """Do nothing, either."""

    def data_received(self, data: bytes) -> None:
        if self._lost_reason is not None:
            return
        size, message, reading = len(data), self._message_bytes, self._reading
        # Nearly always: whole frames of 20 ms, as many as are due, or one. The decoder would come
        # to the same.
        header = self._header
        if data.startswith(header) and not self._decoder.buffered:
            if size == self._due_bytes and reading is not None and reading.due_in:
                second, last = message, size - message
                if data.startswith(header, second) and data.startswith(header, last):
                    reading.came = size // message
                    payload = data[HEADER_BYTES:second]
                    if last != second:
                        payload += data[second + HEADER_BYTES : last]
                    payload += data[last + HEADER_BYTES :]
                    self._deliver_audio(payload, self.format.kind)
                    return
            elif size == message:
                self._pace_in_question = True
                if reading is not None:
                    reading.frames_came(1)
                self._deliver_audio(data[HEADER_BYTES:], self.format.kind)
                return
        self._pace_in_question = True
        if reading is not None:
            reading.frames_came(size // message)
        try:
            messages = self._decoder.feed(data)
        except ProtocolError as error:
            self._deliver(error.before)
            self._malformed(error)
        else:
            self._deliver(messages)

    def eof_received(self) -> None:
        # Returning None makes the transport close once it has written what is left.
        if not self.closing:
            self._begin_end("peer_closed")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        reason = self._lost_reason = self._lost_reason or "peer_closed"
        self._on_closed(self)
        log.debug("line lost", peer=self.peer, reason=reason, error=exc and repr(exc))
        try:
            self._handler.line_lost(reason)
        except Exception:
            log.exception("line handler failed", call="line_lost", peer=self.peer)
        # The handler keeps the line, for its counters: the two would keep each other.
        del self._handler
        self._reading = None
        self.next_frame = silence

    def _deliver(self, messages: list[Message] | tuple[Message, ...]) -> None:
        for message in messages:
            if self.closing:
                return
            try:
                match message:
                    case Audio(kind, payload):
                        self._deliver_audio(payload, kind)
                    case Dtmf(digit):
                        self._handler.digit_received(digit)
                    case Hangup():
                        self.hang_up("peer_hangup")
                    case Error(code):
                        log.warning("line error reported", peer=self.peer, code=code)
                        self.hang_up("peer_error")
                    case _:
                        self._malformed(UnexpectedKind("a second UUID"))
            except Exception:
                self._handler_failed(type(message).__name__)

    def _deliver_audio(self, payload: bytes, kind: Kind) -> None:
        self._spoken_seconds += len(payload) / _BYTES_PER_SECOND[kind]
        try:
            self._handler.audio_received(payload, kind)
        except Exception:
            self._handler_failed("audio_received")

    def _write_frame(self) -> None:
        transport, stats = self._bare or self._transport, self.stats
        if self._lost_reason is not None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > self._max_waiting:
            stats.frames_skipped_backpressure += 1
            self._check_stall()
            return
        self._stalled_since = None
        frame = self.next_frame()
        if frame is None:
            message = self._silence
            if self._slots_owed:
                self._pay_slots()
        else:
            message = self._header + frame
            if len(message) != len(self._silence):
                raise FrameSizeError(f"a frame is {self.format.frame_bytes} bytes")
        transport.write(message)
        stats.frames_sent += 1

    def _pay_slots(self) -> None:
        later, self._slots_owed = self._slots_owed % SLOTS, 0
        slots = later if later < SLOTS // 2 else later - SLOTS
        if abs(later - SLOTS // 2) <= 1:
            # Both ways round are about as long. Of a peer whose frames come by turns at either end
            # it would be the same way each time, and each time round is a frame more, or fewer.
            slots = later if self._slots_paid < 0 else later - SLOTS
        self._slots_paid += slots
        if self._writes is not None:
            self._writes.shift(slots)

    def _check_stall(self) -> None:
        now = self._loop.time()
        if self._stalled_since is None:
            self._stalled_since = now
        elif now - self._stalled_since >= self._stall_timeout:
            log.warning("line stalled", peer=self.peer, seconds=round(now - self._stalled_since, 1))
            self.hang_up("stalled")

    def _malformed(self, error: ProtocolError) -> None:
        if not self.closing:
            log.warning("line malformed", peer=self.peer, reason=error.reason, detail=str(error))
            self._end_as_refused("malformed")

    def _end_as_refused(self, reason: str) -> None:
        self._on_refused(reason, self.peer)
        self.hang_up(reason)

    def _handler_failed(self, call: str) -> None:
        log.exception("line handler failed", call=call, peer=self.peer)
        self.hang_up("handler_error")

    def _begin_end(self, reason: str) -> None:
        self._lost_reason = reason
        if self._reading is not None:
            self._reading.stop()
        self._abort_timer = self._loop.call_later(ABORT_SECONDS, self._transport.abort)


def peer_name(transport: asyncio.Transport) -> str:
    """Return `host:port` of the other end, for logs."""
    match transport.get_extra_info("peername"):
        case (host, port, *_):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case _:
            return "unknown"


def say_goodbye(transport: asyncio.Transport) -> None:
    """Write 0x00 and end our side of the stream, so that the peer closes its own.

    What still arrives has to be read until then: closing over unread data would reset the
    connection, and could overtake the 0x00.
    """
    transport.write(HANGUP)
    # A reset that has not been reported yet; connection_lost is on its way.
    with suppress(OSError):
        transport.write_eof()


def set_no_delay(transport: asyncio.Transport) -> None:
    """Let the kernel send each message at once."""
    sock = transport.get_extra_info("socket")
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _limit_unsent(transport: asyncio.Transport, unsent_bytes: int) -> None:
    """Keep no more than this in the kernel once the peer's window is full.

    Without it the kernel would take seconds of audio before the write buffer tells us that the
    peer does not read, and play them late.
    """
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, unsent_bytes)
