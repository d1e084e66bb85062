"""The folder that one running Asterisk writes to."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from io import TextIOWrapper
from pathlib import Path

_PREFIX = "ari-app-asterisk-"
_LOCK = "owner.lock"


class RunFolder:
    """A temporary folder that does not outlive its owner for long.

    It holds a lock for as long as its owner lives. An owner that was killed leaves the folder
    behind; the next one to start sees that its lock is free and removes it.
    """

    def __init__(self) -> None:
        """Make the folder and take the lock; remove what dead owners left."""
        parent = Path(tempfile.gettempdir())
        _sweep(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        # Locked before it has its name: a sweep must never see it unlocked.
        self._lock: TextIOWrapper = (self.path / "unnamed").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self.path / "unnamed").rename(self.path / _LOCK)

    def remove(self) -> None:
        """Remove the folder and all that is in it. May be called again."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _sweep(parent: Path) -> None:
    for lock in parent.glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
