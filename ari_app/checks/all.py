"""All checks, in the order in which one builds on the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from ari_app.checks.finding import (
    AMD,
    CALLS_IN,
    EVERYTHING,
    Finding,
    Verdict,
    failed,
    note,
    told_once,
    warning,
)
from ari_app.checks.host import check_host, check_settings
from ari_app.errors import ConfigError
from ari_app.settings import Settings

# What only some settings need is imported where it is looked at: a check should be quick, above all
# the first one, of settings that lack something.

_NO_ASTERISK: Final = {
    "local": "none: `initiate-call` begins a talk with this machine's microphone",
    "twilio": "none but Twilio's",
    "custom": "none: a dialer holds each call, and asks for its agent by `initiate-call`",
}


async def check_all(settings: Settings, conf: Path | None = None) -> AsyncIterator[Finding]:
    """Make all checks, and report each when it is done; those of one subject come one after the
    other.

    Args:
        settings: What `serve` would run with.
        conf: The folder of Asterisk's files, when this is Asterisk's own machine.
    """
    told: set[str] = set()
    findings = check_settings(settings)
    for finding in findings:
        yield finding
    complete = all(finding.verdict is not Verdict.FAILED for finding in findings)
    # Without a telephone system nothing that follows builds on what is missing.
    if complete or "local" in settings.ways_in:
        import ari_app.process.plain_aiohttp  # noqa: F401
        from ari_app.checks.agent import check_account, check_agent_key
        from ari_app.checks.call_log import check_call_log
        from ari_app.checks.cluster import check_cluster
        from ari_app.checks.webhooks import check_webhooks
        from ari_app.clients import agent_client

        for finding in [*await check_host(settings), *await check_call_log(settings)]:
            yield finding
        for finding in await check_webhooks(settings):
            yield finding
        for finding in await check_cluster(settings):
            yield finding
        try:
            async with agent_client(settings) as agents:
                agent = await check_agent_key(agents, settings)
                yield agent
                if agent.verdict is not Verdict.FAILED:
                    for finding in await check_account(agents, settings):
                        yield finding
        except ConfigError as error:
            yield failed("Agent", str(error))
        if "local" in settings.ways_in:
            from ari_app.checks.microphone import check_microphone
            from ari_app.line.microphone import PortAudio

            yield await check_microphone(PortAudio(settings.local_audio_device))
        if "custom" in settings.ways_in:
            from ari_app.checks.dialer import check_dialer, check_dialer_service

            yield check_dialer(settings)
            for finding in await check_dialer_service(settings):
                yield finding
        if "twilio" in settings.ways_in:
            from ari_app.checks.twilio import check_twilio

            for finding in await check_twilio(settings):
                yield finding
        if settings.has_asterisk:
            async for finding in _asterisk(settings, configuration=conf is None):
                for kept in told_once([finding], told):
                    yield kept
        else:
            yield note("Telephone", _NO_ASTERISK[settings.ways_in[0]], uses=CALLS_IN | AMD)
    if conf is not None:
        from ari_app.checks.conf import check_conf

        for finding in check_conf(conf, settings, told):
            yield finding


async def _asterisk(settings: Settings, *, configuration: bool) -> AsyncIterator[Finding]:
    """Check Asterisk as the way in; each way in has such a part."""
    from ari_app.checks.asterisk import CONNECTION, check_asterisk, check_asterisk_side
    from ari_app.checks.channel_probe import check_questions, not_asked
    from ari_app.checks.media import check_media
    from ari_app.clients import ari_client
    from ari_app.line.asterisk.ari.errors import AriError

    async with AsyncExitStack() as stack:
        try:
            app = f"{settings.ari_app}-check"
            ari = await stack.enter_async_context(ari_client(settings, app=app))
        except ConfigError as error:
            yield failed("Asterisk", str(error))
            return
        findings = await check_asterisk(ari, settings)
        for finding in findings:
            yield finding
        if any(finding.verdict is Verdict.FAILED for finding in findings):
            return
        try:
            findings = await check_asterisk_side(ari, settings)
        except AriError as error:
            yield warning(
                CONNECTION,
                f"Asterisk stopped answering in the middle ({error}), so not everything was "
                "looked at. Try again.",
                uses=EVERYTHING,
            )
            return
        for finding in findings:
            yield finding
        media = await check_media(ari, settings)
        for finding in media:
            yield finding
        if any(finding.verdict is Verdict.FAILED for finding in media):
            findings = not_asked(configuration=configuration)
        else:
            findings = await check_questions(ari, settings, configuration=configuration)
        for finding in findings:
            yield finding
