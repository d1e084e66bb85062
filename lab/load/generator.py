"""Starts calls, carries their media and ends them: what drives the world."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from uuid import UUID, uuid4

import numpy as np

from audiosocket.frames import FRAME_MS, SlinFormat
from lab.load.events import Channel, Json
from lab.load.line import LoadLine
from lab.load.media_socket import MediaChannel
from lab.load.ticker import Ticker
from lab.load.timing import spread, summarise
from lab.load.voice import TalkPattern, render_frames, render_messages
from lab.load.websocket_line import WebSocketLine
from lab.load.world import Refused, World

SPREAD_STEP = 0.618034
"""The golden section: consecutive calls begin the pattern far from one another."""
_MAX_CALLS = 5000


class Line(Protocol):
    """One call's media at the far end, of whatever kind.

    Attributes:
        arrivals: When each frame came, or was played where the far end paces, in ns on the wall
            clock, since `begin_window`.
        voiced_frames, frames_sent: Frames heard that were not silence, and frames said.
        talking: The caller is heard.
    """

    arrivals: array[int]
    voiced_frames: int
    frames_sent: int
    talking: bool

    def talk(self) -> None: ...

    def be_quiet(self) -> None: ...

    def begin_window(self) -> None: ...

    def tick(self) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Call:
    """One caller."""

    channel_id: str
    line: Line | None = None
    released: bool = False
    """The application has let it go on in the dialplan."""


class LoadGenerator:
    """Any number of calls into one Stasis application.

    `publish` is given every event in the order in which Asterisk would send it.
    """

    def __init__(
        self,
        app: str,
        publish: Callable[[list[Json]], None],
        *,
        pattern: TalkPattern | None = None,
    ) -> None:
        self.world = World(app)
        self.calls: dict[str, Call] = {}
        self._publish = publish
        self._pattern = pattern or TalkPattern()
        self._voices: dict[SlinFormat, tuple[bytes, ...]] = {}
        self._frames: dict[int, tuple[bytes, ...]] = {}
        self._lines: dict[str, Line] = {}
        self._sockets: dict[str, MediaChannel] = {}
        self._closed_lines: Counter[str] = Counter()
        self._started = 0
        self._ticker = Ticker()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker.start()

    @property
    def talking(self) -> int:
        """Calls whose media flow."""
        return sum(1 for call in self.calls.values() if call.line and call.line.talking)

    async def start_calls(self, count: int, per_second: float, args: tuple[str, ...] = ()) -> None:
        """Let callers arrive at an even rate. Raises ValueError beyond 5000 calls."""
        if len(self.calls) + count > _MAX_CALLS:
            raise ValueError(f"at most {_MAX_CALLS} calls at once")
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(count):
            await asyncio.sleep(max(0.0, start + number / per_second - loop.time()))
            self._arrive(args)

    def end_calls(self, count: int | None = None) -> None:
        """Let that many callers hang up, or all of them."""
        for channel_id in list(self.calls)[:count]:
            call = self.calls.pop(channel_id)
            if not call.released:
                self._publish(self.world.caller_hangs_up(channel_id, timestamp()))
            if call.line is not None:
                call.line.talking = False

    def be_quiet(self) -> None:
        """Let every caller say nothing more."""
        for call in self.calls.values():
            if call.line is not None:
                call.line.be_quiet()

    def begin_window(self) -> None:
        """Begin to measure."""
        self._ticker.late_us = type(self._ticker.late_us)("L")
        for call in self.calls.values():
            if call.line is not None:
                call.line.begin_window()

    def report(self) -> Callable[[], dict[str, Any]]:
        """What was heard since `begin_window`, and how the generator itself kept up.

        Returns a function that does the sums, which take some hundred milliseconds: for a thread.
        """
        lines = {call.channel_id: call.line for call in self.calls.values() if call.line}
        return summed(lines, self._ticker, len(self.calls), self._closed_lines)

    async def close(self) -> None:
        """End everything. May be called twice."""
        self._ticker.stop()
        for line in tuple(self._lines.values()):
            line.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what the application asks for

    async def open_media(
        self, channel_id: str, external_host: str, fmt: SlinFormat, uuid: str
    ) -> Channel:
        """`POST /channels/externalMedia`: connect to the application's server.

        Raises Refused with 500 where Asterisk says so: a bad UUID, or nobody listens.
        """
        world = self.world
        try:
            name = UUID(uuid)
            host, _, port = external_host.rpartition(":")
            channel = world.open_media(channel_id, external_host, uuid, timestamp())
        except ValueError:
            raise Refused(500, "An internal error prevented this request") from None
        line = LoadLine(
            name,
            fmt,
            self._voice(fmt),
            offset=self._offset(),
            on_closed=lambda reason: self._line_closed(channel_id, reason),
        )
        try:
            await line.connect(host.strip("[]"), int(port))
        except (OSError, ValueError):
            del world.channels[channel_id]
            raise Refused(500, "An internal error prevented this request") from None
        self._lines[channel_id] = line
        self._ticker.add(channel_id, line.tick)
        asyncio.get_running_loop().call_soon(
            lambda: self._publish(world.media_starts(channel_id, timestamp()))
        )
        return channel

    def await_media(self, channel_id: str, fmt: SlinFormat) -> tuple[Channel, str]:
        """`POST /channels/externalMedia` for chan_websocket: wait for the application.

        Returns:
            The channel, and the id that its WebSocket is asked for by.
        """
        world = self.world
        channel = world.await_media(channel_id, timestamp())
        connection_id = str(uuid4())
        socket = MediaChannel(
            channel_id,
            connection_id,
            format=fmt.name,
            frame_bytes=fmt.frame_bytes,
            connected=lambda: self._publish(world.media_starts(channel_id, timestamp())),
            ended=lambda cause: self._socket_ended(socket, cause),
        )
        self._sockets[connection_id] = socket
        if (frames := self._frames.get(fmt.rate_hz)) is None:
            frames = self._frames[fmt.rate_hz] = render_frames(self._pattern, fmt.rate_hz)
        line = self._lines[channel_id] = WebSocketLine(socket, frames, offset=self._offset())
        self._ticker.add(channel_id, line.tick)
        return channel, connection_id

    def find_socket(self, connection_id: str) -> MediaChannel | None:
        """Return the channel whose WebSocket has this id."""
        return self._sockets.get(connection_id)

    def _socket_ended(self, socket: MediaChannel, cause: int) -> None:
        self._sockets.pop(socket.connection_id, None)
        self._line_closed(socket.channel_id, f"cause_{cause}", cause)

    def joined(self, channel_id: str) -> None:
        """A channel has entered a bridge: when both are in it, the caller is heard."""
        ids = {channel_id, *(peer.id for peer in self.world.peers(channel_id))}
        callers = [self.calls[name] for name in ids if name in self.calls]
        lines = [self._lines[name] for name in ids if name in self._lines]
        for caller, line in zip(callers, lines, strict=False):
            caller.line = line
            line.talk()

    def hung_up(self, channel_id: str) -> None:
        """A channel was hung up by request."""
        if (line := self._lines.get(channel_id)) is not None:
            line.close()

    def released(self, channel_id: str) -> None:
        """A caller went on in the dialplan."""
        if (call := self.calls.get(channel_id)) is not None:
            call.released = True

    # --- inside

    def _arrive(self, args: tuple[str, ...]) -> None:
        self._started += 1
        # As Asterisk names channels, and so that no number of a real person is made up.
        channel_id = f"{int(datetime.now(UTC).timestamp())}.{self._started}"
        self.calls[channel_id] = Call(channel_id)
        self._publish(
            self.world.call_arrives(
                channel_id, timestamp(), number=f"load{self._started}", exten="100", args=args
            )
        )

    def _offset(self) -> int:
        frames = round(self._pattern.period_seconds * 1000 / FRAME_MS)
        return int(len(self._lines) * SPREAD_STEP % 1 * frames)

    def _voice(self, fmt: SlinFormat) -> tuple[bytes, ...]:
        if fmt not in self._voices:
            self._voices[fmt] = render_messages(self._pattern, fmt)
        return self._voices[fmt]

    def _line_closed(self, channel_id: str, reason: str, cause: int = 16) -> None:
        self._closed_lines[reason] += 1
        self._ticker.remove(channel_id)
        self._lines.pop(channel_id, None)
        if channel_id in self.world.channels:
            self._publish(self.world.channel_ends(channel_id, timestamp(), cause))


def summed(
    lines: Mapping[str, Line], ticker: Ticker, calls: int, closed: Mapping[str, int]
) -> Callable[[], dict[str, Any]]:
    """Return what does the sums of a report: what lines have heard, and how even the ticks were."""
    arrivals = [np.array(line.arrivals, np.int64) for line in lines.values()]
    late_ms = np.array(ticker.late_us, np.float64) / 1000
    counts = {
        "calls": calls,
        "talking": sum(line.talking for line in lines.values()),
        "closed_lines": dict(closed),
        "voiced_seconds": {
            name: line.voiced_frames * FRAME_MS / 1000 for name, line in lines.items()
        },
        "sent_seconds": {name: line.frames_sent * FRAME_MS / 1000 for name, line in lines.items()},
    }

    def sums() -> dict[str, Any]:
        return counts | {
            "heard": asdict(summarise(arrivals)),
            "generator_lateness": asdict(spread(late_ms)),
        }

    return sums


def timestamp() -> str:
    """Now, as ARI writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
