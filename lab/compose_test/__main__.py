"""`python -m lab.compose_test`: see docs/docker.md."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from lab.asterisk import LabError, Progress
from lab.asterisk.ports import claim_ports
from lab.compose_test import checks
from lab.compose_test.bases import base_images
from lab.compose_test.compose import with_compose
from lab.compose_test.engine import an_engine
from lab.compose_test.errors import CheckFailed, NoEngineError
from lab.compose_test.stage import Stage

Check = Callable[[Stage], str]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("images", checks.build),
    ("up", checks.come_up),
    ("account", checks.account),
    ("baresip", checks.foreign_phone),
    ("caller", checks.transcript),
    ("load", checks.load),
    ("no agent", checks.unserved),
    ("secrets", checks.secrets_apart),
    ("rights", checks.unprivileged),
    ("production", checks.production_image),
    ("SIGTERM", checks.draining),
    ("down", checks.gone),
)


def run_checks(may_install: bool, progress: Progress) -> None:
    """Carry out all checks, in order; whatever happens, nothing is left running.

    `may_install` lets Docker be installed from the host's packages where there is none.

    Raises:
        NoEngineError: there is no Docker Engine here and none can be started.
        CheckFailed: the first check that failed.
    """
    ports = claim_ports()
    try:
        with an_engine(may_install, progress) as found:
            engine = with_compose(found, may_install, progress)
            stage = Stage(engine, base_images(engine, progress), ports)
            progress("Building the images, which takes minutes the first time")
            try:
                for name, check in CHECKS:
                    began = time.monotonic()
                    seen = check(stage)
                    progress(f"{name:>10}  {time.monotonic() - began:5.0f} s  {seen}")
            except CheckFailed as error:
                raise CheckFailed(f"{error}\n{stage.last_words()}") from None
            finally:
                # What went wrong first is what there is to say: `down` has a check of its own.
                with contextlib.suppress(CheckFailed):
                    stage.take_down()
                stage.tidy()
    finally:
        ports.release()


def main(
    install: Annotated[
        bool, typer.Option(help="Install Docker with apt where there is none (as root).")
    ] = False,
) -> None:
    """Build the lab in Docker, hold calls through it, take it down."""
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    try:
        run_checks(install, lambda step: console.print(step, markup=False, soft_wrap=True))
    except NoEngineError as error:
        console.print(f"Nothing was tested. {error}", style="bold yellow", markup=False)
        raise SystemExit(2) from None
    except LabError as error:
        console.print(str(error), style="bold red", markup=False, soft_wrap=True)
        raise SystemExit(1) from None
    console.print(f"All is well, after {time.monotonic() - began:.0f} s.", style="bold green")


if __name__ == "__main__":
    # Whoever ends it this way wants it to clean up as well.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    typer.run(main)
