from __future__ import annotations

from ari_app.call.reconcile import Differences, Held, Snapshot, compare

NOTHING: frozenset[str] = frozenset()


def held(name: str, *, caller: bool = True, media: bool = True) -> Held:
    return Held(name, f"sip-{name}", f"app-media-{name}", f"app-bridge-{name}", caller, media)


def look(
    calls: list[Held],
    *,
    channels: set[str] = frozenset(),  # type: ignore[assignment]
    bridges: set[str] = frozenset(),  # type: ignore[assignment]
    inside: set[str] = frozenset(),  # type: ignore[assignment]
) -> Differences:
    return compare(
        Snapshot(frozenset(channels), frozenset(bridges), frozenset(inside)),
        calls,
        media_prefix="app-media-",
        bridge_prefix="app-bridge-",
    )


def test_all_is_well() -> None:
    differences = look(
        [held("a")],
        channels={"sip-a", "app-media-a", "sip-other"},
        bridges={"app-bridge-a", "somebody-elses"},
        inside={"sip-a", "app-media-a"},
    )
    assert differences == Differences(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


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
        channels={"sip-a", "app-media-a", "sip-x", "app-media-x", "sip-elsewhere"},
        bridges={"app-bridge-a", "app-bridge-x"},
        inside={"sip-a", "app-media-a", "sip-x", "app-media-x", "gone-already"},
    )
    assert differences.stray_media == {"app-media-x"}
    assert differences.stray_bridges == {"app-bridge-x"}
    assert differences.stray_callers == {"sip-x"}
