"""How `make compose-test` finds an engine, and what it says where there is none."""

from __future__ import annotations

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab.compose_test.compose import version
from lab.compose_test.engine import Engine, an_engine
from lab.compose_test.errors import CheckFailed, NoEngineError
from lab.compose_test.shell import run, succeeds

ROOT = Path(__file__).parents[3]
HEALTH = ROOT / "deploy/health.py"


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(folder))


def test_takes_the_engine_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "docker", "exit 0")
    only(tmp_path, monkeypatch)
    steps: list[str] = []
    with an_engine(False, steps.append) as engine:
        assert engine == Engine({}, is_own=False)
    assert steps == []


@pytest.mark.parametrize("uid", [0, 1000])
def test_without_docker_it_says_so_and_installs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int
) -> None:
    only(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    words = "is installed here" if uid == 0 else "answers here"
    with (
        pytest.raises(NoEngineError, match=f"No Docker Engine {words}"),
        an_engine(False, lambda step: None),
    ):
        pytest.fail("there is no engine")


def test_an_engine_that_does_not_start_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "docker", "exit 1")
    program(tmp_path, "dockerd", "exit 1")
    program(tmp_path, "setpriv", 'echo "mounting is not permitted" >&2; exit 1')
    only(tmp_path, monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("ARI_APP_CACHE", str(tmp_path / "cache"))
    with (
        pytest.raises(NoEngineError, match="mounting is not permitted"),
        an_engine(False, lambda step: None),
    ):
        pytest.fail("there is no engine")


@pytest.mark.parametrize(
    ("said", "expected"),
    [("2.26.1-4", (2, 26)), ("v2.40.3", (2, 40)), ("5.0.0", (5, 0)), ("unknown", None)],
)
def test_reads_the_version_of_compose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, expected: tuple[int, int] | None
) -> None:
    program(tmp_path, "docker", f"echo {said}")
    only(tmp_path, monkeypatch)
    assert version(Engine({}, is_own=False)) == expected


def test_a_failure_shows_the_command_and_what_it_said() -> None:
    with pytest.raises(CheckFailed, match=r"(?s)exit code 3\n  the reason"):
        run(["sh", "-c", "echo the reason; exit 3"])
    with pytest.raises(CheckFailed, match="no end after"):
        run(["sleep", "60"], timeout=0.05)
    with pytest.raises(CheckFailed, match="There is no no-such-program here"):
        run(["no-such-program"])
    assert run(["sh", "-c", "echo $WORD"], env={"WORD": "yes"}) == "yes\n"
    assert succeeds(["true"])
    assert not succeeds(["false"])


def health(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HEALTH), *arguments],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_health_check_tells_a_listener_from_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert health(f"tcp://127.0.0.1:{port}").returncode == 0
    refused = health(f"tcp://127.0.0.1:{port}")
    assert refused.returncode == 1
    assert "refused" in refused.stdout


def test_the_health_check_asks_the_service_where_it_is_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own_url = runpy.run_path(str(HEALTH))["own_url"]
    monkeypatch.setenv("API_BIND", "0.0.0.0:8081")
    assert own_url() == "http://127.0.0.1:8081/health/ready"
    monkeypatch.delenv("API_BIND")
    assert own_url() == "http://127.0.0.1:8080/health/ready"
