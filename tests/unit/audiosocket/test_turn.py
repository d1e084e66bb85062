"""When a line writes, against when it reads: what answers at once is in time for the next frame."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast
from unittest.mock import Mock
from uuid import uuid4

import pytest

from audiosocket.connection import HANGUP, AudioSocketConnection
from audiosocket.frames import SAMPLE_BYTES, SLIN, Audio, Kind, encode
from linekit.clock import FrameClock
from tests.unit.virtual_loop import VirtualLoop


class Wire:
    """A transport whose far end is the test."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.there = b""
        self.at_will = False
        self.written: list[float] = []

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return Mock() if name == "socket" else default

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: Any) -> None:
        self.written.append(self.loop.time())

    def pause_reading(self) -> None:
        self.at_will = True

    def resume_reading(self) -> None:
        self.at_will = False

    def write_eof(self) -> None:
        """Nothing is to be done."""

    def abort(self) -> None:
        """Nothing is to be done."""

    def comes(self, data: bytes) -> None:
        self.there += data
        if not self.at_will:
            self.read_now()

    def read_now(self) -> None:
        data, self.there = self.there, b""
        if data:
            self.line.data_received(data)

    line: AudioSocketConnection


class Handler:
    """Notes when it was given sound, and whether it was asked to act after the end."""

    line: AudioSocketConnection

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.heard: list[float] = []
        self.acts_after_end = False

    def line_connected(self, line: AudioSocketConnection) -> None:
        self.line = line

    def audio_received(self, payload: bytes, kind: Kind) -> None:
        self.heard.append(self.loop.time())

    def digit_received(self, digit: str) -> None:
        """None comes."""

    def tick(self, frames_due: int) -> None:
        self.acts_after_end |= self.line.closing

    def line_lost(self, reason: str) -> None:
        del self.line


async def _call(
    frames: int,
    begin: float,
    goodbye: float | None = None,
    speaks_seconds: float = 0.0,
    frame_ms: int = 20,
    pace: float = 1.0,
    together: int = 2,
) -> tuple[Wire, Handler]:
    """Let so many frames come, and the end so long after the last; return the wire and the handler.

    The line says something from its beginning on for so many seconds, and is gone at the end,
    without the garbage collector.
    """
    loop = asyncio.get_running_loop()
    wire, handler = Wire(), Handler()
    clock = FrameClock(loop=loop)
    clock.start()

    def on_open(line: AudioSocketConnection) -> None:
        """Nothing is to be done; nobody but the line keeps it."""

    line = wire.line = AudioSocketConnection(
        uuid=uuid4(),
        fmt=SLIN,
        handler=handler,
        on_open=on_open,
        on_refused=lambda reason, peer: None,
        on_closed=lambda line: None,
        stall_timeout=1.0,
    )
    line.connection_made(cast(asyncio.BaseTransport, wire))
    leave = line.tick_with(clock)
    line.read_together(together)
    speaks_until = loop.time() + speaks_seconds
    sound = bytes(SLIN.frame_bytes)
    line.next_frame = lambda: sound if loop.time() < speaks_until else None
    began = loop.time() + begin
    step = frame_ms / 1000 * pace
    frame = encode(Audio(SLIN.kind, bytes(SLIN.rate_hz * frame_ms // 1000 * SAMPLE_BYTES)))
    for number in range(frames):
        loop.call_at(began + number * step, wire.comes, frame)
    if goodbye is not None:
        loop.call_at(began + (frames - 1) * step + goodbye, wire.comes, HANGUP)
    await asyncio.sleep(begin + frames * step + (goodbye or 0.0))
    leave()
    assert not clock.ticking
    clock.stop()
    line.connection_lost(None)
    gone = weakref.ref(on_open)
    del line, wire.line, leave, on_open
    assert gone() is None
    return wire, handler


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_a_frame_is_written_shortly_after_what_has_come_was_read() -> None:
    for begin in (0.0, 0.0051, 0.0101, 0.0155, 0.0199):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            wire, handler = runner.run(_call(500, begin))

        settled = handler.heard[50:-2]
        gaps = [at - before for before, at in pairwise(settled)]
        assert max(gaps) < 0.045, "two frames at once"
        waits = [next(at for at in wire.written if at > read) - read for read in settled]
        assert min(waits) > 0.003, "there is time for an answer"
        assert max(waits) < 0.009
        written = [at for at in wire.written if at > settled[0]]
        steps = [at - before for before, at in pairwise(written)]
        assert max(steps) < 0.0235
        assert min(steps) > 0.0165
        assert len(wire.written) in range(498, 503)


def test_what_is_being_said_has_no_hole_for_the_sake_of_the_rhythm() -> None:
    for begin in (0.0051, 0.0101, 0.0155, 0.0199):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            wire, handler = runner.run(_call(500, begin, speaks_seconds=3.0))

        began = wire.written[0]
        said = [at for at in wire.written if at < began + 3.0]
        assert max(at - before for before, at in pairwise(said)) < 0.0201
        assert len(handler.heard) < 300, "it is read at ticks all the same"
        settled = [at for at in handler.heard[:-2] if at > began + 3.2]
        waits = [next(at for at in wire.written if at > read) - read for read in settled]
        assert min(waits) > 0.003
        assert max(waits) < 0.009


@pytest.mark.parametrize("ms", range(20, 64, 2))
def test_an_end_that_comes_in_place_of_a_late_frame_is_the_end(ms: int) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        _, handler = runner.run(_call(100, 0.013, goodbye=ms / 1000))
    assert not handler.acts_after_end


@pytest.mark.parametrize("frame_ms", [10, 30, 40, 60])
def test_a_peer_of_another_rhythm_is_written_to_in_ours(frame_ms: int) -> None:
    for pace in (0.9999, 1.0, 1.0001):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            call = _call(60_000 // frame_ms, 0.013, frame_ms=frame_ms, pace=pace, together=3)
            wire, _ = runner.run(call)
        assert len(wire.written) in range(2998, 3003)
