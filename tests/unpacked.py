"""Programs of Debian's packages: installed, or unpacked by `scripts/cluster_packages.sh`."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

_UNPACKED: Final = Path(__file__).parents[1] / ".cache/cluster"
_PLACES: Final = (os.environ["PATH"], "/usr/sbin", f"{_UNPACKED}/usr/bin", f"{_UNPACKED}/usr/sbin")


def command_of(*names: str) -> str | None:
    """Return where the first of these programs that is here is; None: none of them is."""
    places = os.pathsep.join(_PLACES)
    return next(filter(None, (shutil.which(name, path=places) for name in names)), None)


def env_of(command: str) -> dict[str, str]:
    """Return the environment in which such a program finds its libraries."""
    env = dict(os.environ)
    if command.startswith(str(_UNPACKED)):
        env["LD_LIBRARY_PATH"] = str(next(_UNPACKED.glob("usr/lib/*-linux-gnu")))
    return env
