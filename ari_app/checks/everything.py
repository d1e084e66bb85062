"""All checks, in the order in which one builds on the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

from ari_app.ari import AriError
from ari_app.checks.agent import check_agent_key
from ari_app.checks.asterisk import check_asterisk
from ari_app.checks.asterisk_side import check_asterisk_side
from ari_app.checks.conf import check_conf
from ari_app.checks.dial_back import check_dial_back
from ari_app.checks.finding import Finding, Verdict, failed, ok, warning
from ari_app.checks.here import check_here
from ari_app.checks.questions import check_questions
from ari_app.clients import agent_client, ari_client
from ari_app.errors import ConfigError
from ari_app.settings import Settings


async def check_all(settings: Settings, conf: Path | None = None) -> AsyncIterator[Finding]:
    """All checks, each reported when it is done; those of one subject come one after the other.

    Args:
        settings: What ``serve`` would run with.
        conf: The folder of Asterisk's files, when this is Asterisk's own machine.
    """
    try:
        settings.require_serving()
    except ConfigError as error:
        yield failed("Settings", str(error))
    else:
        key = "with a key" if settings.api_key else "without a key: this machine only"
        yield ok("Settings", f"complete; HTTP at {settings.api_bind}, {key}")
        async for finding in _with(settings, configuration=conf is None):
            yield finding
    if conf is not None:
        for finding in check_conf(conf, settings):
            yield finding


async def _with(settings: Settings, *, configuration: bool) -> AsyncIterator[Finding]:
    for finding in await check_here(settings):
        yield finding
    async with AsyncExitStack() as stack:
        agents = await stack.enter_async_context(agent_client(settings))
        yield await check_agent_key(agents, settings)
        ari = await stack.enter_async_context(ari_client(settings, app=f"{settings.ari_app}-check"))
        findings = await check_asterisk(ari, settings)
        for finding in findings:
            yield finding
        if any(finding.verdict is Verdict.FAILED for finding in findings):
            return
        try:
            findings = await check_asterisk_side(ari, settings)
        except AriError as error:
            yield warning(
                "Connection",
                f"Asterisk stopped answering in the middle ({error}), so not everything was "
                "looked at. Try again.",
            )
            return
        for finding in findings:
            yield finding
        audio = await check_dial_back(ari, settings)
        yield audio
        if audio.verdict is not Verdict.FAILED:
            for finding in await check_questions(ari, settings, configuration=configuration):
                yield finding
