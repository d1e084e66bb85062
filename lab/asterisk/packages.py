"""Fetches Asterisk's packages with apt and unpacks them into a folder.

apt runs on lists, a cache and a package database of its own, so nothing on the host is installed or
changed and root is not needed; the host's proxies, credentials and keys stay in force. An empty
package database makes apt fetch everything that Asterisk needs, the C library included.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from lab.asterisk.apt_sources import Recipe
from lab.asterisk.progress import Progress

_APT_CONF = """\
Dir::State "{work}/state";
Dir::State::status "{work}/status";
Dir::Cache "{work}/cache";
Dir::Log "{work}/log";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "{work}/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
// The work folder belongs to whoever runs this, and apt's own user cannot write there.
APT::Sandbox::User "{user}";
APT::Architectures {{ "{architecture}"; }};
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
// A mirror that is a snapshot serves a list that has expired; its signature still counts.
Acquire::Check-Valid-Until "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
"""

COMMAND_SECONDS = 900
"""For each of apt's steps, on a slow line."""

_NOT_NEEDED = ("doc", "man", "info", "locale", "perl", "perl5", "lintian", "bash-completion")
_EXCLUDES = [
    *(f"--exclude=./usr/share/{name}" for name in _NOT_NEEDED),
    "--exclude=./usr/lib/*/perl*",
    "--exclude=./usr/bin",
]


class FetchError(Exception):
    """The packages cannot be had from there; the message is apt's own first complaint."""


def architecture() -> str:
    """The machine's name for itself in Debian: `amd64`, `arm64`. Raises FetchError."""
    return _run(["dpkg", "--print-architecture"]).strip()


def fetch_and_unpack(recipe: Recipe, root: Path, work: Path, progress: Progress) -> None:
    """Put Asterisk and all that it needs under `root`; `work` is emptied afterwards.

    Raises FetchError where the repositories have no Asterisk or cannot be reached.
    """
    archives = download(recipe, ["asterisk"], work, progress)
    progress(f"Unpacking {len(archives)} packages")
    unpack(archives, root)
    shutil.rmtree(work)


def download(recipe: Recipe, names: list[str], work: Path, progress: Progress) -> list[Path]:
    """Return the archives of these packages and of all that they need, kept under `work`.

    Raises FetchError where the repositories do not have them or cannot be reached.
    """
    config = _prepare(recipe, work)
    apt = ["apt-get", "-q", "-y", "-c", str(config)]
    progress(f"Reading the package lists of {recipe.name}")
    _run([*apt, "-o", "APT::Update::Error-Mode=any", "update"])
    progress(f"Fetching {', '.join(names)} from {recipe.name}")
    _run([*apt, "--no-install-recommends", "--download-only", "install", *names])
    return sorted((work / "cache/archives").glob("*.deb"))


def unpack(archives: list[Path], root: Path) -> None:
    """Put the files of these packages under `root`, which is made; what only people read is left
    out. Raises FetchError."""
    root.mkdir(parents=True)
    for archive in archives:
        _unpack(archive, root)


def _prepare(recipe: Recipe, work: Path) -> Path:
    for folder in ("state/lists/partial", "cache/archives/partial", "log", "sources"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    # From a mirror on disk apt would install in place, and leave nothing in the cache to unpack.
    sources = recipe.as_deb822().replace("URIs: file:", "URIs: copy:")
    (work / "sources/lab.sources").write_text(sources)
    config = work / "apt.conf"
    config.write_text(
        _APT_CONF.format(
            work=work,
            user="root" if os.getuid() == 0 else "",
            architecture=architecture(),
        )
    )
    return config


def _unpack(archive: Path, root: Path) -> None:
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(archive)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as reader:
        try:
            unpacked = subprocess.run(
                ["tar", "-x", "--no-same-owner", *_EXCLUDES, "-C", str(root)],
                stdin=reader.stdout,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            if reader.stdout is not None:
                reader.stdout.close()
    if unpacked.returncode != 0 or reader.returncode != 0:
        raise FetchError(f"{archive.name} could not be unpacked: {unpacked.stderr.strip()}")


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise FetchError(f"there is no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"{command[0]} took more than {COMMAND_SECONDS} s") from None
    if done.returncode != 0:
        complaints = re.findall(r"^E: (.+)$", done.stderr, re.MULTILINE)
        raise FetchError(complaints[0] if complaints else f"{command[0]} failed")
    return done.stdout
