"""The images that the lab's images are built from: pulled, or made with mmdebstrap."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from lab.asterisk import Progress, cache_dir
from lab.asterisk.apt_sources import Recipe, recipes
from lab.asterisk.setup import apt_entries, os_release
from lab.compose_test.engine import Engine
from lab.compose_test.errors import CheckFailed, NoEngineError
from lab.compose_test.shell import run, succeeds

STABLE, TESTING = "trixie", "forky"
_PULL_SECONDS = 300.0
_MAKE_SECONDS = 600.0
_IMPORT_SECONDS = 120.0
# As the public slim images have it.
_SLIM = (
    "force-unsafe-io",
    *(f"path-exclude=/usr/share/{name}/*" for name in ("doc", "info", "locale", "man")),
    "path-include=/usr/share/doc/*/copyright",
)
# What a mirror serves that is a snapshot has expired; its signature still counts.
_OLD_LISTS = "-o Acquire::Check-Valid-Until=false"


def base_images(engine: Engine, progress: Progress) -> dict[str, str]:
    """Return the build arguments that name the base images.

    The ordinary public ones are taken where they are here. On an engine of our own they are made
    from the host's Debian mirror, if mmdebstrap is there; otherwise they are pulled.

    Raises:
        NoEngineError: they cannot be had.
    """
    public = {suite: f"debian:{suite}-slim" for suite in (STABLE, TESTING)}
    if all(_has(engine, image) for image in public.values()):
        return _arguments(public)
    if engine.is_own and shutil.which("mmdebstrap"):
        made = {suite: f"ari-app-base:{suite}" for suite in public}
        _make(engine, {s: image for s, image in made.items() if not _has(engine, image)}, progress)
        return {**_arguments(made), "APT_OPTIONS": _OLD_LISTS}
    for image in public.values():
        progress(f"Pulling {image}")
        try:
            run(["docker", "pull", "--quiet", image], env=engine.env, timeout=_PULL_SECONDS)
        except CheckFailed as error:
            raise NoEngineError(f"A base image is missing: {error}") from None
    return _arguments(public)


def recipe(suite: str) -> Recipe:
    """Return where this machine's apt finds this suite of Debian.

    Raises:
        NoEngineError: its sources name no Debian mirror.
    """
    for found in recipes(apt_entries(Path("/etc")), os_release(Path("/etc"))):
        if found.name == TESTING:
            return Recipe(suite, tuple(replace(entry, suite=suite) for entry in found.entries))
    raise NoEngineError(f"apt's sources name no Debian mirror to make {suite} from.")


def _arguments(images: dict[str, str]) -> dict[str, str]:
    return {"STABLE_IMAGE": images[STABLE], "TESTING_IMAGE": images[TESTING]}


def _has(engine: Engine, image: str) -> bool:
    return succeeds(["docker", "image", "inspect", image], env=engine.env)


def _make(engine: Engine, images: dict[str, str], progress: Progress) -> None:
    if not images:
        return
    progress(f"Making the base images {', '.join(images)}")
    try:
        with ThreadPoolExecutor() as pool:
            archives = pool.map(debian_archive, images)
            for image, archive in zip(images.values(), archives, strict=True):
                command = ["docker", "import", str(archive), image]
                run(command, env=engine.env, timeout=_IMPORT_SECONDS)
    except CheckFailed as error:
        raise NoEngineError(f"A base image cannot be made: {error}") from None


def debian_archive(suite: str, *packages: str) -> Path:
    """Return the archive of a small Debian with `packages`; it is made once, and kept in the cache.

    Raises:
        CheckFailed: mmdebstrap cannot make it; says why.
        NoEngineError: apt's sources name no Debian mirror.
    """
    archive = cache_dir() / f"{'-'.join(('debian', suite, *packages))}.tar"
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    partial = archive.with_name(f"{archive.name}.{os.getpid()}")
    try:
        run(
            [
                *("mmdebstrap", "--quiet", "--format=tar", "--variant=minbase"),
                '--aptopt=Acquire::Check-Valid-Until "false"',
                *(f"--dpkgopt={option}" for option in _SLIM),
                *(f"--include={package}" for package in packages),
                *(suite, str(partial), recipe(suite).entries[0].uri),
            ],
            timeout=_MAKE_SECONDS,
        )
        partial.rename(archive)
    finally:
        partial.unlink(missing_ok=True)
    return archive
