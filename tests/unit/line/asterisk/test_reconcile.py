from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType

from ari_app.line.asterisk.ari.events import ChannelEnteredBridge, ChannelStateChange, StasisStart
from ari_app.line.asterisk.ari.models import Bridge, Channel, DialplanCEP
from ari_app.line.asterisk.reconcile import Differences, Held, Prefixes, Snapshot, compare, missed

APP = "app"
NOTHING: frozenset[str] = frozenset()


def channel(
    channel_id: str, *, state: str = "Up", runs: str = "Stasis", data: str = APP, context: str = ""
) -> Channel:
    place = DialplanCEP(context=context, app_name=runs, app_data=data)
    return Channel(id=channel_id, name=channel_id, state=state, dialplan=place)


# --- what does not fit


def held(name: str, *, caller: bool = True, media: bool = True) -> Held:
    return Held(name, f"sip-{name}", f"app-media-{name}", f"app-bridge-{name}", caller, media)


def compared(
    calls: list[Held],
    *,
    channels: Set[str] = frozenset(),
    bridges: Mapping[str, Set[str]] = MappingProxyType({}),
    inside: Set[str] = frozenset(),
) -> Differences:
    return compare(
        Snapshot(
            frozenset(channels),
            {bridge: frozenset(members) for bridge, members in bridges.items()},
            frozenset(inside),
        ),
        calls,
        Prefixes("app-media-", "app-bridge-", "app-out-", "app-target-"),
    )


def test_all_is_well() -> None:
    differences = compared(
        [held("a")],
        channels={"sip-a", "app-media-a", "sip-other"},
        bridges={"app-bridge-a": {"sip-a", "app-media-a"}, "somebody-elses": set()},
        inside={"sip-a", "app-media-a"},
    )
    assert not differences.strays
    gone = (differences.callers_gone, differences.media_gone, differences.targets_gone)
    assert gone == (NOTHING, NOTHING, NOTHING)


def test_calls_that_ended_while_nobody_listened() -> None:
    differences = compared([held("a"), held("b")], channels={"sip-b"})
    assert differences.callers_gone == {"a"}
    assert differences.media_gone == {"a", "b"}


def test_a_media_channel_on_its_way_is_not_missed() -> None:
    differences = compared([held("a", media=False)], channels={"sip-a"})
    assert differences.media_gone == NOTHING
    assert compared([held("a", caller=False, media=False)]).callers_gone == NOTHING


def test_what_a_killed_process_left_behind() -> None:
    differences = compared(
        [held("a")],
        channels={"sip-a", "app-media-a", "sip-x", "app-media-y", "sip-elsewhere"},
        bridges={"app-bridge-a": set(), "app-bridge-x": {"sip-x"}},
        inside={"sip-a", "app-media-a", "sip-x", "app-media-y", "gone-already"},
    )
    assert differences.strays
    assert differences.stray_media == {"app-media-y"}
    assert differences.stray_bridges == {"app-bridge-x"}
    assert differences.stray_callers == {"sip-x"}


def test_what_another_process_serves_is_none_of_our_business() -> None:
    differences = compared(
        [],
        channels={"sip-x", "app-media-x"},
        bridges={"app-bridge-x": {"sip-x", "app-media-x"}},
        inside={"sip-x", "app-media-x"},
    )
    assert not differences.strays


def test_the_target_of_a_transfer_is_ours() -> None:
    call = Held("a", "sip-a", "app-media-a", "app-bridge-a", True, False, "app-target-a.1")
    differences = compared(
        [call],
        channels={"sip-a", "app-target-a.1"},
        bridges={"app-bridge-a": {"sip-a", "app-target-a.1"}},
        inside={"sip-a", "app-target-a.1"},
    )
    assert not differences.strays


def test_two_who_were_joined_before_a_restart_go_on_speaking() -> None:
    together = compared(
        [],
        channels={"sip-a", "app-target-a.1"},
        bridges={"app-bridge-a": {"sip-a", "app-target-a.1"}},
        inside={"sip-a", "app-target-a.1"},
    )
    assert not together.strays
    alone = compared([], channels={"sip-a"}, bridges={"app-bridge-a": {"sip-a"}}, inside={"sip-a"})
    assert alone.stray_callers == {"sip-a"}
    assert alone.stray_bridges == {"app-bridge-a"}


def test_a_target_that_has_hung_up_unseen() -> None:
    call = Held("a", "sip-a", "app-media-a", "app-bridge-a", True, False, "app-target-a.1", True)
    assert compared([call], channels={"sip-a"}).targets_gone == {"a"}
    assert not compared([call], channels={"sip-a", "app-target-a.1"}).targets_gone


# --- what was missed


def told(*channels: Channel, bridges: tuple[Bridge, ...] = ()) -> list[tuple[str, str]]:
    return [(name, event.type) for name, event in missed(channels, bridges, APP)]


def test_nothing_is_told_of_nothing() -> None:
    assert told() == []
    assert told(channel("a", state="Down", runs=""), channel("b", state="Ring", runs="")) == []


def test_what_rings_is_answered_or_entered_is_told() -> None:
    assert told(channel("a", state="Ringing", runs="")) == [("a", "ChannelStateChange")]
    assert told(channel("a", runs="Queue")) == [("a", "ChannelStateChange")]
    assert told(channel("a")) == [("a", "ChannelStateChange"), ("a", "StasisStart")]
    assert told(channel("a", state="Ring", data=f"{APP},wait=3")) == [("a", "StasisStart")]


def test_another_application_is_none_of_ours() -> None:
    assert told(channel("a", state="Ring", data=f"{APP}-2")) == []
    assert told(channel("a", state="Ring", data=f"other,{APP}")) == []


def test_who_was_moved_is_said_to_be_where_the_dialplan_has_sent_them() -> None:
    there = [
        channel("a", state="Ring", data="voice,x=1"),
        channel("b", state="Ring", data="voice"),
        channel("c", state="Ring", runs="Queue", data="voice"),
    ]
    ((name, event),) = missed(there, (), APP, frozenset({"a", "c"}))
    assert isinstance(event, StasisStart)
    assert (name, event.application, event.args) == ("a", APP, ("x=1",))


def test_arguments_come_back() -> None:
    (_, event), *_ = missed(
        [channel("a", state="Ring", data=f"{APP},amd_status=HUMAN,x=1")], (), APP
    )
    assert isinstance(event, StasisStart)
    assert event.args == ("amd_status=HUMAN", "x=1")


def test_who_is_in_a_bridge_entered_it_after_all_else() -> None:
    bridge = Bridge(id="b", channels=("a", "gone"))
    events = [event for _, event in missed([channel("a")], [bridge], APP)]
    assert [type(event) for event in events] == [
        ChannelStateChange,
        StasisStart,
        ChannelEnteredBridge,
    ]
