"""Folders that a process holds locked as long as it lives, and that others take over after it.

The kernel releases the lock when the process ends, in whichever way.
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
    """Lock a process' folder, and return the file descriptor of the lock.

    Args:
        folder: The folder.
        make: Make the file that is locked, unless it is there.

    Raises:
        OSError: Another process holds the folder, or it is not there any more.
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
    """Return the folders of processes in a folder, by their names; none where it is not there.

    Raises:
        OSError: The folder cannot be read.
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        # Another process has cleared it away.
        return []


def lost_in(folder: Path) -> Iterator[tuple[Path, int]]:
    """Lock the folders whose process has ended, one after the other.

    Yields:
        Such a folder, and its lock, which is released when the next one is asked for.

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
    """Remove a folder that we hold locked, with its files that end with `suffix`. It stays where it
    has others."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"*{suffix}"):
            path.unlink(missing_ok=True)
        (folder / _LOCK).unlink(missing_ok=True)
        folder.rmdir()
