"""What a call costs: `ari-app serve` between a load generator and a practice agent over TLS.

Three processes. The generator behaves like the far end of a line with N calls, such as an Asterisk,
and notes when each frame arrives, or is played where the far end paces. The agent speaks half of
the time. The service in the middle is what is measured, by its own CPU clock. N grows until a limit
breaks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lines import way
from benchmarks.onlookers import looking_on
from benchmarks.processes import (
    Agent,
    BenchmarkError,
    Cores,
    Load,
    Service,
    agent_settings,
    busy_seconds,
    running_agent,
    running_service,
    scratch_folder,
)

FORMATS = ("pcm_16000", "pcm_8000", "ulaw_8000")
STEPS = (1, 10, 25, 50, 100, 150, 200, 250, 300)
QUICK_STEPS = (1, 25, 50, 100)

RESPONSE_SECONDS = 4.0
"""The callers' pattern is 8 s long (`lab.load.voice`), so the agent speaks half of the time."""
MAX_GAP_P99_MS = 25.0

_SETTLE_SECONDS = 3.0
_LAST_RESPONSE_SECONDS = RESPONSE_SECONDS + 2.0
_BUSY_GENERATOR_MS = 5.0
_DISTURBED_PERCENT = 20.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """One number of calls, measured."""

    line: str
    agent_format: str
    calls: int
    cpu_percent_per_call: float
    """Percent of one core, user and system."""
    cpu_percent: float
    memory_mb: float
    memory_mb_per_call: float
    """Beyond the first call."""
    gap_p50_ms: float
    gap_p99_ms: float
    gap_max_ms: float
    lateness_p50_ms: float
    lateness_p99_ms: float
    lateness_max_ms: float
    drift_ppm: float
    missing_frames: int
    surplus_frames: int
    lost_lines: int
    frames: int
    generator_late_p99_ms: float
    """How late the generator's own ticks were: above 5 ms it is the generator that is too slow."""
    generator_cpu_percent: float
    agent_cpu_percent: float
    others_percent: float
    """How much of the service's core went to programs that are not part of this."""
    front_percent_per_call: float = 0.0
    """What of the CPU is the front's, where there are several workers."""
    restarts: int = 0
    """Workers that were replaced meanwhile."""

    @property
    def generator_is_bottleneck(self) -> bool:
        """Whether the load, not the service, was at its limit."""
        busy = max(self.generator_cpu_percent, self.agent_cpu_percent) > 95
        return busy or self.generator_late_p99_ms > _BUSY_GENERATOR_MS

    @property
    def disturbed(self) -> bool:
        """Whether other programs took so much of the service's core that the step says little."""
        return self.others_percent > _DISTURBED_PERCENT

    @property
    def holds(self) -> bool:
        """Whether the limits are kept: p99 gap of 25 ms, nothing lost, no line or worker lost."""
        return (
            self.gap_p99_ms <= MAX_GAP_P99_MS
            and self.missing_frames == 0
            and self.surplus_frames == 0
            and self.lost_lines == 0
            and self.restarts == 0
        )


@dataclass(frozen=True, slots=True)
class Conservation:
    """Whether all sound arrived, in seconds of it, over whole conversations."""

    agent_spoke_seconds: float
    callers_heard_seconds: float
    """Frames that are not silence; a response fills up its last one, so a little more than sent."""
    callers_spoke_seconds: float
    agent_heard_seconds: float
    worst_call_lost_seconds: float
    """Of the agent's sound."""
    interruptions: int


@dataclass(frozen=True, slots=True)
class BridgeRun:
    """All steps with one format of the agent's over one kind of line."""

    line: str
    agent_format: str
    steps: list[Step]
    conservation: Conservation | None
    stopped_because: str
    idle_memory_mb: float = 0.0
    """Before the first call."""


def agent_profile(agent_format: str) -> dict[str, Any]:
    """An agent that answers every turn with `RESPONSE_SECONDS` of sound, and never greets."""
    return {
        "dialogue": {"turns": [{"say": f"{RESPONSE_SECONDS}"}]},
        "formats": {"user_input": agent_format, "agent_output": agent_format},
        "limits": {"duration_seconds": 3600},
    }


async def measure_format(
    agent_format: str,
    steps: Sequence[int],
    window_seconds: float,
    say: Report,
    *,
    line: str = "audiosocket",
    recorded: bool = False,
    workers: int = 1,
    build: Path | None = None,
    only_cost: bool = False,
    listeners: int = 0,
    watchers: int = 0,
) -> BridgeRun:
    """Grow the number of calls step by step, and stop after the first step that breaks a limit.

    Args:
        workers: Processes that carry the calls.
        build: As for `running_service`.
        only_cost: Go through all steps, whatever breaks, and do not count sound.
        listeners: So many calls are listened to while they are measured, each by one.
        watchers: So many pages show all calls meanwhile.
    """
    cores, far_end = Cores.split(), way(line)
    line += ", recorded" if recorded else ""
    line += f", {workers} workers" if workers > 1 else ""
    line += f", {listeners} listeners" if listeners else ""
    line += f", {watchers} watchers" if watchers else ""
    what = f"{line}, {agent_format}"
    done: list[Step] = []
    conservation: Conservation | None = None
    because = "the last step was reached"
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        agent = await stack.enter_async_context(
            running_agent(folder, agent_profile(agent_format), cores=cores.others)
        )
        load = await stack.enter_async_context(far_end.start(folder, cores.others))
        service = await stack.enter_async_context(
            running_service(
                folder,
                {
                    **far_end.settings,
                    **far_end.reach(load),
                    **agent_settings(agent.url, agent.authority),
                    "ELEVENLABS_AGENT_ID": "bench",
                    "MAX_CONCURRENT_CALLS": str(max(steps) + 1),
                    "CALL_TIMEOUT_SECONDS": "3600",
                    "LOG_LEVEL": "INFO",
                    **({"WORKERS": str(workers)} if workers > 1 else {}),
                    **({"RECORDINGS_DIR": str(folder / "recordings")} if recorded else {}),
                },
                cores=cores.measured,
                build=build,
            )
        )
        await far_end.meet(load, service)
        idle_memory_mb = round(service.process.memory_mb(), 1)
        running = 0
        for count in steps:
            say(f"{what}: {count} calls")
            await load.begin(count - running)
            running = count
            if not await load.joined(count):
                because = f"{count} calls did not all come up; {_last_words(service)}"
                break
            await asyncio.sleep(_SETTLE_SECONDS)
            first = done[0] if done else None
            async with looking_on(service.api_url, min(count, listeners), watchers, cores.others):
                step = await _measure(
                    line, agent_format, count, window_seconds, service, load, agent, first
                )
            done.append(step)
            if not step.holds and not only_cost:
                because = _why(step)
                break
        if done and done[-1].holds and not only_cost:
            say(f"{what}: counting what was heard")
            conservation = await _conserve(load, agent)
        await load.end_calls()
        await asyncio.sleep(1.0)
    return BridgeRun(line, agent_format, done, conservation, because, idle_memory_mb)


def _why(step: Step) -> str:
    if step.restarts:
        return "a worker was replaced while it was measured"
    if step.disturbed:
        return f"other programs took {step.others_percent:.0f} % of the service's core"
    if step.generator_is_bottleneck:
        return "the load, not the service, was at its limit"
    return "a limit broke"


def _last_words(service: Service) -> str:
    lines = service.process.log.read_text(errors="replace").splitlines()
    wrong = [line for line in lines if '"level": "info"' not in line]
    return (wrong or lines or ["it said nothing"])[-1][:300]


async def _measure(
    line: str,
    agent_format: str,
    count: int,
    seconds: float,
    service: Service,
    load: Load,
    agent: Agent,
    first: Step | None,
) -> Step:
    loop = asyncio.get_running_loop()
    processes = (service.process, load.process, agent.process)
    cores, starts = os.sched_getaffinity(service.process.pid), service.starts
    await load.post("window")
    started, busy = loop.time(), busy_seconds(cores)
    before, front = [process.cpu_seconds() for process in processes], service.front_cpu_seconds()
    await asyncio.sleep(seconds)
    front = service.front_cpu_seconds() - front
    after = [process.cpu_seconds() for process in processes]
    lasted, busy = loop.time() - started, busy_seconds(cores) - busy
    percent = [100 * (b - a) / lasted for a, b in zip(before, after, strict=True)]
    if service.process.returncode is not None:
        raise BenchmarkError(f"ari-app serve has ended: {_last_words(service)}")
    report = await load.report()
    heard, gaps, late = report["heard"], report["heard"]["gaps"], report["heard"]["lateness"]
    memory = service.process.memory_mb()
    per_call = (memory - first.memory_mb) / (count - first.calls) if first else 0.0
    return Step(
        line=line,
        agent_format=agent_format,
        calls=count,
        cpu_percent_per_call=round(percent[0] / count, 4),
        cpu_percent=round(percent[0], 2),
        memory_mb=round(memory, 1),
        memory_mb_per_call=round(per_call, 3),
        gap_p50_ms=gaps["p50_ms"],
        gap_p99_ms=gaps["p99_ms"],
        gap_max_ms=gaps["max_ms"],
        lateness_p50_ms=late["p50_ms"],
        lateness_p99_ms=late["p99_ms"],
        lateness_max_ms=late["max_ms"],
        drift_ppm=heard["drift_ppm"],
        missing_frames=heard["missing_frames"],
        surplus_frames=heard["surplus_frames"],
        lost_lines=sum(report["closed_lines"].values()),
        frames=heard["frames"],
        generator_late_p99_ms=report["generator_lateness"]["p99_ms"],
        generator_cpu_percent=round(percent[1], 1),
        agent_cpu_percent=round(percent[2], 1),
        others_percent=round(max(0.0, 100 * busy / lasted - percent[0]), 1),
        front_percent_per_call=round(100 * front / lasted / count, 4),
        restarts=service.starts - starts,
    )


async def _conserve(load: Load, agent: Agent) -> Conservation:
    """Let the callers fall silent, wait for the last answers, and compare both ends."""
    await load.post("quiet")
    await asyncio.sleep(_LAST_RESPONSE_SECONDS)
    report = await load.report()
    heard, said = report["voiced_seconds"], report["sent_seconds"]
    conversations = {
        summary["dynamic_variables"].get("call_sid"): summary
        for summary in await agent.conversations()
    }
    both = [(name, conversations[name]) for name in heard if name in conversations]
    return Conservation(
        agent_spoke_seconds=round(sum(s["agent_audio_seconds"] for _, s in both), 2),
        callers_heard_seconds=round(sum(heard[name] for name, _ in both), 2),
        callers_spoke_seconds=round(sum(said[name] for name, _ in both), 2),
        agent_heard_seconds=round(sum(s["user_audio_seconds"] for _, s in both), 2),
        worst_call_lost_seconds=round(
            max((s["agent_audio_seconds"] - heard[name] for name, s in both), default=0.0), 3
        ),
        interruptions=sum(s["interruptions"] for _, s in both),
    )
