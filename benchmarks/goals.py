"""The goals, and what was measured of each. Pure: from the JSON of the benchmarks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.rows import Rows

Json = dict[str, Any]
Line = tuple[str, ...]

_NOT_MEASURED = "not measured"


def goal_rows(results: Mapping[str, Json]) -> Rows:
    """A line for each goal; `results` holds each benchmark's results by its name."""
    lines: list[Line] = [
        *_bridge_lines(results.get("bridge", {"runs": []})["runs"]),
        *_ear_lines(results.get("ear", {"steps": []})["steps"]),
        *_stall_lines(results.get("stall", {"stalls": []})["stalls"]),
        *_flood_lines(results.get("flood", {"floods": []})["floods"]),
        *_page_lines(results.get("page", {"views": []})["views"]),
        *_parts_lines(results.get("parts", {"resamplers": []})["resamplers"]),
    ]
    return Rows("Goals", ("what", "goal", "measured", "by"), lines)


def _bridge_lines(runs: list[Json]) -> Iterator[Line]:
    by_format = {run["agent_format"]: run["steps"] for run in runs if run["line"] == "audiosocket"}
    goals = {"pcm_16000": 0.40, "pcm_8000": 0.30, "ulaw_8000": 0.30}
    for name, goal in goals.items():
        found = [step for step in by_format.get(name, []) if step["calls"] == 100]
        measured = f"{found[0]['cpu_percent_per_call']:.3f} %" if found else _NOT_MEASURED
        yield f"CPU per call, {name}, 100 calls, TLS", f"at most {goal:.2f} %", measured, "bridge"
    steps = by_format.get("pcm_16000", [])
    at_100 = [step for step in steps if step["calls"] == 100]
    late = f"{at_100[0]['lateness_p99_ms']:.1f} ms" if at_100 else _NOT_MEASURED
    yield "frame lateness p99, 100 calls", "at most 5 ms", late, "bridge"
    for name, steps in by_format.items():
        holding = [step["calls"] for step in steps if step["holds"]]
        most = str(max(holding)) if holding else _NOT_MEASURED
        broken = [step for step in steps if not step["holds"]]
        if broken and broken[-1]["generator_is_bottleneck"]:
            most += f" (at {broken[-1]['calls']} the load was at its own limit)"
        yield f"calls on one core, {name}", "at least 200", most, "bridge"
    memory = [step["memory_mb_per_call"] for step in steps if step["calls"] >= 100]
    yield (
        "memory per call beyond the first",
        "at most 0.5 MB",
        f"{max(memory):.2f} MB" if memory else _NOT_MEASURED,
        "bridge",
    )


def _ear_lines(steps: list[Json]) -> Iterator[Line]:
    most = max(steps, key=lambda step: int(step["calls"]), default=None)
    if most is None:
        yield "gaps at the phone, p99, 50 calls", "at most 21 ms", _NOT_MEASURED, "ear"
        return
    where = f"{most['calls']} calls, {most['seconds']:g} s"
    lost = most["frames_lost"] + most["frames_doubled"]
    off_percent = abs(1 - most["uplink_ratio_min"]) * 100
    yield (
        f"gaps at the phone, p99, {where}",
        "at most 21 ms",
        f"{most['gaps_ms']['p99']:.1f} ms",
        "ear",
    )
    yield f"speech frames lost or doubled, {where}", "0", f"{lost}", "ear"
    for title, name, goal in (
        ("interruption to silence at the phone", "barge_in_ms", 45),
        ("first audio message to first packet", "agent_to_ear_ms", 25),
        ("the same, greeting", "greeting_ms", 25),
    ):
        yield f"{title}, max, {where}", f"at most {goal} ms", f"{most[name]['max']:.1f} ms", "ear"
    yield f"uplink against the wall clock, {where}", "to 0.1 %", f"{off_percent:.3f} %", "ear"


def _stall_lines(stalls: list[Json]) -> Iterator[Line]:
    what = "after a stall of 200 ms: frames lost or doubled"
    if not stalls:
        yield what, "0", _NOT_MEASURED, "stall"
        return
    yield what, "0", str(sum(s["lost_frames"] + s["doubled_frames"] for s in stalls)), "stall"
    growth = max(s["ear_after_ms"] - s["ear_before_ms"] for s in stalls)
    yield "latency after it against before", "does not grow", f"{growth:+.1f} ms at most", "stall"


def _flood_lines(floods: list[Json]) -> Iterator[Line]:
    flooded = [flood for flood in floods if flood["crowd"]]
    worst = max(flooded, key=lambda flood: float(flood["gap_p99_ms"]), default=None)
    if worst is None:
        yield "gaps while strangers flood us, p99", "at most 25 ms", _NOT_MEASURED, "flood"
        return
    what = f"gaps while strangers flood us, p99, {worst['calls']} calls"
    measured = f"{worst['gap_p99_ms']:.1f} ms ({worst['kind']})"
    yield what, "at most 25 ms", measured, "flood"


def _page_lines(views: list[Json]) -> Iterator[Line]:
    first = views[0] if views else None
    size = f"{first['kilobytes']:.0f} kB" if first else _NOT_MEASURED
    there = f"{first['interactive_ms'] / 1000:.2f} s" if first else _NOT_MEASURED
    yield "page, first view", "under 100 kB", size, "page"
    yield "page, interactive on a phone", "within 1 s", there, "page"


def _parts_lines(resamplers: list[Json]) -> Iterator[Line]:
    ours = [figures for figures in resamplers if figures["engine"] == "ours"]
    if not ours:
        return
    qualities = [figures["quality"] for figures in ours]
    sinad = min(min(q["sinad_300_db"], q["sinad_1000_db"]) for q in qualities)
    yield "SINAD at 300 Hz and 1 kHz, worst pair", "at least 80 dB", f"{sinad:.1f} dB", "parts"
    band = max(q["pass_band_db"] for q in qualities)
    yield "pass band to 0.425 R, worst pair", "within 0.5 dB", f"{band:.2f} dB", "parts"
    stop = max(q["stop_band_db"] for q in qualities)
    yield "aliases and images from 0.55 R", "at most -70 dB", f"{stop:.1f} dB", "parts"
    delay = max(q["held_back_max_ms"] for q in qualities)
    yield "added delay each way", "at most 5 ms", f"{delay:.1f} ms", "parts"
