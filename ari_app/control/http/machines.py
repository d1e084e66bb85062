"""Passes requests on to other machines, and lets these pass requests on to this one.

Requests about a call go to its machine as HTTP, not as messages in the store: the answers of some
are streams (events, sound, recordings), which need a connection anyway, and a machine whose store
is away is still asked and answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol
from urllib.parse import quote

import aiohttp
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from yarl import URL

from ari_app.control.cluster.view import Machine, StoreAway
from ari_app.control.http.audit import PASSED_ON
from ari_app.control.http.idempotency import IdempotentAnswers
from ari_app.control.http.keys import HERE
from ari_app.control.http.middleware import REQUEST_ID, REQUEST_ID_HEADER, OnRefused
from ari_app.control.http.problems import Problem
from ari_app.control.http.relay import (
    MACHINE_HEADER,
    Relay,
    There,
    WorkerAway,
    head_of,
    new_session,
)
from ari_app.control.http.worker import KEY_HEADER, believe
from ari_app.process.loop import cancelled

log = structlog.get_logger(__name__)

_ASK_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 1.0
_PIECE: Final = 1 << 16
HAS_PATH: Final = "/machine/has/{session_id}"


class Machines(Relay[Machine]):
    """Passes requests on to other machines.

    Args:
        secret: The key that all machines share.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._connections: aiohttp.ClientSession | None = None
        self._tunnels: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Close all connections."""
        await cancelled(*self._tunnels)
        if self._connections is not None:
            await self._connections.close()

    def _session(self, to: Machine) -> aiohttp.ClientSession:
        if self._connections is None:
            connector = aiohttp.TCPConnector(limit=0, limit_per_host=0)
            self._connections = new_session(connector, {MACHINE_HEADER: self._secret})
        return self._connections

    def _url(self, to: Machine, path: str) -> URL:
        return URL(f"{to.url}{path}", encoded=True)

    async def post(self, to: Machine, path: str, body: object, seconds: float) -> int:
        """Tell another machine something; the status of its answer.

        Raises:
            WorkerAway: It does not answer in time.
        """
        asked = self._session(to).post(self._url(to, path), json=body, allow_redirects=False)
        try:
            async with asyncio.timeout(seconds), asked as response:
                return response.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise WorkerAway from None

    def _give(self, request: web.Request, to: Machine, descriptor: int) -> None:
        here = socket.socket(fileno=descriptor)
        here.setblocking(False)
        head = head_of(request, [(MACHINE_HEADER, self._secret)])
        tunnel = asyncio.create_task(self._join(here, head, to), name="tunnel")
        self._tunnels.add(tunnel)
        tunnel.add_done_callback(self._tunnels.discard)

    async def _join(self, here: socket.socket, head: bytes, to: Machine) -> None:
        """Join a connection with one to another machine."""
        url = URL(to.url)
        reader, writer = await asyncio.open_connection(sock=here)
        with contextlib.closing(writer):
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    there, out = await asyncio.open_connection(url.host, url.port)
            except (OSError, TimeoutError):
                log.warning("machine_not_reached", machine=to.name)
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
                return
            with contextlib.closing(out):
                out.write(head)
                ways = [
                    asyncio.create_task(_pump(reader, out)),
                    asyncio.create_task(_pump(there, writer)),
                ]
                try:
                    # Whichever side ends: a stream has nothing to say to half a connection.
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await cancelled(*ways)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(_PIECE):
            writer.write(piece)
            await writer.drain()


class Others(Protocol):
    """What is known of the other machines: `ari_app.control.cluster.member.Member`."""

    @property
    def name(self) -> str:
        """The name of this machine."""
        ...

    def others(self) -> list[Machine]:
        """Return the other machines that are there."""
        ...

    def unseen(self) -> list[Machine]:
        """Return the machines that have left the store, but may only be cut off from it."""
        ...

    def does_not_answer(self, machine: Machine) -> None:
        """Note that a machine does not answer."""
        ...

    def targets(self) -> list[Machine]:
        """Return all that may take a call, this one too: the one with most room first."""
        ...

    def gave(self, machine: Machine) -> None:
        """Note that a machine was given a call."""
        ...

    def most(self, limit: int) -> int:
        """Return how many calls all machines may carry together.

        Args:
            limit: How many they have room for.
        """
        ...

    async def owner(self, call: str) -> Machine | None:
        """Return the machine that has a call.

        Raises:
            StoreAway: The store cannot be asked.
        """
        ...

    async def keep_key(self, key: str) -> Machine | None:
        """Keep this machine as the one that answers an Idempotency-Key, unless another one does.

        Returns:
            That other one; None: this machine.

        Raises:
            StoreAway: The store cannot be asked.
        """
        ...


class Elsewhere:
    """Finds the machine that has to answer a request, if not this one.

    Args:
        others: The other machines.
        relay: Passes requests on to them.

    Attributes:
        answers: What this machine has answered to requests with an Idempotency-Key: to its clients
            and to other machines, whose clients ask again there.
    """

    def __init__(self, others: Others, relay: Machines) -> None:
        self._others = others
        self._relay = relay
        self.answers: IdempotentAnswers[Any] = IdempotentAnswers()

    def all(self) -> list[There[Machine]]:
        """Return all other machines."""
        return [There(machine, self._relay) for machine in self._others.others()]

    async def of_call(self, call: str) -> There[Machine] | None:
        """Return which other machine has a call, or a line; None: none that is known."""
        try:
            machine = await self._others.owner(call)
        except StoreAway:
            machine = await self._ask_for(call, self._others.others())
        if machine is None and (unseen := self._others.unseen()):
            machine = await self._ask_for(call, unseen)
        return None if machine is None else There(machine, self._relay)

    async def of_key(self, key: str) -> There[Machine] | None:
        """Return which other machine was first asked with an Idempotency-Key; None: none was."""
        with contextlib.suppress(StoreAway):
            if (machine := await self._others.keep_key(key)) is not None:
                return There(machine, self._relay)
        return None

    async def for_wish(
        self, session: object, line: object, number: object
    ) -> There[Machine] | None:
        """Return which other machine is to begin a call; None: this one.

        Args:
            session: The name that it is to have.
            line: The line that waits for it.
            number: Who is to be called.
        """
        if isinstance(session, str) and (there := await self.of_call(session)) is not None:
            return there  # who says that there is one already
        if isinstance(line, str) and not number:
            return await self.of_call(line_key(line))
        best = next(iter(self._others.targets()), None)
        if best is None or best.name == self._others.name:
            return None
        self._others.gave(best)
        return There(best, self._relay)

    async def of_all(self, path: str) -> list[bytes]:
        """Return the answers of all other machines that answer a GET of `path` in time."""
        answers = await asyncio.gather(
            *(self._relay.get(each, path, _ASK_SECONDS) for each in self._others.others()),
            return_exceptions=True,
        )
        return [each[1] for each in answers if isinstance(each, tuple) and each[0] == 200]

    def limit(self, room: int) -> int:
        """Return how many calls all machines may carry together, which have room for `room`."""
        return self._others.most(room)

    async def _ask_for(self, call: str, machines: Sequence[Machine]) -> Machine | None:
        async def has(machine: Machine) -> bool:
            path = HAS_PATH.replace("{session_id}", quote(call, safe=""))
            try:
                return (await self._relay.get(machine, path, _ASK_SECONDS))[0] == 200
            except WorkerAway:
                self._others.does_not_answer(machine)
                return False

        found = await asyncio.gather(*map(has, machines))
        return next((each for each, there in zip(machines, found, strict=True) if there), None)


def line_key(line: str) -> str:
    """Return the name under which a line is kept among the calls."""
    return f"line:{line}"


def call_keys(sessions: Iterable[tuple[str, str]]) -> set[str]:
    """Return the names under which calls are kept.

    Args:
        sessions: Session and line of each.
    """
    return {key for session, line in sessions for key in (session, line_key(line))}


def only_machines(secret: str, on_refused: OnRefused) -> Middleware:
    """Let other machines in, who have asked their client for its key.

    Args:
        secret: What they bring.
        on_refused: Told of each that brings another one, or none.
    """
    known, told = secret.encode(), False

    @web.middleware
    async def trusted(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal told
        given = request.headers.get(MACHINE_HEADER, "").encode("utf-8", "surrogateescape")
        request[REQUEST_ID] = request.headers.get(REQUEST_ID_HEADER, "-")
        if not hmac.compare_digest(given, known):
            on_refused("unauthorized")
            if not told:
                # Once: strangers may come by the thousand, and the metric counts them.
                told = True
                note = "it has not this machine's CLUSTER_SECRET"
                log.warning("machine_refused", address=request.remote, note=note)
            return Problem("unauthorized", closes=True).response(request[REQUEST_ID])
        believe(request, request.headers.get(KEY_HEADER, HERE))
        if KEY_HEADER not in request.headers:
            # What machines tell each other is no change that somebody has asked for.
            request[PASSED_ON] = True
        with structlog.contextvars.bound_contextvars(request=request[REQUEST_ID]):
            return await handler(request)

    return trusted
