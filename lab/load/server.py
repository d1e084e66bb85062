"""ARI's HTTP and event socket around the generator, and a few routes to steer it by."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

import orjson
from aiohttp import WSMsgType, web

from ari_app.checks.asterisk import REQUIRED, TIMING, USEFUL
from audiosocket.frames import SlinFormat
from lab.load.events import Json, asterisk_info, event, module_json
from lab.load.generator import LoadGenerator, timestamp
from lab.load.media_socket import MEDIA_PATH, MediaChannel, MediaSocket
from lab.load.steering import Steering
from lab.load.voice import TalkPattern
from lab.load.world import Refused

Socket = web.WebSocketResponse[Literal[False]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MODULES = (*REQUIRED, *USEFUL, TIMING[0], "chan_websocket.so", "res_websocket_client.so")

_MAX_WAITING_EVENTS = 100_000


class LoadServer:
    """Serves `/ari` as Asterisk does, and `/load` for whoever wants calls.

    `POST /load/calls?count=N&per_second=R`, `DELETE /load/calls`, `POST /load/quiet`,
    `POST /load/window` (begin to measure) and `GET /load/report`.
    """

    def __init__(
        self, app: str, username: str, password: str, *, pattern: TalkPattern | None = None
    ) -> None:
        self._app = app
        token = base64.b64encode(f"{username}:{password}".encode()).decode()
        self._authorization = f"Basic {token}".encode()
        self._pattern = pattern
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None
        self._listeners: dict[str, asyncio.Queue[bytes]] = {}
        # The types that an application wants to hear; without an entry it hears all.
        self._wanted: dict[str, set[str]] = {}
        # Those of channels and bridges that are in another application than calls enter.
        self._elsewhere: dict[str, str] = {}
        self._sockets: set[Socket] = set()
        self._steering = Steering(lambda: self.generator)
        self._generator: LoadGenerator | None = None

    @property
    def generator(self) -> LoadGenerator:
        """What drives the calls. Raises RuntimeError before `start`."""
        if self._generator is None:
            raise RuntimeError("the server has not been started")
        return self._generator

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen; the URL for `ARI_URL`."""
        self._generator = LoadGenerator(self._app, self._publish, pattern=self._pattern)
        app = web.Application(middlewares=[self._as_asterisk])
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        http, generator = self._runner.server, self._generator
        assert http is not None, "it has been set up"
        self._listening = await asyncio.get_running_loop().create_server(
            lambda: _Door(http, generator.find_socket), host, port, backlog=1024
        )
        return f"http://{host}:{self._listening.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        """End every call and stop. May be called twice."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        if self._listening is not None:
            self._listening.close()
        await self._steering.close()
        await self.generator.close()
        for socket in tuple(self._sockets):
            await socket.close()
        await runner.cleanup()

    def _routes(self) -> list[web.RouteDef]:
        channel, bridge = "/ari/channels/{id}", "/ari/bridges/{id}"
        return [
            web.get("/ari/events", self._events),
            web.get("/ari/asterisk/info", self._info),
            web.get("/ari/asterisk/modules", self._modules),
            web.get("/ari/channels", self._list_channels),
            web.post("/ari/channels/externalMedia", self._external_media),
            web.get(channel, self._get_channel),
            web.delete(channel, self._hang_up),
            web.post(f"{channel}/ring", self._ring),
            web.delete(f"{channel}/ring", self._ring),
            web.post(f"{channel}/answer", self._answer),
            web.get(f"{channel}/variable", self._get_variable),
            web.post(f"{channel}/variable", self._set_variable),
            web.post(f"{channel}/continue", self._continue),
            web.post(f"{channel}/move", self._move),
            web.get("/ari/bridges", self._list_bridges),
            web.post(bridge, self._create_bridge),
            web.delete(bridge, self._destroy_bridge),
            web.post(f"{bridge}/addChannel", self._add_channel),
            web.get("/ari/applications/{app}", self._application),
            web.put("/ari/applications/{app}/eventFilter", self._filter_events),
            *self._steering.routes,
        ]

    @web.middleware
    async def _as_asterisk(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith("/ari/"):
            given = request.headers.get("Authorization", "").encode()
            if not hmac.compare_digest(given, self._authorization):
                return _json({"message": "Authentication required"}, 401)
        try:
            return await handler(request)
        except Refused as refusal:
            return _json({"message": refusal.message}, refusal.status)

    def _publish(self, events: list[Json]) -> None:
        for body in events:
            app = self._app_of(body)
            wanted = self._wanted.get(app)
            if wanted is not None and body["type"] not in wanted:
                continue
            if (listener := self._listeners.get(app)) is not None:
                listener.put_nowait(orjson.dumps(body | {"application": app}))

    def _app_of(self, body: Json) -> str:
        """Return whose an event is: that of its channel, or of its bridge."""
        for kind in ("channel", "bridge"):
            named = body.get(kind, {}).get("id", "")
            if named in self._elsewhere:
                over = body["type"] in ("ChannelDestroyed", "BridgeDestroyed")
                return self._elsewhere.pop(named) if over else self._elsewhere[named]
        return self._app

    async def _events(self, request: web.Request) -> web.StreamResponse:
        socket: Socket = web.WebSocketResponse(compress=False, decode_text=False)
        await socket.prepare(request)
        app = request.query.get("app", "")
        if (before := self._listeners.get(app)) is not None:
            before.put_nowait(orjson.dumps(event("ApplicationReplaced", app, timestamp())))
        queue: asyncio.Queue[bytes] = asyncio.Queue(_MAX_WAITING_EVENTS)
        self._listeners[app] = queue
        self._sockets.add(socket)
        sender = asyncio.create_task(_send_events(socket, queue))
        try:
            while (await socket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
                pass
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
            self._sockets.discard(socket)
            if self._listeners.get(app) is queue:
                del self._listeners[app]
                self._wanted.pop(app, None)
        return socket

    async def _info(self, request: web.Request) -> web.Response:
        return _json(asterisk_info(timestamp()))

    async def _modules(self, request: web.Request) -> web.Response:
        return _json([module_json(name) for name in MODULES])

    async def _list_channels(self, request: web.Request) -> web.Response:
        return _json([channel.to_json() for channel in self.generator.world.channels.values()])

    async def _get_channel(self, request: web.Request) -> web.Response:
        channel = self.generator.world.channels.get(request.match_info["id"])
        if channel is None:
            raise Refused(404, "Channel not found")
        return _json(channel.to_json())

    async def _external_media(self, request: web.Request) -> web.Response:
        given = await _parameters(request)
        self._enters(given.get("channelId", ""), given.get("app", ""))
        try:
            fmt = SlinFormat.by_name(given.get("format", ""))
        except ValueError:
            raise Refused(500, "An internal error prevented this request") from None
        if given.get("transport") == "websocket":
            if given.get("connection_type") != "server" or given.get("transport_data") != "f(json)":
                raise Refused(400, "external_host must be a valid websocket_client connection id.")
            waiting, name = self.generator.await_media(given.get("channelId", ""), fmt)
            return _json(
                waiting.to_json() | {"channelvars": {"MEDIA_WEBSOCKET_CONNECTION_ID": name}}
            )
        channel = await self.generator.open_media(
            given.get("channelId", ""), given.get("external_host", ""), fmt, given.get("data", "")
        )
        target, uuid = given["external_host"], given["data"]
        variables = {"AUDIOSOCKET_SERVICE": target, "AUDIOSOCKET_UUID": uuid}
        return _json(channel.to_json() | {"channelvars": variables})

    async def _hang_up(self, request: web.Request) -> web.Response:
        channel_id = request.match_info["id"]
        self._publish(self.generator.world.hang_up(channel_id, timestamp()))
        self.generator.hung_up(channel_id)
        return _no_content()

    async def _ring(self, request: web.Request) -> web.Response:
        self._publish(self.generator.world.ring(request.match_info["id"]))
        return _no_content()

    async def _answer(self, request: web.Request) -> web.Response:
        self._publish(self.generator.world.answer(request.match_info["id"], timestamp()))
        return _no_content()

    async def _get_variable(self, request: web.Request) -> web.Response:
        name = request.query.get("variable", "")
        return _json({"value": self.generator.world.variable(request.match_info["id"], name)})

    async def _set_variable(self, request: web.Request) -> web.Response:
        given = await _parameters(request)
        self._publish(
            self.generator.world.set_variable(
                request.match_info["id"],
                given.get("variable", ""),
                given.get("value", ""),
                timestamp(),
            )
        )
        return _no_content()

    async def _continue(self, request: web.Request) -> web.Response:
        channel_id = request.match_info["id"]
        self._publish(self.generator.world.go_on(channel_id, timestamp()))
        self.generator.released(channel_id)
        return _no_content()

    async def _move(self, request: web.Request) -> web.Response:
        """Let a channel enter another application: as here, where somebody has that."""
        given, channel_id = await _parameters(request), request.match_info["id"]
        channel = self.generator.world.channels.get(channel_id)
        if channel is None:
            raise Refused(404, "Channel not found")
        named: Json = {"channel": channel.to_json()}
        self._publish([event("StasisEnd", "", timestamp()) | named])
        self._enters(channel_id, given.get("app", ""))
        args = given.get("appArgs", "")
        more = {"args": args.split(",") if args else []}
        self._publish([event("StasisStart", "", timestamp()) | named | more])
        return _no_content()

    def _enters(self, channel_id: str, app: str) -> None:
        if app and app != self._app:
            self._elsewhere[channel_id] = app

    async def _list_bridges(self, request: web.Request) -> web.Response:
        return _json([bridge.to_json() for bridge in self.generator.world.bridges.values()])

    async def _create_bridge(self, request: web.Request) -> web.Response:
        given = await _parameters(request)
        bridge = self.generator.world.create_bridge(
            request.match_info["id"], given.get("name", ""), timestamp()
        )
        return _json(bridge.to_json())

    async def _destroy_bridge(self, request: web.Request) -> web.Response:
        world = self.generator.world
        self._publish(world.destroy_bridge(request.match_info["id"], timestamp()))
        return _no_content()

    async def _add_channel(self, request: web.Request) -> web.Response:
        channel_id = (await _parameters(request)).get("channel", "")
        world = self.generator.world
        self._publish(world.add_to_bridge(request.match_info["id"], channel_id, timestamp()))
        self.generator.joined(channel_id)
        return _no_content()

    async def _application(self, request: web.Request) -> web.Response:
        named, told = request.match_info["app"], self.generator.world.application()
        if named != self._app and named not in self._listeners:
            raise Refused(404, "Application not found")
        inside = [
            channel
            for channel in told["channel_ids"]
            if self._elsewhere.get(channel, self._app) == named
        ]
        return _json(told | {"name": named, "channel_ids": inside})

    async def _filter_events(self, request: web.Request) -> web.Response:
        told = await self._application(request)
        wanted = orjson.loads(await request.read())["allowed"]
        self._wanted[request.match_info["app"]] = {each["type"] for each in wanted}
        return told


class _Door(asyncio.Protocol):
    """Asterisk has ARI and media at one port: the first line of a connection says which it is.

    Args:
        http: Makes the protocol of a connection of ARI's.
        find: Finds the channel that a WebSocket is for.
    """

    def __init__(
        self,
        http: Callable[[], asyncio.BaseProtocol],
        find: Callable[[str], MediaChannel | None],
    ) -> None:
        self._http, self._find = http, find

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        is_media = data.startswith(f"GET {MEDIA_PATH}".encode())
        inside = MediaSocket(self._find) if is_media else cast(asyncio.Protocol, self._http())
        self._transport.set_protocol(inside)
        inside.connection_made(self._transport)
        inside.data_received(data)


async def _send_events(socket: Socket, queue: asyncio.Queue[bytes]) -> None:
    while True:
        await socket.send_frame(await queue.get(), WSMsgType.TEXT)


async def _parameters(request: web.Request) -> dict[str, str]:
    """Parameters as Asterisk takes them: from the query and from a JSON body."""
    given: dict[str, str] = dict(request.query)
    body = await request.read()
    if body:
        decoded: Any = orjson.loads(body)
        given |= {name: str(value) for name, value in decoded.items()}
    return given


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, content_type="application/json", charset="utf-8"
    )


def _no_content() -> web.Response:
    return web.Response(status=204)
