"""Asterisk's own files, for a check on Asterisk's own machine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import Final

from ari_app.checks.conf_file import ConfFile, parse_conf
from ari_app.checks.conf_rules import (
    CONFIGURATION,
    FILES,
    Needs,
    judge_conf,
    judge_process_limit,
)
from ari_app.checks.finding import (
    CALLS_IN,
    NOTHING,
    Finding,
    Use,
    Verdict,
    failed,
    ok,
    told_once,
    warning,
)
from ari_app.checks.here import others_may_open
from ari_app.settings import Settings

_RUN_DIR: Final = "/var/run/asterisk"
_OPEN_FILES: Final = re.compile(r"^Max open files\s+(\d+)", re.MULTILINE)
_MOST_FILES: Final = 1000
_OTHERS: Final = ("extensions.ael", "extensions.lua")


def check_conf(folder: Path, settings: Settings, told: set[str] | None = None) -> list[Finding]:
    """Compare the files in a folder such as `/etc/asterisk` with what calls need.

    Args:
        folder: Where they are.
        settings: Ours.
        told: What other checks have found already, and need not be told again.
    """
    if not folder.is_dir():
        return [
            failed(CONFIGURATION, f"There is no folder {folder}. Name it in --conf.", uses=CALLS_IN)
        ]
    reader = _Reader(folder)
    files = {name: conf for name in FILES if (conf := reader.conf(name)) is not None}
    found = [
        *judge_conf(files, Needs.of(settings), other_dialplan=reader.other(settings.ari_app)),
        *reader.complaints,
        *reader.open_to_all("ari.conf"),
        *_process(files.get("asterisk.conf"), settings.max_concurrent_calls),
    ]
    findings = told_once(found, set() if told is None else told)
    if all(f.verdict is Verdict.OK for f in findings if f.what == CONFIGURATION):
        findings.append(
            ok(CONFIGURATION, f"the {len(files)} files in {folder} say what they should")
        )
    return findings


class _Reader:
    """Reads files and what they include, and remembers what could not be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = 0
        self.complaints: list[Finding] = []

    def conf(self, name: str) -> ConfFile | None:
        path = self._folder / name
        if not path.exists():
            self.complaints.append(
                warning(
                    CONFIGURATION,
                    f"There is no {path}. asterisk-conf/production/{name} shows what belongs "
                    "there.",
                    uses=_unseen(path),
                )
            )
            return None
        text = self._text(path)
        return None if text is None else parse_conf(name, text, self._included)

    def other(self, app: str) -> str:
        """Return the file in another language of the dialplan that names the application; or
        empty."""
        stasis = re.compile(rf"(?i:stasis)\W+{re.escape(app)}\b")
        return next((name for name in _OTHERS if stasis.search(self._quietly(name))), "")

    def open_to_all(self, name: str) -> list[Finding]:
        """Return whether users of the machine who have nothing to do with Asterisk can read a
        file."""
        path = self._folder / name
        if not others_may_open(path):
            return []
        return [
            warning(
                CONFIGURATION,
                f"Every user of this machine may read {path}, and what it says of passwords. Run "
                f"`chmod o= {path}`, and where Asterisk runs as a user of its own `chgrp asterisk "
                f"{path}` before it.",
            )
        ]

    def _quietly(self, name: str) -> str:
        try:
            return (self._folder / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _included(self, pattern: str) -> Sequence[tuple[str, str]] | None:
        if "{" in pattern:
            return []  # Asterisk knows braces, and we do not
        # As in Asterisk, `*` stands for no name that begins with a dot.
        try:
            names = sorted(glob(pattern, root_dir=self._folder))
        except ValueError:
            names = []
        paths = [path for name in names if (path := self._folder / name).is_file()]
        if not paths:
            return self._unseen_folder(self._folder / pattern)
        found = []
        for path in paths:
            text = self._text(path)
            if text is not None:
                inside = path.is_relative_to(self._folder)
                found.append((str(path.relative_to(self._folder) if inside else path), text))
        return found

    def _unseen_folder(self, path: Path) -> Sequence[tuple[str, str]] | None:
        """Return None where a file is not there; where this user cannot know, that is said."""
        folder = next(each for each in path.absolute().parents if os.path.isdir(each))
        if os.access(folder, os.R_OK | os.X_OK):
            return None
        self._complain(folder, "permission denied", path)
        return []

    def _text(self, path: Path) -> str | None:
        self._read += 1
        if self._read > _MOST_FILES:
            return None
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            self._complain(path, str(error.strerror), path)
            return None

    def _complain(self, path: Path, why: str, wanted: Path) -> None:
        self.complaints.append(
            warning(
                CONFIGURATION,
                f"{path} cannot be read: {why}. Run this as root or as Asterisk's user.",
                uses=_unseen(wanted),
            )
        )


def _unseen(path: Path) -> frozenset[Use]:
    """Return what nobody knows while this file has not been read."""
    return CALLS_IN if path.name.startswith("extensions") else NOTHING


def _process(conf: ConfFile | None, calls: int) -> list[Finding]:
    """Return the limit of the Asterisk that these files are of, if it runs here."""
    section = None if conf is None else conf.first("directories")
    run_dir = Path(_RUN_DIR if section is None else section.value("astrundir", _RUN_DIR))
    try:
        pid = int((run_dir / "asterisk.pid").read_text())
        limits = Path(f"/proc/{pid}/limits").read_text()
    except (OSError, ValueError):
        return []
    found = _OPEN_FILES.search(limits)
    if found is None:
        return []
    finding = judge_process_limit(int(found[1]), calls)
    return [] if finding is None else [finding]
