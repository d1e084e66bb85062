"""What only a channel can be asked: the clock, the dialplan, and what Asterisk's files say.

Functions of the dialplan are read on a Local channel that is made, never dialled, and removed.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from ari_app.ari import AriError, AriNotFound, AriServerError, Client
from ari_app.call.release import quietly
from ari_app.checks.demands import CONFIGURATION, Demand, Said, demands, judge
from ari_app.checks.finding import Finding, ok, warning
from ari_app.checks.listening import listening
from ari_app.settings import Settings

DIALPLAN: Final = "Dialplan"
_CLOCK: Final = "Clock"
_CLOCK_SECONDS: Final = 1.0


async def check_questions(
    ari: Client, settings: Settings, *, configuration: bool = True
) -> list[Finding]:
    """Ask a channel.

    Args:
        ari: Asterisk.
        settings: What is asked for.
        configuration: Whether to ask for single settings of Asterisk's files, too.
    """
    try:
        modules = {each.name for each in await ari.asterisk.list_modules()}
        async with listening(ari) as listener, _channel(ari) as channel:
            findings = []
            # A function that is not there would put an error into Asterisk's log.
            if "func_dialplan.so" in modules:
                findings += await _contexts(ari, channel, settings)
            if configuration and "func_config.so" in modules:
                findings += await _configuration(ari, channel, settings)
            ahead = listener.clock_ahead_seconds
    except AriError as error:
        return [warning(DIALPLAN, f"It could not be looked at: {error}. Try again.")]
    return [*([] if ahead is None else [judge_clock(ahead)]), *findings]


@asynccontextmanager
async def _channel(ari: Client) -> AsyncIterator[str]:
    name = f"{ari.app}-ask-{uuid.uuid4().hex}"
    await ari.channels.create(name, "Local/s@default", other_channel_id=f"{name}-2")
    try:
        yield name
    finally:
        await quietly(lambda: ari.channels.hangup(name))


async def _read(ari: Client, channel: str, function: str) -> str | None:
    """The value of a function; None where it has none."""
    try:
        return await ari.channels.get_channel_var(channel, function)
    except (AriNotFound, AriServerError):
        return None


def judge_clock(ahead_seconds: float) -> Finding:
    """Whether the logs of both sides can be laid side by side. Pure."""
    if abs(ahead_seconds) <= _CLOCK_SECONDS:
        return ok(_CLOCK, "Asterisk's and this machine's agree")
    word = "ahead of" if ahead_seconds > 0 else "behind"
    return warning(
        _CLOCK,
        f"Asterisk's is {abs(ahead_seconds):.1f} s {word} this machine's, so logs and call records "
        "do not fit each other. Run chrony or another NTP client on both.",
    )


async def _contexts(ari: Client, channel: str, settings: Settings) -> list[Finding]:
    uses = {
        "AMD_CONTEXT": (settings.amd_context, "calls with amd=true"),
        "TRANSFER_CONTEXT": (settings.transfer_context, "blind transfers of calls that we place"),
    }
    findings, found = [], []
    for setting, (context, use) in uses.items():
        there = await _read(ari, channel, f"DIALPLAN_EXISTS({context},s,1)")
        if there == "1":
            found.append(context)
            continue
        findings.append(
            warning(
                DIALPLAN,
                f"There is no extension s in a context {context} ({setting}), so {use} end there. "
                "Add it as asterisk-conf/production/extensions.conf has it; if you have no use "
                "for it, this is harmless.",
            )
        )
    return findings or [ok(DIALPLAN, f"has {' and '.join(found)}")]


async def _configuration(ari: Client, channel: str, settings: Settings) -> list[Finding]:
    """Ask for single settings by AST_CONFIG(); never for a password."""

    async def said(demand: Demand) -> Said | None:
        place = f"{demand.file},{demand.section},{demand.key}"
        value = await _read(ari, channel, f"AST_CONFIG({place})")
        return None if value is None else Said(value, demand.file)

    findings = [
        finding
        for demand in demands(settings.ari_username)
        if (finding := judge(demand, await said(demand))) is not None
    ]
    return findings or [ok(CONFIGURATION, "Asterisk's files say what they should, so far as asked")]
