"""What a caller hears: the real Asterisk, real SIP phones, 1 to 50 calls.

Every call goes through the same conversation: a greeting; then the caller speaks for a second and
the agent answers, over and over; every third answer is interrupted. All sound is sweeps
(`benchmarks.marked`), so each packet tells which part of which sound it carries.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.heard import FRAME_SECONDS, Track, onset_arrival, percentiles, uplink_seconds
from benchmarks.stage import GREETING_SECONDS, Caller, Stage, running_stage

RESPONSES = (3.0, 3.0, 8.0)
"""The third is the one that is interrupted; what the caller says then is answered by the first."""
STEPS = ((1, 60.0), (10, 60.0), (25, 60.0), (50, 600.0))
QUICK_STEPS = ((1, 25.0), (5, 25.0))
"""Calls at once, and for how many seconds."""

_BARGE_IN_AFTER_SECONDS = 1.5
_THINKING_SECONDS = 1.2
_CALLS_PER_SECOND = 4.0
_LATEST_SECONDS = 0.5
"""A sound that has not come after this long belongs to something else."""


@dataclass(frozen=True, slots=True)
class EarStep:
    """One number of calls. Distributions are in ms: count, p50, p99, max."""

    calls: int
    seconds: float
    failed_calls: int
    mouth_to_agent_ms: dict[str, float]
    """From a sound's beginning, 20 ms before its first packet leaves the phone, to the agent having
    the message with it."""
    agent_to_ear_ms: dict[str, float]
    """From a response's first audio message leaving the agent to the first packet with sound."""
    greeting_ms: dict[str, float]
    """The same for the greeting, counted from the answer (200 OK) where that comes later."""
    barge_in_ms: dict[str, float]
    """From the interruption's leaving the agent to the first silent packet."""
    silence_ms: dict[str, float]
    """The same to the end of the last sample above -50 dBFS."""
    gaps_ms: dict[str, float]
    """Between packets at the phones."""
    packets: int
    rtp_lost: int
    rtp_doubled: int
    sweep_frames: int
    """Frames of responses that were followed."""
    frames_lost: int
    frames_doubled: int
    uplink_ratio_min: float
    """Sound that the agent received against the time that the call was up, the worst call."""


async def measure_ear(
    steps: Sequence[tuple[int, float]],
    say: Callable[[str], None],
    *,
    line: str = "audiosocket",
) -> tuple[list[EarStep], str]:
    """Measure each number of calls; the steps, and the version of Asterisk."""
    done: list[EarStep] = []
    version = ""
    for calls, seconds in steps:
        say(f"{calls} calls, {seconds:g} s")
        async with running_stage(RESPONSES, max_calls=calls + 1, line=line) as stage:
            version = stage.asterisk.version
            # A collection in this process would look like a gap at the phones.
            gc.collect()
            gc.freeze()
            done.append(await _measure(stage, calls, seconds))
            gc.unfreeze()
    return done, version


async def _measure(stage: Stage, calls: int, seconds: float) -> EarStep:
    callers: list[Caller] = []
    spoken: dict[int, list[float]] = {}
    failed = 0

    async def one(number: int) -> None:
        nonlocal failed
        await asyncio.sleep(number / _CALLS_PER_SECOND)
        try:
            caller = await stage.call(number)
        except Exception:
            failed += 1
            raise
        callers.append(caller)
        spoken[id(caller)] = await converse(caller, seconds)

    results = await asyncio.gather(*(one(n) for n in range(calls)), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and failed == calls:
            raise result
    ratios = [_uplink_ratio(caller) for caller in callers]
    for caller in callers:
        await caller.call.hang_up()
    return _figures(callers, spoken, calls, seconds, failed, min(ratios, default=0.0))


async def converse(caller: Caller, seconds: float) -> list[float]:
    """Hold the conversation for so long; when the caller's sounds began."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    spoken: list[float] = []
    await asyncio.sleep(GREETING_SECONDS + 0.5)
    turn = 0
    while loop.time() < until:
        spoken.append(await caller.speak())
        length = RESPONSES[turn % len(RESPONSES)]
        interrupts = turn % len(RESPONSES) == len(RESPONSES) - 1
        listen = _BARGE_IN_AFTER_SECONDS if interrupts else length + 0.5
        await asyncio.sleep(_THINKING_SECONDS + listen)
        turn += 1
    return spoken


def _uplink_ratio(caller: Caller) -> float:
    received, lasted = uplink_seconds(caller.agent_heard())
    return received / lasted if lasted else 0.0


def _figures(
    callers: Sequence[Caller],
    spoken: dict[int, list[float]],
    calls: int,
    seconds: float,
    failed: int,
    uplink_ratio: float,
) -> EarStep:
    mouth: list[float] = []
    ear: list[float] = []
    greeting: list[float] = []
    barge_in: list[float] = []
    silence: list[float] = []
    gaps: list[float] = []
    tracks: list[Track] = []
    rtp_lost = rtp_doubled = packets_heard = 0
    for caller in callers:
        packets = caller.packets()
        stats = caller.call.stats()
        rtp_lost, rtp_doubled = rtp_lost + stats.lost, rtp_doubled + stats.duplicated
        packets_heard += stats.packets
        gaps += packets.gaps_ms().tolist()
        heard = caller.agent_heard()
        for at in spoken.get(id(caller), []):
            mouth += _after(at - FRAME_SECONDS, onset_arrival(heard, at))
        interruptions = caller.interruptions()
        for number, response in enumerate(caller.responses()):
            since = max(response.sent_at, caller.answered_at) if number == 0 else response.sent_at
            first = packets.first_sound(since)
            (greeting if number == 0 else ear).extend(_after(since, first))
            if first is None:
                continue
            end = first + response.seconds + FRAME_SECONDS
            cut = next((at for at in interruptions if first < at < end), None)
            if cut is not None:
                barge_in += _after(cut, packets.first_silence(cut))
                silence += _after(cut, packets.last_audible(cut))
            tracks.append(packets.track(first, cut or end, response.seconds))
    return EarStep(
        calls=calls,
        seconds=seconds,
        failed_calls=failed,
        mouth_to_agent_ms=percentiles(mouth),
        agent_to_ear_ms=percentiles(ear),
        greeting_ms=percentiles(greeting),
        barge_in_ms=percentiles(barge_in),
        silence_ms=percentiles(silence),
        gaps_ms=percentiles(np.array(gaps).tolist()),
        packets=packets_heard,
        rtp_lost=rtp_lost,
        rtp_doubled=rtp_doubled,
        sweep_frames=sum(track.frames for track in tracks),
        frames_lost=sum(track.lost for track in tracks),
        frames_doubled=sum(track.doubled for track in tracks),
        uplink_ratio_min=round(uplink_ratio, 5),
    )


def _after(since: float, at: float | None) -> list[float]:
    return [] if at is None or at - since > _LATEST_SECONDS else [1000 * (at - since)]
