"""`/playbacks`: prompts that are being played."""

from __future__ import annotations

from ari_app.ari.models import Playback
from ari_app.ari.operations import Operation
from ari_app.ari.resource import ResourceClient

GET = Operation[Playback]("GET", "/playbacks/{playbackId}", Playback)
STOP = Operation[None]("DELETE", "/playbacks/{playbackId}")


class PlaybacksResource(ResourceClient):
    """`client.playbacks`. AriNotFound: the prompt has ended, or never was."""

    async def get(self, playback_id: str) -> Playback:
        """How far a prompt has come."""
        return await self._call(GET, playback_id)

    async def stop(self, playback_id: str) -> None:
        """Stop a prompt. `PlaybackFinished` follows; of several media, the next one instead."""
        await self._call(STOP, playback_id)
