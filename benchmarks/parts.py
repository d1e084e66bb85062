"""What each part costs by itself, and how well the resampler sounds beside others.

Times are the best of several rounds in a hot loop: what a part needs at least. In a call its code
has to come back into the caches each time, which takes two to three times as long; *bridge* shows
that.
"""

from __future__ import annotations

import asyncio
import os
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from uuid import uuid4

import numpy as np
import orjson
import pybase64

from ari_app.agent.elevenlabs.codec import decode, encode_audio
from ari_app.audio.convert import Converter
from ari_app.audio.formats import LINE_RATES_HZ, AudioFormat
from ari_app.audio.g711 import alaw_to_pcm, pcm_to_alaw, pcm_to_ulaw, ulaw_to_pcm
from audiosocket.frames import SLIN, Audio, Decoder, Identify, encode
from benchmarks.engines import ENGINES
from benchmarks.quality import Quality, measure_quality
from linekit.playout import PlayoutBuffer

_ROUNDS = 5
_ROUND_SECONDS = 0.05
_QUICK_ROUND_SECONDS = 0.01

AGENT_RATES_HZ = (8000, 16000, 22050, 24000, 44100, 48000)
COMPARED_HZ = ((8000, 16000), (16000, 8000), (8000, 24000), (24000, 8000), (44100, 8000))


@dataclass(frozen=True, slots=True)
class Cost:
    """One step's time."""

    part: str
    step: str
    microseconds: float


@dataclass(frozen=True, slots=True)
class ResamplerFigures:
    """One engine between two rates."""

    engine: str
    from_hz: int
    to_hz: int
    frame_us: float
    """For 20 ms given alone."""
    second_us_per_frame: float
    """For each 20 ms of a whole second given at once."""
    quality: Quality


@dataclass(frozen=True, slots=True)
class PartsResult:
    """All of it."""

    costs: list[Cost]
    resamplers: list[ResamplerFigures]


async def measure_parts(quick: bool, say: Callable[[str], None]) -> PartsResult:
    """Measure; the loop runs on between the parts so that a display can move."""
    clock = Stopwatch(_QUICK_ROUND_SECONDS if quick else _ROUND_SECONDS)
    costs: list[Cost] = []
    for part, measure in _PARTS.items():
        say(part)
        await asyncio.sleep(0)
        costs += [Cost(part, step, us) for step, us in measure(clock)]
    figures: list[ResamplerFigures] = []
    for from_hz, to_hz in _pairs(quick):
        compared = (from_hz, to_hz) in COMPARED_HZ
        for engine in ENGINES if compared else ("ours",):
            say(f"resampler: {engine}, {from_hz} to {to_hz} Hz")
            await asyncio.sleep(0)
            figures.append(_resampler(engine, from_hz, to_hz, clock))
    return PartsResult(costs, figures)


class Stopwatch:
    """Times a step: the best of five rounds, each long enough to be read."""

    def __init__(self, round_seconds: float) -> None:
        self._round_seconds = round_seconds

    def microseconds(self, step: Callable[[], object]) -> float:
        """What one call takes."""
        timer = timeit.Timer(step)
        once = max(timer.timeit(3) / 3, 1e-9)
        count = max(1, int(self._round_seconds / once))
        return round(min(timer.repeat(_ROUNDS, count)) / count * 1e6, 3)


Measured = list[tuple[str, float]]


def _audiosocket(clock: Stopwatch) -> Measured:
    frame = Audio(SLIN.kind, _noise(SLIN.frame_samples))
    message = encode(frame)
    decoder = Decoder()
    decoder.feed(encode(Identify(uuid4())))
    halves = message[:100], message[100:]
    batch = message * 10

    def in_pieces() -> None:
        decoder.feed(halves[0])
        decoder.feed(halves[1])

    return [
        ("encode a frame", clock.microseconds(lambda: encode(frame))),
        ("decode a frame", clock.microseconds(lambda: decoder.feed(message))),
        ("decode a frame in two pieces", clock.microseconds(in_pieces)),
        ("decode ten frames at once", clock.microseconds(lambda: decoder.feed(batch))),
    ]


def _g711(clock: Stopwatch) -> Measured:
    pcm = _noise(160)
    ulaw, alaw = pcm_to_ulaw(pcm), pcm_to_alaw(pcm)
    return [
        ("16-bit to µ-law, 20 ms", clock.microseconds(lambda: pcm_to_ulaw(pcm))),
        ("µ-law to 16-bit, 20 ms", clock.microseconds(lambda: ulaw_to_pcm(ulaw))),
        ("16-bit to A-law, 20 ms", clock.microseconds(lambda: pcm_to_alaw(pcm))),
        ("A-law to 16-bit, 20 ms", clock.microseconds(lambda: alaw_to_pcm(alaw))),
    ]


def _agent(clock: Stopwatch) -> Measured:
    chunk = _noise(640)
    events = {ms: _audio_event(16 * ms) for ms in (250, 1000)}
    return [
        ("encode 40 ms of pcm_16000", clock.microseconds(lambda: encode_audio(chunk))),
        ("decode 250 ms of pcm_16000", clock.microseconds(lambda: decode(events[250]))),
        ("decode 1 s of pcm_16000", clock.microseconds(lambda: decode(events[1000]))),
    ]


def _playout(clock: Stopwatch) -> Measured:
    second = _noise(8000)
    buffer = PlayoutBuffer(SLIN.frame_bytes, SLIN.rate_hz)

    def play_a_second() -> None:
        buffer.write(second, tag=1)
        for _ in range(50):
            buffer.next_frame()

    def interrupt() -> None:
        buffer.write(second, tag=1)
        buffer.next_frame()
        buffer.flush()
        buffer.next_frame()

    playing = round(clock.microseconds(play_a_second) / 50, 3)
    buffer.end_response()
    return [
        ("a frame of speech", playing),
        ("a frame of silence", clock.microseconds(buffer.next_frame)),
        ("write a second, play a frame, interrupt, fade", clock.microseconds(interrupt)),
    ]


def _conversion(clock: Stopwatch) -> Measured:
    line = AudioFormat.pcm(8000)
    chunk = _noise(320)
    measured: Measured = []
    for name in _AGENT_FORMATS:
        agent = AudioFormat.parse(name)
        up, down = Converter(line, agent), Converter(agent, line)
        measured += [
            (f"40 ms from the line to {name}", clock.microseconds(partial(up.process, chunk))),
            (
                f"1 s from {name} to the line",
                clock.microseconds(partial(down.process, _agent_second(name))),
            ),
        ]
    return measured


_AGENT_FORMATS = ("pcm_8000", "ulaw_8000", "pcm_16000", "pcm_24000", "pcm_44100")

_PARTS: dict[str, Callable[[Stopwatch], Measured]] = {
    "AudioSocket": _audiosocket,
    "G.711": _g711,
    "Conversion, 8 kHz line": _conversion,
    "Agent": _agent,
    "Playout": _playout,
}


def _resampler(engine: str, from_hz: int, to_hz: int, clock: Stopwatch) -> ResamplerFigures:
    new = ENGINES[engine]
    process = new(from_hz, to_hz)
    frame, second = _noise(from_hz // 50), _noise(from_hz)
    return ResamplerFigures(
        engine,
        from_hz,
        to_hz,
        frame_us=clock.microseconds(lambda: process(frame)),
        second_us_per_frame=round(clock.microseconds(lambda: process(second)) / 50, 3),
        quality=measure_quality(lambda: new(from_hz, to_hz), from_hz, to_hz),
    )


def _pairs(quick: bool) -> list[tuple[int, int]]:
    if quick:
        return [(8000, 16000), (16000, 8000)]
    pairs = {(line, agent) for line in LINE_RATES_HZ for agent in AGENT_RATES_HZ if line != agent}
    return sorted(pairs | {(agent, line) for line, agent in pairs})


def _noise(samples: int) -> bytes:
    generator = np.random.default_rng(2)
    pcm: bytes = generator.integers(-8000, 8000, samples).astype("<i2").tobytes()
    return pcm


def _agent_second(name: str) -> bytes:
    fmt = AudioFormat.parse(name)
    return os.urandom(fmt.rate_hz) if name.startswith("ulaw") else _noise(fmt.rate_hz)


def _audio_event(samples: int) -> bytes:
    return orjson.dumps(
        {
            "type": "audio",
            "audio_event": {
                "audio_base_64": pybase64.b64encode_as_string(_noise(samples)),
                "event_id": 1,
                "is_final": False,
            },
        }
    )


def count_steps(quick: bool) -> int:
    """How many steps `measure_parts` says."""
    compared = sum(pair in COMPARED_HZ for pair in _pairs(quick))
    return len(_PARTS) + len(_pairs(quick)) + compared * (len(ENGINES) - 1)
