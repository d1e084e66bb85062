"""What the resources of the client have in common."""

from __future__ import annotations

from typing import TypeVar

from ari_app.ari.link import Sender
from ari_app.ari.operations import Operation, Parameter

T = TypeVar("T")


class ResourceClient:
    """A group of operations.

    Args:
        sender: Sends them.
        app: Our Stasis application.
        timeout: Seconds for each request.
    """

    def __init__(self, sender: Sender, app: str, timeout: float) -> None:
        self._sender = sender
        self._app = app
        self._timeout = timeout

    async def _call(self, operation: Operation[T], *ids: str, **parameters: Parameter) -> T:
        return await self._sender.call(operation, ids, parameters, self._timeout)
