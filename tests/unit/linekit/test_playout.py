from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from linekit.playout import FlushResult, PlayoutBuffer

FRAME = 320
LEVEL = 8_000


def level(ms: float, value: int = LEVEL) -> bytes:
    return struct.pack("<h", value) * round(ms * 8)


def ramp(samples: int, start: int = 1) -> bytes:
    """Samples that are all different, so that a lost one shows."""
    return struct.pack(f"<{samples}h", *((start + i) % 30_000 for i in range(samples)))


def values(frame: bytes | None) -> list[int]:
    assert frame is not None
    assert len(frame) == FRAME
    return list(struct.unpack("<160h", frame))


def drain(buffer: PlayoutBuffer) -> bytes:
    frames = []
    while (frame := buffer.next_frame()) is not None:
        frames.append(frame)
    return b"".join(frames)


@pytest.fixture
def buffer() -> PlayoutBuffer:
    return PlayoutBuffer(FRAME, 8_000)


def test_empty(buffer: PlayoutBuffer) -> None:
    assert buffer.idle
    assert buffer.pending_ms == 0
    assert buffer.next_frame() is None
    assert buffer.stats.underruns == 0


@pytest.mark.parametrize("chunk", [2, 100, 320, 333, 4000, 10_000])
def test_what_goes_in_comes_out(buffer: PlayoutBuffer, chunk: int) -> None:
    pcm = ramp(4001)
    for start in range(0, len(pcm), chunk):
        assert buffer.write(pcm[start : start + chunk], tag=1) == 0
    buffer.end_response()
    assert buffer.pending_ms == pytest.approx(4001 / 8)
    assert not buffer.idle
    played = drain(buffer)
    assert played == pcm.ljust(26 * FRAME, b"\0")
    assert buffer.stats.samples_padded == 26 * 160 - 4001
    assert buffer.stats.underruns == 0
    assert buffer.flush() == FlushResult(played_ms=4001 / 8, dropped_ms=0, tag=1)
    assert buffer.idle


def test_an_odd_byte_waits_for_its_other_half(buffer: PlayoutBuffer) -> None:
    pcm = ramp(320)
    for start in range(0, len(pcm), 31):
        buffer.write(pcm[start : start + 31])
    buffer.write(b"\x7f")
    buffer.end_response()
    buffer.write(level(20))
    buffer.end_response()
    assert drain(buffer) == pcm + level(20)


def test_an_odd_byte_does_not_reach_the_next_response(buffer: PlayoutBuffer) -> None:
    buffer.write(level(10) + b"\x7f", tag=1)
    buffer.write(level(10, 5), tag=2)
    assert buffer.next_frame() == level(10) + level(10, 5)
    assert buffer.flush() == FlushResult(played_ms=10, dropped_ms=0, tag=2)


def test_writing_nothing_is_nothing(buffer: PlayoutBuffer) -> None:
    assert buffer.write(b"") == 0
    assert buffer.idle
    assert buffer.next_frame() is None
    assert buffer.stats.underruns == 0


def test_a_complete_response_ends_as_it_is(buffer: PlayoutBuffer) -> None:
    buffer.write(level(30))
    buffer.end_response()
    assert values(buffer.next_frame()) == [LEVEL] * 160
    assert values(buffer.next_frame()) == [LEVEL] * 80 + [0] * 80
    assert buffer.next_frame() is None


def test_running_dry_fades_out_and_in(buffer: PlayoutBuffer) -> None:
    buffer.write(level(30), tag=5)
    assert values(buffer.next_frame()) == [LEVEL] * 160
    last = values(buffer.next_frame())
    assert last[:41] == [LEVEL] * 41
    assert last[40:80] == sorted(last[40:80], reverse=True)
    assert 0 < last[79] < 50
    assert last[80:] == [0] * 80
    assert [buffer.next_frame() for _ in range(3)] == [None] * 3
    assert buffer.stats.underruns == 0

    buffer.write(level(40), tag=5)
    assert buffer.stats.underruns == 1
    first = values(buffer.next_frame())
    assert 0 < first[0] < 50
    assert first[:40] == sorted(first[:40])
    assert first[39:] == [LEVEL] * 121
    assert values(buffer.next_frame()) == [LEVEL] * 160


def test_running_dry_at_the_end_of_a_frame_glides_to_silence(buffer: PlayoutBuffer) -> None:
    buffer.write(level(20))
    buffer.next_frame()
    assert buffer.idle
    after = values(buffer.next_frame())
    assert after[0] == LEVEL
    assert after[:40] == sorted(after[:40], reverse=True)
    assert after[40:] == [0] * 120
    assert buffer.next_frame() is None
    buffer.write(level(20))
    assert buffer.stats.underruns == 1
    assert buffer.stats.samples_played == 160
    assert buffer.stats.samples_padded == 160


def test_running_dry_in_a_quiet_place_needs_no_glide(buffer: PlayoutBuffer) -> None:
    buffer.write(level(20, -20))
    buffer.next_frame()
    assert buffer.next_frame() is None
    buffer.write(level(20, -20))
    assert buffer.stats.underruns == 1


def test_the_end_may_be_known_late(buffer: PlayoutBuffer) -> None:
    buffer.write(level(20))
    buffer.next_frame()
    buffer.next_frame()
    assert buffer.next_frame() is None
    buffer.end_response()
    buffer.write(level(20))
    assert buffer.stats.underruns == 0
    assert values(buffer.next_frame()) == [LEVEL] * 160


def test_another_response_is_no_underrun(buffer: PlayoutBuffer) -> None:
    buffer.write(level(25), tag=1)
    drain(buffer)
    buffer.write(level(20), tag=2)
    assert buffer.stats.underruns == 0
    first = values(buffer.next_frame())
    assert first[:40] == sorted(first[:40]), "it fades in, for it may be the same under another id"
    assert 0 < first[0] < 50
    assert first[40:] == [LEVEL] * 120


def test_a_response_that_follows_a_complete_one_does_not_fade_in(buffer: PlayoutBuffer) -> None:
    buffer.write(level(25), tag=1)
    buffer.end_response()
    drain(buffer)
    buffer.write(level(20), tag=2)
    assert values(buffer.next_frame()) == [LEVEL] * 160


def test_a_short_rest_fades_in_and_out(buffer: PlayoutBuffer) -> None:
    buffer.write(level(25))
    drain(buffer)
    buffer.write(level(12))
    frame = values(buffer.next_frame())
    assert frame[:40] == sorted(frame[:40])
    assert frame[40:56] == [LEVEL] * 16
    assert frame[56:96] == sorted(frame[56:96], reverse=True)


def test_the_resamplers_tail_is_asked_for_once(buffer: PlayoutBuffer) -> None:
    tails = [level(5) + b"\x7f", b"never"]
    buffer.refill = lambda: tails.pop(0)
    assert buffer.next_frame() is None
    buffer.write(level(20 + 15), tag=3)
    assert values(buffer.next_frame()) == [LEVEL] * 160
    assert len(tails) == 2
    assert values(buffer.next_frame()) == [LEVEL] * 160
    assert len(tails) == 1
    assert values(buffer.next_frame())[0] == LEVEL
    assert buffer.next_frame() is None
    assert len(tails) == 1
    assert buffer.stats.samples_in == 320
    assert buffer.flush().played_ms == 40


def test_a_tail_may_fall_short(buffer: PlayoutBuffer) -> None:
    buffer.refill = lambda: level(3)
    buffer.write(level(10))
    buffer.end_response()
    assert values(buffer.next_frame()) == [LEVEL] * 104 + [0] * 56
    assert buffer.next_frame() is None


def test_an_interruption_fades_out_and_is_accounted(buffer: PlayoutBuffer) -> None:
    buffer.write(level(1000), tag=8)
    for _ in range(10):
        buffer.next_frame()
    assert buffer.flush() == FlushResult(played_ms=202, dropped_ms=798, tag=8)
    assert not buffer.idle
    assert buffer.pending_ms == 0
    fade = values(buffer.next_frame())
    assert fade[0] == LEVEL
    assert fade[:16] == sorted(fade[:16], reverse=True)
    assert fade[16:] == [0] * 144
    assert buffer.next_frame() is None
    assert buffer.flush().played_ms == 202
    assert buffer.stats.samples_dropped == 798 * 8
    assert buffer.stats.underruns == 0


def test_what_was_given_out_and_taken_back_is_what_fades(buffer: PlayoutBuffer) -> None:
    buffer.write(level(1000), tag=8)
    for _ in range(10):
        buffer.next_frame()
    buffer.flush(level(20, -2000))
    fade = values(buffer.next_frame())
    assert fade[0] == -2000
    assert fade[:16] == sorted(fade[:16])
    assert fade[16:] == [0] * 144
    stats = buffer.stats
    assert stats.samples_played + stats.samples_padded == 11 * 160


def test_a_response_after_an_interruption_starts_afresh(buffer: PlayoutBuffer) -> None:
    buffer.write(level(100), tag=8)
    buffer.next_frame()
    buffer.flush()
    buffer.write(level(20), tag=8)
    assert values(buffer.next_frame())[16:] == [0] * 144
    assert values(buffer.next_frame()) == [LEVEL] * 160
    assert buffer.stats.underruns == 0
    assert buffer.flush().played_ms == 20


def test_a_second_interruption_changes_nothing(buffer: PlayoutBuffer) -> None:
    buffer.write(level(100), tag=8)
    buffer.next_frame()
    buffer.flush()
    assert buffer.flush() == FlushResult(played_ms=22, dropped_ms=0, tag=8)
    assert values(buffer.next_frame())[0] == LEVEL
    assert buffer.flush() == FlushResult(played_ms=22, dropped_ms=0, tag=8)
    assert buffer.next_frame() is None


def test_an_interruption_of_nothing(buffer: PlayoutBuffer) -> None:
    assert buffer.flush() == FlushResult(played_ms=0, dropped_ms=0, tag=None)
    assert buffer.next_frame() is None


def test_what_was_not_heard_need_not_fade(buffer: PlayoutBuffer) -> None:
    buffer.write(level(100), tag=1)
    assert buffer.flush() == FlushResult(played_ms=0, dropped_ms=100, tag=1)
    assert buffer.idle
    assert buffer.next_frame() is None


def test_an_interruption_takes_all_responses(buffer: PlayoutBuffer) -> None:
    buffer.write(level(40), tag=1)
    buffer.write(level(60), tag=2)
    buffer.next_frame()
    assert buffer.flush() == FlushResult(22, 18, 1, others_dropped_ms=60)


def test_an_interruption_between_two_responses_is_of_the_next(buffer: PlayoutBuffer) -> None:
    buffer.write(level(20), tag=1)
    buffer.write(level(60), tag=2)
    buffer.next_frame()
    assert buffer.flush() == FlushResult(2, 58, 2)


def test_an_interruption_as_the_queue_is_empty_glides(buffer: PlayoutBuffer) -> None:
    buffer.write(level(20), tag=1)
    buffer.next_frame()
    assert buffer.flush() == FlushResult(20, 0, 1)
    assert values(buffer.next_frame())[16:] == [0] * 144
    assert buffer.next_frame() is None


def test_an_interruption_in_a_quiet_place(buffer: PlayoutBuffer) -> None:
    buffer.write(level(20, 3), tag=1)
    buffer.next_frame()
    buffer.flush()
    assert buffer.idle
    assert buffer.next_frame() is None


def test_no_cut_is_a_click(buffer: PlayoutBuffer) -> None:
    """Whatever happens to a loud level, no step is larger than the fades' own: that of 440 Hz at
    its steepest would be a third of the level."""
    heard: list[int] = []

    def hear(frames: int) -> None:
        for _ in range(frames):
            heard.extend(values(buffer.next_frame() or bytes(FRAME)))

    hear(1)
    buffer.write(bytes(FRAME) + level(100), tag=1)
    buffer.next_frame()
    heard += [LEVEL] * 160
    hear(8)
    buffer.write(level(47), tag=1)
    hear(5)
    buffer.write(level(500), tag=1)
    hear(3)
    buffer.flush()
    hear(4)
    onset = 160
    steps = [abs(b - a) for i, (a, b) in enumerate(pairwise(heard)) if i + 1 != onset]
    assert max(steps) < LEVEL * 0.1


def test_without_fades_sound_just_stops() -> None:
    buffer = PlayoutBuffer(FRAME, 8_000, fade_ms=0)
    buffer.write(level(25))
    buffer.next_frame()
    assert buffer.next_frame() == level(5) + bytes(240)
    buffer.write(level(40))
    assert buffer.next_frame() == level(20)
    assert buffer.flush().played_ms == 45
    assert buffer.next_frame() is None


def test_the_newest_is_refused_when_full() -> None:
    buffer = PlayoutBuffer(FRAME, 8_000, max_seconds=0.1)
    assert buffer.write(level(90)) == 0
    assert buffer.write(level(30)) == 320
    assert buffer.write(level(30)) == 480
    assert buffer.pending_ms == 100
    assert buffer.stats.samples_dropped == 400
    assert buffer.stats.samples_in == 1200


def test_of_a_response_that_is_too_long_its_end_is_missing_and_no_pieces() -> None:
    buffer = PlayoutBuffer(FRAME, 8_000, max_seconds=0.1)
    buffer.write(level(120), tag=1)
    for _ in range(5):
        assert values(buffer.next_frame()) == [LEVEL] * 160
        assert buffer.write(level(40), tag=1) == 640
    assert values(buffer.next_frame())[40:] == [0] * 120, "it fades"
    assert buffer.write(level(40), tag=1) == 0, "one without an end goes on"


def test_a_response_that_was_too_long_has_no_part_in_the_next() -> None:
    buffer = PlayoutBuffer(FRAME, 8_000, max_seconds=0.1)
    buffer.write(level(120), tag=1)
    buffer.next_frame()
    buffer.end_response()
    assert buffer.write(level(20), tag=1) == 0


@pytest.mark.parametrize("frame_bytes", [0, -2, 321])
def test_senseless_frames(frame_bytes: int) -> None:
    with pytest.raises(ValueError, match="a frame of"):
        PlayoutBuffer(frame_bytes, 8_000)


@pytest.mark.parametrize("fade_ms", [-1, 21])
def test_senseless_fades(fade_ms: float) -> None:
    with pytest.raises(ValueError, match="a fade of"):
        PlayoutBuffer(FRAME, 8_000, fade_ms=fade_ms)


@given(st.lists(st.binary(max_size=900), max_size=20))
def test_before_any_flush_output_is_input(chunks: list[bytes]) -> None:
    buffer = PlayoutBuffer(FRAME, 8_000)
    for chunk in chunks:
        buffer.write(chunk)
    buffer.end_response()
    whole = b"".join(chunks)
    whole = whole[: len(whole) // 2 * 2]
    played = drain(buffer)
    assert played[: len(whole)] == whole
    assert not any(played[len(whole) :])
    assert len(played) % FRAME == 0


class Playout(RuleBasedStateMachine):
    """Any order of calls: every sample is played, dropped or pending."""

    @initialize(
        fade_ms=st.sampled_from([0, 5, 20]),
        tail=st.binary(max_size=60),
        refills=st.booleans(),
    )
    def begin(self, fade_ms: int, tail: bytes, refills: bool) -> None:
        self.buffer = PlayoutBuffer(
            FRAME,
            8_000,
            fade_ms=fade_ms,
            max_seconds=0.3,
            refill=(lambda: tail) if refills else None,
        )
        self.frames = 0
        self.closing = False

    @rule(pcm=st.binary(max_size=2000), tag=st.integers(0, 2))
    def write(self, pcm: bytes, tag: int) -> None:
        before = self.buffer.stats.samples_dropped
        refused = self.buffer.write(pcm, tag=tag)
        assert refused == (self.buffer.stats.samples_dropped - before) * 2

    @rule()
    def end_response(self) -> None:
        self.buffer.end_response()

    @rule()
    def flush(self) -> None:
        pending = self.buffer.pending_ms
        played = self.buffer.stats.samples_played
        result = self.buffer.flush()
        faded_ms = (self.buffer.stats.samples_played - played) / 8
        assert result.dropped_ms + result.others_dropped_ms + faded_ms == pytest.approx(pending)
        assert self.buffer.pending_ms == 0
        assert result.played_ms >= faded_ms

    @rule()
    def next_frame(self) -> None:
        had_some = not self.buffer.idle
        frame = self.buffer.next_frame()
        if frame is None:
            assert not had_some
        else:
            self.frames += 1
            assert len(frame) == FRAME

    @invariant()
    def every_sample_is_counted(self) -> None:
        stats = self.buffer.stats
        pending = round(self.buffer.pending_ms * 8)
        assert stats.samples_in == stats.samples_played + stats.samples_dropped + pending
        assert 0 <= pending <= 2400

    @invariant()
    def every_frame_is_accounted_for(self) -> None:
        stats = self.buffer.stats
        given = self.frames + (self.buffer.idle is False and self.buffer.pending_ms == 0)
        if self.buffer.pending_ms == 0:
            assert stats.samples_played + stats.samples_padded == given * 160


TestPlayout = Playout.TestCase
TestPlayout.settings = settings(max_examples=60, stateful_step_count=30)
