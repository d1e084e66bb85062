"""Twilio as a way in: the address at which it reaches us, the account, and its number."""

from __future__ import annotations

import asyncio
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from ari_app.checks.finding import (
    CALLS_IN,
    CALLS_OUT,
    EVERYTHING,
    Finding,
    failed,
    note,
    ok,
    warning,
)
from ari_app.checks.host import is_serving
from ari_app.clients import twilio_client
from ari_app.line.twilio.leg import STATUS_PATH, VOICE_PATH
from ari_app.line.twilio.rest import TwilioApi, TwilioError
from ari_app.process.network import session_for_others, why_unreachable
from ari_app.settings import Settings

_ACCOUNT: Final = "Twilio account"
_ADDRESS: Final = "Twilio's way here"
_NUMBER: Final = "Twilio number"
_AFTER: Final = "After the agent"
_SECONDS: Final = 5.0


async def check_twilio_account(settings: Settings) -> Finding:
    """Return whether Twilio answers, and accepts the account and one of its tokens."""
    api = twilio_client(settings)
    try:
        await api.check()
    except TwilioError as error:
        return _no_account(settings, error)
    finally:
        await api.close()
    return ok(_ACCOUNT, f"{settings.twilio_api_url} accepts the account and its token")


def _no_account(settings: Settings, error: TwilioError) -> Finding:
    if error.code == "twilio_unauthorized":
        region = (
            f" Credentials of {settings.twilio_region} are others than those of the United States."
            if settings.twilio_region
            else ""
        )
        return failed(_ACCOUNT, f"{error} Both stand on the first page of the console.{region}")
    # Calls come in without it, and it may be back in a minute.
    return failed(_ACCOUNT, f"{settings.twilio_api_url}: {error}", uses=CALLS_OUT, may_pass=True)


async def check_twilio(settings: Settings) -> list[Finding]:
    """Make all checks of Twilio."""
    api = twilio_client(settings)
    try:
        findings = [await _reachable(settings)]
        try:
            await api.check()
        except TwilioError as error:
            return [*findings, _no_account(settings, error)]
        findings.append(
            ok(_ACCOUNT, f"{settings.twilio_api_url} accepts the account and its token")
        )
        findings.append(await _number(api, settings))
    finally:
        await api.close()
    return [*findings, _after(settings)]


async def _reachable(settings: Settings) -> Finding:
    """Ask for our own health at the public address, as somebody outside would."""
    public = settings.api_public_url or ""
    if urlsplit(public).scheme != "https":
        return failed(
            _ADDRESS,
            f"API_PUBLIC_URL is {public}; Twilio opens streams with TLS only. Set it to an "
            "https:// address.",
            uses=EVERYTHING,
        )
    if "_" in (urlsplit(public).hostname or ""):
        return failed(_ADDRESS, "Twilio calls no host whose name has an underscore in it.")
    serves = await is_serving(settings)
    try:
        async with (
            asyncio.timeout(_SECONDS),
            session_for_others() as session,
            session.get(f"{public}/health/live", allow_redirects=False) as response,
        ):
            status = response.status
    except TimeoutError:
        return failed(_ADDRESS, f"{public} does not answer within {_SECONDS:g} s.")
    except aiohttp.ClientConnectorCertificateError:
        return failed(
            _ADDRESS, f"{public} has a certificate that is not trusted; Twilio refuses it."
        )
    except (aiohttp.ClientError, OSError) as error:
        return failed(_ADDRESS, f"{public} cannot be reached: {why_unreachable(error)}.")
    if status == 200:
        return ok(_ADDRESS, f"{public} leads to this service; streams come to wss:// there")
    if not serves:
        return note(
            _ADDRESS,
            f"{public} answers, and nothing serves behind it yet. Check again while `ari-app "
            "serve` runs.",
        )
    return failed(
        _ADDRESS,
        f"{public}/health/live answers {status}: it does not lead to {settings.api_bind}. Let the "
        "proxy pass everything on, Upgrade too.",
    )


async def _number(api: TwilioApi, settings: Settings) -> Finding:
    """Return whether the number's calls are sent to us."""
    number, wanted = settings.twilio_phone_number, f"{settings.api_public_url}{VOICE_PATH}"
    if number is None:
        return note(
            _NUMBER,
            "TWILIO_PHONE_NUMBER is not set: a request to call somebody has to name "
            "caller_number, and the number's webhook cannot be looked at.",
            uses=CALLS_OUT,
        )
    try:
        found = await api.numbers(number)
    except TwilioError as error:
        return warning(_NUMBER, f"It could not be looked up: {error}", uses=CALLS_IN)
    if not found:
        return warning(
            _NUMBER,
            f"The account has no number {number}. A verified one can be shown to people whom we "
            "call, but nobody calls it.",
            uses=CALLS_IN,
        )
    voice, status = (str(found[0].get(name) or "") for name in ("voice_url", "status_callback"))
    if voice.partition("#")[0].partition("?")[0] != wanted:
        return failed(
            _NUMBER,
            f"Calls to {number} do not come here. Set *A call comes in* of the number to the "
            f"webhook {wanted}, HTTP POST.",
            uses=CALLS_IN,
        )
    if str(found[0].get("voice_method") or "POST").upper() != "POST":
        return failed(_NUMBER, f"The webhook of {number} must be HTTP POST.", uses=CALLS_IN)
    if status != f"{settings.api_public_url}{STATUS_PATH}":
        return note(
            _NUMBER,
            f"Calls to {number} come here. Set its *Call status changes* to "
            f"{settings.api_public_url}{STATUS_PATH}, so that callers who hang up while it rings "
            "are noticed at once.",
        )
    return ok(_NUMBER, f"calls to {number} come here, and so does their end")


def _after(settings: Settings) -> Finding:
    if settings.twilio_fallback_url is None and settings.twilio_fallback_number is None:
        return note(
            _AFTER,
            "Neither TWILIO_FALLBACK_URL nor TWILIO_FALLBACK_NUMBER is set: callers whom no agent "
            "can serve hear that we are busy, or are cut off.",
        )
    if settings.transfer_pattern is None:
        return note(
            _AFTER,
            "TRANSFER_PATTERN is not set: an agent may have any number called that the account "
            "may call.",
        )
    return ok(_AFTER, "callers go on elsewhere, and transfers are limited")
