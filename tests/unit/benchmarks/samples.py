"""A result of each benchmark, as it comes out of its JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from benchmarks.bridge import BridgeRun, Conservation, Step
from benchmarks.compare import Comparison, compared
from benchmarks.ear import EarStep
from benchmarks.flood import Flood
from benchmarks.page import FirstView, Watching
from benchmarks.parts import Cost, ResamplerFigures
from benchmarks.quality import Quality
from benchmarks.setups import SetUps
from benchmarks.stall import Stall

SPREAD = {"count": 3, "p50": 1.0, "p99": 2.0, "max": 3.0}
NOTHING = {"count": 0, "p50": 0.0, "p99": 0.0, "max": 0.0}
MACHINE = {
    "cpu": "a processor",
    "cores": 2,
    "memory_gb": 4.0,
    "kernel": "6.1",
    "python": "3.11.0",
    "packages": {"uvloop": "1", "numpy": "2"},
    "commit": "abc",
    "measured_at": "2026-01-01T00:00:00+00:00",
    "load_before": 0.1,
    "asterisk": "22.10.1",
}


def a_step(agent_format: str = "pcm_16000", calls: int = 100, **changes: Any) -> Step:
    values: dict[str, Any] = {
        "line": "audiosocket",
        "agent_format": agent_format,
        "calls": calls,
        "cpu_percent_per_call": 0.25,
        "cpu_percent": 25.0,
        "memory_mb": 100.0,
        "memory_mb_per_call": 0.4,
        "gap_p50_ms": 20.0,
        "gap_p99_ms": 21.0,
        "gap_max_ms": 23.0,
        "lateness_p50_ms": 0.5,
        "lateness_p99_ms": 2.0,
        "lateness_max_ms": 4.0,
        "drift_ppm": 1.0,
        "missing_frames": 0,
        "surplus_frames": 0,
        "lost_lines": 0,
        "frames": 1000,
        "generator_late_p99_ms": 1.0,
        "generator_cpu_percent": 10.0,
        "agent_cpu_percent": 10.0,
        "others_percent": 0.0,
    }
    return Step(**(values | changes))


def as_json(step: Step) -> dict[str, Any]:
    return asdict(step) | {
        "holds": step.holds,
        "generator_is_bottleneck": step.generator_is_bottleneck,
        "disturbed": step.disturbed,
    }


def bridge(*steps: Step) -> dict[str, Any]:
    chosen = steps or (a_step(calls=1), a_step())
    run = BridgeRun(
        "audiosocket", "pcm_16000", [], Conservation(10.0, 10.0, 20.0, 20.0, 0.0, 0), "done"
    )
    quiet = BridgeRun("audiosocket", "ulaw_8000", [], None, "a limit broke")
    return {
        "runs": [
            asdict(run) | {"steps": [as_json(step) for step in chosen]},
            asdict(quiet) | {"steps": [as_json(a_step("ulaw_8000", 100, missing_frames=1))]},
        ],
        "window_seconds": 10.0,
    }


def ear() -> dict[str, Any]:
    step = EarStep(
        calls=50,
        seconds=600.0,
        failed_calls=0,
        mouth_to_agent_ms=SPREAD,
        agent_to_ear_ms=SPREAD,
        greeting_ms=SPREAD,
        barge_in_ms=NOTHING,
        silence_ms=NOTHING,
        gaps_ms=SPREAD,
        packets=100,
        rtp_lost=0,
        rtp_doubled=0,
        sweep_frames=90,
        frames_lost=1,
        frames_doubled=2,
        uplink_ratio_min=0.9999,
    )
    return {"steps": [asdict(step)]}


def stall() -> dict[str, Any]:
    found = Stall(0, 200.0, 210.0, 0, 1, 10.0, 12.0, 5.0, 6.0, -1.0)
    return {"stalls": [asdict(found)]}


def parts() -> dict[str, Any]:
    quality = Quality(88.0, 92.0, 0.1, -90.0, 3.0, 3.0)
    bursty = Quality(82.0, 83.0, 0.1, -90.0, 14.0, 114.0)
    return {
        "costs": [asdict(Cost("Playout", "a frame", 0.3))],
        "resamplers": [
            asdict(ResamplerFigures("ours", 8000, 16000, 6.0, 1.4, quality)),
            asdict(ResamplerFigures("soxr HQ stream", 8000, 16000, 4.0, 1.0, bursty)),
        ],
    }


def a_flood(kind: str = "silent", **changes: Any) -> Flood:
    values: dict[str, Any] = {
        "kind": kind,
        "calls": 50,
        "seconds": 10.0,
        "crowd": 0 if kind == "none" else 5000,
        "connections": 40_000,
        "answers": 0,
        "refused": {"address_limit": 39_000, "no_uuid_in_time": 100},
        "gap_p50_ms": 20.0,
        "gap_p99_ms": 21.5,
        "gap_max_ms": 24.0,
        "lateness_p99_ms": 2.0,
        "missing_frames": 0,
        "lost_lines": 0,
        "cpu_percent": 40.0,
        "memory_mb": 110.0,
        "others_percent": 5.0,
    }
    return Flood(**(values | changes))


def setups() -> dict[str, Any]:
    def at(rate: int, p95_ms: float, failed: int = 0, restarts: int = 0) -> SetUps:
        return SetUps(rate, 5 * rate, failed, 12.0, p95_ms, 200.0, 8.0, 40.0, restarts)

    found = [at(50, 23.0), at(75, 99.0, failed=1), at(90, 23.0, restarts=1), at(100, 101.0)]
    return {"rates": [asdict(each) | {"holds": each.holds} for each in found], "seconds": 5.0}


def flood(*floods: Flood) -> dict[str, Any]:
    chosen = floods or (a_flood("none", refused={}), a_flood())
    return {
        "floods": [
            asdict(each) | {"holds": each.holds, "disturbed": each.disturbed} for each in chosen
        ]
    }


def a_run(cpu: float, memory_mb: float) -> BridgeRun:
    """Calls that cost so much, after a service that took so much before them."""
    steps = [
        a_step(calls=1, cpu_percent_per_call=2 * cpu, memory_mb_per_call=0.0),
        a_step(calls=100, cpu_percent_per_call=cpu, memory_mb_per_call=memory_mb / 200),
    ]
    return BridgeRun("audiosocket", "pcm_16000", steps, None, "done", memory_mb)


def compare() -> dict[str, Any]:
    before, after = [a_run(0.4, 80.0), a_run(0.5, 80.0)], [a_run(0.2, 40.0), a_run(0.2, 60.0)]
    return asdict(Comparison("v1", "0" * 40, "now", 2, 5.0, list(compared(before, after))))


def page() -> dict[str, Any]:
    views = [FirstView("sign-in", 41.0, 9, 820.0), FirstView("200 calls", 48.5, 12, 960.0)]
    watching = [
        Watching(calls, slowdown, 12.5, 4.0, 3.0, 16.7, 17.1, 33.0, 0.0, 9.5, 4000, 6.1)
        for calls in (10, 200)
        for slowdown in (1, 4)
    ]
    return {"views": [asdict(v) for v in views], "watching": [asdict(w) for w in watching]}


ALL = {
    "parts": parts,
    "bridge": bridge,
    "ear": ear,
    "setups": setups,
    "stall": stall,
    "flood": flood,
    "page": page,
    "compare": compare,
}
