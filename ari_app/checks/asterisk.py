"""Asterisk itself: whether it answers, knows us, and has what a call needs."""

from __future__ import annotations

from typing import Final

from ari_app.ari import (
    AriError,
    AriNotFound,
    AriUnauthorized,
    AriUnavailable,
    AriUntrusted,
    Client,
    assess,
    known_bugs,
    release_to_install,
)
from ari_app.checks import modules
from ari_app.checks.finding import Finding, failed, ok, warning
from ari_app.settings import Settings

_WHAT: Final = "Asterisk"


async def check_asterisk(ari: Client, settings: Settings) -> list[Finding]:
    """Whether Asterisk answers, knows us, and has what a call needs."""
    try:
        info = await ari.asterisk.get_info()
    except AriError as error:
        return [failed(_WHAT, _unreachable(error, settings))]
    return [*judge_version(info.version), *await _modules(ari)]


def unauthorized(settings: Settings) -> str:
    """What to say when Asterisk refuses our name or password."""
    return (
        f"Asterisk at {settings.ari_url} refuses the user {settings.ari_username!r}. Compare "
        "ARI_USERNAME and ARI_PASSWORD with its ari.conf; `asterisk -rx 'ari show users'` "
        "lists the users."
    )


def _unreachable(error: AriError, settings: Settings) -> str:
    url = settings.ari_url
    match error:
        case AriUnauthorized():
            return unauthorized(settings)
        case AriNotFound():
            return (
                f"What answers at {url} has no /ari. Check ARI_URL, and that Asterisk has "
                "res_ari.so loaded and enabled=yes in ari.conf."
            )
        case AriUntrusted(reason=reason):
            return (
                f"Asterisk at {url}: {reason}. Set ARI_CA_FILE to the certificate of whoever "
                "issued it, and ARI_URL to a name that is in it."
            )
        case AriUnavailable():
            why = "does not answer"
        case _:
            why = f"fails ({error})"
    return (
        f"Asterisk at {url} {why}. Is it running, with enabled=yes and this address in its "
        "http.conf? `asterisk -rx 'http show status'` tells."
    )


def judge_version(text: str) -> list[Finding]:
    """What this version can do, and what goes wrong in it. Pure."""
    found = assess(text)
    if not found.capabilities.audiosocket:
        return [failed(_WHAT, f"{found.message} Install 22.10.1 or later.")]
    if found.version is None:
        return [warning(_WHAT, f"{found.message} If it is a build of your own, this is harmless.")]
    update = f"Update to {release_to_install(found.version)} or later."
    bugs = [
        warning(_WHAT, f"In Asterisk {text} {bug.effect} ({bug.reference}). {update}")
        for bug in known_bugs(found.version)
    ]
    if bugs:
        return bugs
    notes = [] if found.capabilities.slin_wide else ["8 kHz only on the line"]
    return [ok(_WHAT, "; ".join([f"Asterisk {text}", *notes]))]


async def _modules(ari: Client) -> list[Finding]:
    try:
        found = await ari.asterisk.list_modules()
    except AriError as error:
        return [
            warning(
                modules.WHAT,
                f"They could not be looked at: {error}. Is res_ari_asterisk.so loaded?",
            )
        ]
    return modules.judge_modules(each.name for each in found if each.status == "Running")
