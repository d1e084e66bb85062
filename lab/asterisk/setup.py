"""Finds an Asterisk, or makes one in the cache: the first is taken in a moment, the other once."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lab.asterisk import apt_sources, installation
from lab.asterisk.apt_sources import AptEntry, Recipe
from lab.asterisk.errors import LabError
from lab.asterisk.installation import OLDEST_MAJOR, Installation
from lab.asterisk.packages import FetchError, architecture, fetch_and_unpack
from lab.asterisk.progress import Progress, silent

_ADVICE = f"install Asterisk {OLDEST_MAJOR} or later with its module chan_audiosocket"


def cache_dir() -> Path:
    """Where unpacked Asterisks are kept: `$ARI_APP_CACHE`, or `ari-app` in the user's cache."""
    named = os.environ.get("ARI_APP_CACHE")
    if named:
        return Path(named).expanduser().resolve()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ari-app"


def ensure_asterisk(progress: Progress = silent, *, etc: Path = Path("/etc")) -> Installation:
    """Return an Asterisk that can run here: the host's, the cached one, or one fetched now.

    Blocks for some seconds the first time. Any number of processes may call it at once: one of them
    fetches and the others wait for it. `$ARI_APP_ASTERISK` names the folder of another one, made
    earlier: `asterisk-jammy-amd64` of an Ubuntu machine's cache is how a Debian machine tests
    against Asterisk 18. `etc` is where apt's sources and os-release are read from. Raises LabError
    where there is none and none can be fetched.
    """
    chosen = os.environ.get("ARI_APP_ASTERISK")
    if chosen:
        return _chosen(Path(chosen).expanduser().resolve())
    host = installation.on_host()
    if host is not None:
        return host
    places = apt_sources.recipes(apt_entries(etc), os_release(etc))
    if not places:
        raise LabError(
            "There is no Asterisk here, and apt's sources name no Debian mirror or Ubuntu archive "
            f"to fetch one from: {_ADVICE}."
        )
    complaints: list[str] = []
    for recipe in places:
        try:
            return _cached(recipe, progress)
        except FetchError as error:
            complaints.append(f"{recipe.name}: {error}")
        except OSError as error:
            raise LabError(
                f"Asterisk cannot be kept in {cache_dir()} ({error.strerror}): make room there, or "
                "name another folder in ARI_APP_CACHE."
            ) from error
    raise LabError(
        f"There is no Asterisk here, and none could be fetched ({'; '.join(complaints)}): "
        f"mend that, or {_ADVICE}."
    )


def _chosen(root: Path) -> Installation:
    found = installation.in_folder(root)
    if found is None:
        raise LabError(f"ARI_APP_ASTERISK names {root}, where no Asterisk with AudioSocket runs.")
    return found


def _cached(recipe: Recipe, progress: Progress) -> Installation:
    cache = cache_dir()
    root = cache / f"asterisk-{recipe.name}-{architecture()}"
    found = installation.in_folder(root)
    if found is not None:
        return found
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "asterisk.lock", progress):
        # Another process may have made it meanwhile, or have died in the middle of it.
        found = installation.in_folder(root)
        if found is None:
            _clear_half_made(cache)
            found = _make(recipe, root, progress)
    return found


def _make(recipe: Recipe, root: Path, progress: Progress) -> Installation:
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=root.parent))
    try:
        fetch_and_unpack(recipe, partial / "root", partial / "work", progress)
        if installation.in_folder(partial / "root") is None:
            raise FetchError("its Asterisk does not run here or has no AudioSocket")
        shutil.rmtree(root, ignore_errors=True)
        (partial / "root").rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    found = installation.in_folder(root)
    if found is None:
        raise FetchError(f"Asterisk does not run from {root}")
    return found


def _clear_half_made(cache: Path) -> None:
    for partial in cache.glob("partial-*"):
        shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("Waiting for another process that is fetching Asterisk")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def apt_entries(etc: Path) -> list[AptEntry]:
    """Return the repositories that apt's sources under `etc` name."""
    parts = etc / "apt/sources.list.d"
    entries: list[AptEntry] = []
    for path in (etc / "apt/sources.list", *sorted(parts.glob("*.list"))):
        entries += apt_sources.parse_one_line(_text(path))
    for path in sorted(parts.glob("*.sources")):
        entries += apt_sources.parse_deb822(_text(path))
    return entries


def os_release(etc: Path) -> dict[str, str]:
    """Return the fields of `etc`'s os-release(5); none where there is no such file."""
    return apt_sources.parse_os_release(_text(etc / "os-release"))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
