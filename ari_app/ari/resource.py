"""What the resources of the client have in common."""

from __future__ import annotations

from typing import TypeVar

from ari_app.ari.operations import Operation, Parameter
from ari_app.ari.rest import Rest

T = TypeVar("T")


class ResourceClient:
    """A group of operations.

    Args:
        rest: Sends them.
        app: Our Stasis application.
        timeout: Seconds for each request.
    """

    def __init__(self, rest: Rest, app: str, timeout: float) -> None:
        self._rest = rest
        self._app = app
        self._timeout = timeout

    async def _call(self, operation: Operation[T], *ids: str, **parameters: Parameter) -> T:
        return await self._rest.call(operation, ids, parameters, self._timeout)
