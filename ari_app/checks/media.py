"""The way of sound between Asterisk and us: which one is used, and whether it is open."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack
from typing import Final

from ari_app.checks.asterisk import load_or_install, unauthorized
from ari_app.checks.channel_probe import AUDIO, check_dial_back, listening
from ari_app.checks.finding import Finding, failed, note, ok
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriError, AriServerError, AriUnauthorized
from ari_app.line.asterisk.ari.version import assess
from ari_app.line.asterisk.channels import quietly
from ari_app.line.asterisk.media_transport import NEEDED, SETTING, Choice, choose_transport
from ari_app.line.asterisk.names import media_channel_id
from ari_app.line.asterisk.websocket_media import WebSocketMedia
from ari_app.settings import Settings
from audiosocket.frames import SLIN
from linekit.clock import FrameClock

_TO_UPDATE: Final = f"Update Asterisk, or write {SETTING}=auto."


async def check_media(ari: Client, settings: Settings) -> list[Finding]:
    """Say which way sound takes, and check that it is open.

    Raises:
        AriError: Asterisk cannot be asked any more.
    """
    if settings.media_transport == "audiosocket":
        return await _dial_backs(ari, settings)
    version = assess((await ari.asterisk.get_info()).version)
    choice = await choose_transport(ari, settings.media_transport, version)
    if choice.problem:
        return [failed(AUDIO, f"{choice.problem}. {_how_to_mend(choice)}")]
    if choice.transport == "websocket":
        return [await _check_websocket(ari, settings)]
    why = f"{SETTING} is auto, and takes AudioSocket: {choice.why}."
    return [note(AUDIO, why), *await _dial_backs(ari, settings)]


async def _dial_backs(ari: Client, settings: Settings) -> list[Finding]:
    """Check the port of each worker."""
    if settings.workers == 1:
        return [await check_dial_back(ari, settings)]
    each = (settings.of_worker(number) for number in range(1, settings.workers + 1))
    return [await check_dial_back(ari, one) for one in each]


def _how_to_mend(choice: Choice) -> str:
    missing = next((name for name in NEEDED if name in choice.problem), None)
    return _TO_UPDATE if missing is None else load_or_install(missing)


async def _check_websocket(ari: Client, settings: Settings) -> Finding:
    """Check whether we reach a media channel of Asterisk's."""
    where = f"{ari.rest.base}/media/"
    async with AsyncExitStack() as stack:
        clock = FrameClock()
        media = WebSocketMedia(
            ari.rest, clock, lambda: False, SLIN, _Nothing(), lambda reason, broken: None
        )
        stack.callback(media.hang_up)
        channel_id = media_channel_id(ari.app, uuid.uuid4().hex)
        try:
            await stack.enter_async_context(listening(ari))
            stack.push_async_callback(quietly, lambda: ari.channels.hangup(channel_id))
            channel = await ari.channels.external_media(channel_id, **media.request())
            reached = await media.made(channel)
        except AriUnauthorized as error:
            return failed(AUDIO, unauthorized(settings, error))
        except AriServerError as error:
            return failed(AUDIO, f"Asterisk makes no channel of chan_websocket: {error}.")
        except AriError as error:
            return failed(
                AUDIO,
                f"{where} cannot be reached, where Asterisk takes sound: {error}. It is the "
                f"port of ARI_URL; a proxy before it has to pass on WebSockets below /media/, too.",
            )
        if not reached:
            return failed(AUDIO, "Asterisk does not say where its channel takes sound.")
    return ok(AUDIO, f"sound goes over chan_websocket; we reach {where}")


class _Nothing:
    """The sound of no call."""

    frames_ready = 0
    frames_at_once = 1

    def heard(self, pcm: bytes) -> None:
        """Ignore it: nobody listens."""

    def next_frame(self) -> bytes | None:
        """Give silence."""
        return None

    def tick(self) -> None:
        """Do nothing."""
