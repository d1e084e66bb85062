"""What an Asterisk knows, and what follows from each request. Pure: `now` is a timestamp's text.

Every operation returns the events that it causes, in the order in which Asterisk 22.10.1 sends
them, and raises `Refused` with the status that Asterisk would answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from lab.load.events import Bridge, Channel, Json, event

_AST_CAUSE_NORMAL = 16
_SOFT_HANGUP_BY_REQUEST = 32
_CAUSES = {16: "Normal Clearing", 19: "User alerting, no answer", 38: "Network out of order"}


class Refused(Exception):
    """Asterisk would answer with this HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class World:
    """Channels and bridges of one Stasis application."""

    def __init__(self, app: str) -> None:
        self.app = app
        self.channels: dict[str, Channel] = {}
        self.bridges: dict[str, Bridge] = {}

    def call_arrives(
        self, channel_id: str, now: str, *, number: str, exten: str, args: tuple[str, ...] = ()
    ) -> list[Json]:
        """A caller reaches `Stasis()`; not answered yet."""
        channel = Channel(
            channel_id,
            f"PJSIP/load-{channel_id}",
            "Ring",
            now,
            self.app,
            caller_number=number,
            exten=exten,
            args=args,
            in_stasis=True,
        )
        self.channels[channel_id] = channel
        return [self._event("StasisStart", now, args=list(args), channel=channel)]

    def caller_hangs_up(self, channel_id: str, now: str) -> list[Json]:
        """A caller is gone; its media channel and bridge stay, as in Asterisk."""
        channel = self.channels.get(channel_id)
        if channel is None:
            return []
        events = [self._event("ChannelHangupRequest", now, channel=channel)]
        events += self._leave_bridge(channel, now)
        events.append(self._event("StasisEnd", now, channel=channel))
        del self.channels[channel_id]
        return events

    def ring(self, channel_id: str) -> list[Json]:
        """Indicate ringing: no event follows."""
        self.in_stasis(channel_id)
        return []

    def answer(self, channel_id: str, now: str) -> list[Json]:
        """Answer a channel; the second time nothing follows."""
        channel = self.in_stasis(channel_id)
        if channel.state == "Up":
            return []
        channel.state = "Up"
        return [self._event("ChannelStateChange", now, channel=channel)]

    def set_variable(self, channel_id: str, variable: str, value: str, now: str) -> list[Json]:
        """Set a channel variable."""
        channel = self.in_stasis(channel_id)
        channel.variables[variable] = value
        return [self._varset(channel, variable, value, now)]

    def variable(self, channel_id: str, variable: str) -> str:
        """A channel variable's value."""
        channel = self.in_stasis(channel_id)
        if variable not in channel.variables:
            raise Refused(404, "Provided variable was not found")
        return channel.variables[variable]

    def go_on(self, channel_id: str, now: str) -> list[Json]:
        """Let a channel go on in the dialplan; what it does there is not ours to know."""
        channel = self.in_stasis(channel_id)
        events = self._leave_bridge(channel, now)
        events.append(self._event("StasisEnd", now, channel=channel))
        del self.channels[channel_id]
        return events

    def hang_up(self, channel_id: str, now: str) -> list[Json]:
        """Hang a channel up by request."""
        channel = self._channel(channel_id)
        request = self._event(
            "ChannelHangupRequest",
            now,
            cause=_SOFT_HANGUP_BY_REQUEST,
            soft=True,
            channel=channel,
        )
        return [request, *self.channel_ends(channel_id, now)]

    def channel_ends(self, channel_id: str, now: str, cause: int = _AST_CAUSE_NORMAL) -> list[Json]:
        """A channel ends by itself, as a media channel does when its server closes."""
        channel = self.channels.get(channel_id)
        if channel is None:
            return []
        events = self._leave_bridge(channel, now)
        events.append(self._event("StasisEnd", now, channel=channel))
        events.append(self._varset(channel, "STASISSTATUS", "SUCCESS", now))
        channel.in_stasis = False
        events.append(
            self._event(
                "ChannelDestroyed",
                now,
                cause=cause,
                cause_txt=_CAUSES.get(cause, "Unknown"),
                channel=channel,
            )
        )
        del self.channels[channel_id]
        return events

    def create_bridge(self, bridge_id: str, name: str, now: str) -> Bridge:
        """A bridge of this id: a new one, or the one that is there."""
        return self.bridges.setdefault(bridge_id, Bridge(bridge_id, name, now))

    def destroy_bridge(self, bridge_id: str, now: str) -> list[Json]:
        """Remove a bridge; its channels stay in Stasis."""
        bridge = self._bridge(bridge_id)
        events: list[Json] = []
        for channel_id in list(bridge.channels):
            events += self._leave_bridge(self.channels[channel_id], now)
        del self.bridges[bridge_id]
        events.append(self._event("BridgeDestroyed", now, bridge=bridge))
        return events

    def add_to_bridge(self, bridge_id: str, channel_id: str, now: str) -> list[Json]:
        """Put a channel into a bridge."""
        bridge = self._bridge(bridge_id)
        channel = self.channels.get(channel_id)
        if channel is None:
            raise Refused(400, "Channel not found")
        if not channel.in_stasis:
            raise Refused(422, "Channel not in Stasis application")
        if channel.bridge_id == bridge_id:
            return []
        events = self._leave_bridge(channel, now)
        channel.bridge_id = bridge_id
        bridge.channels.insert(0, channel_id)
        events.append(self._event("ChannelEnteredBridge", now, bridge=bridge, channel=channel))
        for peer in (self.channels[other] for other in bridge.channels if other != channel_id):
            events.append(self._varset(peer, "BRIDGEPEER", channel.name, now))
            events.append(self._varset(channel, "BRIDGEPEER", peer.name, now))
        return events

    def remove_from_bridge(self, bridge_id: str, channel_id: str, now: str) -> list[Json]:
        """Take a channel out of a bridge; it stays in Stasis."""
        self._bridge(bridge_id)
        channel = self.in_stasis(channel_id)
        if channel.bridge_id != bridge_id:
            raise Refused(422, "Channel not in this bridge")
        return self._leave_bridge(channel, now)

    def open_media(self, channel_id: str, target: str, uuid: str, now: str) -> Channel:
        """Make an AudioSocket channel, which is not in Stasis before `media_starts`."""
        return self._open_media(channel_id, f"AudioSocket/{target}-{uuid}", (uuid,), now)

    def await_media(self, channel_id: str, now: str) -> Channel:
        """Make a chan_websocket channel, which is not in Stasis before `media_starts`."""
        # The name is an address in memory, and comes again.
        return self._open_media(channel_id, "WebSocket/INCOMING/0x7f8d34002970", (), now)

    def _open_media(self, channel_id: str, name: str, args: tuple[str, ...], now: str) -> Channel:
        if channel_id in self.channels:
            raise Refused(500, "An internal error prevented this request from being handled")
        channel = Channel(channel_id, name, "Down", now, self.app, args=args, is_media=True)
        self.channels[channel_id] = channel
        return channel

    def media_starts(self, channel_id: str, now: str) -> list[Json]:
        """A media channel has connected, answers itself and enters Stasis."""
        channel = self.channels.get(channel_id)
        if channel is None:
            return []
        _, _, dialstring = channel.name.partition("/")
        if channel.args:
            uuid = channel.args[0]
            dialstring = dialstring.replace(f"-{uuid}", f"/{uuid}")
        dial: Json = {"forward": "", "dialstring": dialstring}
        events = [self._event("Dial", now, dialstatus="", **dial, peer=channel)]
        channel.state = "Up"
        events.append(self._event("ChannelStateChange", now, channel=channel))
        events.append(self._event("Dial", now, dialstatus="ANSWER", **dial, peer=channel))
        channel.in_stasis = True
        events.append(self._varset(channel, "STASISSTATUS", "", now))
        events.append(self._event("StasisStart", now, args=list(channel.args), channel=channel))
        return events

    def peers(self, channel_id: str) -> Iterator[Channel]:
        """The other channels in a channel's bridge."""
        bridge = self.bridges.get(self.channels[channel_id].bridge_id or "")
        for other in bridge.channels if bridge else ():
            if other != channel_id:
                yield self.channels[other]

    def application(self) -> Json:
        """What `GET /applications/{app}` answers."""
        return {
            "name": self.app,
            "channel_ids": [channel.id for channel in self.channels.values() if channel.in_stasis],
            "bridge_ids": list(self.bridges),
            "endpoint_ids": [],
            "device_names": [],
            "events_allowed": [],
            "events_disallowed": [],
        }

    def _channel(self, channel_id: str) -> Channel:
        try:
            return self.channels[channel_id]
        except KeyError:
            raise Refused(404, "Channel not found") from None

    def in_stasis(self, channel_id: str) -> Channel:
        """A channel that is in the application; refused where it is not."""
        channel = self._channel(channel_id)
        if not channel.in_stasis:
            raise Refused(409, "Channel not in Stasis application")
        return channel

    def _bridge(self, bridge_id: str) -> Bridge:
        try:
            return self.bridges[bridge_id]
        except KeyError:
            raise Refused(404, "Bridge not found") from None

    def _leave_bridge(self, channel: Channel, now: str) -> list[Json]:
        bridge = self.bridges.get(channel.bridge_id or "")
        if bridge is None:
            return []
        bridge.channels.remove(channel.id)
        channel.bridge_id = None
        return [
            self._varset(channel, "BRIDGEPEER", "", now),
            self._event("ChannelLeftBridge", now, bridge=bridge, channel=channel),
        ]

    def _varset(self, channel: Channel, variable: str, value: str, now: str) -> Json:
        return self._event("ChannelVarset", now, variable=variable, value=value, channel=channel)

    def _event(self, kind: str, now: str, **content: object) -> Json:
        return event(kind, self.app, now, **content)
