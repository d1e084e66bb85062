"""`ari-app soak`: runs a soak, shows how it goes, and writes what it found."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from benchmarks.machine import describe_machine
from benchmarks.rows import machine_line
from benchmarks.soak.options import SoakOptions
from benchmarks.soak.picture import draw
from benchmarks.soak.report import Json, calls_csv, samples_csv, soak_rows, to_json
from benchmarks.soak.run import Outcome, Watcher, run_soak
from benchmarks.soak.sampler import Sample
from benchmarks.soak.verdicts import State, Verdict
from benchmarks.terminal import quiet_logs, table_of

_EVERY_LINES = 20
_HEAD = (
    "    time  calls  ended  failed  stranded    RSS MB   fds  tasks    blocks"
    "  gaps p99/max ms   CPU  machine"
)
_MOST_DETAILS = 20


class Display(Watcher):
    """Lines of text, which also read well in a file."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._lines = 0

    def say(self, text: str) -> None:
        passed = time.monotonic() - self._began
        self._print(f"[dim]{_clock(passed)}[/]  {escape(text)}")

    def sampled(self, sample: Sample) -> None:
        if self._lines % _EVERY_LINES == 0:
            self._print(f"[bold]{_HEAD}[/]")
        self._lines += 1
        bad = sample.failed or sample.stranded
        gaps = f"{sample.gap_p99_ms}/{sample.gap_max_ms:.0f}"
        line = (
            f"{_clock(sample.at_s):>8}{sample.calls:7}{sample.ended:7}{sample.failed:8}"
            f"{sample.stranded:10}{sample.rss_mb:10.1f}{sample.fds:6}{sample.tasks:7}"
            f"{sample.blocks:10}{gaps:>17}{sample.cpu_percent:5.0f} %"
            f"{sample.machine_percent:7.0f} %  {sample.fault}"
        )
        self._print(f"[red]{line}[/]" if bad else line)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


async def soak(options: SoakOptions, console: Console) -> bool:
    """Run a soak, show and write what it found; whether no goal was missed.

    Raises:
        BenchmarkError: a program does not start, or ends when it must not.
        LabError: no Asterisk is to be had.
    """
    machine = asdict(await asyncio.to_thread(describe_machine))
    with quiet_logs():
        outcome = await run_soak(options, Display(console))
    machine["asterisk"] = outcome.asterisk
    results = to_json(outcome)
    body = {"benchmark": "soak", "quick": False, "machine": machine, "results": results}
    paths = await asyncio.to_thread(_write, options.out, outcome, body)
    console.print()
    for rows in soak_rows(results):
        console.print(table_of(rows))
    console.print(f"[dim]{machine_line(machine)}[/]", highlight=False)
    console.print(f"[dim]{', '.join(map(str, paths))}[/]\n", highlight=False)
    for verdict in outcome.verdicts:
        _print_problems(verdict, console)
    return all(verdict.state is not State.MISSED for verdict in outcome.verdicts)


def _write(folder: Path, outcome: Outcome, body: Json) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(body, indent=1, ensure_ascii=False) + "\n"
    (folder / "soak.json").write_text(text, encoding="utf-8")
    (folder / "samples.csv").write_text(samples_csv(outcome.samples), encoding="utf-8")
    (folder / "calls.csv").write_text(calls_csv(outcome.judged, outcome.began), encoding="utf-8")
    draw(body["results"], folder / "soak.png")
    return [folder / name for name in ("soak.json", "samples.csv", "calls.csv", "soak.png")]


def _print_problems(verdict: Verdict, console: Console) -> None:
    if verdict.state is not State.MISSED:
        return
    console.print(f"[bold red]Missed:[/] {escape(verdict.what)}, {escape(verdict.measured)}")
    for line in verdict.details[:_MOST_DETAILS]:
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    if (more := len(verdict.details) - _MOST_DETAILS) > 0:
        console.print(f"  and {more} more, in calls.csv")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02}:{rest:02}"
