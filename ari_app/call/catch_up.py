"""What Asterisk must have reported while nobody listened. Pure.

Events that occur while the event socket is down are lost. What has come about since can be seen:
which channel has entered the application, which rings, which is answered, which is in a bridge. It
is told again as if it had just happened; the calls' machine ignores what it knows already. What is
gone is found by :mod:`ari_app.call.reconcile`. Keys, and a phone's hold, leave no trace.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ari_app.ari import (
    Bridge,
    Channel,
    ChannelEnteredBridge,
    ChannelStateChange,
    Event,
    StasisStart,
)


def missed(
    channels: Collection[Channel], bridges: Collection[Bridge], app: str
) -> Iterator[tuple[str, Event]]:
    """What has come about, in the order in which it can have happened.

    Args:
        channels: All that there are.
        bridges: All that there are.
        app: Our application.

    Yields:
        A channel's id, and an event of that channel.
    """
    by_id = {channel.id: channel for channel in channels}
    for channel in channels:
        if channel.state in ("Ringing", "Up"):
            yield channel.id, ChannelStateChange(type="ChannelStateChange", channel=channel)
        name, *args = channel.dialplan.app_data.split(",")
        if channel.dialplan.app_name == "Stasis" and name == app:
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
