"""Asterisk's own files, for a check on Asterisk's own machine."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ari_app.checks.conf_file import ConfFile, parse_conf
from ari_app.checks.conf_rules import FILES, Needs, judge_conf, judge_process_limit
from ari_app.checks.demands import CONFIGURATION
from ari_app.checks.finding import Finding, Verdict, failed, ok, warning
from ari_app.settings import Settings

_RUN_DIR: Final = "/var/run/asterisk"
_OPEN_FILES: Final = re.compile(r"^Max open files\s+(\d+)", re.MULTILINE)
_MOST_FILES: Final = 1000


def check_conf(folder: Path, settings: Settings) -> list[Finding]:
    """Compare the files in a folder such as ``/etc/asterisk`` with what calls need."""
    if not folder.is_dir():
        return [failed(CONFIGURATION, f"There is no folder {folder}. Name it in --conf.")]
    reader = _Reader(folder)
    files = {name: conf for name in FILES if (conf := reader.conf(name)) is not None}
    findings = [
        *reader.complaints,
        *judge_conf(files, Needs.of(settings)),
        *_process(files.get("asterisk.conf"), settings.max_concurrent_calls),
    ]
    if all(finding.verdict is Verdict.OK for finding in findings):
        return [ok(CONFIGURATION, f"the {len(files)} files in {folder} say what they should")]
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
                )
            )
            return None
        text = self._text(path)
        return None if text is None else parse_conf(name, text, self._included)

    def _included(self, pattern: str) -> Sequence[tuple[str, str]]:
        base = Path(pattern)
        root, relative = (Path("/"), pattern[1:]) if base.is_absolute() else (self._folder, pattern)
        found = []
        try:
            paths = sorted(root.glob(relative))
        except (ValueError, OSError, NotImplementedError):
            return []
        for path in paths:
            text = self._text(path) if path.is_file() else None
            if text is not None:
                inside = path.is_relative_to(self._folder)
                found.append((str(path.relative_to(self._folder) if inside else path), text))
        return found

    def _text(self, path: Path) -> str | None:
        self._read += 1
        if self._read > _MOST_FILES:
            return None
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            self.complaints.append(
                warning(
                    CONFIGURATION,
                    f"{path} cannot be read: {error.strerror}. Run this as root or as Asterisk's "
                    "user.",
                )
            )
            return None


def _process(conf: ConfFile | None, calls: int) -> list[Finding]:
    """The limit of the Asterisk that these files are of, if it runs here."""
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
