"""Takes up TLS sessions again: the handshake of each call's socket is spared the certificates."""

from __future__ import annotations

import ssl
from typing import Any, Final

_MOST_HOSTS: Final = 16


def resume_sessions(context: ssl.SSLContext) -> ssl.SSLContext:
    """Let a client's context offer each host the ticket that it gave out last.

    A host that does not take it makes a whole handshake, as it would without. asyncio and uvloop
    offer nothing of the kind, and both wrap their connections by `wrap_bio`.

    Returns:
        The context.
    """
    wrap = context.wrap_bio
    # The newest connection to each host, whose ticket comes some time after its handshake.
    newest: dict[str, ssl.SSLObject] = {}
    tickets: dict[str, ssl.SSLSession] = {}

    def wrap_bio(
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: Any = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        host = str(server_hostname)
        last = newest.get(host)
        if last is not None and (given := last.session) is not None and given.has_ticket:
            tickets[host] = given
        wrapped = wrap(
            incoming,
            outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
            session=session or tickets.get(host),
        )
        if last is None and len(newest) >= _MOST_HOSTS:
            newest.clear()
            tickets.clear()
        newest[host] = wrapped
        return wrapped

    context.wrap_bio = wrap_bio  # type: ignore[method-assign]
    return context
