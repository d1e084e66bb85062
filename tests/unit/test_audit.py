from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "audit.py"


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answers(*outputs: str) -> Callable[..., Any]:
    """pip-audit's answers, one service after the other."""
    left = list(outputs)

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert "--require-hashes" in command
        return subprocess.CompletedProcess(command, 1, left.pop(0), "it failed\nno such host")

    return run


def report(*packages: Mapping[str, object]) -> str:
    return json.dumps({"dependencies": packages})


SOUND = {"name": "a", "version": "1", "vulns": []}
VULNERABLE = {"name": "b", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("outputs", "code", "words"),
    [
        ([report(SOUND)], 0, "pypi: 1 packages, 0 of them vulnerable"),
        ([report(SOUND, VULNERABLE)], 1, "b 2: X-1, fixed in 3"),
        (["", report(SOUND)], 0, "osv: 1 packages, 0 of them"),
        ([report(SOUND, SKIPPED), report(VULNERABLE)], 1, "1 of 2 packages could not be looked up"),
        (["", "broken"], 2, "Nothing is known"),
        ([report(SKIPPED), report()], 2, "Nothing is known"),
        (["", ""], 2, "pypi: cannot be asked (no such host)"),
    ],
)
def test_only_a_whole_answer_counts(
    audit: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outputs: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(subprocess, "run", answers(*outputs))
    assert audit.main() == code
    assert words in capsys.readouterr().out
