"""Giving things back to Asterisk, and the names by which what is ours is known."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from ari_app.ari import AriConflict, AriError, AriNotFound, Client
from ari_app.call.dialplan import transfer_target, word
from ari_app.call.signals import Outcome

log = structlog.get_logger(__name__)


def media_channel_id(app: str, session_id: str) -> str:
    """The media channel of a session. Named by us, so that a later start can tell what is ours."""
    return f"{app}-media-{session_id}"


def placed_channel_id(app: str, session_id: str) -> str:
    """The channel of somebody whom we call."""
    return f"{app}-out-{session_id}"


def target_channel_id(app: str, session_id: str) -> str:
    """What the ids of the channels to a session's transfer targets begin with."""
    return f"{app}-target-{session_id}"


def bridge_id(app: str, session_id: str) -> str:
    """The bridge of a session."""
    return f"{app}-bridge-{session_id}"


async def quietly(request: Callable[[], Awaitable[object]], *, attempts: int = 1) -> bool:
    """Make a request that removes something; what is gone already counts as removed.

    Returns:
        Whether it is gone. A failure is logged; the manager's sweep finds what is left.
    """
    for _ in range(attempts):
        try:
            await request()
        except AriNotFound:
            return True
        except AriError as error:
            log.warning("release_request_failed", code=error.code, error=str(error))
        else:
            return True
    return False


async def give_back_caller(
    ari: Client,
    channel_id: str,
    outcome: Outcome,
    *,
    session_id: str = "",
    conversation_id: str = "",
    context: str | None = None,
) -> bool:
    """Let a channel go on in the dialplan, and tell it there how the agent's part ended.

    Args:
        ari: Asterisk.
        channel_id: The channel.
        outcome: How the agent's part ended.
        session_id, conversation_id: Ours, and ElevenLabs'.
        context: Go on there, at the extension ``s``; None: after ``Stasis()``.

    Returns:
        Whether the channel has left us; one that has hung up has, and one that is no longer in
        Stasis (409).
    """
    variables = {
        "AGENT_STATUS": outcome.status.value,
        "AGENT_REASON": word(outcome.reason),
        "AGENT_SESSION_ID": word(session_id),
        # The agent's service has chosen it.
        "AGENT_CONVERSATION_ID": word(conversation_id),
    }
    if outcome.transfer_to is not None:
        variables["AGENT_TRANSFER_TO"] = transfer_target(outcome.transfer_to)
    # Asterisk sets them one after the other, in the channel's own thread; nobody waits for each.
    there = await asyncio.gather(
        *(_set_variable(ari, channel_id, name, value) for name, value in variables.items())
    )
    if not all(there):
        return True
    extension = None if context is None else "s"

    async def let_go() -> None:
        try:
            await ari.channels.continue_in_dialplan(
                channel_id, context=context, extension=extension
            )
        except AriConflict:
            # It is in the dialplan: only the answer to the first attempt was lost.
            return

    left = await quietly(let_go, attempts=2)
    if not left:
        log.error("caller_not_released", call=channel_id)
    return left


async def _set_variable(ari: Client, channel_id: str, name: str, value: str) -> bool:
    """Set a variable of a channel. Returns whether the channel is still there, and in Stasis."""
    try:
        await ari.channels.set_channel_var(channel_id, name, value)
    except (AriNotFound, AriConflict):
        return False
    except AriError as error:
        # Going on without a variable is better than not going on.
        log.warning("variable_not_set", variable=name, code=error.code, error=str(error))
    return True
