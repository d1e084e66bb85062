"""Where the processes of one service find each other: sockets in a folder of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ari_app.errors import ConfigError
from ari_app.process.folders import locked

_PREFIX: Final = "ari-app-"
_LONGEST: Final = 100
"""The path of a Unix socket has 107 bytes at most (unix(7)); some are for a name that is new."""
_LONGEST_NAME: Final = len("/passed-64.new")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that nobody else can enter.

    Attributes:
        path: Where it is.
        lock: Held by whoever made it and all that it starts, until the last of them has ended.
    """

    path: Path
    lock: int = field(default=-1, compare=False)

    @classmethod
    def make(cls) -> Folder:
        """Make a folder, in systemd's runtime directory or among the temporary files; remove those
        that lost processes have left there.

        Raises:
            ConfigError: It cannot be made.
        """
        near = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or tempfile.gettempdir()
        _remove_lost(Path(near))
        try:
            path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=near)).resolve()
            lock = locked(path)
        except OSError as error:
            raise ConfigError(
                f"WORKERS needs a folder for sockets in {near}, which cannot be made: "
                f"{error.strerror}. TMPDIR names another place."
            ) from None
        found = cls(path, lock)
        if len(os.fsencode(path)) + _LONGEST_NAME > _LONGEST:
            found.remove()
            raise ConfigError(
                f"The folder for temporary files, {near}, has a path that is too long for sockets. "
                "TMPDIR names another place, such as /tmp."
            )
        return found

    @property
    def front(self) -> Path:
        """Where the front takes the lines of its workers in."""
        return self.path / "front"

    def http(self, number: int) -> Path:
        """Return where a worker serves HTTP."""
        return self.path / f"http-{number}"

    def passed(self, number: int) -> Path:
        """Return where a worker takes connections over."""
        return self.path / f"passed-{number}"

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.lock >= 0:
            os.close(self.lock)


def _remove_lost(near: Path) -> None:
    for path in near.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            found = path.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                lock = locked(path, make=False)
                shutil.rmtree(path, ignore_errors=True)
                os.close(lock)
