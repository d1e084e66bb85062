"""An Asterisk on this machine: the host's own, or one unpacked into a folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

OLDEST_MAJOR = 18
"""AudioSocket came with Asterisk 18."""

_SYSTEM_PATH = "/usr/sbin:/usr/local/sbin:/sbin"
_HOST_MODULES = ("/usr/lib/*/asterisk/modules", "/usr/lib*/asterisk/modules")
_HOST_MODULES_BUILT = ("/usr/local/lib*/asterisk/modules", "/opt/asterisk/lib*/asterisk/modules")
_HOST_DATA = ("/usr/share/asterisk", "/var/lib/asterisk", "/usr/local/share/asterisk")
_VERSION = re.compile(r"Asterisk (?P<version>\S+)")


@dataclass(frozen=True, slots=True)
class Installation:
    """A program that runs, and the folders that belong to it."""

    version: str
    """As Asterisk says it: `22.10.1+dfsg+~cs6.17.60671434-1`."""
    command: tuple[str, ...]
    """What to put before Asterisk's own options."""
    environment: tuple[tuple[str, str], ...]
    """Variables that the program needs beside those of this process."""
    module_dir: Path
    data_dir: Path
    """Holds `documentation`, without which Asterisk does not start, `rest-api` and `sounds`."""

    @property
    def major(self) -> int:
        """The release series; 0 where the version does not begin with a number."""
        match = re.match(r"\d+", self.version)
        return int(match[0]) if match else 0

    @property
    def usable(self) -> bool:
        """Whether it is new enough and can speak AudioSocket."""
        return self.major >= OLDEST_MAJOR and (self.module_dir / "chan_audiosocket.so").is_file()

    def env(self) -> dict[str, str]:
        """The whole environment for its processes."""
        return {**os.environ, **dict(self.environment)}


def on_host() -> Installation | None:
    """Return the host's own Asterisk, or None where there is none that the bridge can use."""
    program = shutil.which("asterisk", path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}")
    if program is None:
        return None
    module_dir = next((d for d in _matching(_HOST_MODULES + _HOST_MODULES_BUILT)), None)
    data_dir = next((d for d in _matching(_HOST_DATA) if (d / "documentation").is_dir()), None)
    if module_dir is None or data_dir is None:
        return None
    return _checked((program,), (), module_dir, data_dir)


def in_folder(root: Path) -> Installation | None:
    """Return the Asterisk whose packages were unpacked under `root`; None where none runs.

    It runs with the loader and the libraries of the folder, beside the host's own C library: no
    chroot, no mounts, no root. The loader's cache and OpenSSL's configuration are the only things
    that would reach out to the host, and both are switched off.
    """
    loader = _first(root, "usr/lib/*-linux-gnu*/ld-linux*.so.*", "lib/*-linux-gnu*/ld-linux*.so.*")
    program = _first(root, "usr/sbin/asterisk")
    module_dir = _first(root, "usr/lib/*/asterisk/modules", "usr/lib/asterisk/modules")
    if loader is None or program is None or module_dir is None:
        return None
    libraries = [
        str(path) for top in ("lib", "usr/lib") for path in root.glob(f"{top}/*-linux-gnu*")
    ]
    openssl_modules = _first(root, "usr/lib/*-linux-gnu*/ossl-modules") or root
    return _checked(
        (
            str(loader),
            "--inhibit-cache",
            *("--library-path", ":".join(libraries)),
            *("--argv0", "asterisk"),
            str(program),
        ),
        (("OPENSSL_CONF", "/dev/null"), ("OPENSSL_MODULES", str(openssl_modules))),
        module_dir,
        root / "usr/share/asterisk",
    )


def _checked(
    command: tuple[str, ...],
    environment: tuple[tuple[str, str], ...],
    module_dir: Path,
    data_dir: Path,
) -> Installation | None:
    try:
        answer = subprocess.run(
            [*command, "-V"],
            env={**os.environ, **dict(environment)},
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.match(answer.stdout)
    if match is None:
        return None
    found = Installation(match["version"], command, environment, module_dir, data_dir)
    return found if found.usable else None


def _matching(patterns: tuple[str, ...]) -> list[Path]:
    return [path for p in patterns for path in sorted(Path("/").glob(p[1:])) if path.is_dir()]


def _first(root: Path, *patterns: str) -> Path | None:
    return next((path for pattern in patterns for path in sorted(root.glob(pattern))), None)
