"""The operations of ARI that this application uses, by resource."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from ari_app.line.asterisk.ari.models import (
    Application,
    AsteriskInfo,
    Bridge,
    Channel,
    DeviceState,
    Endpoint,
    Module,
    RTPstat,
    Variable,
)
from ari_app.line.asterisk.ari.operation import Operation, Parameter
from ari_app.line.asterisk.ari.rest import Sender

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


LIST_BRIDGES = Operation[tuple[Bridge, ...]]("GET", "/bridges", tuple[Bridge, ...])
GET_BRIDGE = Operation[Bridge]("GET", "/bridges/{bridgeId}", Bridge)
CREATE_BRIDGE = Operation[Bridge](
    "POST", "/bridges/{bridgeId}", Bridge, ("type", "name"), found_by=GET_BRIDGE
)
DESTROY_BRIDGE = Operation[None]("DELETE", "/bridges/{bridgeId}")
# Doing it twice makes the channel leave and enter again.
ADD_CHANNEL = Operation[None](
    "POST",
    "/bridges/{bridgeId}/addChannel",
    parameters=("channel",),
    repeatable=True,
)
REMOVE_CHANNEL = Operation[None](
    "POST", "/bridges/{bridgeId}/removeChannel", parameters=("channel",)
)


class BridgesResource(ResourceClient):
    """`client.bridges`.

    Where a bridge is named by its id, AriNotFound says that it does not exist and AriConflict (409)
    that it was not made through ARI.
    """

    async def list(self) -> tuple[Bridge, ...]:
        """List all bridges of this Asterisk, whoever made them."""
        return await self._call(LIST_BRIDGES)

    async def get(self, bridge_id: str) -> Bridge:
        """Get one bridge."""
        return await self._call(GET_BRIDGE, bridge_id)

    async def create_with_id(self, bridge_id: str, *, name: str) -> Bridge:
        """Make a mixing bridge.

        Args:
            bridge_id: Chosen by us.
            name: For people.

        Raises:
            AriConflict: There is one of this id (an AriServerError in some versions before 22).
        """
        return await self._call(CREATE_BRIDGE, bridge_id, type="mixing", name=name)

    async def destroy(self, bridge_id: str) -> None:
        """Shut a bridge down. Its channels stay in Stasis."""
        await self._call(DESTROY_BRIDGE, bridge_id)

    async def add_channel(self, bridge_id: str, channel_id: str) -> None:
        """Put a channel into a bridge.

        Success does not prove that it is in it: `ChannelEnteredBridge` does.

        Raises:
            AriBadRequest: The channel does not exist (400, where one would expect 404).
            AriConflict: The channel is not in Stasis (422), or is being recorded (409).
        """
        await self._call(ADD_CHANNEL, bridge_id, channel=channel_id)

    async def remove_channel(self, bridge_id: str, channel_id: str) -> None:
        """Take a channel out of a bridge; it stays in Stasis.

        Raises:
            AriBadRequest: The channel does not exist.
            AriConflict: The channel is not in this bridge (422).
        """
        await self._call(REMOVE_CHANNEL, bridge_id, channel=channel_id)


LIST_APPLICATIONS = Operation[tuple[Application, ...]](
    "GET", "/applications", tuple[Application, ...]
)
GET_APPLICATION = Operation[Application]("GET", "/applications/{applicationName}", Application)
SUBSCRIBE = Operation[Application](
    "POST",
    "/applications/{applicationName}/subscription",
    Application,
    ("eventSource",),
    repeatable=True,
)
FILTER_EVENTS = Operation[Application](
    "PUT",
    "/applications/{applicationName}/eventFilter",
    Application,
    ("filter",),
    whole_body="filter",
)


class ApplicationsResource(ResourceClient):
    """`client.applications`."""

    async def get(self, name: str | None = None) -> Application:
        """Get one application, its channels and bridges; ours when no name is given.

        Raises:
            AriNotFound: It is not registered.
        """
        return await self._call(GET_APPLICATION, name or self._app)

    async def list(self) -> tuple[Application, ...]:
        """List the applications of everybody."""
        return await self._call(LIST_APPLICATIONS)

    async def subscribe(self, event_source: str) -> Application:
        """Have the events of a channel or bridge sent to our application.

        Args:
            event_source: `channel:ID` or `bridge:ID`. Not `deviceState:` (asterisk#2170).

        Raises:
            AriBadRequest: The source is not of this form.
            AriNotFound: Our application is not registered.
            AriConflict: The source does not exist.
        """
        return await self._call(SUBSCRIBE, self._app, eventSource=event_source)

    async def hear_only(self, types: Iterable[str]) -> Application:
        """Have events of these types alone sent to our application, while its event socket is open.

        Raises:
            AriNotFound: The application is not registered.
        """
        only = {"allowed": [{"type": each} for each in types]}
        return await self._call(FILTER_EVENTS, self._app, filter=only)


GET_INFO = Operation[AsteriskInfo]("GET", "/asterisk/info", AsteriskInfo)
LIST_MODULES = Operation[tuple[Module, ...]]("GET", "/asterisk/modules", tuple[Module, ...])


class AsteriskResource(ResourceClient):
    """`client.asterisk`."""

    async def get_info(self) -> AsteriskInfo:
        """Get version, build, limits and start time."""
        return await self._call(GET_INFO)

    async def list_modules(self) -> tuple[Module, ...]:
        """List all modules, loaded or not."""
        return await self._call(LIST_MODULES)


GET_ENDPOINT = Operation[Endpoint]("GET", "/endpoints/{tech}/{resource}", Endpoint)


class EndpointsResource(ResourceClient):
    """`client.endpoints`."""

    async def get(self, tech: str, resource: str) -> Endpoint:
        """Get one endpoint: `get("PJSIP", "trunk")`.

        Raises:
            AriNotFound: There is none of this name, or no such technology.
        """
        return await self._call(GET_ENDPOINT, tech, resource)


GET_DEVICE_STATE = Operation[DeviceState]("GET", "/deviceStates/{deviceName}", DeviceState)


class DeviceStatesResource(ResourceClient):
    """`client.device_states`."""

    async def get(self, device: str) -> DeviceState:
        """Get the state of any device: `get("PJSIP/2001")`."""
        return await self._call(GET_DEVICE_STATE, device)


_ID = "/channels/{channelId}"

LIST_CHANNELS = Operation[tuple[Channel, ...]]("GET", "/channels", tuple[Channel, ...])
GET_CHANNEL = Operation[Channel]("GET", _ID, Channel)
CREATE = Operation[Channel](
    "POST",
    "/channels/create",
    Channel,
    ("endpoint", "app", "channelId", "otherChannelId"),
)
ORIGINATE_WITH_ID = Operation[Channel](
    "POST", _ID, Channel, ("endpoint", "app", "callerId", "timeout", "variables")
)
_EXTERNAL_MEDIA = ("channelId", "app", "external_host", "encapsulation", "transport", "format")
_OF_SOME = ("connection_type", "transport_data", "data")
EXTERNAL_MEDIA = Operation[Channel](
    "POST",
    "/channels/externalMedia",
    Channel,
    (*_EXTERNAL_MEDIA, *_OF_SOME),
    found_by=GET_CHANNEL,
    needs_events=True,
)
ANSWER = Operation[None]("POST", f"{_ID}/answer", repeatable=True)
RING = Operation[None]("POST", f"{_ID}/ring", repeatable=True)
HANGUP = Operation[None]("DELETE", _ID, parameters=("reason",))
CONTINUE = Operation[None](
    "POST", f"{_ID}/continue", parameters=("context", "extension", "priority")
)
MOVE = Operation[None]("POST", f"{_ID}/move", parameters=("app", "appArgs"))
GET_VARIABLE = Operation[Variable]("GET", f"{_ID}/variable", Variable, ("variable",))
RTP_STATISTICS = Operation[RTPstat]("GET", f"{_ID}/rtp_statistics", RTPstat)
SET_VARIABLE = Operation[None](
    "POST", f"{_ID}/variable", parameters=("variable", "value"), repeatable=True
)
SEND_DTMF = Operation[None]("POST", f"{_ID}/dtmf", parameters=("dtmf",))
START_MOH = Operation[None]("POST", f"{_ID}/moh", repeatable=True)
STOP_MOH = Operation[None]("DELETE", f"{_ID}/moh")


class ChannelsResource(ResourceClient):
    """`client.channels`.

    Where a channel is named by its id, AriNotFound says that it does not exist, AriConflict that it
    is not in Stasis (409) or, called by us, has not been answered (412). Only `list`, `get` and
    `hangup` work outside Stasis.
    """

    async def list(self) -> tuple[Channel, ...]:
        """List all channels of this Asterisk, in our application or not."""
        return await self._call(LIST_CHANNELS)

    async def get(self, channel_id: str) -> Channel:
        """Get one channel."""
        return await self._call(GET_CHANNEL, channel_id)

    async def create(self, channel_id: str, endpoint: str, *, other_channel_id: str) -> Channel:
        """Make a Local channel that is in our application at once and not yet dialled.

        Args:
            channel_id: Chosen by us.
            endpoint: `Local/exten@context`.
            other_channel_id: The id of its second half.

        Raises:
            AriConflict: The id is taken.
        """
        return await self._call(
            CREATE,
            endpoint=endpoint,
            app=self._app,
            channelId=channel_id,
            otherChannelId=other_channel_id,
        )

    async def originate(
        self,
        channel_id: str,
        endpoint: str,
        *,
        caller_id: str | None,
        ring_seconds: int,
        variables: Mapping[str, str] | None = None,
    ) -> Channel:
        """Place a call, which enters our application when it is answered.

        The answer comes at once; `Dial` events and at last `StasisStart` or `ChannelDestroyed`
        follow.

        Args:
            channel_id: Chosen by us.
            endpoint: `PJSIP/number@trunk`, `Local/exten@context/n`.
            caller_id: `Name <number>`; caller and connected line of the new channel; None: the
                endpoint's own.
            ring_seconds: Give up after so long.
            variables: Variables of the new channel, from its beginning.

        Raises:
            AriConflict: The id is taken. Asterisk (18 to 22) keeps that reason in the thread of the
                connection and may give it for a later call that fails for another.
            AriServerError: The endpoint cannot be called at all ("Allocation failed").
        """
        return await self._call(
            ORIGINATE_WITH_ID,
            channel_id,
            endpoint=endpoint,
            app=self._app,
            callerId=caller_id,
            timeout=ring_seconds,
            variables=variables,
        )

    async def external_media(
        self,
        channel_id: str,
        external_host: str,
        *,
        format: str,
        encapsulation: str = "audiosocket",
        transport: str = "tcp",
        connection_type: str | None = None,
        transport_data: str | None = None,
        data: str | None = None,
    ) -> Channel:
        """Make a channel whose media go to a server of ours; it enters our application by itself.

        For AudioSocket, Asterisk connects within this request, and both the connection's UUID and
        `StasisStart` may arrive before the answer: make them known first. Put the channel into a
        bridge at its `StasisStart`, not at the answer (res/ari/resource_channels.c).

        A chan_websocket channel waits for us to connect, to `/media/` and what `channelvars` has as
        `MEDIA_WEBSOCKET_CONNECTION_ID`, and enters it then. After 31 s it is given up.

        Args:
            channel_id: Chosen by us; at most 149 characters.
            external_host: `host:port`; a name is looked up while Asterisk waits, so use an address.
            format: `slin`, `slin16`, ...
            encapsulation: `audiosocket` (with `tcp`), `rtp` (with `udp`) or `none` (`websocket`).
            transport: See `encapsulation`.
            connection_type: `server` with `websocket`: Asterisk is the server.
            transport_data: Options of chan_websocket, such as `f(json)`. A constant, never made of
                what comes from outside: a mistake in it can end the whole Asterisk.
            data: The UUID for AudioSocket, which needs one. Also becomes `StasisStart.args`.

        Raises:
            AriServerError: Since 22.3 and 20.13 any of: the connection was refused or took over
                2 s, the name was not found, the UUID is none, the format is unknown, the id is
                taken. Asterisk does not say which; its log does.
            AriBadRequest: Encapsulation and transport do not fit each other, or `data` is missing.
        """
        return await self._call(
            EXTERNAL_MEDIA,
            channelId=channel_id,
            app=self._app,
            external_host=external_host,
            encapsulation=encapsulation,
            transport=transport,
            connection_type=connection_type,
            transport_data=transport_data,
            format=format,
            data=data,
        )

    async def answer(self, channel_id: str) -> None:
        """Answer."""
        await self._call(ANSWER, channel_id)

    async def ring(self, channel_id: str) -> None:
        """Indicate ringing to the caller."""
        await self._call(RING, channel_id)

    async def hangup(self, channel_id: str, *, reason: str | None = None) -> None:
        """Hang up.

        Args:
            channel_id: Any channel, in Stasis or not.
            reason: `normal`, `busy`, `congestion`, `no_answer`, `rejected`, ...
        """
        await self._call(HANGUP, channel_id, reason=reason)

    async def continue_in_dialplan(
        self,
        channel_id: str,
        *,
        context: str | None = None,
        extension: str | None = None,
        priority: int | None = None,
    ) -> None:
        """Leave Stasis: go on after `Stasis()`, or at the place given."""
        await self._call(
            CONTINUE, channel_id, context=context, extension=extension, priority=priority
        )

    async def move(self, channel_id: str, app: str, app_args: str) -> None:
        """Move a channel from our application to another one, where it enters with `app_args`,
        which are split at commas whatever they are.

        An application that nobody has takes it as well, and it waits there for ever.
        """
        await self._call(MOVE, channel_id, app=app, appArgs=app_args)

    async def get_channel_var(self, channel_id: str, variable: str) -> str:
        """Return the value of a variable or function.

        Raises:
            AriNotFound: No such channel, or no such variable.
        """
        return (await self._call(GET_VARIABLE, channel_id, variable=variable)).value

    async def rtp_statistics(self, channel_id: str) -> RTPstat:
        """Return what a channel's RTP has counted so far.

        Raises:
            AriForbidden: It is no channel with RTP.
            AriNotFound: No such channel, or it has no RTP yet.
        """
        return await self._call(RTP_STATISTICS, channel_id)

    async def set_channel_var(self, channel_id: str, variable: str, value: str) -> None:
        """Set a variable, or write a function such as `TALK_DETECT(set)`.

        The channel does so in its own time (18: up to 200 ms), but before whatever is asked of it
        next: `continue_in_dialplan` may follow at once, while `get_channel_var` may come too early.
        """
        await self._call(SET_VARIABLE, channel_id, variable=variable, value=value)

    async def send_dtmf(self, channel_id: str, dtmf: str) -> None:
        """Send keys to the party, each for 100 ms, 100 ms apart."""
        await self._call(SEND_DTMF, channel_id, dtmf=dtmf)

    async def start_moh(self, channel_id: str) -> None:
        """Play the channel's music on hold to it."""
        await self._call(START_MOH, channel_id)

    async def stop_moh(self, channel_id: str) -> None:
        """Stop the music."""
        await self._call(STOP_MOH, channel_id)
