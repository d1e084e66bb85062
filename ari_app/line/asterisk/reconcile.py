"""What does not fit between Asterisk and our lines, and what has happened there unseen. Pure.

`ari_app.line.asterisk.cleanup` asks Asterisk, and does what follows from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

from ari_app.line.asterisk.ari.events import (
    AriEvent,
    ChannelEnteredBridge,
    ChannelStateChange,
    StasisStart,
)
from ari_app.line.asterisk.ari.models import Bridge, Channel
from ari_app.line.asterisk.names import FAR_HALF


@dataclass(frozen=True, slots=True)
class Held:
    """What one line holds in Asterisk, for the sweep.

    Attributes:
        line_id: The line.
        caller, media, bridge, target: Ids, whether or not such a channel or bridge exists.
        caller_expected: If the caller's channel does not exist, the caller has hung up.
        media_expected: If the media channel does not exist, it was lost.
        target_expected: If the channel of a transfer's target does not exist, it has hung up.
    """

    line_id: str
    caller: str
    media: str
    bridge: str
    caller_expected: bool
    media_expected: bool
    target: str = ""
    target_expected: bool = False


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes of the ids of our things; the session's id follows.

    Attributes:
        media, bridge: Media channels and bridges.
        placed: Channels to those whom we call.
        target: Channels to the targets of transfers; after the session's id comes `.` and a number.
    """

    media: str
    bridge: str
    placed: str
    target: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of the things in Asterisk.

    Attributes:
        channels: The ids of all channels.
        bridges: The ids of all bridges, each with the ids of the channels in it.
        in_application: The ids of the channels that are in our application.
        on_the_way: The ids of the channels that we have placed and that have not entered it yet:
            they ring, or are in the dialplan for answering machine detection.
        callers: The ids of our bridges, each with the caller that its name tells.
        lost: The ids of our bridges whose process is known to have ended.
    """

    channels: frozenset[str]
    bridges: Mapping[str, frozenset[str]]
    in_application: frozenset[str]
    on_the_way: frozenset[str] = frozenset()
    callers: Mapping[str, str] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Differences:
    """The differences between Asterisk and our lines.

    Attributes:
        callers_gone: The ids of the lines whose caller is no longer there.
        media_gone: Those whose media channel had been there and is no longer.
        targets_gone: Those whose transfer's target is no longer there.
        stray_media: Media channels of ours without a call.
        stray_bridges: Bridges of ours without a call.
        stray_legs: Channels that we have placed, without a call.
        stray_callers: Channels that wait in our application for nobody.
        elsewhere: Channels of calls that others serve.
        handed_over: Sessions of others whose caller speaks with the target of a transfer.
        sessions: The session of each channel that a bridge which is no line's of ours tells of.
        strangers: Channels in our application that are no call's of ours, stray or not.
    """

    callers_gone: frozenset[str]
    media_gone: frozenset[str]
    targets_gone: frozenset[str]
    stray_media: frozenset[str]
    stray_bridges: frozenset[str]
    stray_legs: frozenset[str]
    stray_callers: frozenset[str]
    elsewhere: frozenset[str]
    handed_over: frozenset[str]
    sessions: Mapping[str, str]
    strangers: frozenset[str]

    @property
    def strays(self) -> bool:
        """Whether anything is left behind."""
        return bool(self.stray_media or self.stray_bridges or self.stray_legs or self.stray_callers)

    def confirmed_by(self, earlier: Differences) -> Differences:
        """Return the same, with the strays that were so at an earlier look too."""
        return replace(
            self,
            stray_media=self.stray_media & earlier.stray_media,
            stray_bridges=self.stray_bridges & earlier.stray_bridges,
            stray_legs=self.stray_legs & earlier.stray_legs,
            stray_callers=self.stray_callers & earlier.stray_callers,
        )


def compare(snapshot: Snapshot, calls: Collection[Held], prefixes: Prefixes) -> Differences:
    """Say what does not fit.

    A bridge of ours that holds a live media channel is no stray, though we do not know it: another
    process serves that call, unless that process is known to have ended. (Had it died, Asterisk
    would have ended the media channel with its connection; before 20.14 and 22.4 only once it had
    something to send.) Nor is its caller, who may hear music outside, or wait to be put into it.
    Nor is a bridge that holds a caller and the target of a transfer: they speak.

    Args:
        snapshot: What Asterisk holds.
        calls: All calls that have not ended.
        prefixes: What the ids of our things begin with.
    """
    ours = {name for call in calls for name in (call.caller, call.media, call.target)}

    def beginning_with(prefix: str) -> set[str]:
        return {
            channel
            for channel in snapshot.channels
            if channel.startswith(prefix) and not channel.endswith(FAR_HALF)
        }

    media = beginning_with(prefixes.media)
    targets = beginning_with(prefixes.target)
    legs = targets | beginning_with(prefixes.placed)
    held = {call.bridge for call in calls}
    strange = {
        bridge: members
        for bridge, members in snapshot.bridges.items()
        if bridge.startswith(prefixes.bridge) and bridge not in held
    }
    session_of = {bridge: bridge.removeprefix(prefixes.bridge) for bridge in strange}
    handed_over = {
        bridge
        for bridge, members in strange.items()
        if members & targets and members - targets and not members & media
    }
    served = handed_over | {
        bridge
        for bridge, members in strange.items()
        if members & media and bridge not in snapshot.lost
    }
    served_sessions = {session_of[bridge] for bridge in served}
    elsewhere = {channel for bridge in served for channel in strange[bridge]}
    elsewhere |= {snapshot.callers[bridge] for bridge in served if bridge in snapshot.callers}
    elsewhere |= {
        target
        for target in targets
        if target.removeprefix(prefixes.target).rpartition(".")[0] in served_sessions
    }
    in_application = snapshot.in_application & snapshot.channels
    known = ours | elsewhere
    sessions = {
        channel: session_of[bridge] for bridge, members in strange.items() for channel in members
    }
    sessions |= {
        caller: session_of[bridge]
        for bridge, caller in snapshot.callers.items()
        if bridge in strange
    }
    return Differences(
        callers_gone=frozenset(
            call.line_id
            for call in calls
            if call.caller_expected and call.caller not in snapshot.channels
        ),
        media_gone=frozenset(
            call.line_id
            for call in calls
            if call.media_expected and call.media not in snapshot.channels
        ),
        targets_gone=frozenset(
            call.line_id
            for call in calls
            if call.target_expected and call.target not in snapshot.channels
        ),
        stray_media=frozenset(media - known),
        stray_bridges=frozenset(strange.keys() - served),
        stray_legs=frozenset((in_application | snapshot.on_the_way) & legs - known),
        stray_callers=frozenset(in_application - media - legs - known),
        elsewhere=frozenset(elsewhere),
        handed_over=frozenset(session_of[bridge] for bridge in handed_over),
        sessions=sessions,
        strangers=in_application - ours,
    )


def is_in(channel: Channel, app: str, listed: Set[str]) -> bool:
    """Return whether a channel is in `Stasis()` of an application, and is there by itself.

    Args:
        channel: The channel.
        app: The application.
        listed: The channels that it names, also those that it has only subscribed to: whom the
            other half of a Local channel has called, for one. One that was moved there is still
            said to be where the dialplan has sent it.
    """
    place = channel.dialplan
    named = place.app_data.partition(",")[0] == app
    return place.app_name == "Stasis" and (named or channel.id in listed)


def missed(
    channels: Collection[Channel],
    bridges: Collection[Bridge],
    app: str,
    listed: Set[str] = frozenset(),
) -> Iterator[tuple[str, AriEvent]]:
    """Return what has happened while nobody listened, in the order in which it can have happened.

    Events that occur while the event socket is down are lost, but their effect can be seen: which
    channel has entered the application, which rings, which is answered, which is in a bridge. It is
    told again as if it had just happened; the calls' machine ignores what it knows already. What is
    gone is found by `compare`. Keys, and a phone's hold, leave no trace.

    Args:
        channels: All that there are.
        bridges: All that there are.
        app: Our application.
        listed: The channels that it names.

    Yields:
        A channel's id, and an event of that channel.
    """
    by_id = {channel.id: channel for channel in channels}
    for channel in channels:
        if channel.state in ("Ringing", "Up"):
            yield channel.id, ChannelStateChange(type="ChannelStateChange", channel=channel)
        if is_in(channel, app, listed):
            _, *args = channel.dialplan.app_data.split(",")
            yield (
                channel.id,
                StasisStart(type="StasisStart", application=app, channel=channel, args=tuple(args)),
            )
    for bridge in bridges:
        for channel_id in bridge.channels:
            if (inside := by_id.get(channel_id)) is not None:
                yield (
                    channel_id,
                    ChannelEnteredBridge(
                        type="ChannelEnteredBridge", bridge=bridge, channel=inside
                    ),
                )
