"""Tries lint and the unit tests in bare roots of other Debians, each with a Python of its own.

`make lint unit` does all of its own set-up there, as it would in a fresh container: no Python,
empty apt lists. mmdebstrap makes each root once, the cache keeps it, and a copy of it is thrown
away afterwards. Needs root and a Debian mirror in apt's sources; where they are missing it says so,
and is no failure.

Exit codes: 0 all went well, or nothing could be tried; 1 something failed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from lab.asterisk import cache_dir
from lab.compose_test.bases import debian_archive
from lab.compose_test.errors import CheckFailed, NoEngineError
from lab.compose_test.shell import run, succeeds

ROOT = Path(__file__).resolve().parents[1]
SUITES = {"trixie": "Python 3.13", "forky": "Python 3.14"}
_SECONDS = 1800.0
_SHOWN_LINES = 250
# Two a core in all: each has to read all tests.
_WORKERS = max(2, 2 * len(os.sched_getaffinity(0)) // len(SUITES))
# timeout(1), whose signal had to be the second.
_TIMED_OUT = (124, 137)
# What the machine needs to reach its package index, and its processor to compute right.
_PASSED_ON = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_CERTIFICATES = "/usr/local/share/certificates.pem"
# A root with all that is made in it, and what else the machine needs meanwhile.
_ROOT_BYTES, _SPARE_BYTES = 4 << 30, 2 << 30

# In namespaces of its own, so that nothing stays mounted or running. In memory, where there is
# enough: unpacking, setting up and removing takes half the time then.
_ENTER = """
set -eu
folder=$1 archive=$2 bytes=$3 packages=$4 types=$5 certificates=$6 root=$1/root
[ "$bytes" = 0 ] || mount -t tmpfs -o "mode=755,size=$bytes" tmpfs "$root" || true
tar -C "$root" -xf "$archive"
cp -a "$folder/checkout" "$root/root/ari-app"
[ ! -e "$folder/certificates" ] || cp "$folder/certificates" "$root$certificates"
mkdir -p "$root/root/.cache/uv" "$root/root/ari-app/.mypy_cache"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$packages" "$root/root/.cache/uv"
mount --bind "$types" "$root/root/ari-app/.mypy_cache"
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
shift 6
exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 "$@"
"""


def main() -> int:
    """Try every suite, two at a time, and say what came of each."""
    reason = cannot()
    if reason is not None:
        say(f"Other Debians were not tried: {reason}")
        return 0
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "other-debians.lock").open("w") as lock, ThreadPoolExecutor() as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_behind in cache_dir().glob("root-*"):
            shutil.rmtree(left_behind)
        return max(pool.map(attempt, SUITES))


def cannot() -> str | None:
    """Why no root can be made here; None where one can."""
    if os.geteuid() != 0:
        return "that takes root."
    for program in ("mmdebstrap", "unshare", "git"):
        if shutil.which(program) is None:
            return f"there is no {program} here (Debian: apt-get install {program})."
    if not succeeds(["unshare", "--mount", "--pid", "--fork", "true"]):
        return "this machine lets nobody make namespaces."
    return None


def attempt(suite: str) -> int:
    """Return 0 if lint and unit tests go well in this suite's root, or if it cannot be made."""
    name = f"Debian {suite} ({SUITES[suite]})"
    try:
        archive = debian_archive(suite, "make")
    except (CheckFailed, NoEngineError) as error:
        say(f"{name} was not tried: {error}")
        return 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"root-{suite}-", dir=cache_dir()) as name_of_folder:
        folder = Path(name_of_folder)
        (folder / "root").mkdir()
        copy_checkout(folder / "checkout")
        say(f"{name}: make lint unit ...")
        done = subprocess.run(
            command(folder, archive),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
    lines = done.stdout.splitlines()
    if done.returncode == 0:
        say(f"{name}: {lines[-1].strip('= ')}; with set-up {time.monotonic() - begun:.0f} s")
        return 0
    what = f"no end after {_SECONDS:.0f} s" if done.returncode in _TIMED_OUT else "failed"
    say("\n".join([f"{name}: {what}", *lines[-_SHOWN_LINES:]]))
    return 1


def copy_checkout(target: Path) -> None:
    """Copy what git has or would take, as it is now: neither .venv nor a cache."""
    names = run(["git", "ls-files", "-z", "-c", "-o", "--exclude-standard"], cwd=ROOT)
    for name in names.split("\0"):
        if name and (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


@cache
def bytes_of_memory() -> int:
    """How much memory a root may take; 0: there is too little, and it has to be on the disk."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    there = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), 0)
    return _ROOT_BYTES if there << 10 >= len(SUITES) * _ROOT_BYTES + _SPARE_BYTES else 0


def command(folder: Path, archive: Path) -> list[str]:
    """What makes a root in `folder` and runs the checks there, and ends with all that it started,
    in time or not."""
    # mypy keeps what it has found for each Python apart, and looks itself what has changed since.
    packages, types = (cache_dir() / name for name in ("uv", "mypy"))
    for kept in (packages, types):
        kept.mkdir(exist_ok=True)
    settings = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    settings |= {name: text for name, text in os.environ.items() if name.lower().endswith("_proxy")}
    certificates = os.environ.get("SSL_CERT_FILE")
    if certificates:
        shutil.copy(certificates, folder / "certificates")
        settings |= {"SSL_CERT_FILE": _CERTIFICATES, "PIP_CERT": _CERTIFICATES}
    return [
        *("setpriv", "--pdeathsig", "TERM"),
        *("timeout", "--kill-after=10", f"{_SECONDS:.0f}"),
        *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
        *("bash", "-c", _ENTER, "enter", str(folder), str(archive), str(bytes_of_memory())),
        *(str(packages), str(types), _CERTIFICATES),
        *(f"{name}={text}" for name, text in settings.items()),
        # Fuzzing tries inputs, not Pythons.
        "FUZZ_TEST_SECONDS=4",
        *("make", "--no-print-directory", "-C", "/root/ari-app", f"TEST_WORKERS={_WORKERS}"),
        *("lint", "unit"),
    ]


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
