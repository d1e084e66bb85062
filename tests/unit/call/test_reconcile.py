from __future__ import annotations

from collections.abc import Mapping, Set
from types import MappingProxyType

from ari_app.call.reconcile import Differences, Held, Prefixes, Snapshot, compare

NOTHING: frozenset[str] = frozenset()


def held(name: str, *, caller: bool = True, media: bool = True) -> Held:
    return Held(name, f"sip-{name}", f"app-media-{name}", f"app-bridge-{name}", caller, media)


def look(
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
    differences = look(
        [held("a")],
        channels={"sip-a", "app-media-a", "sip-other"},
        bridges={"app-bridge-a": {"sip-a", "app-media-a"}, "somebody-elses": set()},
        inside={"sip-a", "app-media-a"},
    )
    assert not differences.strays
    gone = (differences.callers_gone, differences.media_gone, differences.targets_gone)
    assert gone == (NOTHING, NOTHING, NOTHING)


def test_calls_that_ended_while_nobody_listened() -> None:
    differences = look([held("a"), held("b")], channels={"sip-b"})
    assert differences.callers_gone == {"a"}
    assert differences.media_gone == {"a", "b"}


def test_a_media_channel_on_its_way_is_not_missed() -> None:
    differences = look([held("a", media=False)], channels={"sip-a"})
    assert differences.media_gone == NOTHING
    assert look([held("a", caller=False, media=False)]).callers_gone == NOTHING


def test_what_a_killed_process_left_behind() -> None:
    differences = look(
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
    differences = look(
        [],
        channels={"sip-x", "app-media-x"},
        bridges={"app-bridge-x": {"sip-x", "app-media-x"}},
        inside={"sip-x", "app-media-x"},
    )
    assert not differences.strays


def test_the_target_of_a_transfer_is_ours() -> None:
    call = Held("a", "sip-a", "app-media-a", "app-bridge-a", True, False, "app-target-a.1")
    differences = look(
        [call],
        channels={"sip-a", "app-target-a.1"},
        bridges={"app-bridge-a": {"sip-a", "app-target-a.1"}},
        inside={"sip-a", "app-target-a.1"},
    )
    assert not differences.strays


def test_two_who_were_joined_before_a_restart_go_on_speaking() -> None:
    together = look(
        [],
        channels={"sip-a", "app-target-a.1"},
        bridges={"app-bridge-a": {"sip-a", "app-target-a.1"}},
        inside={"sip-a", "app-target-a.1"},
    )
    assert not together.strays
    alone = look([], channels={"sip-a"}, bridges={"app-bridge-a": {"sip-a"}}, inside={"sip-a"})
    assert alone.stray_callers == {"sip-a"}
    assert alone.stray_bridges == {"app-bridge-a"}


def test_a_target_that_has_hung_up_unseen() -> None:
    call = Held("a", "sip-a", "app-media-a", "app-bridge-a", True, False, "app-target-a.1", True)
    assert look([call], channels={"sip-a"}).targets_gone == {"a"}
    assert not look([call], channels={"sip-a", "app-target-a.1"}).targets_gone
