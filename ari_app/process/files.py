"""Files that others may remove or replace while they are open."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import Final


def written_out(path: Path) -> Path:
    """Return a path that somebody wrote where no shell reads it.

    Raises:
        ValueError: It would be taken for the name of a folder that nobody meant, such as `~`, which
            were even made; the text follows its name.
    """
    first = path.parts[0] if path.parts else ""
    if first.startswith(("~", "$")):
        raise ValueError("must be written out: what ~ or $ stands for, only a shell knows")
    if first.endswith(":"):
        raise ValueError("must be a path on this machine, and no URL")
    return path


def keep_from_others(*files: Path) -> None:
    """Take files, or folders, from those who are neither their owner nor of its group, as far as
    they are there and ours: a copy that somebody has put back is for every user of the machine, by
    most umasks."""
    for file in files:
        with contextlib.suppress(OSError):
            mode = file.stat().st_mode
            if (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and mode & stat.S_IRWXO:
                file.chmod(stat.S_IMODE(mode) & ~stat.S_IRWXO)


def keep_database_from_others(file: Path) -> None:
    """Do so with a file of SQLite's, and those beside it, which it makes with the same rights."""
    keep_from_others(file, *(file.with_name(f"{file.name}-{end}") for end in ("wal", "shm")))


def make_database(file: Path) -> None:
    """Make a file for SQLite, unless it is there, and keep it from others.

    Raises:
        OSError: It cannot be made.
    """
    keep_database_from_others(file)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from another one of its name; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_absent(path: Path) -> bool:
    """Return whether there is nothing of this name.

    Where a folder above may not be looked into, or the name is too long, there may be something:
    whoever opens it is told why that cannot be. `Path.exists` raises there before Python 3.14, and
    denies it from then on.
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False
    return False


def nearest(folder: Path) -> Path:
    """Return the folder, or the nearest one above that may be there."""
    return next(each for each in (folder, *folder.absolute().parents) if not is_absent(each))


def why_unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Say why a text cannot be read: a clause, without what stands in it."""
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error.strerror)


def why_failed(error: Exception) -> str:
    """Say why something was not done with a file, without the file's name, as an OSError's own text
    has it: in a recording's there is a number."""
    # One of ours, such as that nobody listens, has no number, and its text is all that it has.
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or type(error).__name__
    return str(error) or type(error).__name__


_OF_THE_DISK: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_OF_THE_DISK_SQLITE: Final = (10, 13)
"""SQLITE_IOERR and SQLITE_FULL; SQLite says the former where a file beside its own has no room."""


def is_of_the_disk(error: Exception) -> bool:
    """Return whether something was not done because a disk is full, or fails: no other path in the
    settings was meant, and it may be done later."""
    if isinstance(error, OSError):
        return error.errno in _OF_THE_DISK
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK_SQLITE


def write_all(file: int, data: bytes) -> None:
    """Write all of it to a file descriptor.

    Raises:
        OSError: A part of it may have been written.
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def sync_folder(folder: Path) -> None:
    """Write what is named in a folder through to its disk; not every file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
