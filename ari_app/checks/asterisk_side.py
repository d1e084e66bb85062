"""What else Asterisk's REST interface tells: its limits, who uses it, its trunks."""

from __future__ import annotations

import statistics
import time
from typing import Final
from urllib.parse import urlsplit

from ari_app.addresses import is_loopback
from ari_app.ari import AriError, AriNotFound, AsteriskInfo, Client
from ari_app.checks.finding import Finding, failed, ok, warning
from ari_app.checks.listening import is_serving
from ari_app.settings import Settings

LIMITS: Final = "Limits"
CONNECTION: Final = "Connection"
CALLS_OUT: Final = "Calls out"

_REQUESTS: Final = 10
_SLOW_MS: Final = 50.0
FILES_PER_CALL: Final = 12
"""Open files of Asterisk's for each call: sockets, timers and pipes of two channels and a bridge,
as counted on 22.10.1 with 20 calls."""
_FILES_AT_REST: Final = 100


async def check_asterisk_side(ari: Client, settings: Settings) -> list[Finding]:
    """The connection, the limits, the application's name and the trunks.

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
    """Whether the password crosses a network in the clear. Pure."""
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
    """The median time of a request. It is paid several times before a caller hears anything."""
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
    """Whether Asterisk's own limits leave room for so many calls. Pure."""
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
    findings = []
    for setting, template in templates.items():
        named = endpoint_of(template)
        if named is not None:
            chosen = setting.lower() in settings.model_fields_set
            findings.append(await _trunk(ari, setting, named, chosen))
    return findings


def endpoint_of(template: str) -> tuple[str, str] | None:
    """The technology and the name in a dial string such as ``PJSIP/{number}@trunk``. Pure.

    None where the name depends on the number, or nothing has one (``Local/...``).
    """
    technology, _, rest = template.partition("/")
    if technology == "Local":
        return None
    head, slash, _ = rest.partition("/")
    name = head if slash else rest.rpartition("@")[2]
    return None if "{" in name or not name else (technology, name)


async def _trunk(ari: Client, setting: str, named: tuple[str, str], chosen: bool) -> Finding:
    technology, name = named
    try:
        endpoint = await ari.endpoints.get(technology, name)
    except AriNotFound:
        missing = f"Asterisk has no endpoint {technology}/{name}"
        if chosen:
            return failed(
                CALLS_OUT,
                f"{missing}, which {setting} names: no call can be placed. Define it in "
                "pjsip.conf, or name the trunk that there is.",
            )
        return warning(
            CALLS_OUT,
            f"{missing}, so no calls can be placed. If they are to be, name your trunk in "
            f"{setting}; if not, this is harmless.",
        )
    except AriError as error:
        return warning(CALLS_OUT, f"{technology}/{name} could not be looked at: {error}.")
    if endpoint.state == "offline":
        return warning(
            CALLS_OUT,
            f"{technology}/{name} is unavailable: nobody is registered as it, or it does not "
            f"answer. See `asterisk -rx 'pjsip show endpoint {name}'` and its contacts.",
        )
    return ok(CALLS_OUT, f"{technology}/{name} is {endpoint.state or 'there'}")
