"""The way in for dialers of one's own."""

from __future__ import annotations

from typing import Final

from ari_app.checks.finding import Finding, ok, warning
from ari_app.line.interface import OwnAudio
from ari_app.process.network import is_loopback
from ari_app.settings import Settings, split_host_port

_WHAT: Final = "Dialer"


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
