"""What a soak found as JSON, CSV and rows of text. Pure."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import asdict, fields
from io import StringIO
from typing import Any

from benchmarks.rows import Rows
from benchmarks.soak.gaps import GapBook
from benchmarks.soak.ledger import Fate, Judged
from benchmarks.soak.run import Outcome
from benchmarks.soak.sampler import Sample
from benchmarks.soak.verdicts import State

Json = dict[str, Any]

_SIGNS = {State.HELD: "held", State.MISSED: "MISSED", State.OPEN: "cannot tell"}


def to_json(outcome: Outcome) -> Json:
    """All that the picture and the tables need. Times are seconds since the mix began."""
    tally = outcome.tally
    quiet, disturbed = tally.gaps_by_quiet(outcome.began, outcome.ended)
    return {
        "minutes": outcome.options.minutes,
        "seed": outcome.options.seed,
        "supervised": outcome.supervised,
        "capacity": outcome.capacity,
        "capacity_was_given": outcome.options.capacity is not None,
        "calls": outcome.calls,
        "ramp": [{**asdict(step), "holds": step.holds} for step in outcome.ramp],
        "fates": _fates(outcome.judged),
        "landings": dict(sorted(tally.landings_by_kind().items())),
        "faults": [
            {
                "kind": window.kind,
                "at_s": round(window.start - outcome.began, 1),
                "seconds": round(window.end - window.start, 1),
                "note": window.note,
            }
            for window in tally.windows
        ],
        "gaps": {"quiet": _gaps(quiet), "disturbed": _gaps(disturbed)},
        "rtp_lost": sum(call.result.lost for call in outcome.judged),
        "rest": {"before": asdict(outcome.before), "after": asdict(outcome.after)},
        "rss": asdict(outcome.rss),
        "verdicts": [asdict(verdict) for verdict in outcome.verdicts],
        "samples": [asdict(sample) for sample in outcome.samples],
    }


def samples_csv(samples: list[Sample]) -> str:
    """One line for each look."""
    return _csv([field.name for field in fields(Sample)], [asdict(sample) for sample in samples])


def calls_csv(judged: list[Judged], began: float) -> str:
    """One line for each call; times in seconds since the mix began."""
    lines = [
        {
            "caller": call.result.name,
            "kind": call.result.kind.value,
            "started_s": round(call.result.started_at - began, 2),
            "seconds": round(call.result.ended_at - call.result.started_at, 2),
            "answered": call.result.answered,
            "heard": call.result.heard,
            "ended_by": call.result.ended_by,
            "landed": call.landing.where if call.landing else "",
            "agent_status": call.landing.agent if call.landing else "",
            "reason": call.landing.reason if call.landing else "",
            "fate": call.fate.value,
            "why": call.why,
        }
        for call in judged
    ]
    return _csv(list(lines[0]) if lines else [], lines)


def soak_rows(results: Json) -> list[Rows]:
    """The tables of a soak, from its JSON."""
    return [_verdict_rows(results), _call_rows(results), _fault_rows(results), _level_rows(results)]


def _verdict_rows(results: Json) -> Rows:
    return Rows(
        "Soak: goals",
        ("what", "goal", "measured", "verdict"),
        [
            (each["what"], each["goal"], each["measured"], _SIGNS[State(each["state"])])
            for each in results["verdicts"]
        ],
        f"{results['minutes']:g} minutes, {results['calls']} calls at once, capacity "
        f"{results['capacity']} ({'given' if results['capacity_was_given'] else 'measured'}), "
        f"seed {results['seed']}.",
    )


def _call_rows(results: Json) -> Rows:
    columns = ("as planned", "disturbed", "failed", "stranded")
    return Rows(
        "Soak: calls",
        ("kind", "calls", *columns),
        [
            (kind, str(sum(fates.values())), *(str(fates.get(column, 0)) for column in columns))
            for kind, fates in results["fates"].items()
        ],
        "Disturbed: not as planned while a fault was about, or shortly after.",
    )


def _fault_rows(results: Json) -> Rows:
    by_kind: dict[str, list[Json]] = {}
    for fault in results["faults"]:
        by_kind.setdefault(fault["kind"], []).append(fault)
    return Rows(
        "Soak: faults",
        ("fault", "times", "at", "what was seen"),
        [
            (
                kind,
                str(len(found)),
                ", ".join(f"{fault['at_s']:.0f} s" for fault in found),
                "; ".join(fault["note"] for fault in found if fault["note"]),
            )
            for kind, found in by_kind.items()
        ],
    )


def _level_rows(results: Json) -> Rows:
    samples = results["samples"]
    lines: list[tuple[str, ...]] = []
    for name, title in (
        ("rss_mb", "resident memory, MB"),
        ("fds", "file descriptors"),
        ("tasks", "tasks"),
        ("blocks", "allocated blocks"),
        ("cpu_percent", "service's CPU, % of a core"),
        ("machine_percent", "machine's CPU, % of all cores"),
    ):
        values = [sample[name] for sample in samples]
        if values:
            levels = (values[0], min(values), max(values), values[-1])
            lines.append((title, *(f"{value:g}" for value in levels)))
    for name, title in (("quiet", "no fault about"), ("disturbed", "during faults")):
        gaps = results["gaps"][name]
        text = f"p50 {gaps['p50_ms']}, p99 {gaps['p99_ms']}, max {gaps['max_ms']:.0f}"
        lines.append((f"gaps at the phones, ms, {title}", text, "", "", ""))
    return Rows("Soak: levels", ("what", "first", "least", "most", "last"), lines)


def _fates(judged: list[Judged]) -> dict[str, dict[str, int]]:
    kinds: dict[str, Counter[Fate]] = {}
    for call in judged:
        kinds.setdefault(call.result.kind.value, Counter())[call.fate] += 1
    return {
        kind: {fate.value: count for fate, count in fates.items()}
        for kind, fates in sorted(kinds.items())
    }


def _gaps(book: GapBook) -> Json:
    return {
        "packets": book.packets,
        "p50_ms": book.percentile(50),
        "p99_ms": book.percentile(99),
        "p999_ms": book.percentile(99.9),
        "max_ms": round(book.longest_ms, 1),
    }


def _csv(names: list[str], lines: list[Json]) -> str:
    text = StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()
