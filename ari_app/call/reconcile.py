"""Compares what Asterisk holds with the calls that we know.

Needed after every (re)connection of the event socket, for events in between are lost, and now and
then in between, for a request that failed leaves something behind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass


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
class Snapshot:
    """What Asterisk holds.

    Attributes:
        channels: The ids of all channels.
        bridges: The ids of all bridges, each with the ids of the channels in it.
        in_application: The ids of the channels that are in our application.
    """

    channels: frozenset[str]
    bridges: Mapping[str, frozenset[str]]
    in_application: frozenset[str]


@dataclass(frozen=True, slots=True)
class Differences:
    """What does not fit.

    Attributes:
        callers_gone: Sessions whose caller is no longer there.
        media_gone: Sessions whose media channel had been there and is no longer.
        targets_gone: Sessions whose transfer's target is no longer there.
        stray_media: Media channels of ours without a call.
        stray_bridges: Bridges of ours without a call.
        stray_callers: Channels that wait in our application for nobody.
    """

    callers_gone: frozenset[str]
    media_gone: frozenset[str]
    targets_gone: frozenset[str]
    stray_media: frozenset[str]
    stray_bridges: frozenset[str]
    stray_callers: frozenset[str]

    @property
    def strays(self) -> bool:
        """Whether anything is left behind."""
        return bool(self.stray_media or self.stray_bridges or self.stray_callers)


def compare(
    snapshot: Snapshot,
    calls: Collection[Held],
    *,
    media_prefix: str,
    bridge_prefix: str,
    target_prefix: str,
) -> Differences:
    """Say what does not fit.

    A bridge of ours that holds a caller and a live media channel is no stray, though we do not know
    it: another process serves that call. (Had it died, Asterisk would have ended the media channel
    with its connection.) Nor is one that holds a caller and the target of a transfer: they speak.

    Args:
        snapshot: What Asterisk holds.
        calls: All calls that have not ended.
        media_prefix: What the ids of our media channels begin with.
        bridge_prefix: What the ids of our bridges begin with.
        target_prefix: What the ids of our channels to transfer targets begin with.
    """
    ours = {name for call in calls for name in (call.caller, call.media, call.target)}
    media = {channel for channel in snapshot.channels if channel.startswith(media_prefix)}
    strange = {
        bridge: members
        for bridge, members in snapshot.bridges.items()
        if bridge.startswith(bridge_prefix) and bridge not in {call.bridge for call in calls}
    }
    targets = {channel for channel in snapshot.channels if channel.startswith(target_prefix)}
    served = {
        bridge
        for bridge, members in strange.items()
        if members - media - targets and members & (media | targets)
    }
    elsewhere = {channel for bridge in served for channel in strange[bridge]}
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
        stray_media=frozenset(media - ours - elsewhere),
        stray_bridges=frozenset(strange.keys() - served),
        stray_callers=frozenset(
            (snapshot.in_application & snapshot.channels) - media - ours - elsewhere
        ),
    )
