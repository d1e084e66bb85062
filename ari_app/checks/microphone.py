"""This machine's microphone and loudspeaker, where they are the way in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from ari_app.checks.finding import Finding, failed, ok
from ari_app.errors import ConfigError

if TYPE_CHECKING:
    from ari_app.line.microphone import SoundCard

_WHAT: Final = "Microphone"
_RATE_HZ: Final = 16000


async def check_microphone(card: SoundCard) -> Finding:
    """Return whether the sound devices can be opened; nothing is recorded."""
    try:
        rate_hz = await asyncio.to_thread(card.rate_hz, _RATE_HZ)
    except ConfigError as error:
        return failed(_WHAT, str(error)[:1].upper() + str(error)[1:])
    return ok(
        _WHAT, f"microphone and loudspeaker can be used, at {rate_hz} Hz; no Asterisk is asked"
    )
