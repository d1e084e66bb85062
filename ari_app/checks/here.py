"""This machine: the files, folders and limits that the application itself depends on."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import tempfile
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ari_app.checks.finding import Finding, failed, ok, warning
from ari_app.descriptors import available, needed
from ari_app.errors import ConfigError
from ari_app.settings import Settings
from ari_app.tools.http_config import load_http_tools, process_environment

_RECORDINGS: Final = "Recordings"
_TOOLS: Final = "Tools"
_PRECALL: Final = "Pre-call"
_MACHINE: Final = "This machine"

_STEREO_BYTES: Final = 4
# The highest rate that the line may get.
_RATE_HZ: Final = {"slin": 8000, "slin16": 16000, "slin24": 24000, "auto": 24000}
_HOURS_TO_KEEP: Final = 24


async def check_here(settings: Settings) -> list[Finding]:
    """All that can be seen from here."""
    findings = [
        *_tools(settings),
        *_recordings(settings),
        check_descriptors(settings),
    ]
    if settings.precall_url is not None:
        findings.append(await _precall(settings.precall_url, settings.precall_timeout_seconds))
    return findings


def _tools(settings: Settings) -> list[Finding]:
    if settings.tools_file is None:
        return []
    try:
        tools = load_http_tools(settings.tools_file, process_environment(settings.env_file))
    except ConfigError as error:
        return [failed(_TOOLS, str(error))]
    names = ", ".join(tool.name for tool in tools) or "none"
    return [ok(_TOOLS, f"{settings.tools_file} can be used: {names}")]


def _recordings(settings: Settings) -> list[Finding]:
    folder = settings.recordings_dir
    if folder is None:
        return []
    try:
        free = require_recordings(folder)
    except ConfigError as error:
        return [failed(_RECORDINGS, str(error))]
    return [judge_room(folder, free, settings)]


def require_recordings(folder: Path) -> int:
    """Make the folder of the recordings, and see that it can be written; the bytes it has free.

    Raises:
        ConfigError: It cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return shutil.disk_usage(folder).free
    except OSError as error:
        raise ConfigError(
            f"RECORDINGS_DIR {folder} cannot be written: {error.strerror}. Make it writable for "
            "this user, or empty the setting."
        ) from None


def judge_room(folder: Path, free_bytes: int, settings: Settings) -> Finding:
    """Whether a day of all calls has room. Pure."""
    rate = _RATE_HZ[settings.audiosocket_format] * _STEREO_BYTES * settings.max_concurrent_calls
    hours = free_bytes / rate / 3600
    text = f"{folder} has room for {hours:.0f} hours of {settings.max_concurrent_calls} calls"
    if hours < _HOURS_TO_KEEP:
        return warning(
            _RECORDINGS, f"{text}. Make room or move old recordings away: nothing else does."
        )
    return ok(_RECORDINGS, text)


def check_descriptors(settings: Settings) -> Finding:
    """Whether this process may open as many files and connections as the settings let it."""
    may, might = available(), needed(settings)
    if may < might:
        return warning(
            _MACHINE,
            f"This process may have {may} files and connections open, and may need {might}. Raise "
            "its limit (LimitNOFILE= in a systemd unit, `ulimit -Hn` in a shell), or lower "
            "MAX_CONCURRENT_CALLS.",
        )
    return ok(_MACHINE, f"{may} files and connections may be open, at most {might} are needed")


async def _precall(url: str, timeout_seconds: float) -> Finding:
    """Connect, and no more: a request would look like a call."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    try:
        async with asyncio.timeout(timeout_seconds):
            _, writer = await asyncio.open_connection(host, port, ssl=secure or None)
    except ssl.SSLError as error:
        why = f"has a certificate that is not trusted ({error.reason})"
    except TimeoutError:
        why = f"does not answer within PRECALL_TIMEOUT_SECONDS ({timeout_seconds:g} s)"
    except OSError as error:
        why = f"cannot be reached ({os.strerror(error.errno) if error.errno else error})"
    else:
        writer.close()
        return ok(_PRECALL, f"{host}:{port} answers; it was not asked about a call")
    return failed(
        _PRECALL,
        f"PRECALL_URL: {host}:{port} {why}. Compare it with the service's address, and see "
        "whether the service runs.",
    )
