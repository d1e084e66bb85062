"""Results as rows of text: for the terminal, and for `docs/measurements.md`. Pure.

They are made from the JSON, so that a result can be shown again long after it was measured.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """A table."""

    title: str
    columns: tuple[str, ...]
    lines: list[tuple[str, ...]]
    note: str = ""

    def to_markdown(self) -> str:
        """The table as Markdown, its title in bold above it."""
        head = [f"**{self.title}**", "", _line(self.columns), _line(("---",) * len(self.columns))]
        tail = ["", self.note] if self.note else []
        return "\n".join([*head, *map(_line, self.lines), *tail])


def parts_rows(results: Json) -> list[Rows]:
    """The tables of *parts*."""
    costs = Rows(
        "Parts, hot loop",
        ("part", "step", "µs"),
        [(c["part"], c["step"], f"{c['microseconds']:.2f}") for c in results["costs"]],
    )
    resamplers = Rows(
        "Resampling 20 ms",
        ("engine", "kHz", "µs alone", "in 1 s", "held back", "SINAD", "pass band", "stop band"),
        [_resampler_line(figures) for figures in results["resamplers"]],
        "SINAD in dB at 300 Hz and 1 kHz; what is held back in ms; bands in dB.",
    )
    return [costs, resamplers]


def bridge_rows(results: Json) -> list[Rows]:
    """The tables of *bridge*."""
    steps = Rows(
        "Bridge: one process, TLS to the agent",
        (
            "line",
            "agent",
            "calls",
            "CPU/call",
            "gaps",
            "lateness",
            "lost",
            "MB/call",
            "others",
            "holds",
        ),
        [_step_line(step) for run in results["runs"] for step in run["steps"]],
        "Gaps and lateness in ms: p50/p99/max. Others: how much of its core other programs used.",
    )
    sound = Rows(
        "Bridge: sound of whole conversations, in seconds",
        ("line", "agent", "it spoke", "callers heard", "worst loss", "callers spoke", "it heard"),
        [_conserved_line(run) for run in results["runs"] if run["conservation"]],
    )
    return [steps, sound, *_compared(results["runs"])]


def _compared(runs: list[Json]) -> list[Rows]:
    """A table of what each line costs against the first, where there are several: medians of those
    that were measured more than once."""
    costs: dict[tuple[str, int], dict[str, list[float]]] = {}
    for run in runs:
        for step in run["steps"]:
            of_line = costs.setdefault((run["agent_format"], step["calls"]), {})
            of_line.setdefault(run["line"], []).append(step["cpu_percent_per_call"])
    first = runs[0]["line"]
    lines: list[tuple[str, ...]] = [
        (name, agent, str(calls), f"{median(found) / median(of_line[first]):.2f}")
        for (agent, calls), of_line in costs.items()
        for name, found in of_line.items()
        if name != first and any(of_line.get(first, ()))
    ]
    title = f"Bridge: CPU of a call as a part of what it costs over {first}"
    return [Rows(title, ("line", "agent", "calls", "part"), lines)] if lines else []


def ear_rows(results: Json) -> list[Rows]:
    """The tables of *ear*."""
    names = (
        "mouth_to_agent_ms",
        "agent_to_ear_ms",
        "greeting_ms",
        "barge_in_ms",
        "silence_ms",
        "gaps_ms",
    )
    times = Rows(
        "Ear: what a caller hears",
        ("calls", "mouth to agent", "agent to ear", "greeting", "barge-in", "last sound", "gaps"),
        [
            (str(step["calls"]), *(_spread(step[name]) for name in names))
            for step in results["steps"]
        ],
        "In ms: p50/p99/max.",
    )
    counts = Rows(
        "Ear: what arrived",
        (
            "calls",
            "seconds",
            "failed",
            "packets",
            "RTP lost",
            "frames",
            "lost",
            "doubled",
            "uplink",
        ),
        [_arrived_line(step) for step in results["steps"]],
        "Frames are those of the agent's speech, each recognised by its pitch. Uplink: seconds of "
        "sound at the agent for each second of the call, in the worst call.",
    )
    return [times, counts]


def stall_rows(results: Json) -> list[Rows]:
    """The table of *stall*."""
    return [
        Rows(
            "Stall of the process during speech",
            ("call", "stall", "gap", "lost", "doubled", "agent to ear", "mouth to agent", "uplink"),
            [_stall_line(stall) for stall in results["stalls"]],
            "In ms. Lost and doubled are frames of the response that was hit; latencies are those "
            "of the turn before and the turn after; uplink is sound that the agent lacks at last.",
        )
    ]


def flood_rows(results: Json) -> list[Rows]:
    """The table of *flood*."""
    return [
        Rows(
            "Flood: strangers at both ports while calls run",
            (
                "strangers",
                "calls",
                "gaps",
                "lost",
                "CPU",
                "MB",
                "connections",
                "answers",
                "refused",
                "others",
                "holds",
            ),
            [_flood_line(flood) for flood in results["floods"]],
            "Gaps between frames of the running calls in ms: p50/p99/max. CPU and memory are the "
            "service's. Others: how much of its core went to the kernel's part of the flood and to "
            "other programs.",
        )
    ]


def setup_rows(results: Json) -> list[Rows]:
    """The table of *setups*."""
    return [
        Rows(
            "Calls set up a second, through a real Asterisk",
            ("a second", "calls", "failed", "INVITE to answer", "CPU a call", "CPU", "holds"),
            [
                (
                    str(rate["rate"]),
                    str(rate["calls"]),
                    str(rate["failed"]),
                    _three(rate["p50_ms"], rate["p95_ms"], rate["max_ms"]),
                    *_cpu_of_setups(rate),
                    "yes" if rate["holds"] else _restarted(rate) or "no",
                )
                for rate in results["rates"]
            ],
            "In ms: p50/p95/max. CPU is the service's, the half second of each call included; not "
            "told where a worker was replaced meanwhile.",
        )
    ]


def _cpu_of_setups(rate: Json) -> tuple[str, str]:
    if _restarted(rate):
        return "-", "-"
    return f"{rate['cpu_ms']:.1f} ms", f"{rate['cpu_percent']:.0f} %"


def _restarted(figures: Json) -> str:
    restarts = figures.get("restarts", 0)
    return f"{restarts} x replaced" if restarts else ""


def compare_rows(results: Json) -> list[Rows]:
    """The table of *compare*."""
    names: tuple[str, ...] = (results["against"], results["now"])
    return [
        Rows(
            "Two builds, measured in turn",
            ("what", "agent", "calls", *names, "ratio", "ratio of each pair"),
            [
                (
                    line["what"],
                    line["agent_format"],
                    str(line["calls"]) if line["calls"] else "-",
                    f"{line['before']:.4g} {line['unit']}",
                    f"{line['after']:.4g} {line['unit']}",
                    f"{line['ratio']:.2f}",
                    f"{min(line['ratios']):.2f} to {max(line['ratios']):.2f}",
                )
                for line in results["lines"]
            ],
            f"Medians of {results['rounds']} rounds of {results['window_seconds']:g} s; below 1 is "
            "less than before.",
        )
    ]


def page_rows(results: Json) -> list[Rows]:
    """The tables of *page*."""
    views = Rows(
        "Page: first view on a phone",
        ("what", "kB", "requests", "there after"),
        [
            (
                v["what"],
                f"{v['kilobytes']:.1f}",
                str(v["requests"]),
                f"{v['interactive_ms']:.0f} ms",
            )
            for v in results["views"]
        ],
        "A processor four times slower than this machine's, 150 ms and 1.6 Mbit/s away.",
    )
    watching = Rows(
        "Page: calls that run, one of them open",
        ("calls", "slower", "main thread", "scripts", "layout", "frames", "long tasks", "kB/s"),
        [
            (
                str(w["calls"]),
                f"{w['slowdown']}x",
                *(f"{w[name]:.1f} %" for name in _OF_THE_THREAD),
                f"{w['frame_p50_ms']:.0f}/{w['frame_p95_ms']:.0f}/{w['frame_max_ms']:.0f}",
                f"{w['long_tasks']:.0f}",
                f"{w['kilobytes_per_second']:.1f}",
            )
            for w in results["watching"]
        ],
        "Of the time of the browser's main thread. Frames: ms from one to the next, p50/p95/max. "
        "Long tasks: of more than 50 ms, a minute.",
    )
    return [views, watching]


_OF_THE_THREAD = ("main_thread_percent", "script_percent", "layout_percent")


ROWS: dict[str, Callable[[Json], list[Rows]]] = {
    "parts": parts_rows,
    "bridge": bridge_rows,
    "ear": ear_rows,
    "setups": setup_rows,
    "stall": stall_rows,
    "flood": flood_rows,
    "page": page_rows,
    "compare": compare_rows,
}


def machine_line(machine: Json) -> str:
    """One sentence about where and when."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux "
        f"{machine['kernel']}, Python {machine['python']}, {versions}, Asterisk "
        f"{machine['asterisk']}; commit {machine['commit']}, {machine['measured_at']}, load "
        f"average before {machine['load_before']}."
    )


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"


def _spread(values: Json) -> str:
    if not values["count"]:
        return "-"
    return _three(values["p50"], values["p99"], values["max"])


def _resampler_line(figures: Json) -> tuple[str, ...]:
    quality = figures["quality"]
    least, most = quality["held_back_min_ms"], quality["held_back_max_ms"]
    held = f"{least:.1f}" if round(least, 1) == round(most, 1) else f"{least:.0f} to {most:.0f}"
    return (
        figures["engine"],
        f"{figures['from_hz'] / 1000:g} to {figures['to_hz'] / 1000:g}",
        f"{figures['frame_us']:.1f}",
        f"{figures['second_us_per_frame']:.1f}",
        held,
        f"{quality['sinad_300_db']:.0f} / {quality['sinad_1000_db']:.0f}",
        f"{quality['pass_band_db']:.2f}",
        f"{quality['stop_band_db']:.0f}",
    )


def _step_line(step: Json) -> tuple[str, ...]:
    lost = step["missing_frames"] + step["surplus_frames"] + step["lost_lines"]
    return (
        step["line"],
        step["agent_format"],
        str(step["calls"]),
        f"{step['cpu_percent_per_call']:.3f} %",
        _three(step["gap_p50_ms"], step["gap_p99_ms"], step["gap_max_ms"]),
        _three(step["lateness_p50_ms"], step["lateness_p99_ms"], step["lateness_max_ms"]),
        str(lost),
        f"{step['memory_mb_per_call']:.2f}",
        f"{step['others_percent']:.0f} %",
        _verdict(step),
    )


def _verdict(step: Json) -> str:
    if step["holds"]:
        return "yes"
    if restarted := _restarted(step):
        return restarted
    if step["disturbed"]:
        return "disturbed"
    return "load is" if step["generator_is_bottleneck"] else "no"


def _conserved_line(run: Json) -> tuple[str, ...]:
    sound = run["conservation"]
    return (
        run["line"],
        run["agent_format"],
        f"{sound['agent_spoke_seconds']:.2f}",
        f"{sound['callers_heard_seconds']:.2f}",
        f"{sound['worst_call_lost_seconds']:.3f}",
        f"{sound['callers_spoke_seconds']:.2f}",
        f"{sound['agent_heard_seconds']:.2f}",
    )


def _arrived_line(step: Json) -> tuple[str, ...]:
    return (
        str(step["calls"]),
        f"{step['seconds']:g}",
        str(step["failed_calls"]),
        str(step["packets"]),
        str(step["rtp_lost"] + step["rtp_doubled"]),
        str(step["sweep_frames"]),
        str(step["frames_lost"]),
        str(step["frames_doubled"]),
        f"{step['uplink_ratio_min']:.4f}",
    )


def _stall_line(stall: Json) -> tuple[str, ...]:
    return (
        str(stall["call"]),
        f"{stall['stall_ms']:.0f}",
        f"{stall['gap_ms']:.0f}",
        str(stall["lost_frames"]),
        str(stall["doubled_frames"]),
        f"{stall['ear_before_ms']:.1f}, {stall['ear_after_ms']:.1f}",
        f"{stall['mouth_before_ms']:.1f}, {stall['mouth_after_ms']:.1f}",
        f"{stall['uplink_missing_ms']:.0f}",
    )


def _flood_line(flood: Json) -> tuple[str, ...]:
    refused = sorted(flood["refused"].items(), key=lambda item: -item[1])
    verdict = "disturbed" if flood["disturbed"] else "no"
    return (
        f"{flood['crowd']} {flood['kind']}" if flood["crowd"] else "none",
        str(flood["calls"]),
        _three(flood["gap_p50_ms"], flood["gap_p99_ms"], flood["gap_max_ms"]),
        str(flood["missing_frames"] + flood["lost_lines"]),
        f"{flood['cpu_percent']:.0f} %",
        f"{flood['memory_mb']:.0f}",
        str(flood["connections"]),
        str(flood["answers"]),
        ", ".join(f"{number} {reason}" for reason, number in refused) or "-",
        f"{flood['others_percent']:.0f} %",
        "yes" if flood["holds"] else verdict,
    )


def _three(p50: float, p99: float, most: float) -> str:
    return f"{p50:.1f}/{p99:.1f}/{most:.1f}"
