"""Docker Compose: the one that is here, or the one that Debian stable has."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from lab.asterisk import Progress, cache_dir
from lab.asterisk.packages import FetchError, download, unpack
from lab.compose_test.bases import STABLE, recipe
from lab.compose_test.engine import Engine
from lab.compose_test.errors import CheckFailed, NoEngineError
from lab.compose_test.shell import run

OLDEST = (2, 24)
"""The first one that lets a service's env_file be absent."""
_PLUGINS = ("docker-compose", "docker-buildx")
_FOLDER = "docker-plugins"


def with_compose(engine: Engine, may_install: bool, progress: Progress) -> Engine:
    """Return `engine` with a Docker Compose that is new enough.

    Raises:
        NoEngineError: there is none, and none can be had.
    """
    if _is_new_enough(engine):
        return engine
    if engine.is_own:
        config = cache_dir() / _FOLDER
        engine = replace(engine, env={**engine.env, "DOCKER_CONFIG": str(config)})
        if may_install and not _is_new_enough(engine):
            _fetch(config, progress)
        if _is_new_enough(engine):
            return engine
    raise NoEngineError(
        f"Docker Compose {'.'.join(map(str, OLDEST))} or later is missing "
        "(Debian: docker-compose of trixie and later, others: docker-compose-plugin)."
    )


def _is_new_enough(engine: Engine) -> bool:
    found = version(engine)
    return found is not None and found >= OLDEST


def version(engine: Engine) -> tuple[int, int] | None:
    """Return Docker Compose's major and minor version; None where there is none."""
    try:
        said = run(["docker", "compose", "version", "--short"], env=engine.env)
    except CheckFailed:
        return None
    match = re.match(r"v?(\d+)\.(\d+)", said.strip())
    return (int(match[1]), int(match[2])) if match else None


def _fetch(config: Path, progress: Progress) -> None:
    work, root = config.with_name(f"{_FOLDER}-work"), config.with_name(f"{_FOLDER}-root")
    try:
        for folder in (work, root):
            shutil.rmtree(folder, ignore_errors=True)
        work.mkdir(parents=True)
        unpack(download(recipe(STABLE), list(_PLUGINS), work, progress), root)
        plugins = config / "cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        for name in _PLUGINS:
            shutil.move(root / "usr/libexec/docker/cli-plugins" / name, plugins / name)
    except (FetchError, OSError) as error:
        raise NoEngineError(f"Docker Compose cannot be fetched: {error}.") from None
    finally:
        for folder in (work, root):
            shutil.rmtree(folder, ignore_errors=True)
