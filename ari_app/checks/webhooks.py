"""Whoever is told of calls, and what the agent's service tells us of them."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp

from ari_app.checks.call_log import not_writable
from ari_app.checks.finding import Finding, failed, note, ok, warning
from ari_app.errors import ConfigError
from ari_app.process.addresses import origin
from ari_app.process.network import session_for_others, trusting, why_unreachable
from ari_app.records.webhooks.outbox import not_usable
from ari_app.records.webhooks.signing import secrets_of
from ari_app.records.webhooks.spool import why_unusable
from ari_app.settings import Settings

_WEBHOOKS: Final = "Webhooks"
_REPORTS: Final = "Agent's reports"
_SHORTEST_SECRET: Final = 16
_ANSWER_SECONDS: Final = 5.0
_CLOCK_SECONDS: Final = 60.0


async def check_webhooks(settings: Settings) -> list[Finding]:
    """Check whether receivers can be reached and can believe us. Nothing is told them of a call."""
    findings = [*check_reports(settings)]
    if not settings.webhook_urls:
        return findings
    if settings.webhook_secret is not None:
        findings += judge_secrets("WEBHOOK_SECRET", settings.webhook_secret.get_secret_value())
    problem = not_writable(settings.webhook_spool.parent)
    if problem:
        findings.append(
            failed(
                _WEBHOOKS,
                f"WEBHOOK_SPOOL: {settings.webhook_spool} cannot be written: {problem}. Name a "
                "file in a folder that this user may write.",
            )
        )
    elif why := why_unusable(settings.webhook_spool):
        findings.append(failed(_WEBHOOKS, not_usable(settings.webhook_spool, why)))
    try:
        tls = trusting(settings.webhook_ca_file, "WEBHOOK_CA_FILE")
    except ConfigError as error:
        return [*findings, failed(_WEBHOOKS, str(error))]
    async with session_for_others(decompress=False) as session:

        async def look(url: str) -> Finding:
            try:
                async with (
                    asyncio.timeout(_ANSWER_SECONDS),
                    session.head(url, ssl=tls, allow_redirects=False) as answer,
                ):
                    return judge_answer(url, answer.headers.get("Date"), time.time())
            except TimeoutError:
                why = f"no answer within {_ANSWER_SECONDS:g} s"
            except (aiohttp.ClientError, OSError) as error:
                why = why_unreachable(error)
            return warning(
                _WEBHOOKS,
                f"WEBHOOK_URL: {origin(url)} cannot be reached: {why}. Events wait in "
                "WEBHOOK_SPOOL for a day until it can.",
            )

        found = await asyncio.gather(*map(look, settings.webhook_urls))
    return [*findings, *found]


def judge_answer(url: str, date: str | None, now: float) -> Finding:
    """Judge the clock of a receiver that answers: its `Date` beside our time."""
    try:
        ahead = 0.0 if date is None else now - parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        ahead = 0.0
    if abs(ahead) > _CLOCK_SECONDS:
        return warning(
            _WEBHOOKS,
            f"{origin(url)} answers, but this machine's clock is {abs(ahead):.0f} s "
            f"{'ahead of' if ahead > 0 else 'behind'} its clock, so it may refuse our signatures. "
            "Let the machine keep its time, by NTP.",
        )
    return ok(_WEBHOOKS, f"{origin(url)} answers; `ari-app webhooks test` sends it an event")


def check_reports(settings: Settings) -> list[Finding]:
    """Check whether what the agent's service says of conversations can come, and be kept."""
    secret, fetches = settings.elevenlabs_webhook_secret, settings.elevenlabs_fetch_reports
    if secret is None and not fetches:
        return []
    name = "ELEVENLABS_WEBHOOK_SECRET" if secret is not None else "ELEVENLABS_FETCH_REPORTS"
    if not settings.database_url:
        return [
            warning(
                _REPORTS,
                f"{name} is set, but DATABASE_URL is empty: there is no call to keep "
                "a report with.",
            )
        ]
    findings = [] if secret is None else judge_secrets(name, secret.get_secret_value())
    if fetches and settings.elevenlabs_api_key is None:
        findings.append(
            warning(
                _REPORTS,
                "ELEVENLABS_FETCH_REPORTS is set, but ELEVENLABS_API_KEY is not: conversations are "
                "told only to whoever has a key.",
            )
        )
    if secret is not None:
        base = settings.api_public_url or f"http://{settings.api_bind}"
        text = f"ElevenLabs has to reach {base}/webhook/elevenlabs"
        if settings.api_public_url is None:
            text += ". Set API_PUBLIC_URL to the address that this service has on the internet."
        findings.append(note(_REPORTS, text))
    return findings


def judge_secrets(setting: str, text: str) -> list[Finding]:
    """Judge whether a secret can be guessed."""
    secrets = secrets_of(text)
    shortest = min(map(len, secrets), default=0)
    if shortest >= _SHORTEST_SECRET:
        return []
    return [
        warning(
            _WEBHOOKS if setting == "WEBHOOK_SECRET" else _REPORTS,
            f"{setting} has {shortest} characters, so it can be guessed by trying. Take "
            f"{_SHORTEST_SECRET} or more: `python3 -c 'import secrets; "
            "print(secrets.token_hex(32))'` makes one.",
        )
    ]
