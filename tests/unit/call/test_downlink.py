from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.audio.convert import Converter
from ari_app.audio.formats import AudioFormat
from ari_app.call.sound import Downlink

LINE = AudioFormat.pcm(8000)
NOISE = np.random.default_rng(5).integers(-9000, 9000, 1600).astype("<i2").tobytes()


class Line:
    """Keeps what was written."""

    def __init__(self, agent: str = "pcm_16000") -> None:
        self.written: list[tuple[bytes, int]] = []
        self.downlink = Downlink(Converter(AudioFormat.parse(agent), LINE), self._write)

    def _write(self, pcm: bytes, tag: int) -> int:
        self.written.append((pcm, tag))
        return 0

    @property
    def tags(self) -> list[int]:
        return [tag for _, tag in self.written]

    @property
    def heard(self) -> bytes:
        return b"".join(pcm for pcm, _ in self.written)


def test_equal_formats_hand_over_the_chunk_itself() -> None:
    line = Line("pcm_8000")
    line.downlink.audio(3, NOISE)
    ((pcm, tag),) = line.written
    assert pcm is NOISE
    assert tag == 3
    line.downlink.end_of_response()
    assert line.tags == [3]


def test_a_response_is_converted_whole() -> None:
    line = Line()
    for start in range(0, len(NOISE), 333):
        line.downlink.audio(1, NOISE[start : start + 333])
    line.downlink.end_of_response()
    assert len(line.heard) == len(NOISE) // 2
    assert set(line.tags) == {1}


def test_a_chunk_too_short_for_a_sample_writes_nothing() -> None:
    line = Line()
    line.downlink.audio(1, NOISE[:6])
    assert line.written == []


@pytest.mark.parametrize("end", ["reset", "end_of_response"])
def test_the_next_response_begins_clean(end: str) -> None:
    line, fresh = Line(), Line()
    # One byte too many: the next response must not be read across samples.
    line.downlink.audio(1, NOISE[:-101])
    getattr(line.downlink, end)()
    line.written.clear()
    for each in (line, fresh):
        each.downlink.audio(2, NOISE)
        each.downlink.end_of_response()
    assert line.heard == fresh.heard


def test_the_tail_completes_what_was_written_and_the_response_may_go_on() -> None:
    line = Line()
    line.downlink.audio(1, NOISE[:1601])
    tail = line.downlink.tail()
    assert len(line.heard) + len(tail) == 800
    assert line.downlink.tail() == b""
    line.written.clear()
    line.downlink.audio(1, NOISE[1601:])
    fresh = Line()
    fresh.downlink.audio(1, NOISE[1600:])
    assert line.heard == fresh.heard


@given(steps=st.lists(st.sampled_from(["audio", "tail", "end_of_response", "reset"]), max_size=40))
def test_nothing_is_lost_but_what_a_reset_forgets(steps: list[str]) -> None:
    line = Line()
    given_bytes = forgotten = tails = 0
    held_back = 0
    for step in steps:
        before = len(line.heard) + tails
        match step:
            case "audio":
                line.downlink.audio(1, NOISE)
                given_bytes += len(NOISE) // 2
                held_back += len(NOISE) // 2
            case "tail":
                tails += len(line.downlink.tail())
            case "end_of_response":
                line.downlink.end_of_response()
            case _:
                line.downlink.reset()
                forgotten += held_back
        held_back -= len(line.heard) + tails - before
        if step == "reset":
            held_back = 0
    assert len(line.heard) + tails + forgotten + held_back == given_bytes
    line.downlink.end_of_response()
    assert len(line.heard) + tails + forgotten == given_bytes
