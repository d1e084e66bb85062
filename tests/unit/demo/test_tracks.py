from __future__ import annotations

import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.demo.tracks import Piece, came_s, heard_pieces, lay_out, said_pieces, write_stereo
from lab.softphone import Arrival, Utterance
from lab.softphone.codec import codecs_named

[PCMU] = codecs_named("PCMU")


def pcm(*values: int) -> bytes:
    return np.array(values, "<i2").tobytes()


def test_pieces_lie_at_their_time_and_silence_between() -> None:
    track = lay_out([Piece(0.001, pcm(1, 2)), Piece(0.002, pcm(3))], 0.0025)
    assert track.tolist() == [0] * 8 + [1, 2] + [0] * 6 + [3] + [0] * 3


def test_what_lies_outside_is_cut_off() -> None:
    pieces = [Piece(-2 / 8000, pcm(1, 2, 3)), Piece(3 / 8000, pcm(4, 5)), Piece(1.0, pcm(6))]
    assert lay_out(pieces, 4 / 8000).tolist() == [3, 0, 0, 4]


def test_later_pieces_win() -> None:
    assert lay_out([Piece(0, pcm(1, 1, 1)), Piece(1 / 8000, pcm(2))], 3 / 8000).tolist() == [
        1,
        2,
        1,
    ]


def test_no_time_is_no_track() -> None:
    assert lay_out([Piece(0.0, pcm(1))], -1.0).tolist() == []


@given(
    st.lists(st.tuples(st.integers(-50, 80), st.integers(0, 60)), max_size=8), st.integers(0, 60)
)
def test_no_piece_changes_the_length(pieces: list[tuple[int, int]], length: int) -> None:
    track = lay_out([Piece(at / 8000, pcm(*[7] * n)) for at, n in pieces], length / 8000)
    covered = {i for at, n in pieces for i in range(at, at + n)} & set(range(length))
    assert len(track) == length
    assert set(np.flatnonzero(track).tolist()) == covered


def arrival(at: float, position: int) -> Arrival:
    return Arrival(at, 0, 0, False, 1, position, PCMU.encode(pcm(*[position] * 160)), PCMU)


def test_a_late_packet_moves_nothing() -> None:
    arrivals = [arrival(100.5, 0), arrival(100.59, 160), arrival(100.54, 320)]
    at = [piece.at_s for piece in heard_pieces(arrivals, origin=100.0)]
    assert at == pytest.approx([0.5, 0.52, 0.54])
    assert heard_pieces([], origin=100.0) == []


def test_what_was_played_had_come_with_its_packet() -> None:
    # The first one was late, so that it is played before it had come.
    arrivals = [arrival(100.51, 0), arrival(100.52, 160), arrival(100.54, 320)]
    assert heard_pieces(arrivals, origin=100.0)[0].at_s == pytest.approx(0.5)
    came = [came_s(arrivals, played_s, origin=100.0) for played_s in (0.3, 0.505, 0.53, 0.6)]
    assert came == pytest.approx([0.51, 0.51, 0.52, 0.54])


@dataclass
class _Sender:
    """Takes an utterance as a mouth does."""

    utterance: Utterance

    def begin(self, now: float) -> Utterance:
        self.utterance.take(2, now)
        return self.utterance


def test_what_was_said_is_what_the_codec_left_of_it() -> None:
    begun = _Sender(Utterance(pcm(1000, -1001))).begin(now=12.5)
    waiting = Utterance(pcm(5))
    [piece] = said_pieces([begun, waiting], PCMU, origin=12.0)
    assert piece == Piece(0.5, PCMU.decode(PCMU.encode(pcm(1000, -1001))))


def test_the_file_is_stereo_caller_left(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    write_stereo(path, np.array([1, 2], np.int16), np.array([-1, -2], np.int16))
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        assert file.readframes(9) == pcm(1, -1, 2, -2)
