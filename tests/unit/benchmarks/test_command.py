from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import command, compare
from benchmarks.bridge import agent_profile
from benchmarks.cli import bench
from benchmarks.command import BenchmarkError, Options, run
from benchmarks.machine import describe_machine
from benchmarks.parts import Stopwatch, count_steps, measure_parts
from benchmarks.processes import Cores, busy_seconds, make_certificate, running, scratch_folder
from lab.practice_agent import AgentProfile
from tests.unit.benchmarks import samples


async def test_a_run_shows_a_table_and_leaves_json_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    async def compile_(folder: Path) -> None:
        done.append("compiled")

    async def measure(options: Options, say: command.Say) -> tuple[Any, str]:
        say("now")
        done.append("measured")
        return samples.stall(), "22.10.1"

    # Half a minute, where it has not been done yet.
    monkeypatch.setattr(command, "compile_sources", compile_)
    monkeypatch.setitem(command._BENCHMARKS, "stall", measure)
    console = Console(file=io.StringIO(), width=120)

    [path] = await run(["stall", "stall"], Options(quick=True, out=tmp_path / "new"), console)
    assert done == ["compiled", "measured"]
    body = json.loads(path.read_text())
    assert body["results"] == samples.stall()
    assert (body["benchmark"], body["quick"]) == ("stall", True)
    assert body["machine"]["asterisk"] == "22.10.1"
    assert path.with_suffix(".png").exists()
    assert isinstance(console.file, io.StringIO)
    assert "Stall of the process" in console.file.getvalue()


async def test_a_name_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="parts, bridge, ear, setups, stall, flood"):
        await run(["speed"], Options(out=tmp_path))
    with pytest.raises(BenchmarkError, match="--against"):
        await run(["compare"], Options(out=tmp_path))
    with pytest.raises(BenchmarkError, match="No format 'mp3'; there are pcm_8000, "):
        await run(["bridge"], Options(out=tmp_path, formats=("mp3",)))
    with pytest.raises(BenchmarkError, match="audiosocket, websocket"):
        await run(["bridge"], Options(out=tmp_path, lines=("smoke",)))


def test_numbers_of_calls_are_measured_from_few_to_many(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    async def measure(names: list[str], options: Options, console: Console) -> list[Path]:
        asked.append(options.calls)
        return []

    monkeypatch.setattr(command, "run", measure)
    bench(["bridge"], calls=[100, 1, 20, 100])
    assert asked == [(1, 20, 100)]


def test_each_benchmark_says_how_many_steps_it_takes() -> None:
    for quick in (True, False):
        for name in command.NAMES:
            assert command._STEPS[name](Options(quick=quick)) > 0
    one = Options(formats=("pcm_8000",), calls=(1, 2))
    assert command._STEPS["bridge"](one) == 3
    assert command._STEPS["bridge"](replace(one, lines=("audiosocket", "websocket"))) == 6
    assert command._STEPS["bridge"](replace(one, listeners=(0, 20), watchers=(0, 1))) == 12
    assert command._STEPS["setups"](Options(calls=(50, 100))) == 2
    assert count_steps(quick=True) < count_steps(quick=False)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed here")
def test_a_revision_is_written_into_the_cache_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = tmp_path / "repository"
    (where / "ari_app").mkdir(parents=True)
    (where / "ari_app/__main__.py").write_text("first")

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
        subprocess.run(["git", *who, *arguments], cwd=where, check=True, capture_output=True)

    git("init")
    git("add", ".")
    git("commit", "-m", "First")
    git("tag", "v1")
    (where / "ari_app/__main__.py").write_text("second")
    git("commit", "-am", "Second")
    monkeypatch.setattr(compare, "ROOT", where)
    monkeypatch.setenv("ARI_APP_CACHE", str(tmp_path / "cache"))

    commit, folder = compare.export("v1")
    assert (len(commit), (folder / "ari_app/__main__.py").read_text()) == (40, "first")
    assert compare.export(commit) == (commit, folder)
    assert [each.name for each in folder.parent.iterdir()] == [commit]
    with pytest.raises(BenchmarkError, match="no revision that is here"):
        compare.export("--output=x")


async def test_both_builds_are_compiled_where_they_know_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (new / "scripts").mkdir(parents=True)
    (new / "scripts/__init__.py").touch()
    (new / "scripts/compiled.py").write_text("open('compiled', 'w')")
    monkeypatch.setattr(compare, "export", lambda revision: ("c0ffee", tmp_path / revision))

    async def measure(*arguments: Any, **options: Any) -> None:
        raise BenchmarkError("measured")

    monkeypatch.setattr(compare, "measure_format", measure)
    for revision in ("old", "new"):
        with pytest.raises(BenchmarkError, match="measured"):
            await compare.measure_compare(revision, ["pcm_8000"], [1], 1, 1.0, lambda text: None)
    assert ((old / "compiled").exists(), (new / "compiled").exists()) == (False, True)


def test_the_agent_of_the_bridge_is_a_profile() -> None:
    profile = AgentProfile.model_validate(agent_profile("ulaw_8000"))

    assert profile.formats.agent_output == "ulaw_8000"
    assert profile.dialogue.first_message == ""


def test_the_machine_is_described() -> None:
    machine = describe_machine(asterisk="22")

    assert machine.cores >= 1
    assert machine.packages["numpy"][0].isdigit()
    assert machine.asterisk == "22"


async def test_every_part_is_measured() -> None:
    said: list[str] = []

    result = await measure_parts(True, said.append)
    assert len(said) == count_steps(quick=True)
    assert all(cost.microseconds > 0 for cost in result.costs)
    assert {figures.engine for figures in result.resamplers} >= {"ours", "linear"}


def test_a_step_is_timed() -> None:
    assert Stopwatch(0.001).microseconds(lambda: None) < 1000


async def test_a_process_is_watched_and_ended(tmp_path: Path) -> None:
    program = "import sys; print('ready', flush=True); sum(range(10**7)); sys.stdin.read()"

    async with running("program", [sys.executable, "-c", program], tmp_path) as process:
        assert await process.next_line() == b"ready\n"
        await asyncio.sleep(0.05)
        assert process.cpu_seconds() > 0
        assert process.memory_mb() > 1
        assert process.returncode is None
    assert process.returncode is not None


async def test_what_a_child_has_used_counts_after_its_end(tmp_path: Path) -> None:
    child = "import time\nwhile time.process_time() < 0.3: pass"
    program = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {child!r}])\n"
        "print(time.process_time(), flush=True); sys.stdin.read()"
    )

    async with running("program", [sys.executable, "-c", program], tmp_path) as process:
        own = float(await process.next_line())
        assert process.cpu_seconds() >= own + 0.25


def test_cores_are_split_where_there_are_several() -> None:
    cores = Cores.split()

    assert cores.measured <= os.sched_getaffinity(0)
    assert cores.others <= os.sched_getaffinity(0)
    assert len(cores.measured) == 1
    assert busy_seconds(cores.measured) > 0


def test_a_certificate_is_made_for_loopback() -> None:
    with scratch_folder() as folder:
        certificate = make_certificate(folder)
        assert b"BEGIN CERTIFICATE" in certificate.authority.read_bytes()
        assert b"PRIVATE KEY" in certificate.chain.read_bytes()
    assert not folder.exists()
