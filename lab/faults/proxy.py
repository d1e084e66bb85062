"""A TCP proxy that gets in the way of those who speak through it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final, Self

_CHUNK_BYTES: Final = 65_536
# Chunks that are on their way in one direction; one more waits unread in the kernel.
_MAX_ON_THE_WAY: Final = 256
_BETWEEN_PACKETS_SECONDS: Final = 0.0002
_RESET: Final = struct.pack("ii", 1, 0)

_OnTheWay = asyncio.Queue[tuple[float, bytes]]
"""When it is due, and what; nothing at the end of the stream."""


class TcpProxy:
    """Passes connections on to one address, and gets in their way when told to.

        async with TcpProxy("127.0.0.1", 8088) as proxy:
            settings.ari_url = f"http://{proxy.address}"
            await proxy.refuse()
            ...
            await proxy.restore()

    Each fault replaces the one before it. With a ``mark`` a fault can be for some connections
    only: those of which a piece of data from the client began with these bytes.
    ``mark=b"GET /ari/events"`` marks ARI's event sockets.

    Args:
        host: Where to connect to.
        port: Its port. It may be closed: then connections are reset.
        bind_host: Where to listen.
        bind_port: 0 takes a free one. It stays the same, also while connections are refused.
        mark: What a client's data begins with on a connection that is marked; empty: on none.
        packet_bytes: So much arrives at once, as over a link that is slower than its reader; 0: all
            that is there.

    Attributes:
        accepted: How many connections have come.
        packet_bytes: How much arrives at once.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        bind_host: str = "127.0.0.1",
        bind_port: int = 0,
        mark: bytes = b"",
        packet_bytes: int = 0,
    ) -> None:
        self.accepted = 0
        self.packet_bytes = packet_bytes or _CHUNK_BYTES
        self._target = (host, port)
        self._bind = (bind_host, bind_port)
        self._mark = mark
        self._delay_seconds = 0.0
        self._marked_only = False
        self._refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._holder: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._relays: set[_Relay] = set()
        self._serving: set[asyncio.Task[None]] = set()

    # --- life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken, RuntimeError when it listens already."""
        if self._holder is not None:
            raise RuntimeError("the proxy listens already")
        # Bound, but never listening: it keeps the port ours while connections are refused.
        self._holder = _bound(*self._bind)
        self._bind = self._holder.getsockname()[:2]
        await self._listen()

    async def close(self) -> None:
        """Stop listening and reset all connections. May be called again."""
        self._stop_listening()
        self._cut(marked_only=False)
        if self._serving:
            await asyncio.wait(self._serving)
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    @property
    def host(self) -> str:
        """Where it listens."""
        return self._bind[0]

    @property
    def port(self) -> int:
        """Where it listens; known once it has started."""
        return self._bind[1]

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._relays)

    @property
    def marked(self) -> int:
        """How many of them are marked."""
        return sum(relay.marked for relay in self._relays)

    # --- faults

    def cut(self, *, marked_only: bool = False) -> None:
        """Reset the connections that there are, on both sides; new ones are passed on."""
        self._cut(marked_only)

    async def refuse(self, *, marked_only: bool = False) -> None:
        """Reset the connections that there are, and refuse new ones.

        New ones get "connection refused", as if nobody listened. With ``marked_only`` they are
        accepted, and reset as soon as they are marked.
        """
        await self.restore()
        self._refusing, self._marked_only = True, marked_only
        if not marked_only:
            self._stop_listening()
        self._cut(marked_only)

    async def blackhole(self, *, marked_only: bool = False) -> None:
        """Let nothing pass, in neither direction, and reset nothing; new connections are accepted.

        It looks like a cable that is pulled, and as TCP does after that, ``restore`` delivers late
        what was sent meanwhile.
        """
        await self.restore()
        self._marked_only = marked_only
        self._flowing.clear()

    async def delay(self, seconds: float) -> None:
        """Deliver everything so much later, in both directions."""
        await self.restore()
        self._delay_seconds = seconds

    async def restore(self) -> None:
        """Pass everything on again."""
        self._refusing = self._marked_only = False
        self._delay_seconds = 0.0
        self._flowing.set()
        if self._server is None:
            await self._listen()

    # --- connections

    async def _listen(self) -> None:
        if self._holder is None:
            raise RuntimeError("the proxy is closed")
        self._server = await asyncio.start_server(self._accepted, sock=_bound(*self._bind))

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def _cut(self, marked_only: bool) -> None:
        for relay in self._relays:
            if relay.marked or not marked_only:
                relay.reset()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay = _Relay(self, writer)
        self._relays.add(relay)
        try:
            await relay.run(reader, self._target)
        finally:
            self._relays.discard(relay)

    def sees(self, relay: _Relay, data: bytes) -> None:
        """Look at what a client sends; may reset its connection."""
        if self._mark and data.startswith(self._mark):
            relay.marked = True
            if self._refusing and self._marked_only:
                relay.reset()

    @property
    def delay_seconds(self) -> float:
        """How much later everything arrives."""
        return self._delay_seconds

    async def let_pass(self, relay: _Relay) -> None:
        """Return when data may pass on a connection."""
        while not self._flowing.is_set() and (relay.marked or not self._marked_only):
            await self._flowing.wait()


class _Relay:
    """One connection, and the one that stands for it at the target.

    Attributes:
        marked: The client has sent the mark.
    """

    def __init__(self, proxy: TcpProxy, client: asyncio.StreamWriter) -> None:
        self.marked = False
        self._proxy = proxy
        self._writers = [client]
        self._task = asyncio.current_task()

    async def run(self, reader: asyncio.StreamReader, target: tuple[str, int]) -> None:
        """Pass data on until both sides have closed; cancelled by :meth:`reset`."""
        client = self._writers[0]
        try:
            back, server = await asyncio.open_connection(*target)
            self._writers.append(server)
            async with asyncio.TaskGroup() as pumps:
                for source, sink, sent in ((reader, server, True), (back, client, False)):
                    on_the_way: _OnTheWay = asyncio.Queue(_MAX_ON_THE_WAY)
                    pumps.create_task(self._take(source, on_the_way, from_client=sent))
                    pumps.create_task(self._give(on_the_way, sink))
            for writer in self._writers:
                writer.close()
                await writer.wait_closed()
        except* OSError:
            pass  # one side is gone, as the other shall see
        finally:
            self._abort()

    def reset(self) -> None:
        """Close both connections with a reset. May be called again."""
        self._abort()
        if self._task is not None:
            self._task.cancel()

    def _abort(self) -> None:
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() != -1:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def _take(
        self, source: asyncio.StreamReader, on_the_way: _OnTheWay, *, from_client: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        data = b"begin"
        while data:
            await self._proxy.let_pass(self)
            data = await source.read(_CHUNK_BYTES)
            if from_client:
                self._proxy.sees(self, data)
            await on_the_way.put((loop.time() + self._proxy.delay_seconds, data))

    async def _give(self, on_the_way: _OnTheWay, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        data, size = b"begin", self._proxy.packet_bytes
        while data:
            due, data = await on_the_way.get()
            await asyncio.sleep(due - loop.time())
            await self._proxy.let_pass(self)
            try:
                for at in range(0, len(data), size):
                    if at:
                        await asyncio.sleep(_BETWEEN_PACKETS_SECONDS)
                    sink.write(data[at : at + size])
                    await sink.drain()
                if not data:
                    sink.write_eof()
            except RuntimeError as error:
                # What uvloop says of a transport that has been closed meanwhile.
                raise ConnectionError(str(error)) from None


def _bound(host: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Lets the listening socket share the port with the one that holds it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock
