"""The client of Asterisk's REST interface, worded as ari-py words it: `client.channels.answer(id)`.

Ids go in and frozen models come out; there are no live handles, for what a handle knows is out of
date as soon as it is read. Events come from `ari_app.line.asterisk.ari.socket.EventSocket`.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ari_app.line.asterisk.ari.resources import (
    ApplicationsResource,
    AsteriskResource,
    BridgesResource,
    ChannelsResource,
    DeviceStatesResource,
    EndpointsResource,
)
from ari_app.line.asterisk.ari.rest import Errand, Link, Persistent, Rest, Sender

_TIMEOUT_SECONDS: Final = 5.0
"""For each request, waiting for a free connection included."""


class Client:
    """Asterisk, as one Stasis application sees it.

    Every method raises an `AriError` when Asterisk does not do what it
    was asked, and does so within 5 s, or what `within` says.

    Attributes:
        link: Whether Asterisk can be reached; the event socket keeps it up to date.

    Args:
        base_url: `http://127.0.0.1:8088`; without credentials and without `/ari`.
        username: A user of ari.conf.
        password: Its password.
        app: Our Stasis application; the default wherever an application is to be named.
        max_connections: Well below Asterisk's `sessionlimit` of 100, which WebSockets share.
        ca_file: For https: certificates (PEM) to trust instead of the system's.

    Raises:
        ConfigError: The URL, the username or the file of certificates cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        username: str,
        password: str,
        app: str,
        *,
        max_connections: int = 50,
        ca_file: str | Path | None = None,
    ) -> None:
        rest = Rest(
            base_url,
            username,
            password,
            max_connections=max_connections,
            ca_file=ca_file,
        )
        self._arrange(rest, app, _TIMEOUT_SECONDS)

    def _arrange(
        self,
        rest: Rest,
        app: str,
        timeout: float,
        *,
        link: Link | None = None,
        sender: Sender | None = None,
    ) -> None:
        self.rest = rest
        self.app = app
        self.timeout = timeout
        self.link = link or Link()
        sender = sender or rest
        self.applications = ApplicationsResource(sender, app, timeout)
        self.asterisk = AsteriskResource(sender, app, timeout)
        self.bridges = BridgesResource(sender, app, timeout)
        self.channels = ChannelsResource(sender, app, timeout)
        self.device_states = DeviceStatesResource(sender, app, timeout)
        self.endpoints = EndpointsResource(sender, app, timeout)

    def within(self, seconds: float) -> Client:
        """Return the same client with another deadline: `client.within(1).channels.hangup(id)`."""
        view = Client.__new__(Client)
        view._arrange(self.rest, self.app, seconds, link=self.link)
        return view

    def persistent(self, errand: Errand | None = None) -> Client:
        """Return the same client for what may be done twice: its requests wait for Asterisk's
        return.

        See `Persistent`.

        Args:
            errand: What they are for, if that may come to nothing meanwhile.
        """
        view = Client.__new__(Client)
        sender = Persistent(self.rest, self.link, errand)
        view._arrange(self.rest, self.app, self.timeout, link=self.link, sender=sender)
        return view

    async def close(self) -> None:
        """Close all connections. May be called twice; requests fail from now on."""
        await self.rest.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
