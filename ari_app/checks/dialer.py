"""The way in for dialers of one's own: where they come to, and their service."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from ari_app.checks.finding import CALLS_OUT, Finding, failed, ok, warning
from ari_app.clients import dialer_api
from ari_app.errors import ConfigError
from ari_app.line.dialer.api import PROBE, DialerError
from ari_app.line.interface import OwnAudio
from ari_app.process.addresses import is_loopback, split_host_port
from ari_app.settings import Settings

_WHAT: Final = "Dialer"
_ADVICE: Final = {
    "key_refused": "Compare DIALER_API_KEY with what the dialer knows.",
    "untrusted": "If that is not a stranger between us, set DIALER_CA_FILE to the certificate of "
    "whoever issued it.",
    "redirect": "Set DIALER_API_URL to where it leads.",
}
_MAY_PASS: Final = ("unreachable", "timeout")


def check_dialer(settings: Settings) -> Finding:
    """Return whether dialers are told an address that they can come to."""
    where, url = OwnAudio.PATH.removesuffix("{token}"), settings.api_public_url
    if url is None and not is_loopback(split_host_port(settings.api_bind)[0]):
        return warning(
            _WHAT,
            "API_PUBLIC_URL is not set, so a dialer is told to bring its sound to the address that "
            "its request named, without TLS. Set it to the https:// address that dialers reach.",
        )
    if url is not None and url.startswith("http://"):
        return warning(
            _WHAT,
            "API_PUBLIC_URL is http://, so the sound of calls, and the address at which it is "
            "taken, go without TLS.",
        )
    base = "ws" + (url or f"http://{settings.api_bind}").removeprefix("http")
    return ok(_WHAT, f"dialers bring their sound to {base}{where}...")


async def check_dialer_service(settings: Settings) -> list[Finding]:
    """Ask the dialer's service about a call that there is not; nothing where it has none."""
    url = settings.dialer_api_url
    if url is None:
        return []
    findings = []
    plain = url.startswith("http://") and not is_loopback(urlsplit(url).hostname or "")
    if plain:
        findings.append(
            warning(
                _WHAT,
                "DIALER_API_URL is http://, so the key, and the addresses of calls' sound, go "
                "without TLS.",
            )
        )
    if settings.dialer_api_key is None:
        findings.append(
            warning(
                _WHAT,
                "DIALER_API_KEY is not set, so the dialer cannot know that it is us who ask where "
                "the sound of a call is.",
            )
        )
    return [await _answers(settings), *findings]


async def _answers(settings: Settings) -> Finding:
    try:
        async with dialer_api(settings) as api:
            await api.probe()
    except ConfigError as error:
        return failed(_WHAT, str(error), uses=CALLS_OUT)
    except DialerError as error:
        if error.is_down:
            advice = _ADVICE.get(error.code, "See whether it runs, and whether we reach it.")
            may_pass = error.code in _MAY_PASS
            return failed(_WHAT, f"{error}. {advice}", uses=CALLS_OUT, may_pass=may_pass)
        return warning(
            _WHAT,
            f"{error}. It was asked for a call that there is not (/calls/{PROBE}/audio), and "
            "should answer 404.",
            uses=CALLS_OUT,
        )
    return ok(_WHAT, f"{settings.dialer_api_url} answers and accepts the key")
