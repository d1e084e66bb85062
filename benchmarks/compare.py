"""What a call costs in two builds, measured in turn: A B A B, and the ratio of each pair.

A shared machine is faster or slower by the minute, so figures of different runs say little. Here
both builds are measured within the same minutes, by the same load generator and the same agent,
which are those of this build; only `ari-app serve` is another one.
"""

from __future__ import annotations

import asyncio
import io
import statistics
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bridge import BridgeRun, Report, Step, measure_format
from benchmarks.machine import ROOT
from benchmarks.processes import BenchmarkError, compile_sources
from lab.asterisk import cache_dir

CALLS = (1, 100)
ROUNDS, QUICK_ROUNDS = 5, 2
WINDOW_SECONDS, QUICK_WINDOW_SECONDS = 15.0, 5.0


@dataclass(frozen=True, slots=True)
class Line:
    """One quantity, in both builds.

    Attributes:
        calls: How many there were; 0 where it is measured without any.
        before: In the other build: the median of all rounds.
        after: In this one.
        ratio: The median of `ratios`.
        ratios: After to before, of each round.
    """

    what: str
    unit: str
    agent_format: str
    calls: int
    before: float
    after: float
    ratio: float
    ratios: list[float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All quantities.

    Attributes:
        against: The other build's revision, as it was asked for.
        commit: The same, in full.
        now: What this build is called.
    """

    against: str
    commit: str
    now: str
    rounds: int
    window_seconds: float
    lines: list[Line]


async def measure_compare(
    against: str,
    formats: Sequence[str],
    calls: Sequence[int],
    rounds: int,
    window_seconds: float,
    say: Report,
) -> Comparison:
    """Measure this build against the one of a revision.

    Raises:
        BenchmarkError: There is no such revision, or a build does not serve.
    """
    commit, sources = await asyncio.to_thread(export, against)
    await compile_sources(sources)
    builds = {against: sources, "now": None}
    lines: list[Line] = []
    for agent_format in formats:
        runs: dict[str, list[BridgeRun]] = {name: [] for name in builds}
        for number in range(rounds):
            for name, build in builds.items():

                def tell(text: str, name: str = name, number: int = number) -> None:
                    say(f"{name}, round {number + 1} of {rounds}: {text}")

                run = await measure_format(
                    agent_format, calls, window_seconds, tell, build=build, only_cost=True
                )
                if len(run.steps) < len(calls):
                    raise BenchmarkError(f"{name}: {run.stopped_because}")
                if any(step.restarts for step in run.steps):
                    raise BenchmarkError(f"{name}: a worker was replaced while it was measured")
                runs[name].append(run)
        lines += compared(runs[against], runs["now"])
    return Comparison(against, commit, "now", rounds, window_seconds, lines)


def compared(before: Sequence[BridgeRun], after: Sequence[BridgeRun]) -> Iterator[Line]:
    """Yield every quantity of two builds' runs, of which the n-th of each make a pair."""
    agent_format = before[0].agent_format

    def line(what: str, unit: str, calls: int, of: Callable[[BridgeRun], float]) -> Line:
        pairs = [(of(a), of(b)) for a, b in zip(before, after, strict=True)]
        ratios = [round(b / a, 3) if a else 1.0 for a, b in pairs]
        return Line(
            what,
            unit,
            agent_format,
            calls,
            statistics.median(a for a, _ in pairs),
            statistics.median(b for _, b in pairs),
            round(statistics.median(ratios), 3),
            ratios,
        )

    def of_step(place: int, of: Callable[[Step], float]) -> Callable[[BridgeRun], float]:
        return lambda run: of(run.steps[place])

    yield line("idle memory", "MB", 0, lambda run: run.idle_memory_mb)
    for place, step in enumerate(before[0].steps):
        calls = step.calls
        yield line("CPU a call", "%", calls, of_step(place, lambda s: s.cpu_percent_per_call))
        if place:
            yield line("memory a call", "MB", calls, of_step(place, lambda s: s.memory_mb_per_call))
        yield line("gap, p99", "ms", calls, of_step(place, lambda s: s.gap_p99_ms))


def export(revision: str) -> tuple[str, Path]:
    """Write the sources of a revision into the cache, once; return its commit and the folder.

    They run with the packages that this build runs with.

    Raises:
        BenchmarkError: git does not know it.
    """
    try:
        commit = _git("rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except BenchmarkError as error:
        raise BenchmarkError(f"{revision!r} is no revision that is here ({error})") from None
    name = commit.decode().strip()
    folder = cache_dir() / "builds" / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            with tarfile.open(fileobj=io.BytesIO(_git("archive", "--format=tar", name))) as archive:
                archive.extractall(Path(scratch) / "sources", filter="data")
            (Path(scratch) / "sources").rename(folder)
    return name, folder


def _git(*arguments: str) -> bytes:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error).encode()
        raise BenchmarkError(
            f"git {arguments[0]}: {said.decode(errors='replace').strip()}"
        ) from None
    return done.stdout
