"""Whether Asterisk can be reached, and requests that wait until it can."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

import structlog

from ari_app.ari.backoff import Backoff
from ari_app.ari.errors import (
    AriConflict,
    AriNotFound,
    AriServerError,
    AriTimeout,
    AriUnavailable,
)
from ari_app.ari.operations import Operation, Parameter

log = structlog.get_logger(__name__)

T = TypeVar("T")

# How long requests that fail are repeated while events arrive: then it is not the way to Asterisk
# that is broken.
_PATIENCE_SECONDS: Final = 10.0
_BACKOFF: Final = Backoff(0.1, 2.0)


class Sender(Protocol):
    """Does one request; :class:`~ari_app.ari.rest.Rest` is one."""

    async def call(
        self,
        operation: Operation[T],
        ids: tuple[str, ...],
        given: dict[str, Parameter],
        deadline: float,
    ) -> T:
        """See :meth:`ari_app.ari.rest.Rest.call`."""
        ...


class Link:
    """The way to Asterisk, as the event socket knows it.

    Attributes:
        up: Events arrive. True until the event socket has said otherwise.
        outages: How often it went down.
        abandoned: Nobody waits for it any more.
    """

    def __init__(self) -> None:
        self.up = True
        self.outages = 0
        self.abandoned = False
        self._news = asyncio.Event()

    def set(self, up: bool) -> None:
        """Say whether events arrive."""
        if self.up and not up:
            self.outages += 1
        self.up = up
        self._tell()

    def abandon(self) -> None:
        """Let all that wait give up, now and from now on."""
        self.abandoned = True
        self._tell()

    async def news(self) -> None:
        """Wait until there is something new."""
        await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


class Errand:
    """What requests are for: they are repeated for as long as it is wanted.

    Attributes:
        wanted: It still is. A request that is under way is waited for all the same.
        in_doubt: The answer to a request was lost that may have been done.
    """

    def __init__(self) -> None:
        self.wanted = True
        self.in_doubt = False
        self._pauses: set[asyncio.Timeout] = set()

    def drop(self) -> None:
        """Nobody wants it any more."""
        self.wanted = False
        for pause in self._pauses:
            pause.reschedule(asyncio.get_running_loop().time())

    async def pause(self, link: Link, seconds: float) -> None:
        """Wait so long, or until there is something new about the link or the errand."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds if self.wanted else 0) as pause:
                self._pauses.add(pause)
                try:
                    await link.news()
                finally:
                    self._pauses.discard(pause)


class Persistent:
    """Sends requests again and again while Asterisk cannot be reached.

    It is for one purpose, such as giving one call back: while the link is up, all of its requests
    together are repeated for ten seconds at most. While it is down there is no limit but
    :meth:`Errand.drop` and :meth:`Link.abandon`. An answer of Asterisk's, whichever it is, is never
    asked for again.

    A request whose answer was lost may have been done already, so only what may be done twice
    belongs here, or what is found under the name that we gave it.
    """

    def __init__(self, sender: Sender, link: Link, errand: Errand | None = None) -> None:
        self._sender = sender
        self._link = link
        self._errand = errand or Errand()
        self._failing_since: float | None = None
        self._outage = link.outages
        self._told = False

    async def call(
        self,
        operation: Operation[T],
        ids: tuple[str, ...],
        given: dict[str, Parameter],
        deadline: float,
    ) -> T:
        """Do a request.

        Raises:
            AriUnavailable: There is no sense in waiting any longer.
            AriError: What Asterisk said.
        """
        failures, in_doubt = 0, False
        while not self._hopeless():
            try:
                return await self._sender.call(operation, ids, given, deadline)
            except (AriUnavailable, AriTimeout) as error:
                if not isinstance(error, AriUnavailable) or error.may_be_done:
                    in_doubt = self._errand.in_doubt = True
                self._failed(operation)
            except (AriConflict, AriServerError):
                if not in_doubt or operation.found_by is None:
                    raise
                named = ids or (str(given["channelId"]),)
                with suppress(AriNotFound):
                    return await self.call(operation.found_by, named, {}, deadline)
                raise
            await self._errand.pause(self._link, _BACKOFF.delay(failures, 1.0))
            failures += 1
        raise AriUnavailable("given up", method=operation.method, path=operation.path)

    def _hopeless(self) -> bool:
        if not self._link.up or self._outage != self._link.outages:
            # What failed in an outage says nothing about what comes after it.
            self._outage, self._failing_since = self._link.outages, None
        if self._link.abandoned or not self._errand.wanted:
            return True
        if self._failing_since is None:
            return False
        return asyncio.get_running_loop().time() - self._failing_since >= _PATIENCE_SECONDS

    def _failed(self, operation: Operation[Any]) -> None:
        if self._failing_since is None:
            self._failing_since = asyncio.get_running_loop().time()
        if not self._told:
            self._told = True
            log.warning("ari_request_waits", method=operation.method, path=operation.path)
