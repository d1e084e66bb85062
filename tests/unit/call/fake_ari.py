"""Asterisk behind its REST interface, in memory: the load bench's model of it, with trouble on
request.

A request is a real `Operation`, so that nothing can be asked for
that Asterisk does not offer. What was begun is done even when nobody waits for the answer any more,
as in Asterisk.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from uuid import UUID

import orjson

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import (
    AriTimeout,
    AriUnavailable,
    AriUnreached,
    error_for_status,
)
from ari_app.line.asterisk.ari.events import AriEvent, parse_event
from ari_app.line.asterisk.ari.operation import Operation, Parameter
from ari_app.line.asterisk.ari.resources import (
    ADD_CHANNEL,
    ANSWER,
    CONTINUE,
    CREATE_BRIDGE,
    DESTROY_BRIDGE,
    EXTERNAL_MEDIA,
    GET_DEVICE_STATE,
    GET_INFO,
    GET_VARIABLE,
    HANGUP,
    LIST_MODULES,
    ORIGINATE_WITH_ID,
    REMOVE_CHANNEL,
    RING,
    RTP_STATISTICS,
    SEND_DTMF,
    SET_VARIABLE,
    START_MOH,
    STOP_MOH,
)
from ari_app.line.asterisk.ari.resources import GET_APPLICATION as GET_APPLICATION
from ari_app.line.asterisk.ari.resources import GET_BRIDGE as GET_BRIDGE
from ari_app.line.asterisk.ari.resources import GET_CHANNEL as GET_CHANNEL
from ari_app.line.asterisk.ari.resources import LIST_BRIDGES as LIST_BRIDGES
from ari_app.line.asterisk.ari.resources import LIST_CHANNELS as LIST_CHANNELS
from ari_app.line.asterisk.ari.rest import Rest
from ari_app.process.addresses import split_host_port
from audiosocket.frames import SlinFormat
from lab.load.events import Bridge, Channel, Json, asterisk_info
from lab.load.media_socket import MediaChannel, MediaSocket
from lab.load.world import Refused, World
from linekit.clock import FrameClock
from tests.unit.audiosocket.client import AudioSocketClient

APP = "voice-agent"
NOW = "2026-08-06T12:34:56.789+0000"

_T = TypeVar("_T")
Moment = Callable[[], Awaitable[object] | None]
"""What happens at a moment of a request; one that raises an AriError is the request's failure."""

__all__ = [
    "ADD_CHANNEL",
    "ANSWER",
    "APP",
    "CONTINUE",
    "CREATE_BRIDGE",
    "DESTROY_BRIDGE",
    "EXTERNAL_MEDIA",
    "GET_APPLICATION",
    "GET_INFO",
    "HANGUP",
    "LIST_BRIDGES",
    "LIST_CHANNELS",
    "LIST_MODULES",
    "NOW",
    "RING",
    "SEND_DTMF",
    "SET_VARIABLE",
    "FakeAsterisk",
    "FakeClient",
    "Landed",
    "PlayedMedia",
    "Seen",
    "never",
    "status",
]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came."""

    operation: Operation[Any]
    ids: tuple[str, ...]
    parameters: dict[str, Parameter]
    at: float


@dataclass(frozen=True, slots=True)
class Landed:
    """A caller who goes on in the dialplan."""

    channel: str
    variables: dict[str, str]

    @property
    def status(self) -> str:
        return self.variables["AGENT_STATUS"]

    @property
    def reason(self) -> str:
        return self.variables["AGENT_REASON"]


def status(code: int, *, times: int | None = None) -> Moment:
    """The request is answered with this status; only so often, or always."""
    left = [times]

    def answer() -> None:
        if left[0] is not None:
            if left[0] == 0:
                return
            left[0] -= 1
        raise error_for_status(code, "as told", method="", path="/as-told")

    return answer


async def never() -> None:
    """No answer comes."""
    await asyncio.Event().wait()


class FakeAsterisk(Rest):
    """One Asterisk.

    Attributes:
        world: What it holds.
        seen: All requests, in order.
        before: What happens when a request of a kind has come, before it is done.
        after: What happens when it has been done, before it is answered.
        withheld: Events that are kept in `kept` and not sent: `StasisStart of media`,
            `ChannelEnteredBridge of caller`.
        away: Nothing reaches it, and answers to what has reached it are lost.
        obscure: Channels and bridges that it cannot put into words: no events of theirs, and 500
            to every list that they are in.
        landed: The callers who went on in the dialplan.
        media: The connections that it has made to AudioSocket servers, by channel.
        sockets: The channels of chan_websocket, by name, that there are and have been.
        modules: The modules that it has loaded, with their status.
        rtp: What the RTP of callers has counted; empty: they have none.
        devices: The states of devices, by name; it has none of others.
        on_event: Who is told of events.
        on_landed: What the dialplan does with a caller who goes on.
    """

    def __init__(self, app: str = APP, *, clock: FrameClock | None = None) -> None:
        super().__init__("http://asterisk.test:8088", "lab", "not-asked-for")
        self.world = World(app)
        self.seen: list[Seen] = []
        self.before: dict[Operation[Any], Moment] = {}
        self.after: dict[Operation[Any], Moment] = {}
        self.withheld: set[str] = set()
        self.kept: list[tuple[str, AriEvent]] = []
        self.away = False
        self.obscure: set[str] = set()
        self.landed: list[Landed] = []
        self.media: dict[str, AudioSocketClient] = {}
        self.sockets: dict[str, PlayedMedia] = {}
        self.on_event: Callable[[AriEvent], None] = lambda event: None
        self.on_landed: Callable[[Landed], None] = lambda landed: None
        self.version = "22.10.1"
        self.rtp: Json = {}
        self.devices: dict[str, str] = {}
        self.modules: dict[str, str] = {}
        self._app = app
        self._clock = clock or FrameClock()
        self._variables: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._media_ids: set[str] = set()
        self._working: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    # --- Rest

    async def call(
        self,
        operation: Operation[_T],
        ids: tuple[str, ...],
        given: dict[str, Parameter],
        deadline: float,
    ) -> _T:
        if self.closed:
            raise error_for_status(503, "closed", method=operation.method, path=operation.path)
        parameters = operation.select(given)
        operation.fill_path(ids)
        if self.away:
            raise AriUnreached("refused", method=operation.method, path=operation.path)
        self.seen.append(Seen(operation, ids, parameters, asyncio.get_running_loop().time()))
        work = self._begin(self._serve(operation, ids, parameters))
        try:
            async with asyncio.timeout(deadline):
                return operation.read(await asyncio.shield(work))
        except TimeoutError:
            raise AriTimeout("no answer", method=operation.method, path=operation.path) from None
        finally:
            # What it raises holds this frame.
            del work

    async def close(self) -> None:
        await super().close()
        if self._server is not None:
            self._server.close()
        for task in tuple(self._working):
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)

    async def _serve(
        self, operation: Operation[Any], ids: tuple[str, ...], parameters: dict[str, Any]
    ) -> bytes:
        # No answer comes in the same turn of the loop as its request.
        await asyncio.sleep(0)
        await _pass(self.before.get(operation))
        try:
            answer = await self._do(operation, ids, parameters)
        except Refused as refusal:
            path = operation.fill_path(ids)
            raise error_for_status(
                refusal.status, refusal.message, method=operation.method, path=path
            ) from None
        await _pass(self.after.get(operation))
        if self.away:
            raise AriUnavailable("cut", method=operation.method, path=operation.path)
        return orjson.dumps(answer)

    async def _do(
        self, operation: Operation[Any], ids: tuple[str, ...], parameters: dict[str, Any]
    ) -> object:
        world = self.world
        match operation, ids:
            case (op, (channel,)) if op is RING:
                self._tell(world.ring(channel))
            case (op, (channel,)) if op is ANSWER:
                self._tell(world.answer(channel, NOW))
            case (op, (channel,)) if op is SET_VARIABLE:
                # The underscores say who inherits it.
                name, value = parameters["variable"].removeprefix("__"), parameters["value"]
                self._tell(world.set_variable(channel, name, value, NOW))
                self._variables[channel][name] = value
            case (op, (channel,)) if op is GET_VARIABLE:
                return {"value": world.variable(channel, parameters["variable"])}
            case (op, (channel,)) if op is CONTINUE:
                self._tell(world.go_on(channel, NOW))
                self.landed.append(Landed(channel, self._variables.pop(channel, {})))
                self.on_landed(self.landed[-1])
            case (op, (channel,)) if op is HANGUP:
                self._tell(world.hang_up(channel, NOW))
                self._hang_up_media(channel)
            case (op, ()) if op is EXTERNAL_MEDIA:
                return await self._open_media(parameters)
            case (op, (bridge,)) if op is CREATE_BRIDGE:
                return world.create_bridge(bridge, parameters["name"], NOW).to_json()
            case (op, (bridge,)) if op is ADD_CHANNEL:
                self._tell(world.add_to_bridge(bridge, parameters["channel"], NOW))
            case (op, (bridge,)) if op is REMOVE_CHANNEL:
                self._tell(world.remove_from_bridge(bridge, parameters["channel"], NOW))
            case (op, (channel,)) if op in (START_MOH, STOP_MOH, SEND_DTMF):
                world.in_stasis(channel)
            case (op, (channel,)) if op is ORIGINATE_WITH_ID:
                # It rings there, and nobody answers.
                world.channels[channel] = Channel(
                    channel, parameters["endpoint"], "Ringing", NOW, self._app
                )
                return world.channels[channel].to_json()
            case (op, (bridge,)) if op is DESTROY_BRIDGE:
                self._tell(world.destroy_bridge(bridge, NOW))
            case (op, (channel,)) if (
                op is RTP_STATISTICS and channel in world.channels and self.rtp
            ):
                return self.rtp
            case (op, (device,)) if op is GET_DEVICE_STATE and device in self.devices:
                return {"name": device, "state": self.devices[device]}
            case (op, ()) if op is LIST_CHANNELS:
                return [self._describe(each) for each in world.channels.values()]
            case (op, ()) if op is LIST_BRIDGES:
                return [self._describe(each) for each in world.bridges.values()]
            case (op, (channel,)) if op is GET_CHANNEL and channel in world.channels:
                return self._describe(world.channels[channel])
            case (op, (bridge,)) if op is GET_BRIDGE and bridge in world.bridges:
                return self._describe(world.bridges[bridge])
            case (op, (app,)) if op is GET_APPLICATION and app == self._app:
                return world.application()
            case (op, ()) if op is LIST_MODULES:
                return [{"name": name, "status": how} for name, how in self.modules.items()]
            case (op, ()) if op is GET_INFO:
                info = asterisk_info(NOW)
                info["system"]["version"] = self.version
                return info
            case _:
                raise Refused(404, "Invalid method or resource")
        return None

    def _describe(self, thing: Channel | Bridge) -> Json:
        if thing.id in self.obscure:
            raise Refused(500, "Message could not be encoded")
        return thing.to_json()

    async def _open_media(self, parameters: dict[str, Any]) -> Json:
        if parameters.get("transport") == "websocket":
            return await self._await_media(parameters)
        channel_id, uuid = parameters["channelId"], parameters["data"]
        target = parameters["external_host"]
        self._media_ids.add(channel_id)
        channel = self.world.open_media(channel_id, target, uuid, NOW)
        line_format = SlinFormat.by_name(parameters["format"])
        media = AudioSocketClient(UUID(uuid), line_format, clock=self._clock)
        try:
            await media.connect(*split_host_port(target))
        except (OSError, TimeoutError):
            del self.world.channels[channel_id]
            raise Refused(500, "An internal error prevented this request") from None
        self.media[channel_id] = media
        self._begin(self._watch(channel_id, media))
        self._tell(self.world.media_starts(channel_id, NOW))
        return channel.to_json()

    async def _await_media(self, parameters: dict[str, Any]) -> Json:
        if self._server is None:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: MediaSocket(self._find_socket), self.base.host or "", self.base.port or 0
            )
        channel_id = parameters["channelId"]
        self._media_ids.add(channel_id)
        channel = self.world.await_media(channel_id, NOW)
        media = self.sockets[channel_id] = PlayedMedia(
            channel_id,
            f"id-of-{channel_id}",
            line_format=SlinFormat.by_name(parameters["format"]),
            connected=lambda: self._tell(self.world.media_starts(channel_id, NOW)),
            ended=lambda cause: self._tell(self.world.channel_ends(channel_id, NOW, cause)),
            hears=lambda: self.world.channels[channel_id].bridge_id is not None,
            clock=self._clock,
        )
        name = media.channel.connection_id
        return channel.to_json() | {"channelvars": {"MEDIA_WEBSOCKET_CONNECTION_ID": name}}

    def _find_socket(self, connection_id: str) -> MediaChannel | None:
        media = self.sockets.get(connection_id.removeprefix("id-of-"))
        return None if media is None or media.over else media.channel

    async def _watch(self, channel_id: str, media: AudioSocketClient) -> None:
        await media.wait_closed()
        self._tell(self.world.channel_ends(channel_id, NOW))

    def _hang_up_media(self, channel_id: str) -> None:
        if (media := self.media.get(channel_id)) is not None:
            media.close()
        if (socket := self.sockets.get(channel_id)) is not None:
            socket.channel.hang_up()

    # --- what happens at Asterisk's other ends

    def enter(
        self,
        channel_id: str,
        *args: str,
        answered: bool = False,
        number: str = "493023125001",
        exten: str = "100",
    ) -> None:
        """A caller reaches `Stasis()`."""
        events = self.world.call_arrives(channel_id, NOW, number=number, exten=exten, args=args)
        if answered:
            self.world.channels[channel_id].state = "Up"
            events[0]["channel"]["state"] = "Up"
        self._tell(events)

    def hang_up(self, channel_id: str) -> None:
        """A caller hangs up."""
        self._tell(self.world.caller_hangs_up(channel_id, NOW))

    def take_away(self, channel_id: str) -> None:
        """Somebody else takes a caller out of the application: a redirect."""
        self._tell(self.world.go_on(channel_id, NOW))

    def pass_on(self, channel_id: str, by: str, *, up: bool = True) -> None:
        """A telephone transfers its call: another channel takes the place of its own."""
        before = self.world.channels[channel_id]
        channel = Channel(by, f"Local/{by}", "Up" if up else "Down", NOW, self._app, in_stasis=True)
        self.world.channels[by] = channel
        start = {"args": [], "channel": channel, "replace_channel": before}
        self._tell([self.world._event("StasisStart", NOW, **start)])
        if before.bridge_id is not None:
            self._tell(self.world.add_to_bridge(before.bridge_id, by, NOW))
        self._tell(self.world.go_on(channel_id, NOW))

    def add(self, channel_id: str, *, bridge: str | None = None) -> None:
        """A channel is in the application, and perhaps in a bridge, and nobody was told."""
        self.world.channels[channel_id] = Channel(
            channel_id, f"PJSIP/{channel_id}", "Up", NOW, self._app, in_stasis=True
        )
        if bridge is not None:
            self.world.create_bridge(bridge, "", NOW)
            self.world.add_to_bridge(bridge, channel_id, NOW)

    def tell(self, kind: str) -> None:
        """Withhold events of this kind no longer, and send those that were."""
        self.withheld.discard(kind)
        kept, self.kept = self.kept, []
        for each, event in kept:
            if each == kind:
                self.on_event(event)
            else:
                self.kept.append((each, event))

    def requests(self, operation: Operation[Any]) -> list[Seen]:
        """The requests of one kind."""
        return [seen for seen in self.seen if seen.operation is operation]

    def _tell(self, events: list[Json]) -> None:
        for body in events:
            event = parse_event(orjson.dumps(body))
            channel = body.get("channel", {}).get("id", "")
            if channel in self.obscure:
                continue
            who = "media" if channel in self._media_ids else "caller"
            kind = f"{event.type} of {who}"
            if kind in self.withheld:
                self.kept.append((kind, event))
            else:
                self.on_event(event)

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name="asterisk")
        self._working.add(task)
        task.add_done_callback(self._worked)
        return task

    def _worked(self, task: asyncio.Task[Any]) -> None:
        self._working.discard(task)
        if not task.cancelled():
            task.exception()  # its request may have been given up


class PlayedMedia:
    """A channel of chan_websocket, which plays what it is sent to whoever is in its bridge.

    Attributes:
        heard: All that was played there.
        gaps: How often there was nothing to play, after the first sound.
        sends: What the caller says in 20 ms; None is nothing.
        over: It has ended.
    """

    def __init__(
        self,
        channel_id: str,
        connection_id: str,
        *,
        line_format: SlinFormat,
        connected: Callable[[], None],
        ended: Callable[[int], None],
        hears: Callable[[], bool],
        clock: FrameClock,
    ) -> None:
        self.heard: list[bytes] = []
        self.gaps = 0
        self.over = False
        self.sends: bytes | None = bytes(line_format.frame_bytes)
        self._hears = hears
        self._tell_ended = ended
        self.channel = MediaChannel(
            channel_id,
            connection_id,
            format=line_format.name,
            frame_bytes=line_format.frame_bytes,
            connected=connected,
            ended=self._ended,
        )
        self._stop = clock.add(self._tick)

    def breaks(self) -> None:
        """The network cuts it."""
        assert self.channel.socket is not None
        self.channel.socket.abort()

    def _ended(self, cause: int) -> None:
        self.over = True
        self._stop()
        self._tell_ended(cause)

    def _tick(self, frames: int) -> None:
        for _ in range(frames):
            frame = self.channel.queue.tick()
            self.channel.started = self._hears()
            if self.channel.started:
                if frame is not None:
                    self.heard.append(frame)
                elif self.heard:
                    self.gaps += 1
            if self.sends is not None:
                self.channel.say(self.sends)


class FakeClient(Client):
    """The real client's resources over a fake Asterisk."""

    def __init__(self, asterisk: FakeAsterisk, *, timeout: float = 5.0) -> None:
        self._asked = _Asked(asterisk)
        self._arrange(cast(Rest, self._asked), APP, timeout)

    def lose(self) -> None:
        """Whoever asks by it is lost: Asterisk hears no more of it."""
        self._asked.lost = True


class _Asked:
    def __init__(self, asterisk: FakeAsterisk) -> None:
        self._asterisk = asterisk
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._asterisk, name)

    async def call(self, *args: Any) -> Any:
        if self.lost:
            await asyncio.Event().wait()
        return await self._asterisk.call(*args)


async def _pass(moment: Moment | None) -> None:
    if moment is not None and (waiting := moment()) is not None:
        await waiting
