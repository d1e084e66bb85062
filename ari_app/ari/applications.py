"""`/applications`: the Stasis applications and what they are subscribed to."""

from __future__ import annotations

from ari_app.ari.models import Application
from ari_app.ari.operations import Operation
from ari_app.ari.resource import ResourceClient

LIST = Operation[tuple[Application, ...]]("GET", "/applications", tuple[Application, ...])
GET = Operation[Application]("GET", "/applications/{applicationName}", Application)
SUBSCRIBE = Operation[Application](
    "POST",
    "/applications/{applicationName}/subscription",
    Application,
    ("eventSource",),
    repeatable=True,
)


class ApplicationsResource(ResourceClient):
    """`client.applications`."""

    async def list(self) -> tuple[Application, ...]:
        """All applications that are registered, or still hold channels."""
        return await self._call(LIST)

    async def get(self, name: str | None = None) -> Application:
        """One application: its channels and bridges. Ours when no name is given.

        Raises:
            AriNotFound: It is not registered.
        """
        return await self._call(GET, name or self._app)

    async def subscribe(self, event_source: str, name: str | None = None) -> Application:
        """Have the events of a channel or bridge sent to an application, ours by default.

        Args:
            event_source: `channel:ID` or `bridge:ID`. Not `deviceState:` (asterisk#2170).
            name: The application.

        Raises:
            AriBadRequest: The source is not of this form.
            AriNotFound: The application does not exist.
            AriConflict: The source does not exist.
        """
        return await self._call(SUBSCRIBE, name or self._app, eventSource=event_source)
