"""The picture, the tables and the files of a soak, and how it is asked for."""

from __future__ import annotations

import csv
import os
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from rich.console import Console

from benchmarks.fill import fill
from benchmarks.processes import BenchmarkError
from benchmarks.soak import command
from benchmarks.soak.fit import growth
from benchmarks.soak.gaps import GapBook
from benchmarks.soak.ledger import CallResult
from benchmarks.soak.options import SoakOptions, soak_options
from benchmarks.soak.picture import draw
from benchmarks.soak.plan import Kind
from benchmarks.soak.report import calls_csv, samples_csv, soak_rows, to_json
from benchmarks.soak.run import Outcome, RampStep, Watcher
from benchmarks.soak.sampler import Sample
from benchmarks.soak.schedule import FaultKind, Window
from benchmarks.soak.tally import Tally
from benchmarks.soak.verdicts import Rest, give_verdicts

REST = Rest(channels=0, bridges=0, calls=0, lines=0, tasks=12, fds=30, conversations=0)
BEGAN = 1000.0


def sample(at_s: float, **changes: Any) -> Sample:
    plain: dict[str, Any] = {
        "fault": "",
        "calls": 10,
        "ended": 3,
        "stranded": 0,
        "failed": 0,
        "worker_pid": 100,
        "rss_mb": 90.0,
        "fds": 40,
        "tasks": 50,
        "blocks": 300_000,
        "lines": 10,
        "service_calls": 10,
        "gc_collections": 9,
        "gap_p99_ms": 21,
        "gap_max_ms": 24.5,
        "cpu_percent": 9.5,
        "machine_percent": 40.0,
    }
    return Sample(at_s=at_s, **(plain | changes))


def outcome(*, stranded: str = "") -> Outcome:
    tally = Tally()
    tally.started = 2
    tally.results = [
        CallResult(0, Kind.TALK, BEGAN, BEGAN + 20, answered=True, heard=True, ended_by="us"),
        CallResult(1, Kind.BLIND, BEGAN, BEGAN + 30, answered=True, ended_by="far"),
    ]
    if stranded:
        tally.results.append(CallResult(2, Kind.TALK, BEGAN, BEGAN + 9, stranded=stranded))
    tally.take_log("landed=transfer caller=soak1 stasis=SUCCESS agent=TRANSFER reason=asked\n")
    tally.windows = [Window("ari_cut", BEGAN + 100, BEGAN + 110, "cut")]
    tally.seconds = [(BEGAN + second, GapBook({20: 49}, 20.4)) for second in range(1, 200)]
    samples = [sample(at * 2.0, worker_pid=100 if at < 50 else 101) for at in range(100)]
    judged = tally.judged()
    rss = growth([[(each.at_s, each.rss_mb) for each in samples]])
    return Outcome(
        options=SoakOptions(minutes=3.5, seed=7),
        asterisk="22",
        supervised=True,
        capacity=20,
        calls=14,
        ramp=[RampStep(10, 21, 50.0, 8.0), RampStep(20, 40, 99.0, 15.0)],
        began=BEGAN,
        ended=BEGAN + 200,
        samples=samples,
        tally=tally,
        judged=judged,
        before=REST,
        after=REST,
        rss=rss,
        verdicts=give_verdicts(judged, REST, REST, rss),
    )


def test_the_picture_has_its_size_and_the_faults_in_it(tmp_path: Path) -> None:
    results = to_json(outcome())
    draw(results, tmp_path / "with.png")
    draw({**results, "faults": []}, tmp_path / "without.png")
    with_faults, without = (imread(tmp_path / name) for name in ("with.png", "without.png"))
    assert with_faults.shape[:2] == (1150, 1600)
    assert (with_faults != without).mean() > 0.005


def test_a_picture_of_a_run_without_a_sample(tmp_path: Path) -> None:
    draw({**to_json(outcome()), "samples": []}, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").stat().st_size > 1000


def test_the_tables_say_what_was_found() -> None:
    goals, calls, faults, levels = soak_rows(to_json(outcome(stranded="nothing to be heard")))
    assert [line[3] for line in goals.lines] == ["MISSED", "held", "held", "held"]
    assert goals.note.startswith("3.5 minutes, 14 calls at once, capacity 20 (measured), seed 7")
    assert ("talk", "2", "1", "0", "0", "1") in calls.lines
    assert faults.lines == [("ari_cut", "1", "100 s", "cut")]
    assert ("tasks", "50", "50", "50", "50") in levels.lines


def test_gaps_are_told_apart_by_faults() -> None:
    gaps = to_json(outcome())["gaps"]
    assert gaps["quiet"]["packets"] + gaps["disturbed"]["packets"] == 199 * 49
    assert gaps["disturbed"]["packets"] == 22 * 49


def test_the_files_have_a_line_for_each_sample_and_call() -> None:
    found = outcome()
    samples = list(csv.DictReader(StringIO(samples_csv(found.samples))))
    assert len(samples) == 100
    assert samples[3]["rss_mb"] == "90.0"
    calls = list(csv.DictReader(StringIO(calls_csv(found.judged, BEGAN))))
    assert [call["landed"] for call in calls] == ["", "transfer"]
    assert calls[1]["reason"] == "asked"


def test_the_figures_go_onto_the_page() -> None:
    body = {"results": to_json(outcome()), "quick": False, "machine": MACHINE}
    page = fill("a\n<!-- soak -->\n\n<!-- /soak -->\nb", {"soak": body})
    assert "| stranded callers | 0 | 0 of 2 | held |" in page
    assert page.startswith("a\n<!-- soak -->")


MACHINE = {
    "cpu": "a CPU",
    "cores": 2,
    "memory_gb": 4,
    "kernel": "6",
    "python": "3.11",
    "packages": {},
    "commit": "abc",
    "measured_at": "now",
    "load_before": 0.1,
    "asterisk": "22",
}


@pytest.mark.parametrize(("stranded", "good"), [("", True), ("nothing to be heard", False)])
async def test_the_command_shows_a_missed_goal_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stranded: str, good: bool
) -> None:
    async def run_soak(options: SoakOptions, watcher: Watcher) -> Outcome:
        watcher.say("fault: ari_cut")
        watcher.sampled(sample(62.0, fault="ari_cut"))
        return outcome(stranded=stranded)

    monkeypatch.setattr(command, "run_soak", run_soak)
    console = Console(record=True, width=150)
    assert await command.soak(SoakOptions(out=tmp_path), console) is good
    text = console.export_text()
    assert "fault: ari_cut" in text
    assert "   01:02     10      3" in text
    assert ("Missed: stranded callers, 1 of 3" in text) is not good
    assert ("soak2 (talk): nothing to be heard" in text) is not good
    assert set(os.listdir(tmp_path)) == {"soak.json", "samples.csv", "calls.csv", "soak.png"}


def options(
    faults: list[str] | None = None, *, restart: bool = False, plant: list[str] | None = None
) -> SoakOptions:
    return soak_options(10, None, 1, Path("out"), faults, restart_asterisk=restart, plant=plant)


def test_what_is_typed_becomes_options() -> None:
    every = set(FaultKind) - {FaultKind.ASTERISK_RESTARTED}
    assert set(options().faults) == every
    assert set(options(restart=True).faults) == set(FaultKind)
    assert options(["none"]).faults == ()
    assert options(["ari_cut"], restart=True).faults == ("ari_cut", "asterisk_restarted")
    assert options(plant=["orphan"]).plant == ("orphan",)


@pytest.mark.parametrize(
    ("faults", "plant", "words"),
    [(["rain"], None, "No fault 'rain'"), (None, ["tree"], "'tree': stranded or orphan")],
)
def test_what_there_is_not_is_refused(
    faults: list[str] | None, plant: list[str] | None, words: str
) -> None:
    with pytest.raises(BenchmarkError, match=words):
        options(faults, plant=plant)
