"""`/asterisk`: what Asterisk is and which modules it has loaded."""

from __future__ import annotations

from ari_app.ari.models import AsteriskInfo, Module
from ari_app.ari.operations import Operation
from ari_app.ari.resource import ResourceClient

GET_INFO = Operation[AsteriskInfo]("GET", "/asterisk/info", AsteriskInfo)
LIST_MODULES = Operation[tuple[Module, ...]]("GET", "/asterisk/modules", tuple[Module, ...])
GET_MODULE = Operation[Module]("GET", "/asterisk/modules/{moduleName}", Module)


class AsteriskResource(ResourceClient):
    """`client.asterisk`."""

    async def get_info(self) -> AsteriskInfo:
        """Version, build, limits and start time."""
        return await self._call(GET_INFO)

    async def list_modules(self) -> tuple[Module, ...]:
        """All modules, loaded or not."""
        return await self._call(LIST_MODULES)

    async def get_module(self, name: str) -> Module:
        """One module, `chan_audiosocket.so` for example.

        Raises:
            AriNotFound: There is no such file, or it is not loaded.
            AriConflict: Asterisk could not say.
        """
        return await self._call(GET_MODULE, name)
