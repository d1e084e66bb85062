"""Draws a soak: what was held, and what was heard, over time, with the faults as marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Json = dict[str, Any]

_DPI = 100
_INK, _GREY, _LINE = "#222a33", "#67717d", "#c9d0d8"
_ALARM, _GOOD, _BLUE, _ORANGE = "#c0262d", "#2b7a4b", "#2563a8", "#c2691c"
_COLOURS = {"held": _GOOD, "missed": _ALARM, "open": _ORANGE}
_ROWS = 6
_LEAST_FAULT_WIDTH = 0.004
"""Of the whole time: a shorter fault would not be seen."""


def draw(results: Json, path: Path) -> None:
    """Write a PNG of 1600 x 1150 pixels. Raises OSError when it cannot be written."""
    figure = Figure(figsize=(16, 11.5), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        _ROWS, 1, left=0.065, right=0.985, top=0.80, bottom=0.045, hspace=0.16
    )
    axes = [figure.add_subplot(grid[row]) for row in range(_ROWS)]
    _draw_head(figure, results)
    samples = results["samples"]
    at = [sample["at_s"] / 60 for sample in samples]
    minutes = max([results["minutes"], *at])
    for each in axes:
        _prepare(each, minutes)
        _draw_faults(each, results["faults"], minutes)
    _draw_labels(axes[0], results["faults"])
    calls, memory, held, blocks, gaps, cpu = axes
    _plot(calls, at, samples, "calls", "calls at the phones", _BLUE)
    _plot(calls, at, samples, "service_calls", "in the service", _GREY)
    _plot(calls, at, samples, "failed", "failed, no fault about", _ORANGE)
    _plot(calls, at, samples, "stranded", "stranded", _ALARM)
    _draw_memory(memory, at, samples)
    _plot(held, at, samples, "fds", "file descriptors", _BLUE)
    _plot(held, at, samples, "tasks", "tasks", _ORANGE)
    _plot(held, at, samples, "lines", "lines", _GOOD)
    _plot(blocks, at, samples, "blocks", "allocated blocks", _BLUE)
    _plot(gaps, at, samples, "gap_max_ms", "longest gap, ms", _ORANGE)
    _plot(gaps, at, samples, "gap_p99_ms", "gaps, p99, ms", _BLUE)
    gaps.set_yscale("log")
    _plot(cpu, at, samples, "cpu_percent", "service, % of a core", _BLUE)
    _plot(cpu, at, samples, "machine_percent", "machine, % of all cores", _GREY)
    for each in axes:
        if each is not gaps and each is not memory and each is not blocks:
            each.set_ylim(bottom=0)
        each.legend(loc="upper left", fontsize=8.5, frameon=False, ncols=4, labelcolor=_INK)
    for each in axes[:-1]:
        each.tick_params(labelbottom=False)
    axes[-1].xaxis.set_major_formatter(lambda value, _: f"{value:g} min")
    figure.savefig(path, dpi=_DPI)


def _draw_head(figure: Figure, results: Json) -> None:
    title = (
        f"Soak: {results['calls']} mixed calls at once for {results['minutes']:g} minutes, "
        f"{len(results['faults'])} faults"
    )
    figure.text(0.012, 0.967, title, fontsize=15, fontweight="bold", color=_INK)
    subtitle = f"capacity of this machine {results['capacity']} calls · seed {results['seed']}"
    figure.text(0.985, 0.967, subtitle, fontsize=10.5, color=_GREY, ha="right")
    for number, verdict in enumerate(results["verdicts"]):
        colour = _COLOURS[verdict["state"]]
        text = f"{verdict['what']}: {verdict['measured']}"
        left, y = 0.012 + 0.45 * (number % 2), 0.942 - 0.02 * (number // 2)
        figure.text(left, y, verdict["state"], fontsize=10, fontweight="bold", color=colour)
        figure.text(left + 0.045, y, text, fontsize=10, color=_INK)


def _prepare(axes: Axes, minutes: float) -> None:
    axes.set_xlim(0, minutes * 1.004)
    axes.margins(y=0.18)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_LINE)
    axes.tick_params(colors=_GREY, labelsize=9, length=3)
    axes.grid(axis="y", color=_LINE, linewidth=0.5, alpha=0.6)


def _plot(
    axes: Axes, at: list[float], samples: list[Json], name: str, label: str, colour: str
) -> None:
    axes.plot(at, [sample[name] for sample in samples], color=colour, linewidth=1.2, label=label)


def _draw_memory(axes: Axes, at: list[float], samples: list[Json]) -> None:
    """A line for each worker: one that took over starts anew."""
    axes.plot([], [], color=_BLUE, linewidth=1.4, label="resident memory, MB")
    for pid in dict.fromkeys(sample["worker_pid"] for sample in samples):
        points = [
            (minute, sample["rss_mb"])
            for minute, sample in zip(at, samples, strict=True)
            if sample["worker_pid"] == pid
        ]
        axes.plot(*zip(*points, strict=True), color=_BLUE, linewidth=1.4)


def _draw_faults(axes: Axes, faults: list[Json], minutes: float) -> None:
    for fault in faults:
        start = fault["at_s"] / 60
        width = max(fault["seconds"] / 60, minutes * _LEAST_FAULT_WIDTH)
        axes.axvspan(start, start + width, color=_ALARM, alpha=0.13, linewidth=0)


def _draw_labels(axes: Axes, faults: list[Json]) -> None:
    for fault in faults:
        axes.annotate(
            fault["kind"].replace("_", " "),
            (fault["at_s"] / 60, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 3),
            textcoords="offset points",
            rotation=40,
            fontsize=8.5,
            color=_ALARM,
        )
