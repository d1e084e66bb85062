"""What a stall does: the service stands still for 200 ms while its agent speaks.

The kernel stops it (SIGSTOP) and lets it go on (SIGCONT), as a busy host does. Speech must go on
where it was, nothing lost and nothing said twice; and what comes after must be no later than what
came before.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.heard import FRAME_SECONDS, Track, onset_arrival, uplink_seconds
from benchmarks.stage import GREETING_SECONDS, SPEECH_SECONDS, Caller, Stage, running_stage

STALL_SECONDS = 0.2
RESPONSE_SECONDS = 5.0
_STALL_AFTER_SECONDS = 2.0
"""Into the response."""
_THINKING_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Stall:
    """One call through one stall. Latencies in ms, before it and after it."""

    call: int
    stall_ms: float
    gap_ms: float
    """The longest between two packets of the response that was hit."""
    lost_frames: int
    doubled_frames: int
    ear_before_ms: float
    ear_after_ms: float
    mouth_before_ms: float
    mouth_after_ms: float
    uplink_missing_ms: float
    """Sound that the agent has received less than the time asks for, at the end."""


async def measure_stall(
    calls: int, rounds: int, say: Callable[[str], None], *, line: str = "audiosocket"
) -> list[Stall]:
    """Let some calls talk, and stall the service once in each round."""
    found: list[Stall] = []
    async with running_stage((RESPONSE_SECONDS,), max_calls=calls + 1, line=line) as stage:
        gc.collect()
        gc.freeze()
        callers = [await stage.call(number) for number in range(calls)]
        await asyncio.sleep(GREETING_SECONDS + 0.5)
        for number in range(rounds):
            say(f"stall {number + 1} of {rounds}, {calls} calls")
            found += await _round(stage, callers)
        for caller in callers:
            await caller.call.hang_up()
        gc.unfreeze()
    return found


async def _round(stage: Stage, callers: list[Caller]) -> list[Stall]:
    """Three turns: an ordinary one, one whose answer is stalled, an ordinary one."""
    before = await _turn(callers)
    hit, stall_ms = await _stalled_turn(stage, callers)
    after = await _turn(callers)
    figures = []
    for number, caller in enumerate(callers):
        mouth_before, ear_before, _ = _latencies(caller, before[number])
        mouth_after, ear_after, _ = _latencies(caller, after[number])
        _, _, track = _latencies(caller, hit[number])
        figures.append(
            Stall(
                call=number,
                stall_ms=round(stall_ms, 1),
                gap_ms=track.longest_gap_ms,
                lost_frames=track.lost,
                doubled_frames=track.doubled,
                ear_before_ms=ear_before,
                ear_after_ms=ear_after,
                mouth_before_ms=mouth_before,
                mouth_after_ms=mouth_after,
                uplink_missing_ms=_missing_ms(caller),
            )
        )
    return figures


async def _turn(callers: list[Caller]) -> list[float]:
    """Every caller speaks and hears the answer out; when each began."""
    spoken = await asyncio.gather(*(caller.speak() for caller in callers))
    await asyncio.sleep(_THINKING_SECONDS + RESPONSE_SECONDS)
    return spoken


async def _stalled_turn(stage: Stage, callers: list[Caller]) -> tuple[list[float], float]:
    loop = asyncio.get_running_loop()
    spoken = await asyncio.gather(*(caller.speak() for caller in callers))
    await asyncio.sleep(_THINKING_SECONDS + _STALL_AFTER_SECONDS)
    pid = stage.service.worker
    stopped = loop.time()
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(STALL_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)
    lasted_ms = (loop.time() - stopped) * 1000
    await asyncio.sleep(RESPONSE_SECONDS - _STALL_AFTER_SECONDS + STALL_SECONDS)
    return spoken, lasted_ms


def _latencies(caller: Caller, spoken_at: float) -> tuple[float, float, Track]:
    """Mouth to agent and agent to ear of one turn in ms, -1 where it never came; its track."""
    arrived = onset_arrival(caller.agent_heard(), spoken_at)
    answers = [r for r in caller.responses() if r.sent_at > spoken_at + SPEECH_SECONDS]
    began_at = spoken_at - FRAME_SECONDS
    mouth_ms = -1.0 if arrived is None else round(1000 * (arrived - began_at), 2)
    if not answers:
        return mouth_ms, -1.0, Track()
    answer, packets = answers[0], caller.packets()
    first = packets.first_sound(answer.sent_at)
    if first is None:
        return mouth_ms, -1.0, Track()
    until = first + answer.seconds + STALL_SECONDS + 2 * FRAME_SECONDS
    track = packets.track(first, until, answer.seconds)
    return mouth_ms, round(1000 * (first - answer.sent_at), 2), track


def _missing_ms(caller: Caller) -> float:
    received, lasted = uplink_seconds(caller.agent_heard())
    return round(1000 * (lasted - received), 1)
