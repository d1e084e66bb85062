"""Where a figure was measured: machine, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PACKAGES = ("uvloop", "websockets", "aiohttp", "numpy", "orjson", "pybase64", "soxr")
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Machine:
    """What a result has to state for others to make sense of it."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    packages: dict[str, str]
    commit: str
    measured_at: str
    load_before: float
    """The load average of one minute when the run began: other work shows in the figures."""
    asterisk: str = "none"


def describe_machine(*, asterisk: str = "none") -> Machine:
    """Look around."""
    return Machine(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=platform.release(),
        python=platform.python_version(),
        packages={name: _version(name) for name in _PACKAGES},
        commit=_commit(),
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        load_before=round(os.getloadavg()[0], 2),
        asterisk=asterisk,
    )


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return f"{commit} and changes" if _git("status", "--porcelain") else commit
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
