"""`/endpoints`: the parties that can be dialled."""

from __future__ import annotations

from ari_app.ari.models import Endpoint
from ari_app.ari.operations import Operation
from ari_app.ari.resource import ResourceClient

GET = Operation[Endpoint]("GET", "/endpoints/{tech}/{resource}", Endpoint)


class EndpointsResource(ResourceClient):
    """`client.endpoints`."""

    async def get(self, tech: str, resource: str) -> Endpoint:
        """One endpoint: `get("PJSIP", "trunk")`.

        Raises:
            AriNotFound: There is none of this name, or no such technology.
        """
        return await self._call(GET, tech, resource)
