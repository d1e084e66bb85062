"""`python -m benchmarks [parts|bridge|ear|stall|flood|all ...]`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import uvloop

from benchmarks.bridge import FORMATS
from benchmarks.command import NAMES, Options, run
from benchmarks.processes import BenchmarkError
from lab.asterisk import LabError


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", default=["all"], choices=[*NAMES, "all"])
    parser.add_argument("--quick", action="store_true", help="fewer steps, shorter ones")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-output"), help="where JSON and PNG go"
    )
    parser.add_argument("--format", action="append", choices=FORMATS, help="only this; bridge")
    parser.add_argument("--calls", type=int, action="append", help="only this many; bridge, flood")
    given = parser.parse_args()
    options = Options(given.quick, given.out, tuple(given.format or ()), tuple(given.calls or ()))
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(given.names, options))
    except (BenchmarkError, LabError) as error:
        sys.exit(f"benchmarks: {error}")


if __name__ == "__main__":
    main()
