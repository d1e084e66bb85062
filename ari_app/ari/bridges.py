"""`/bridges`: what joins the media of channels."""

from __future__ import annotations

from collections.abc import Sequence

from ari_app.ari.models import Bridge
from ari_app.ari.operations import Operation
from ari_app.ari.resource import ResourceClient

LIST = Operation[tuple[Bridge, ...]]("GET", "/bridges", tuple[Bridge, ...])
GET = Operation[Bridge]("GET", "/bridges/{bridgeId}", Bridge)
CREATE_WITH_ID = Operation[Bridge](
    "POST", "/bridges/{bridgeId}", Bridge, ("type", "name"), found_by=GET
)
DESTROY = Operation[None]("DELETE", "/bridges/{bridgeId}")
# Doing it twice makes the channel leave and enter again.
ADD_CHANNEL = Operation[None](
    "POST",
    "/bridges/{bridgeId}/addChannel",
    parameters=("channel", "role", "absorbDTMF", "mute"),
    repeatable=True,
)
REMOVE_CHANNEL = Operation[None](
    "POST", "/bridges/{bridgeId}/removeChannel", parameters=("channel",)
)
START_MOH = Operation[None](
    "POST", "/bridges/{bridgeId}/moh", parameters=("mohClass",), repeatable=True
)
STOP_MOH = Operation[None]("DELETE", "/bridges/{bridgeId}/moh")


class BridgesResource(ResourceClient):
    """`client.bridges`.

    Where a bridge is named by its id, AriNotFound says that it does not exist and AriConflict (409)
    that it was not made through ARI.
    """

    async def list(self) -> tuple[Bridge, ...]:
        """All bridges of this Asterisk, whoever made them."""
        return await self._call(LIST)

    async def get(self, bridge_id: str) -> Bridge:
        """One bridge."""
        return await self._call(GET, bridge_id)

    async def create_with_id(
        self, bridge_id: str, *, type: str = "mixing", name: str | None = None
    ) -> Bridge:
        """Make a bridge.

        Args:
            bridge_id: Chosen by us.
            type: `mixing` or `holding`, or a comma-separated list with `dtmf_events` or
                `proxy_media` after `mixing`.
            name: For people.

        Raises:
            AriConflict: There is one of this id (an AriServerError in some versions before 22).
        """
        return await self._call(CREATE_WITH_ID, bridge_id, type=type, name=name)

    async def destroy(self, bridge_id: str) -> None:
        """Shut a bridge down. Its channels stay in Stasis."""
        await self._call(DESTROY, bridge_id)

    async def add_channel(
        self,
        bridge_id: str,
        channel_id: str | Sequence[str],
        *,
        role: str | None = None,
        absorb_dtmf: bool | None = None,
        mute: bool | None = None,
    ) -> None:
        """Put channels into a bridge.

        Success does not prove that they are in it: `ChannelEnteredBridge` does.

        Raises:
            AriBadRequest: A channel does not exist (400, where one would expect 404).
            AriConflict: A channel is not in Stasis (422), or is being recorded (409).
        """
        await self._call(
            ADD_CHANNEL,
            bridge_id,
            channel=_one_or_many(channel_id),
            role=role,
            absorbDTMF=absorb_dtmf,
            mute=mute,
        )

    async def remove_channel(self, bridge_id: str, channel_id: str | Sequence[str]) -> None:
        """Take channels out of a bridge; they stay in Stasis.

        Raises:
            AriBadRequest: A channel does not exist.
            AriConflict: A channel is not in this bridge (422).
        """
        await self._call(REMOVE_CHANNEL, bridge_id, channel=_one_or_many(channel_id))

    async def start_moh(self, bridge_id: str, moh_class: str | None = None) -> None:
        """Play music on hold to all in the bridge."""
        await self._call(START_MOH, bridge_id, mohClass=moh_class)

    async def stop_moh(self, bridge_id: str) -> None:
        """Stop the music."""
        await self._call(STOP_MOH, bridge_id)


def _one_or_many(channel_id: str | Sequence[str]) -> str | tuple[str, ...]:
    return channel_id if isinstance(channel_id, str) else tuple(channel_id)
