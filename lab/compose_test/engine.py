"""A Docker Engine: the one that runs here, or one of our own for as long as the test lasts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.asterisk import Progress, cache_dir
from lab.compose_test.errors import CheckFailed, NoEngineError
from lab.compose_test.shell import run, succeeds

_START_SECONDS = 60.0
_STOP_SECONDS = 40.0
_POLL_SECONDS = 0.2
_INSTALL_SECONDS = 600.0
# Another apt may be at work, such as the daily upgrade.
_APT = ("apt-get", "-q", "-o", "DPkg::Lock::Timeout=300")
_PACKAGES = ("docker.io", "iptables", "mmdebstrap")


@dataclass(frozen=True, slots=True)
class Engine:
    """Where commands go.

    Attributes:
        env: What `docker` needs in its environment.
        is_own: Started by us: no image can be taken for the user's, and builds use the host's
            network because the engine leaves the host's firewall alone.
    """

    env: dict[str, str]
    is_own: bool


@contextlib.contextmanager
def an_engine(may_install: bool, progress: Progress) -> Iterator[Engine]:
    """Give the engine that runs here, or start one and stop it at the end.

    One is started by root only. `may_install` lets it be installed from the host's packages.

    Raises:
        NoEngineError: there is none and none can be started; says why.
    """
    if shutil.which("docker") and succeeds(["docker", "info"], timeout=20):
        yield Engine({}, is_own=False)
        return
    if os.geteuid() != 0:
        raise NoEngineError(
            "No Docker Engine answers here. Start it, or become a member of the group docker."
        )
    if not (shutil.which("docker") and shutil.which("dockerd")):
        _install(may_install, progress)
    with _started(progress) as engine:
        yield engine


def _install(may_install: bool, progress: Progress) -> None:
    if not may_install:
        raise NoEngineError("No Docker Engine is installed here (Debian: apt install docker.io).")
    if not shutil.which("apt-get"):
        raise NoEngineError("No Docker Engine is installed here, and there is no apt to get one.")
    progress("Installing Docker Engine")
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        for what in (["update"], ["-y", "--no-install-recommends", "install", *_PACKAGES]):
            run([*_APT, *what], env=env, timeout=_INSTALL_SECONDS)
    except CheckFailed as error:
        raise NoEngineError(f"Docker Engine cannot be installed: {error}") from None


@contextlib.contextmanager
def _started(progress: Progress) -> Iterator[Engine]:
    data = cache_dir() / "docker"
    data.mkdir(parents=True, exist_ok=True)
    with (
        (cache_dir() / "docker.lock").open("w") as lock,
        tempfile.TemporaryDirectory(prefix="ari-app-docker-", ignore_cleanup_errors=True) as name,
    ):
        progress("Starting Docker Engine")
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = Path(name)
        process = _spawn(data, folder)
        try:
            env = {"DOCKER_HOST": f"unix://{folder}/docker.sock", "DOCKER_CONTEXT": ""}
            _wait_until_ready(process, folder, env)
            yield Engine(env, is_own=True)
        finally:
            _stop(process, folder)


def _spawn(data: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start dockerd. No rule of the firewall, no bridge of its own, no forwarding: the lab needs
    none of them on the machine that it runs on."""
    command = [
        *("setpriv", "--pdeathsig", "TERM", "dockerd"),
        *("--host", f"unix://{folder}/docker.sock"),
        *("--data-root", str(data), "--exec-root", f"{folder}/exec"),
        *("--pidfile", f"{folder}/docker.pid"),
        *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
        *("--ip-forward=false", "--ip-masq=false"),
    ]
    try:
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
    except FileNotFoundError:
        raise NoEngineError("There is no setpriv here: install util-linux.") from None


def _wait_until_ready(process: subprocess.Popen[bytes], folder: Path, env: dict[str, str]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if succeeds(["docker", "info"], env=env, timeout=20):
            return
        time.sleep(_POLL_SECONDS)
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    said = lines[-1][-400:] if lines else "it said nothing"
    raise NoEngineError(f"Docker Engine does not start here: {said}")


def _stop(process: subprocess.Popen[bytes], folder: Path) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        _kill_containerd(folder)
    for mount in reversed(_mounts_under(folder)):
        succeeds(["umount", "--lazy", mount])


def _kill_containerd(folder: Path) -> None:
    """It is dockerd's child, and outlives one that was killed."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "exec/containerd/containerd.pid").read_text())
        os.kill(pid, signal.SIGKILL)


def _mounts_under(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split()[1] for line in lines if line.split()[1].startswith(f"{folder}/")]
