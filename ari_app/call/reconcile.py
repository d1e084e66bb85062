"""Compares what Asterisk holds with the calls that we know.

Needed after every (re)connection of the event socket, for events in between are lost, and now and
then in between, for a request that failed leaves something behind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Held:
    """What one call that has not ended holds in Asterisk.

    Attributes:
        session_id: The call.
        caller, media, bridge, target: Names, whether or not the thing is there.
        caller_expected: The caller must be there, or has hung up.
        media_expected: The media channel must be there, or is lost.
        target_expected: The target of a transfer must be there, or has hung up.
    """

    session_id: str
    caller: str
    media: str
    bridge: str
    caller_expected: bool
    media_expected: bool
    target: str = ""
    target_expected: bool = False


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What the ids of our things begin with; the session's id follows.

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
    """What Asterisk holds.

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
    """What does not fit.

    Attributes:
        callers_gone: Sessions whose caller is no longer there.
        media_gone: Sessions whose media channel had been there and is no longer.
        targets_gone: Sessions whose transfer's target is no longer there.
        stray_media: Media channels of ours without a call.
        stray_bridges: Bridges of ours without a call.
        stray_legs: Channels that we have placed, without a call.
        stray_callers: Channels that wait in our application for nobody.
        elsewhere: Channels of calls that others serve.
        handed_over: Sessions of others whose caller speaks with the target of a transfer.
        sessions: The session of each stray caller of whom a bridge tells it.
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

    @property
    def strays(self) -> bool:
        """Whether anything is left behind."""
        return bool(self.stray_media or self.stray_bridges or self.stray_legs or self.stray_callers)

    def confirmed_by(self, earlier: Differences) -> Differences:
        """The same, with the strays that were so at an earlier look too."""
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
        return {channel for channel in snapshot.channels if channel.startswith(prefix)}

    media = beginning_with(prefixes.media)
    targets = beginning_with(prefixes.target)
    legs = targets | beginning_with(prefixes.placed)
    strange = {
        bridge: members
        for bridge, members in snapshot.bridges.items()
        if bridge.startswith(prefixes.bridge) and bridge not in {call.bridge for call in calls}
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
            call.session_id
            for call in calls
            if call.caller_expected and call.caller not in snapshot.channels
        ),
        media_gone=frozenset(
            call.session_id
            for call in calls
            if call.media_expected and call.media not in snapshot.channels
        ),
        targets_gone=frozenset(
            call.session_id
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
    )
