"""Asterisk by its REST interface: whether it answers, knows us, and has what a call needs; its
limits, its trunks, and who else uses it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from ari_app.checks.finding import AMD, CALLS_OUT, NOTHING, Finding, failed, note, ok, warning
from ari_app.checks.host import is_serving
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import (
    AriError,
    AriNotFound,
    AriUnauthorized,
    AriUnavailable,
    AriUntrusted,
)
from ari_app.line.asterisk.ari.models import AsteriskInfo
from ari_app.line.asterisk.ari.version import assess, known_bugs, release_to_install
from ari_app.process.addresses import is_loopback
from ari_app.process.network import why_unreachable
from ari_app.settings import Settings

_WHAT: Final = "Asterisk"
MODULES: Final = "Modules"
LIMITS: Final = "Limits"
CONNECTION: Final = "Connection"
_OUT: Final = "Calls out"

_REQUESTS: Final = 10
_SLOW_MS: Final = 50.0
FILES_PER_CALL: Final = 12
"""Open files of Asterisk's for each call: sockets, timers and pipes of two channels and a bridge,
as counted on 22.10.1 with 20 calls."""
_FILES_AT_REST: Final = 100

REQUIRED: Final = {
    "chan_audiosocket.so": "it opens the audio connection",
    "res_audiosocket.so": "chan_audiosocket needs it",
    "app_stasis.so": "the dialplan hands calls over with it",
    "res_stasis.so": "calls are held in the application by it",
    "res_stasis_answer.so": "calls are answered through it",
    "res_stasis_playback.so": "res_ari_channels needs it",
    "res_stasis_recording.so": "res_ari_channels needs it",
    "res_stasis_snoop.so": "res_ari_channels needs it",
    "res_http_websocket.so": "events come over it",
    "res_ari.so": "all requests come through it",
    "res_ari_asterisk.so": "the version is read through it",
    "res_ari_applications.so": "the application is looked after through it",
    "res_ari_channels.so": "channels are controlled through it",
    "res_ari_bridges.so": "calls are joined through it",
    "res_ari_events.so": "events come through it",
    "bridge_simple.so": "it joins the caller and the agent",
}
"""Without one of these no call can be taken."""

OF_AUDIOSOCKET: Final = frozenset({"chan_audiosocket.so", "res_audiosocket.so"})
"""Only where sound goes over AudioSocket."""
OF_STATES: Final = frozenset({"res_ari_device_states.so"})
"""Only where the state of a transfer's target is asked for."""

USEFUL: Final = {
    "codec_ulaw.so": "phones and trunks that speak G.711 \u00b5-law",
    "codec_alaw.so": "phones and trunks that speak G.711 A-law",
    "codec_resample.so": "wideband phones, and AUDIOSOCKET_FORMAT other than slin",
    "res_musiconhold.so": "music while a caller waits, on hold, or for a transfer's target",
    "app_amd.so": "answering machine detection (amd=true)",
    "res_ari_endpoints.so": "this check of the trunk",
    "res_ari_device_states.so": "TRANSFER_STATE",
    "func_dialplan.so": "this check of the dialplan",
}
"""Without one of these, something does not work."""

TIMING: Final = ("res_timing_timerfd.so", "res_timing_pthread.so", "res_timing_dahdi.so")
"""One of these gives the beat for music and for mixing."""


async def check_asterisk(ari: Client, settings: Settings) -> list[Finding]:
    """Check whether Asterisk answers, knows us, and has what a call needs."""
    try:
        info = await ari.asterisk.get_info()
    except AriError as error:
        return [failed(_WHAT, _unreachable(error, settings))]
    without = frozenset() if settings.has_audiosocket else OF_AUDIOSOCKET
    if settings.transfer_state is None:
        without |= OF_STATES
    return [*judge_version(info.version), *await _modules(ari, without)]


def unauthorized(settings: Settings, error: AriUnauthorized) -> str:
    """Say what Asterisk refuses us, and how to mend it."""
    if error.status == HTTPStatus.FORBIDDEN and error.method in ("POST", "PUT", "DELETE"):
        return (
            f"Asterisk lets the user {settings.ari_username!r} read only. Set read_only=no in its "
            "ari.conf."
        )
    return (
        f"Asterisk at {settings.ari_url} refuses the user {settings.ari_username!r}. Compare "
        "ARI_USERNAME and ARI_PASSWORD with its ari.conf. If they agree, Asterisk has not read the "
        "file since: `asterisk -rx 'module reload res_ari.so'`, then `asterisk -rx 'ari show "
        "users'` lists the users."
    )


def _unreachable(error: AriError, settings: Settings) -> str:
    url = settings.ari_url
    match error:
        case AriUnauthorized():
            return unauthorized(settings, error)
        case AriNotFound():
            return _no_ari(url)
        case AriUntrusted(reason=reason):
            return (
                f"Asterisk at {url}: {reason}. Set ARI_CA_FILE to the certificate of whoever "
                "issued it, and ARI_URL to a name that is in it."
            )
        case AriUnavailable(__cause__=BaseException() as cause):
            why = f"does not answer: {why_unreachable(cause)}"
        case AriUnavailable():
            why = "does not answer"
        case _:
            why = f"fails ({error})"
    host = urlsplit(url).hostname
    return (
        f"Asterisk at {url} {why}. Is {host} where it runs, with enabled=yes and this address and "
        "port in its http.conf? `asterisk -rx 'http show status'` tells, on its machine."
    )


def _no_ari(url: str) -> str:
    parts = urlsplit(url)
    if parts.path.endswith("/ari"):
        right = urlunsplit(parts._replace(path=parts.path.removesuffix("/ari")))
        return (
            f"ARI_URL is {url}, and /ari is added to it for every request. Write ARI_URL={right}."
        )
    bare = urlunsplit(parts._replace(path=""))
    prefix = (
        f"without `prefix = {parts.path.strip('/')}` in its http.conf it is ARI_URL={bare}"
        if parts.path
        else f"with a `prefix` in its http.conf it is ARI_URL={bare}/PREFIX"
    )
    return (
        f"What answers at {url} has no ARI there: {prefix}; `asterisk -rx 'http show status'` "
        "tells. If that is not it, see that Asterisk has res_ari.so loaded and enabled=yes in "
        "ari.conf."
    )


def judge_version(text: str) -> list[Finding]:
    """Judge what this version can do, and what goes wrong in it."""
    found = assess(text)
    if found.version is None:
        return [warning(_WHAT, f"{found.message} If it is a build of your own, this is harmless.")]
    release = release_to_install(found.version)
    match found.problem:
        case "too_old":
            return [failed(_WHAT, f"{found.message} Install {release} or later.")]
        case "unusable":
            return [failed(_WHAT, f"{found.message} Install {release}, or the final release.")]
        case _:
            update = f"Update to {release} or later."
    bugs = [
        warning(_WHAT, f"In Asterisk {text} {bug.effect} ({bug.reference}). {update}")
        for bug in known_bugs(found.version)
    ]
    if bugs:
        return bugs
    notes = [] if found.capabilities.slin_wide else ["8 kHz only on the line"]
    return [ok(_WHAT, "; ".join([f"Asterisk {text}", *notes]))]


async def _modules(ari: Client, without: frozenset[str]) -> list[Finding]:
    try:
        found = await ari.asterisk.list_modules()
    except AriError as error:
        return [
            warning(
                MODULES,
                f"They could not be looked at: {error}. Is res_ari_asterisk.so loaded?",
            )
        ]
    return judge_modules((each.name for each in found if each.status == "Running"), without)


def load_or_install(name: str) -> str:
    """Say how to get a module, as a sentence."""
    return (
        f"Try `asterisk -rx 'module load {name}'`; where Asterisk is a package of Debian's or "
        "Ubuntu's, asterisk-modules has it. Then see that modules.conf loads it."
    )


def judge_modules(running: Iterable[str], without: frozenset[str] = frozenset()) -> list[Finding]:
    """Say which modules are missing, given the names of those that run, and of those that it can do
    without."""
    there = set(running)
    findings = [
        failed(
            MODULES,
            f"Asterisk has not loaded {name} ({why}). {load_or_install(name)}",
            about=f"module {name}",
        )
        for name, why in REQUIRED.items()
        if name not in there | without
    ]
    findings += [
        warning(
            MODULES,
            f"Asterisk has not loaded {name}, needed for {use}. {load_or_install(name)}",
            uses=AMD if name == "app_amd.so" else NOTHING,
            about=f"module {name}",
        )
        for name, use in USEFUL.items()
        if name not in there | without
    ]
    if there.isdisjoint(TIMING):
        findings.append(
            warning(
                MODULES,
                "Asterisk has loaded no source of timing, so neither music nor mixing works. "
                + load_or_install(TIMING[0]),
            )
        )
    return findings or [ok(MODULES, "all that a call needs are running")]


async def check_asterisk_side(ari: Client, settings: Settings) -> list[Finding]:
    """Check the connection, the limits, the application's name and the trunks.

    Raises:
        AriError: Asterisk cannot be asked any more.
    """
    return [
        *judge_transport(settings.ari_url),
        await _latency(ari),
        *await _application(ari, settings),
        *judge_limits(await ari.asterisk.get_info(), settings.max_concurrent_calls),
        *await _trunks(ari, settings),
    ]


def judge_transport(ari_url: str) -> list[Finding]:
    """Judge whether the password crosses a network in the clear."""
    parts = urlsplit(ari_url)
    if parts.scheme == "https" or is_loopback(parts.hostname or ""):
        return []
    return [
        warning(
            CONNECTION,
            f"ARI_URL is {ari_url}: the password of ARI crosses the network in the clear. Switch "
            "TLS on in http.conf (tlsenable, port 8089) and use https://, unless nobody else is "
            "on that network.",
        )
    ]


async def _latency(ari: Client) -> Finding:
    """Measure the median time of a request. It is paid several times before a caller hears
    anything."""
    took = []
    for _ in range(_REQUESTS):
        started = time.perf_counter()
        await ari.asterisk.get_info()
        took.append((time.perf_counter() - started) * 1000)
    median_ms = statistics.median(took)
    if median_ms > _SLOW_MS:
        return warning(
            CONNECTION,
            f"A request to Asterisk takes {median_ms:.0f} ms, and a call needs ten of them. Run "
            "the application nearer to Asterisk; if password_format is crypt, make the hash with "
            "fewer rounds, as asterisk-conf/production/ari.conf says.",
        )
    return ok(CONNECTION, f"a request to Asterisk takes {median_ms:.1f} ms")


def judge_limits(info: AsteriskInfo, calls: int) -> list[Finding]:
    """Judge whether Asterisk's own limits leave room for so many calls."""
    config = info.config
    if config is None:
        return []
    findings = []
    if config.max_channels is not None and config.max_channels < calls:
        findings.append(
            warning(
                LIMITS,
                f"maxcalls is {config.max_channels} in asterisk.conf, MAX_CONCURRENT_CALLS is "
                f"{calls}: callers beyond {config.max_channels} never reach the dialplan. Write "
                f"maxcalls = {calls * 2} or lower MAX_CONCURRENT_CALLS.",
            )
        )
    files = _FILES_AT_REST + FILES_PER_CALL * calls
    if config.max_open_files is not None and config.max_open_files < files:
        findings.append(
            warning(
                LIMITS,
                f"maxfiles is {config.max_open_files} in asterisk.conf; {calls} calls need about "
                f"{files} open files. Write maxfiles = 65536.",
                about="open files",
            )
        )
    return findings or [ok(LIMITS, f"Asterisk's leave room for {calls} calls")]


async def _application(ari: Client, settings: Settings) -> list[Finding]:
    try:
        await ari.applications.get(settings.ari_app)
    except AriNotFound:
        return []
    if await is_serving(settings):
        return [ok(CONNECTION, f"{settings.ari_app!r} is registered by `ari-app serve` here")]
    return [
        warning(
            CONNECTION,
            f"Another program has registered {settings.ari_app!r} with Asterisk, or left calls in "
            "it. Whoever registers last gets all calls: stop the other one, or choose another "
            "ARI_APP and name it in the dialplan.",
        )
    ]


async def _trunks(ari: Client, settings: Settings) -> list[Finding]:
    templates = {"OUTBOUND_ENDPOINT": settings.outbound_endpoint}
    if settings.transfer_endpoint is not None:
        templates["TRANSFER_ENDPOINT"] = settings.transfer_endpoint
    if settings.take_over_endpoint is not None:
        templates["TAKE_OVER_ENDPOINT"] = settings.take_over_endpoint
    findings = []
    for setting, template in templates.items():
        named = endpoint_of(template)
        if named is not None:
            chosen = setting.lower() in settings.model_fields_set
            findings.append(await _trunk(ari, setting, named, chosen))
    return findings


def endpoint_of(template: str) -> tuple[str, str] | None:
    """Return the technology and the name in a dial string such as `PJSIP/{number}@trunk`. Pure.

    None where the name depends on the number, or nothing has one (`Local/...`).
    """
    technology, _, rest = template.partition("/")
    if technology == "Local":
        return None
    head, slash, _ = rest.partition("/")
    name = head if slash else rest.rpartition("@")[2]
    return None if "{" in name or not name else (technology, name)


async def _trunk(ari: Client, setting: str, named: tuple[str, str], chosen: bool) -> Finding:
    technology, name = named
    uses = CALLS_OUT if setting == "OUTBOUND_ENDPOINT" else NOTHING
    about = f"trunk {technology}/{name}"
    try:
        endpoint = await ari.endpoints.get(technology, name)
    except AriNotFound:
        missing = f"Asterisk has no endpoint {technology}/{name}"
        if chosen:
            return failed(
                _OUT,
                f"{missing}, which {setting} names: no call can be placed. Define it in "
                "pjsip.conf, or name the trunk that there is.",
                uses=uses,
                about=about,
            )
        return note(
            _OUT,
            f"{missing}, so no calls can be placed. If they are to be, name your trunk in "
            f"{setting}.",
            uses=uses,
            about=about,
        )
    except AriError as error:
        return warning(_OUT, f"{technology}/{name} could not be looked at: {error}.", uses=uses)
    if endpoint.state == "offline":
        return warning(
            _OUT,
            f"{technology}/{name} is unavailable: nobody is registered as it, or it does not "
            f"answer. See `asterisk -rx 'pjsip show endpoint {name}'` and its contacts.",
            uses=uses,
            about=about,
        )
    return ok(_OUT, f"{technology}/{name} is {endpoint.state or 'there'}")
