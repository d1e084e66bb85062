"""Starts a program that must not outlive this one, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from lab.asterisk.errors import LabError

log = structlog.get_logger(__name__)

_STOP_SECONDS = 5.0
_FILES = 65_536
"""Each call costs Asterisk about ten file descriptors; many shells allow 1,024."""


def spawn(command: Sequence[str], env: Mapping[str, str], console: Path) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, in the folder of `console`, which gets its output.

    The kernel kills it when the *thread* that called this ends: call it from the main thread, not
    from a pool. It is no asyncio process, because that would belong to one event loop only. Raises
    LabError where util-linux is missing.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise LabError("There is no setpriv here: install util-linux.")
    with console.open("wb") as output:
        process = subprocess.Popen(
            [setpriv, "--pdeathsig", "KILL", *command],
            env=env,
            cwd=console.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files, most))
    return process


async def end(process: subprocess.Popen[bytes], patience: float = _STOP_SECONDS) -> None:
    """End it by SIGTERM, after `patience` seconds or when cancelled by SIGKILL. Waits for it.

    One that has been stopped by SIGSTOP goes on first.
    """
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        await asyncio.to_thread(process.wait, patience)
    except subprocess.TimeoutExpired:
        log.warning("asterisk does not stop", pid=process.pid)
    finally:
        process.kill()
        process.wait()
