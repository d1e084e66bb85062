"""Results as pictures, from the JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

matplotlib.use("Agg")

Json = dict[str, Any]
Draw = Callable[[Json], Figure]

_CPU_GOALS = {"pcm_16000": 0.40, "pcm_8000": 0.30}


def draw(name: str, results: Json, path: Path) -> None:
    """Write the picture of a benchmark."""
    figure = PICTURES[name](results)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _parts(results: Json) -> Figure:
    figure = Figure(figsize=(11, 8))
    costs, delay = figure.subplots(2, 1)
    steps = results["costs"]
    costs.barh([f"{c['part']}: {c['step']}" for c in steps], [c["microseconds"] for c in steps])
    costs.invert_yaxis()
    costs.set_xscale("log")
    costs.set_xlabel("µs, hot loop")
    compared = [r for r in results["resamplers"] if (r["from_hz"], r["to_hz"]) == (8000, 16000)]
    least = [r["quality"]["held_back_min_ms"] for r in compared]
    most = [r["quality"]["held_back_max_ms"] for r in compared]
    names = [f"{r['engine']} (SINAD {r['quality']['sinad_1000_db']:.0f} dB)" for r in compared]
    spans = [max(0.3, high - low) for low, high in zip(least, most, strict=True)]
    delay.barh(names, spans, left=least)
    delay.invert_yaxis()
    delay.set_xlabel("ms of sound held back, 8 to 16 kHz, least to most")
    return figure


def _bridge(results: Json) -> Figure:
    figure = Figure(figsize=(11, 9))
    (cpu, late), (gaps, memory) = figure.subplots(2, 2)
    for run in results["runs"]:
        steps, name = run["steps"], f"{run['line']}, {run['agent_format']}"
        calls = [step["calls"] for step in steps]
        many = [step for step in steps if step["calls"] >= 10]
        cpu.plot(
            [step["calls"] for step in many],
            [step["cpu_percent_per_call"] for step in many],
            "o-",
            label=name,
        )
        late.plot(calls, [step["lateness_p99_ms"] for step in steps], "o-", label=name)
        gaps.plot(calls, [step["gap_p99_ms"] for step in steps], "o-", label=name)
        memory.plot(calls, [step["memory_mb"] for step in steps], "o-", label=name)
    for name, goal in _CPU_GOALS.items():
        _goal(cpu, goal, f"goal {name}")
    _goal(late, 5.0, "goal at 100")
    _goal(gaps, 25.0, "limit")
    _label(cpu, "% of a core per call")
    _label(late, "lateness p99, ms")
    _label(gaps, "gap p99, ms")
    _label(memory, "resident memory, MB")
    return figure


def _ear(results: Json) -> Figure:
    figure = Figure(figsize=(11, 5))
    axes = figure.subplots(1, 1)
    calls = [step["calls"] for step in results["steps"]]
    for name, label in {
        "mouth_to_agent_ms": "mouth to agent",
        "agent_to_ear_ms": "agent to ear",
        "greeting_ms": "greeting",
        "barge_in_ms": "barge-in to silence",
        "gaps_ms": "gaps at the phone",
    }.items():
        values = [step[name] for step in results["steps"]]
        axes.plot(calls, [value["p50"] for value in values], "o-", label=f"{label}, p50")
        axes.plot(calls, [value["p99"] for value in values], "x:", label=f"{label}, p99")
    _label(axes, "ms")
    return figure


def _stall(results: Json) -> Figure:
    figure = Figure(figsize=(11, 5))
    axes = figure.subplots(1, 1)
    for name in ("ear_before_ms", "ear_after_ms", "mouth_before_ms", "mouth_after_ms"):
        axes.plot([stall[name] for stall in results["stalls"]], "o-", label=name[:-3])
    axes.set_xlabel("stall")
    axes.set_ylabel("latency before and after, ms")
    axes.legend()
    return figure


def _setups(results: Json) -> Figure:
    figure = Figure(figsize=(9, 4.5))
    axes = figure.subplots()
    rates = [rate["rate"] for rate in results["rates"]]
    for name in ("p50_ms", "p95_ms"):
        axes.plot(rates, [rate[name] for rate in results["rates"]], "o-", label=name[:3])
    _goal(axes, 100.0, "goal of p95")
    axes.set_xlabel("calls a second")
    axes.set_ylabel("INVITE to answer, ms")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _flood(results: Json) -> Figure:
    figure = Figure(figsize=(9, 4.5))
    axes = figure.subplots()
    floods = results["floods"]
    names = [flood["kind"] for flood in floods]
    axes.bar(names, [flood["gap_p99_ms"] for flood in floods])
    _goal(axes, 25.0, "25 ms")
    axes.set_ylabel("p99 gap of running calls, ms")
    axes.tick_params(axis="x", rotation=30)
    return figure


def _compare(results: Json) -> Figure:
    figure = Figure(figsize=(9, 1.5 + 0.35 * len(results["lines"])))
    axes = figure.subplots()
    for place, line in enumerate(results["lines"]):
        axes.plot(line["ratios"], [place] * len(line["ratios"]), "o", color="grey", markersize=4)
        axes.plot([line["ratio"]], [place], "D", color="black")
    labels = [f"{x['what']}, {x['agent_format']}, {x['calls']}" for x in results["lines"]]
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.axvline(1.0, linestyle="--", linewidth=1, color="grey")
    axes.set_xlabel(f"part of what it is in {results['against']}")
    axes.set_xlim(left=0)
    return figure


def _page(results: Json) -> Figure:
    figure = Figure(figsize=(9, 4.5))
    axes = figure.subplots()
    for slowdown in sorted({one["slowdown"] for one in results["watching"]}):
        steps = [one for one in results["watching"] if one["slowdown"] == slowdown]
        busy = [one["main_thread_percent"] for one in steps]
        axes.plot([one["calls"] for one in steps], busy, "o-", label=f"{slowdown} times slower")
    _label(axes, "% of the browser's main thread")
    return figure


def _goal(axes: Axes, value: float, label: str) -> None:
    axes.axhline(value, linestyle="--", linewidth=1, color="grey")
    axes.annotate(label, (0.99, value), xycoords=("axes fraction", "data"), ha="right", va="bottom")


def _label(axes: Axes, text: str) -> None:
    axes.set_xlabel("calls")
    axes.set_ylabel(text)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


PICTURES: dict[str, Draw] = {
    "parts": _parts,
    "bridge": _bridge,
    "ear": _ear,
    "setups": _setups,
    "stall": _stall,
    "flood": _flood,
    "page": _page,
    "compare": _compare,
}
