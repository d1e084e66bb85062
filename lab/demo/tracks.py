"""The two voices of a call on one time line: what the phone said, and what it heard.

Sound stands where its packet left or arrived. A real telephone adds its own: the length of a packet
on the way out, 20 ms, and its jitter buffer on the way in.
"""

from __future__ import annotations

import wave
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from lab.demo.analysis import Samples
from lab.softphone import Arrival, Utterance
from lab.softphone.codec import RATE_HZ, SAMPLE_BYTES, Codec


@dataclass(frozen=True, slots=True)
class Piece:
    """16-bit PCM at 8 kHz, and the second at which it begins."""

    at_s: float
    pcm: bytes


def lay_out(pieces: Iterable[Piece], seconds: float) -> Samples:
    """Put pieces on a time line of so many seconds; what lies outside is cut off.

    Later pieces win where two overlap.
    """
    track = np.zeros(max(0, round(seconds * RATE_HZ)), np.int16)
    for piece in pieces:
        samples = np.frombuffer(piece.pcm, "<i2")
        start = round(piece.at_s * RATE_HZ)
        samples = samples[max(0, -start) : max(0, len(track) - start)]
        start = max(0, start)
        track[start : start + len(samples)] = samples
    return track


def heard_pieces(arrivals: Sequence[Arrival], origin: float) -> list[Piece]:
    """What came in, by its RTP time line: a jitter buffer plays it so.

    `origin` is the monotonic time of second 0. The time line is fixed to the clock where the
    median packet arrived, so that a late packet moves nothing.
    """
    if not arrivals:
        return []
    shift = median(arrival.at - arrival.position / RATE_HZ for arrival in arrivals) - origin
    return [Piece(arrival.position / RATE_HZ + shift, arrival.pcm) for arrival in arrivals]


def came_s(arrivals: Sequence[Arrival], played_s: float, origin: float) -> float:
    """Say when the sound had come that is played at a second: of its packet, or the next one.

    The time line of what was heard says when a jitter buffer plays it; next to what the phone did
    at that moment (it was answered), only the packet's own time can be put. After the last packet,
    the last one's is returned.

    Raises:
        IndexError: Nothing came.
    """
    pieces = zip(heard_pieces(arrivals, origin), arrivals, strict=True)
    later = (
        arrival
        for piece, arrival in pieces
        if played_s < piece.at_s + len(piece.pcm) / SAMPLE_BYTES / RATE_HZ
    )
    return next(later, arrivals[-1]).at - origin


def said_pieces(utterances: Iterable[Utterance], codec: Codec, origin: float) -> list[Piece]:
    """What went out, as the codec left it; what was never begun is left out."""
    return [
        Piece(utterance.started_at - origin, codec.decode(codec.encode(utterance.pcm)))
        for utterance in utterances
        if utterance.started_at is not None
    ]


def write_stereo(path: Path, left: Samples, right: Samples) -> None:
    """Write a 16-bit stereo WAV file. The two sides must have the same length.

    Raises:
        OSError: the file cannot be written.
    """
    with path.open("wb") as raw, wave.open(raw, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(np.column_stack((left, right)).astype("<i2").tobytes())
