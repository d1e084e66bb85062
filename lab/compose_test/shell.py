"""Runs commands, and shows what they said only when they fail."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.compose_test.errors import CheckFailed

_SHOWN_LINES = 25


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    cwd: Path | None = None,
) -> str:
    """Return what `command` prints, both streams together; `env` is added to the environment.

    Raises:
        CheckFailed: it ends with another code than 0, or not within `timeout` seconds.
    """
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            cwd=cwd,
            check=False,
        )
    except FileNotFoundError:
        raise CheckFailed(f"There is no {command[0]} here.") from None
    except subprocess.TimeoutExpired as error:
        raise CheckFailed(_failure(command, f"no end after {timeout:g} s", error.stdout)) from None
    if done.returncode != 0:
        raise CheckFailed(_failure(command, f"exit code {done.returncode}", done.stdout))
    return done.stdout.decode(errors="replace")


def succeeds(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 60.0
) -> bool:
    """Whether `command` ends with exit code 0."""
    try:
        run(command, env=env, timeout=timeout)
    except CheckFailed:
        return False
    return True


def _failure(command: Sequence[str], what: str, output: bytes | None) -> str:
    lines = (output or b"").decode(errors="replace").splitlines()[-_SHOWN_LINES:]
    return "\n".join([f"{' '.join(command)}: {what}", *(f"  {line}" for line in lines)])
