"""This machine: the files, folders and limits that the application itself depends on."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import ssl
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ari_app.checks.env_file import doubtful_names
from ari_app.checks.finding import EVERYTHING, NOTHING, Finding, failed, ok, warning
from ari_app.control.http.keys import Keys
from ari_app.control.workers.folder import Folder
from ari_app.errors import ConfigError
from ari_app.process.addresses import is_loopback, page_url, split_host_port
from ari_app.process.compiled import is_compiled
from ari_app.process.files import is_of_the_disk, nearest
from ari_app.process.limits import available, needed
from ari_app.records.audit import not_writable
from ari_app.settings import Settings

if TYPE_CHECKING:
    # What only some settings need is imported where they are looked at: a check should be quick.
    from ari_app.audio.sound_file import SoundFile
    from ari_app.call.plan import Announcement

SETTINGS: Final = "Settings"
_RECORDINGS: Final = "Recordings"
_TOOLS: Final = "Tools"
_PRECALL: Final = "Pre-call"
_MACHINE: Final = "This machine"
_AUDIT: Final = "Audit"
_SPEND: Final = "Limits of a day"
_TRACES: Final = "Traces"
_COLLECTORS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_STEREO_BYTES: Final = 4
# The highest rate that the line may get.
_RATE_HZ: Final = {"slin": 8000, "slin16": 16000, "slin24": 24000, "auto": 24000}
_HOURS_TO_KEEP: Final = 24
_SHORTEST_KEY: Final = 16
_ONLY_WITH: Final = {
    "recording_sound": "recordings_dir",
    "precall_secret": "precall_url",
    "webhook_secret": "webhook_url",
    "cluster_secret": "cluster_url",
    "dialer_api_key": "dialer_api_url",
}
"""What does nothing by itself, and without what."""
_ONLY_FOR: Final = {"twilio_account_sid": "twilio", "dialer_api_url": "custom"}
"""What does nothing without its way in."""
_HEALTH_SECONDS: Final = 2.0
# A name from /etc/hosts takes a few ms, a name server that does not know it seconds.
_NAME_SECONDS: Final = 0.5
_PATIENCE_SECONDS: Final = 6.0


def check_settings(settings: Settings) -> list[Finding]:
    """Check whether the settings are complete, and are what was meant."""
    findings = [warning(SETTINGS, sentence) for sentence in doubtful_names(settings.env_file)]
    findings += judge_secrets(settings)
    findings += judge_effects(settings)
    try:
        settings.require_serving()
        secret = settings.api_key
        keys = Keys.of(
            None if secret is None else secret.get_secret_value(), settings.api_keys_file
        )
    except ConfigError as error:
        findings.append(failed(SETTINGS, str(error)))
    else:
        key = "with a key" if keys else "without a key: this machine only"
        findings.insert(0, ok(SETTINGS, f"complete; HTTP at {settings.api_bind}, {key}"))
    return findings


def judge_secrets(settings: Settings) -> list[Finding]:
    """Judge whether others can read our keys, or guess them."""
    findings = []
    file = None if settings.env_file is None else Path(settings.env_file)
    if file is not None and others_may_open(file):
        findings.append(
            warning(
                SETTINGS,
                f"Every user of this machine may open {file}, and it holds passwords and keys. Run "
                f"`chmod 600 {file}`.",
            )
        )
    key = settings.api_key
    public = settings.api_public_url
    has_keys = key is not None or settings.api_keys_file is not None
    if public and not has_keys and not is_loopback(urlsplit(public).hostname or ""):
        findings.append(
            warning(
                SETTINGS,
                f"API_PUBLIC_URL is {public}, so something passes on what others ask, and there is "
                "no API_KEY: a proxy that does not say for whom it asks lets everybody place calls "
                "and read what was said. Set one: `python3 -c 'import secrets; "
                "print(secrets.token_hex(24))'` makes it.",
            )
        )
    if key is not None and len(key.get_secret_value()) < _SHORTEST_KEY:
        findings.append(
            warning(
                SETTINGS,
                f"API_KEY has {len(key.get_secret_value())} characters, so it can be guessed by "
                f"trying, and whoever has it can place calls. Take {_SHORTEST_KEY} or more: "
                "`python3 -c 'import secrets; print(secrets.token_hex(24))'` makes one.",
            )
        )
    return findings


def judge_effects(settings: Settings) -> list[Finding]:
    """Judge whether something was set that does nothing, because of what was not."""
    sentences = [
        f"{name.upper()} has no effect while {other.upper()} is empty. Set that, too, or take the "
        "line out."
        for name, other in _ONLY_WITH.items()
        if getattr(settings, name) is not None and not getattr(settings, other)
    ]
    # USE_DIALER_AUDIO=false is there to leave all of them where they are.
    sentences += [
        f"{name.upper()} has no effect, for DIALER_TYPE is {settings.dialer_type}. Name {way} "
        "there, or take the line out."
        for name, way in _ONLY_FOR.items()
        if settings.use_dialer_audio
        and getattr(settings, name) is not None
        and way not in settings.ways_in
    ]
    return [warning(SETTINGS, sentence) for sentence in sentences]


def others_may_open(file: Path) -> bool:
    """Return whether users who have nothing to do with it can read or change a file.

    A device is none: /dev/null must stay everybody's.
    """
    try:
        folders, mode = file.resolve().parents, file.stat().st_mode
        return (
            stat.S_ISREG(mode)
            and bool(mode & 0o006)
            and all(folder.stat().st_mode & 0o001 for folder in folders)
        )
    except OSError:
        return False


async def check_host(settings: Settings) -> list[Finding]:
    """Check all that can be seen from here, but for the settings themselves."""
    findings = [
        *_sound(),
        *_tools(settings),
        *_recordings(settings),
        *_audit(settings),
        *_spend(settings),
        *_loss_sound(settings),
        check_descriptors(settings),
        *_workers(settings),
        *await _http(settings),
        *await _own_name(settings),
    ]
    if settings.precall_url is not None:
        findings.append(await _precall(settings))
    if settings.otel_traces_exporter != "none":
        findings.append(await _traces(settings))
    return findings


def _sound() -> list[Finding]:
    """Check what `serve` loads with its first call."""
    try:
        import ari_app.audio.resample  # noqa: F401
    except (ImportError, RuntimeError) as error:
        # RuntimeError: the processor lacks what numpy was built for.
        why = str(error).strip().partition("\n")[0]
        return [
            failed(
                _MACHINE,
                f"numpy cannot be loaded, and without it calls fail: {why} Install it anew; a "
                "virtual machine may have to be given more of its host's processor.",
            )
        ]
    return []


async def _own_name(settings: Settings) -> list[Finding]:
    """Check whether this machine knows its own name, where Asterisk runs on it."""
    if not settings.has_asterisk or not is_loopback(urlsplit(settings.ari_url).hostname or ""):
        return []
    name = socket.gethostname()
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await loop.getaddrinfo(name, None)
    except (OSError, UnicodeError):
        known = False
    else:
        known = True
    return judge_own_name(name, known=known, seconds=time.perf_counter() - started)


def judge_own_name(name: str, *, known: bool, seconds: float) -> list[Finding]:
    """Judge whether looking up the machine's own name holds up calls."""
    if known and seconds < _NAME_SECONDS:
        return []
    found = f"takes {seconds:.1f} s to find" if known else "is not known here"
    return [
        warning(
            _MACHINE,
            f"This machine's own name, {name}, {found}. Asterisk looks it up for every SIP call, "
            "and while a name server is slow all calls wait for it. Write the line "
            f"`127.0.1.1 {name}` into /etc/hosts.",
        )
    ]


async def _http(settings: Settings) -> list[Finding]:
    """Check whether the port of our HTTP can be had; while `serve` runs it is where it should
    be."""
    host, port = split_host_port(settings.api_bind)
    try:
        (await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not await is_serving(settings):
            return [not_to_be_had(_MACHINE, "API_BIND", settings.api_bind, error)]
    return []


def _workers(settings: Settings) -> list[Finding]:
    """Check what several workers need beside what one does."""
    if settings.workers == 1:
        return []
    try:
        Folder.make().remove()
    except ConfigError as error:
        return [failed(_MACHINE, str(error))]
    cores = len(os.sched_getaffinity(0))
    if settings.workers > cores:
        return [
            warning(
                _MACHINE,
                f"WORKERS is {settings.workers}, and this machine lets us have {cores} cores: more "
                "workers than cores carry no more calls.",
            )
        ]
    return [ok(_MACHINE, f"{settings.workers} workers on {cores} cores")]


def not_to_be_had(what: str, setting: str, address: str, error: OSError) -> Finding:
    """Return what to say of an address that we cannot listen on."""
    return failed(what, str(cannot_listen(setting, address, error)))


def cannot_listen(setting: str, address: str, error: OSError) -> ConfigError:
    """Return that an address cannot be listened on, and what to do."""
    match error.errno:
        case errno.EADDRINUSE:
            hint = "another program has this port. Stop it, or choose another port"
        case errno.EACCES:
            hint = "a low port is for privileged users only. Choose one from 1024 on"
        case _:
            hint = "choose an address of this machine"
    return ConfigError(f"{setting} {address} cannot be used: {hint}.")


async def is_serving(settings: Settings) -> bool:
    """Return whether `ari-app serve` runs here with these settings: its own HTTP says so."""
    host, port = split_host_port(settings.api_bind)
    if port == 0:
        return False
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=_HEALTH_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{page_url(host, port)}health/live") as response,
        ):
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _tools(settings: Settings) -> list[Finding]:
    if settings.tools_file is None:
        return []
    from ari_app.tools.http_config import load_http_tools, process_environment

    try:
        environment = process_environment(settings.env_file)
        tools = load_http_tools(settings.tools_file, environment, settings.env_file)
    except ConfigError as error:
        return [failed(_TOOLS, str(error))]
    names = ", ".join(tool.name for tool in tools) or "none"
    return [ok(_TOOLS, f"{settings.tools_file} can be used: {names}")]


def _recordings(settings: Settings) -> list[Finding]:
    folder = settings.recordings_dir
    if folder is None:
        return []
    try:
        # Made by the service, or the folder would belong to whoever runs a check.
        free = _writable(nearest(folder))
    except OSError as error:
        return [failed(_RECORDINGS, _not_writable(folder, error))]
    return [judge_room(folder, free, settings), *_encoder(settings)]


def _encoder(settings: Settings) -> list[Finding]:
    try:
        require_encoder(settings.recordings_format)
    except ConfigError as error:
        return [failed(_RECORDINGS, str(error))]
    return []


def require_encoder(kind: str) -> None:
    """Make sure that recordings can be encoded.

    Args:
        kind: `wav`, `flac` or `opus`.

    Raises:
        ConfigError: They cannot.
    """
    if kind == "wav":
        return
    try:
        import soundfile
    except (ImportError, OSError) as error:
        problem = f"soundfile cannot be loaded ({error})"
    else:
        container, coding = ("FLAC", "PCM_16") if kind == "flac" else ("OGG", "OPUS")
        if soundfile.check_format(container, coding):
            return
        problem = f"this machine's libsndfile {soundfile.__libsndfile_version__} has none"
    raise ConfigError(
        f"RECORDINGS_FORMAT {kind} cannot be made: {problem}. Install the package soundfile for "
        "this Python, or set RECORDINGS_FORMAT=wav."
    )


def room_of_an_hour(settings: Settings) -> int:
    """Return the bytes that an hour of all calls takes while it is recorded."""
    return (
        _STEREO_BYTES * _RATE_HZ[settings.audiosocket_format] * settings.max_concurrent_calls * 3600
    )


def _audit(settings: Settings) -> list[Finding]:
    path = settings.audit_file
    if path is None:
        return []
    try:
        if path.exists():
            path.open("ab").close()
        else:
            # Made by the service, or the file would belong to whoever runs a check.
            _writable(path.parent)
    except OSError as error:
        return [failed(_AUDIT, not_writable(path, error))]
    if others_may_open(path):
        return [
            warning(
                _AUDIT,
                f"Every user of this machine may open {path}, which says who has asked for what. "
                f"Run `chmod 600 {path}`.",
            )
        ]
    return [ok(_AUDIT, f"each change over HTTP and in the page is written to {path}")]


def _spend(settings: Settings) -> list[Finding]:
    try:
        limits = settings.spend_limits()
    except ConfigError:
        # A fault of the settings, which say so.
        return []
    if not limits:
        return []
    own, others, zone = len(limits.agents), limits.others, settings.spend_time_zone
    parts = [f"all agents together {limits.together}"] if limits.together else []
    parts += [f"{own} {'agent has' if own == 1 else 'agents have'} their own"] if own else []
    parts += [f"each other one {others}"] if others else []
    return [ok(_SPEND, f"{', '.join(parts)}; a day begins at midnight in {zone}")]


def _loss_sound(settings: Settings) -> list[Finding]:
    try:
        require_sound(settings.agent_loss_sound)
        require_announcements(settings)
    except ConfigError as error:
        return [failed(_MACHINE, str(error))]
    return []


def require_sound(path: Path | None, setting: str = "AGENT_LOSS_SOUND") -> SoundFile | None:
    """Read a sound for callers, if there is to be one.

    Args:
        path: The file.
        setting: What names it.

    Raises:
        ConfigError: It cannot be used.
    """
    if path is None:
        return None
    from ari_app.audio.sound_file import SoundFile

    try:
        return SoundFile.load(path)
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except ValueError as error:
        problem = str(error)
    raise ConfigError(
        f"{setting} {path} cannot be used: {problem}. Give a WAV file of 16-bit PCM, or "
        "empty the setting."
    )


def require_announcements(settings: Settings) -> dict[Announcement, SoundFile]:
    """Read what callers are told.

    Raises:
        ConfigError: A file cannot be used.
    """
    listening = require_sound(settings.listening_sound, "LISTENING_SOUND")
    recording = require_sound(settings.recording_sound, "RECORDING_SOUND")
    if listening is None and recording is None:
        return {}
    from ari_app.call.plan import Announcement

    files = {Announcement.LISTENING: listening, Announcement.RECORDING: recording}
    return {what: sound for what, sound in files.items() if sound is not None}


def require_recordings(folder: Path) -> None:
    """Make the folder of the recordings, and see that it can be written.

    Raises:
        ConfigError: It cannot, and not because its disk is full or fails.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _writable(folder)
    except OSError as error:
        if not is_of_the_disk(error):
            raise ConfigError(_not_writable(folder, error)) from None


def _writable(folder: Path) -> int:
    with tempfile.TemporaryFile(dir=folder):
        return shutil.disk_usage(folder).free


def _not_writable(folder: Path, error: OSError) -> str:
    return (
        f"RECORDINGS_DIR {folder} cannot be written: {error.strerror}. Make it writable for this "
        "user, or empty the setting."
    )


def judge_room(folder: Path, free_bytes: int, settings: Settings) -> Finding:
    """Judge whether a day of all calls has room."""
    hours = free_bytes / room_of_an_hour(settings)
    text = f"{folder} has room for {hours:.0f} hours of {settings.max_concurrent_calls} calls"
    if hours < _HOURS_TO_KEEP:
        return warning(
            _RECORDINGS,
            f"{text}. Make room, or let RECORDS_KEEP_DAYS remove old calls with theirs.",
        )
    return ok(_RECORDINGS, text)


def check_descriptors(settings: Settings) -> Finding:
    """Check whether this process may open as many files and connections as the settings let it."""
    may, might = (
        available(),
        needed(
            settings.max_concurrent_calls,
            settings.audiosocket_limits().connections + settings.api_limits().connections,
        ),
    )
    if may < might:
        return warning(
            _MACHINE,
            f"This process may have {may} files and connections open, and may need {might}. Raise "
            "its limit (LimitNOFILE= in a systemd unit, `ulimit -Hn` in a shell), or lower "
            "MAX_CONCURRENT_CALLS.",
        )
    compiled = (
        "what every frame goes through is compiled"
        if is_compiled()
        else "what every frame goes through is not compiled, which costs a call a third more CPU "
        "time (in ari-app's checkout: make compile)"
    )
    return ok(
        _MACHINE, f"{may} files and connections may be open, at most {might} are needed; {compiled}"
    )


async def connect_problem(url: str, timeout_seconds: float) -> str:
    """Connect to where a URL leads, and no more: why that does not go; empty when it does."""
    from ari_app.process.network import why_unreachable

    parts = urlsplit(url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    try:
        async with asyncio.timeout(timeout_seconds):
            _, writer = await asyncio.open_connection(host, port, ssl=secure or None)
    except ssl.SSLCertVerificationError as error:
        return f"has a certificate that is not trusted ({error.reason})"
    except TimeoutError:
        return f"does not answer within {timeout_seconds:g} s"
    except (OSError, UnicodeError) as error:
        return f"cannot be reached: {why_unreachable(error)}"
    writer.close()
    return ""


def host_and_port(url: str) -> str:
    """Return `host:port` of a URL, with the port that its scheme stands for."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


async def _precall(settings: Settings) -> Finding:
    url = settings.precall_url or ""
    # A request would look like a call.
    problem = await connect_problem(url, settings.precall_timeout_seconds)
    where = host_and_port(url)
    if not problem:
        return ok(_PRECALL, f"{where} answers; it was not asked about a call")
    on = settings.precall_on_failure == "go_on"
    return failed(
        _PRECALL,
        f"PRECALL_URL: {where} {problem}. Compare it with the service's address, and see "
        "whether the service runs.",
        uses=NOTHING if on else EVERYTHING,
    )


async def _traces(settings: Settings) -> Finding:
    """Check whether somebody listens where spans are sent. None is sent."""
    from ari_app.tools.http_config import process_environment

    try:
        import ari_app.records.otel  # noqa: F401
    except ConfigError as error:
        return failed(_TRACES, str(error))
    environment = process_environment(settings.env_file)
    name = next((each for each in _COLLECTORS if environment.get(each)), _COLLECTORS[-1])
    url = environment.get(name) or "http://localhost:4318"
    lost = "Spans are lost until it takes them; calls go on."
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        return warning(_TRACES, f"{name} must be a URL with http:// or https://. {lost}")
    problem = await connect_problem(url, _PATIENCE_SECONDS)
    where = f"{host_and_port(url)} ({name})"
    return warning(_TRACES, f"{where} {problem}. {lost}") if problem else ok(_TRACES, where)
