"""`python -m tests.fuzz [--seconds N] [--engine atheris|own] [target …]`

Shares the time among the targets and shows how far each has come. An input that a target raises for
is written to `tests/fuzz/crashes/TARGET/`, where the tests try it from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from ari_app.process.logs import set_up_logging
from tests.fuzz.engine import Crash, attempt, fuzz
from tests.fuzz.targets import TARGETS, Target

CRASHES = Path(__file__).parent / "crashes"
_MAX_BYTES = 16 * 1024
# Of libFuzzer's progress: tries, coverage and what a second gives.
_PROGRESS = re.compile(r"^#(\d+)\s+(\S+)\s+cov: (\d+) .*?exec/s: (\d+)")


def main() -> int:
    """Fuzz; 1 when an input was found that a target raises for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--engine", choices=("atheris", "own"), default=_engine())
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument("--corpus", type=Path, help="keep what was found worth keeping here")
    given = parser.parse_args()
    set_up_logging("ERROR")
    if unknown := set(given.targets) - set(TARGETS):
        parser.error(f"there is no target {min(unknown)}; there are {', '.join(TARGETS)}")
    names = given.targets or list(TARGETS)
    seconds = given.seconds / len(names)
    _say(f"{len(names)} targets, {seconds:.0f} s each, with {given.engine}, seed {given.seed}")
    run = _with_atheris if given.engine == "atheris" else _with_our_own
    good = [run(TARGETS[name], seconds, given.seed, given.corpus) for name in names]
    return 0 if all(good) else 1


def _engine() -> str:
    return "atheris" if importlib.util.find_spec("atheris") else "own"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _with_our_own(target: Target, seconds: float, seed: int, corpus: Path | None) -> bool:
    began = last = time.monotonic()

    def told(tries: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= 10:
            last = now
            _say(f"{target.name}: {tries} inputs, {tries / (now - began):.0f} a second")

    tries, crash = fuzz(target, seconds, seed, told=told)
    took = max(time.monotonic() - began, 1e-9)
    _say(
        f"{target.name}: {tries} inputs, {tries / took:.0f} a second, {'FAULT' if crash else 'ok'}"
    )
    if crash is not None:
        _keep(target, crash)
    return crash is None


def _with_atheris(target: Target, seconds: float, seed: int, corpus: Path | None) -> bool:
    """libFuzzer ends the process that it runs in, so each target has its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        seeds = corpus / target.name if corpus is not None else folder / "corpus"
        seeds.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(target.seeds):
            (seeds / f"seed-{number}").write_bytes(data)
        command = [
            *(sys.executable, "-m", "tests.fuzz.with_atheris", target.name, str(seeds)),
            *(f"-max_total_time={max(1, round(seconds))}", f"-seed={seed}", "-print_final_stats=1"),
            *(f"-max_len={_MAX_BYTES}", "-timeout=10", f"-artifact_prefix={folder}/found-"),
        ]
        last, began = "", time.monotonic()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process:
            assert process.stdout is not None
            output: list[str] = []
            for line in process.stdout:
                output = [*output[-200:], line]
                if found := _PROGRESS.match(line):
                    last = f"{found[1]} inputs, coverage {found[3]}, {found[4]} a second"
                    if found[2] == "pulse":
                        _say(f"{target.name}: {last}")
        found_inputs = sorted(folder.glob("found-*"))
        good = process.returncode == 0 and not found_inputs
        _say(
            f"{target.name}: {last}, {time.monotonic() - began:.0f} s, {'ok' if good else 'FAULT'}"
        )
        for path in found_inputs:
            data = path.read_bytes()
            crash = attempt(target, data)
            _keep(target, crash or Crash(data, RuntimeError(f"libFuzzer: {path.name}")))
        if not good and not found_inputs:
            _say("".join(output))
        return good


def _keep(target: Target, crash: Crash) -> None:
    folder = CRASHES / target.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(crash.data).hexdigest()[:16]
    path.write_bytes(crash.data)
    _say("".join(traceback.format_exception(crash.error)))
    _say(f"kept as {os.path.relpath(path)}: {crash.data[:200]!r}")


if __name__ == "__main__":
    sys.exit(main())
