"""A private folder for files that are of use only while the service runs; in memory if possible."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_SHARED_MEMORY: Final = Path("/dev/shm")


def runtime_folder() -> Path:
    """Return our runtime folder, and make it unless it is there: below systemd's runtime directory,
    the user's, `/dev/shm`, or the folder for temporary files.

    Raises:
        OSError: In none of these can we have a folder that others cannot look into.
    """
    problem: OSError | None = None
    for folder in _candidates():
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            _check(folder)
        except OSError as error:
            problem = error
        else:
            return folder
    raise problem or OSError("there is no folder for it")


def _candidates() -> Iterator[Path]:
    # systemd names several with colons.
    if given := os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        yield Path(given, "ari-app")
    if given := os.environ.get("XDG_RUNTIME_DIR", ""):
        yield Path(given, "ari-app")
    name = f"ari-app-{os.geteuid()}"
    yield _SHARED_MEMORY / name
    yield Path(tempfile.gettempdir(), name)


def _check(folder: Path) -> None:
    found = folder.lstat()
    ours = found.st_uid == os.geteuid() and not found.st_mode & 0o077
    if not (stat.S_ISDIR(found.st_mode) and ours):
        raise PermissionError(f"{folder} is not ours alone")
