"""``ari-app serve``: checks the set-up, takes calls, and ends on a signal."""

from __future__ import annotations

import asyncio
import signal

import structlog

from ari_app.app import VoiceBridge
from ari_app.checks import Verdict, check_agent_key, check_asterisk, check_descriptors
from ari_app.descriptors import raise_limit
from ari_app.errors import ConfigError
from ari_app.settings import Settings

log = structlog.get_logger(__name__)


async def serve(settings: Settings) -> None:
    """Take calls until SIGTERM or SIGINT.

    The first signal lets running calls finish, the second ends them.

    Raises:
        ConfigError: Something that no call could be served without is missing.
    """
    raise_limit()
    async with VoiceBridge(settings) as bridge:
        findings = [
            check_descriptors(settings),
            *await check_asterisk(bridge.ari, settings),
            await check_agent_key(bridge.agents, settings),
        ]
        for finding in findings:
            if finding.verdict is Verdict.FAILED:
                raise ConfigError(finding.detail)
            if finding.verdict is Verdict.WARNING:
                log.warning("check", what=finding.what, found=finding.detail)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, bridge, number)
        log.info(
            "serving",
            app=settings.ari_app,
            audiosocket="{}:{}".format(*bridge.audiosocket_address),
            api="{}:{}".format(*bridge.api_address),
        )
        try:
            await bridge.run()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
    log.info("stopped")


def _stop(bridge: VoiceBridge, number: signal.Signals) -> None:
    log.info("signal_received", signal=number.name)
    bridge.stop()
