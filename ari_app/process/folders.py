"""Folders that a process holds locked as long as it lives; what it leaves is whoever's comes next.

The kernel takes a lock from whoever dies, however that is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_LOCK: Final = "lock"


def locked(folder: Path, *, make: bool = True) -> int:
    """Lock a process' folder.

    Raises:
        OSError: Somebody holds it, or it is not there any more.
    """
    path = folder / _LOCK
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0)
    lock = os.open(path, flags, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino != path.stat().st_ino:
            raise FileNotFoundError(path)
    except OSError:
        os.close(lock)
        raise
    return lock


def folders_in(folder: Path) -> list[Path]:
    """Return what processes have in a folder, if that is there, in the order of the names.

    Raises:
        OSError: The folder cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        # Another process has cleared it away.
        return []


def lost_in(folder: Path) -> Iterator[tuple[Path, int]]:
    """Lock those whose process is no more, one after the other; each until the next is asked for.

    Yields:
        A process' folder, and its lock.

    Raises:
        OSError: The folder cannot be read.
    """
    for each in folders_in(folder):
        try:
            lock = locked(each, make=False)
        except OSError:
            continue  # its process lives, or is just beginning
        try:
            yield each, lock
        finally:
            os.close(lock)


def remove_locked(folder: Path, suffix: str) -> None:
    """Remove a folder that we hold locked, and the files in it whose names end so; one with other
    files stays."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"*{suffix}"):
            path.unlink(missing_ok=True)
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()
