"""Runs benchmarks by name, shows how they go, and writes JSON and PNG: `ari-app bench`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from benchmarks import bridge, compare, ear, flood, page, parts, setups, stall
from benchmarks.flood_process import KINDS
from benchmarks.lines import way
from benchmarks.machine import ROOT, describe_machine
from benchmarks.pictures import draw
from benchmarks.processes import BenchmarkError, compile_sources
from benchmarks.rows import ROWS, machine_line
from benchmarks.terminal import quiet_logs, table_of
from lab.asterisk import LabAsterisk
from lab.practice_agent.formats import AudioFormat

NAMES = ("parts", "bridge", "ear", "setups", "stall", "flood", "page")
_WINDOW_SECONDS, _QUICK_WINDOW_SECONDS = 30.0, 10.0
_STALL_CALLS = 5
_FLOOD_SECONDS, _QUICK_FLOOD_SECONDS = 10.0, 5.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """How to measure.

    `formats` and `calls` narrow *bridge* to some formats and numbers of calls; `calls` is also how
    many *flood* and *page* let run, and *setups* sets up a second. `lines` are the ways in that
    *bridge*, *ear*, *setups* and *stall* measure; all but bridge take the first. `recording`
    measures *bridge* once more, with calls recorded. `against` is the revision that *compare*
    compares with. `workers` are the numbers of processes that *bridge* measures with, in turn, and
    `listeners` those of calls that are listened to, `watchers` those of pages that show all calls.
    """

    quick: bool = False
    out: Path = Path("bench-output")
    formats: tuple[str, ...] = ()
    calls: tuple[int, ...] = ()
    lines: tuple[str, ...] = ("audiosocket",)
    recording: bool = False
    against: str = ""
    workers: tuple[int, ...] = (1,)
    listeners: tuple[int, ...] = (0,)
    watchers: tuple[int, ...] = (0,)

    @property
    def recorded(self) -> tuple[bool, ...]:
        """Whether calls are recorded, in each of the runs of *bridge*."""
        return (False, True) if self.recording else (False,)


async def run(
    names: Sequence[str], options: Options | None = None, console: Console | None = None
) -> list[Path]:
    """Run benchmarks one after another; the JSON files that were written.

    `all` stands for every name but `compare`, which needs to be told against what. Raises
    BenchmarkError for a name that there is not, and where a program does not start; LabError
    where no Asterisk is to be had.
    """
    options, console = options or Options(), console or Console()
    for name in options.lines:
        way(name)
    wanted = NAMES if "all" in names else tuple(dict.fromkeys(names))
    if unknown := [name for name in wanted if name not in _BENCHMARKS]:
        there = ", ".join(_BENCHMARKS)
        raise BenchmarkError(f"No benchmark {unknown[0]!r}; there are {there} and all.")
    if unknown := sorted(set(options.formats) - set(AudioFormat)):
        raise BenchmarkError(f"No format {unknown[0]!r}; there are {', '.join(AudioFormat)}.")
    if "compare" in wanted and not options.against:
        raise BenchmarkError("Compare against what? Say --against REVISION.")
    await asyncio.to_thread(options.out.mkdir, parents=True, exist_ok=True)
    await compile_sources(ROOT)
    return [await _run_one(name, options, console) for name in wanted]


async def _run_one(name: str, options: Options, console: Console) -> Path:
    machine = asdict(await asyncio.to_thread(describe_machine))
    measure, steps = _BENCHMARKS[name], _STEPS[name](options)
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with quiet_logs(), Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(name, total=steps)

        def say(text: str) -> None:
            progress.update(task, description=f"[bold]{name}[/] {text}", advance=1)

        results, asterisk = await measure(options, say)
    machine["asterisk"] = asterisk
    body = {"benchmark": name, "quick": options.quick, "machine": machine, "results": results}
    path = options.out / f"{name}.json"
    text = json.dumps(body, indent=1, ensure_ascii=False) + "\n"
    await asyncio.to_thread(path.write_text, text, encoding="utf-8")
    await asyncio.to_thread(draw, name, results, path.with_suffix(".png"))
    for rows in ROWS[name](results):
        console.print(table_of(rows))
    console.print(f"[dim]{machine_line(machine)}[/]", highlight=False)
    console.print(f"[dim]{path}, {path.with_suffix('.png')}[/]\n", highlight=False)
    return path


async def _measure_parts(options: Options, say: Say) -> tuple[Any, str]:
    return _plain(await parts.measure_parts(options.quick, say)), "none"


async def _measure_bridge(options: Options, say: Say) -> tuple[Any, str]:
    window = _QUICK_WINDOW_SECONDS if options.quick else _WINDOW_SECONDS
    runs = [
        await bridge.measure_format(
            name,
            _bridge_steps(options),
            window,
            say,
            line=line,
            recorded=recorded,
            workers=workers,
            listeners=listeners,
            watchers=watchers,
        )
        for name in _formats(options)
        for line in options.lines
        for recorded in options.recorded
        for workers in options.workers
        for listeners in options.listeners
        for watchers in options.watchers
    ]
    plain = _plain(runs)
    for run_, measured in zip(plain, runs, strict=True):
        for step, figures in zip(run_["steps"], measured.steps, strict=True):
            step["holds"] = figures.holds
            step["generator_is_bottleneck"] = figures.generator_is_bottleneck
            step["disturbed"] = figures.disturbed
    return {"runs": plain, "window_seconds": window}, "none (lab.load)"


async def _measure_ear(options: Options, say: Say) -> tuple[Any, str]:
    steps, version = await ear.measure_ear(
        ear.QUICK_STEPS if options.quick else ear.STEPS, say, line=options.lines[0]
    )
    return {"steps": _plain(steps)}, version


async def _measure_setups(options: Options, say: Say) -> tuple[Any, str]:
    seconds = setups.QUICK_SECONDS if options.quick else setups.SECONDS
    found, version = await setups.measure_setups(
        _rates(options), seconds, say, line=options.lines[0]
    )
    plain = _plain(found)
    for figures, measured in zip(plain, found, strict=True):
        figures["holds"] = measured.holds
    return {"rates": plain, "seconds": seconds}, version


async def _measure_stall(options: Options, say: Say) -> tuple[Any, str]:
    async with LabAsterisk() as asterisk:
        version = asterisk.version
    stalls = await stall.measure_stall(
        _STALL_CALLS, _stall_rounds(options), say, line=options.lines[0]
    )
    return {"stalls": _plain(stalls)}, version


async def _measure_flood(options: Options, say: Say) -> tuple[Any, str]:
    seconds = _QUICK_FLOOD_SECONDS if options.quick else _FLOOD_SECONDS
    calls = options.calls[0] if options.calls else flood.CALLS
    floods = await flood.measure_flood(calls, tuple(KINDS), seconds, say)
    plain = _plain(floods)
    for figures, measured in zip(plain, floods, strict=True):
        figures["holds"] = measured.holds
        figures["disturbed"] = measured.disturbed
    return {"floods": plain}, "none (lab.load)"


async def _measure_compare(options: Options, say: Say) -> tuple[Any, str]:
    comparison = await compare.measure_compare(
        options.against,
        _formats(options),
        options.calls or compare.CALLS,
        compare.QUICK_ROUNDS if options.quick else compare.ROUNDS,
        compare.QUICK_WINDOW_SECONDS if options.quick else compare.WINDOW_SECONDS,
        say,
    )
    return _plain(comparison), "none (lab.load)"


def _compare_steps(options: Options) -> int:
    rounds = compare.QUICK_ROUNDS if options.quick else compare.ROUNDS
    return 2 * rounds * len(_formats(options)) * len(options.calls or compare.CALLS)


async def _measure_page(options: Options, say: Say) -> tuple[Any, str]:
    window = _QUICK_WINDOW_SECONDS if options.quick else _WINDOW_SECONDS
    views, watching = await page.measure_page(_page_calls(options), window, say)
    return {"views": _plain(views), "watching": _plain(watching)}, "none"


def _formats(options: Options) -> tuple[str, ...]:
    return options.formats or bridge.FORMATS


def _bridge_steps(options: Options) -> tuple[int, ...]:
    return options.calls or (bridge.QUICK_STEPS if options.quick else bridge.STEPS)


def _rates(options: Options) -> tuple[int, ...]:
    return options.calls or (setups.QUICK_RATES if options.quick else setups.RATES)


def _page_calls(options: Options) -> tuple[int, ...]:
    return options.calls or (page.QUICK_CALLS if options.quick else page.CALLS)


def _stall_rounds(options: Options) -> int:
    return 2 if options.quick else 5


Measure = Callable[[Options, Say], Awaitable[tuple[Any, str]]]
_BENCHMARKS: dict[str, Measure] = {
    "parts": _measure_parts,
    "bridge": _measure_bridge,
    "ear": _measure_ear,
    "setups": _measure_setups,
    "stall": _measure_stall,
    "flood": _measure_flood,
    "page": _measure_page,
    "compare": _measure_compare,
}
_STEPS: dict[str, Callable[[Options], int]] = {
    "parts": lambda options: parts.count_steps(options.quick),
    "bridge": lambda options: (
        len(options.recorded)
        * len(options.workers)
        * len(options.listeners)
        * len(options.watchers)
        * len(options.lines)
        * len(_formats(options))
        * (len(_bridge_steps(options)) + 1)
    ),
    "ear": lambda options: len(ear.QUICK_STEPS if options.quick else ear.STEPS),
    "setups": lambda options: len(_rates(options)),
    "stall": _stall_rounds,
    "flood": lambda options: len(KINDS) + 1,
    "page": lambda options: 1 + len(_page_calls(options)),
    "compare": _compare_steps,
}


def _plain(value: Any) -> Any:
    """Dataclasses as JSON has them, wherever they are."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


__all__ = ["NAMES", "BenchmarkError", "Options", "run"]
