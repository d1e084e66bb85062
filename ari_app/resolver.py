"""Names of hosts to addresses, in threads of its own.

The loop's own look-ups share a few threads: two names whose servers do not answer would hold up
all others, the agent's among them. So whoever asks hosts that somebody else names (tools, a service
before the call) brings a resolver along, and only holds up itself.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult

_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class OwnThreadResolver(AbstractResolver):
    """Looks each name up in a thread, which nobody waits for when the answer comes too late.

    Args:
        max_lookups: One more at a time fails at once.
    """

    def __init__(self, *, max_lookups: int = 8) -> None:
        self._max_lookups = max_lookups
        self._under_way = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. Has no deadline of its own.

        Raises:
            OSError: There is none, or too many names are being looked up.
        """
        if self._under_way >= self._max_lookups:
            raise OSError("too many names are being looked up")
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Any]] = loop.create_future()

        def settle(infos: list[Any] | OSError) -> None:
            self._under_way -= 1
            if found.done():
                return
            if isinstance(infos, OSError):
                found.set_exception(infos)
            else:
                found.set_result(infos)

        def look_up() -> None:
            infos: list[Any] | OSError
            try:
                infos = socket.getaddrinfo(
                    host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG
                )
            except OSError as error:
                infos = error
            except UnicodeError:
                infos = OSError("not the name of a host")
            try:
                loop.call_soon_threadsafe(settle, infos)
            except RuntimeError:
                return  # The loop has ended, and nobody waits.

        self._under_way += 1
        threading.Thread(target=look_up, name="resolver", daemon=True).start()
        return [
            ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=kind,
                proto=proto,
                flags=_NUMERIC,
            )
            for kind, _, proto, _, address in await found
        ]

    async def close(self) -> None:
        """Nothing to do: a look-up that is under way ends by itself."""
