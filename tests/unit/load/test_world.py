"""What follows from each request, held against what a running Asterisk 22.10.1 sent."""

from __future__ import annotations

import orjson
import pytest

from ari_app.line.asterisk.ari.events import UnknownEvent, parse_event
from lab.load.events import Json, asterisk_info
from lab.load.world import Refused, World

NOW = "2026-11-22T23:44:41.535+0000"
APP = "voice-agent"
UUID = "7eb9ddb5-cff7-4c71-99ed-c1754a502d59"


def a_world(*, bridged: bool = False) -> World:
    world = World(APP)
    world.call_arrives("1.0", NOW, number="alice", exten="100", args=("agent_id=a",))
    world.create_bridge("b", "name", NOW)
    world.open_media("m", "127.0.0.1:9092", UUID, NOW)
    world.media_starts("m", NOW)
    if bridged:
        world.add_to_bridge("b", "m", NOW)
        world.add_to_bridge("b", "1.0", NOW)
    return world


def kinds(events: list[Json]) -> list[str]:
    return [event["type"] for event in events]


def test_a_call_enters_stasis_with_its_arguments() -> None:
    [event] = World(APP).call_arrives("1.0", NOW, number="alice", exten="100", args=("a=1", "b=2"))

    assert event["type"] == "StasisStart"
    assert event["args"] == ["a=1", "b=2"]
    assert event["application"] == APP
    assert event["channel"]["state"] == "Ring"
    assert event["channel"]["caller"] == {"name": "", "number": "alice"}
    assert event["channel"]["dialplan"] == {
        "context": "from-phones",
        "exten": "100",
        "priority": 1,
        "app_name": "Stasis",
        "app_data": "voice-agent,a=1,b=2",
    }


def test_media_dials_answers_itself_and_enters_stasis() -> None:
    world = World(APP)
    channel = world.open_media("m", "127.0.0.1:9092", UUID, NOW)

    assert channel.to_json()["dialplan"]["app_name"] == "AppDial2"
    assert channel.to_json()["name"] == f"AudioSocket/127.0.0.1:9092-{UUID}"
    events = world.media_starts("m", NOW)
    assert kinds(events) == ["Dial", "ChannelStateChange", "Dial", "ChannelVarset", "StasisStart"]
    assert events[0]["dialstring"] == f"127.0.0.1:9092/{UUID}"
    assert events[-1]["args"] == [UUID]
    assert events[-1]["channel"]["dialplan"]["app_data"] == f"{APP},{UUID}"


def test_media_that_was_hung_up_meanwhile_does_not_start() -> None:
    assert World(APP).media_starts("m", NOW) == []


def test_answering_twice_says_so_once() -> None:
    world = a_world()

    assert kinds(world.answer("1.0", NOW)) == ["ChannelStateChange"]
    assert world.answer("1.0", NOW) == []


def test_two_channels_in_a_bridge_are_peers() -> None:
    world = a_world()

    assert kinds(world.add_to_bridge("b", "m", NOW)) == ["ChannelEnteredBridge"]
    events = world.add_to_bridge("b", "1.0", NOW)
    assert kinds(events) == ["ChannelEnteredBridge", "ChannelVarset", "ChannelVarset"]
    assert events[0]["bridge"]["channels"] == ["1.0", "m"]
    assert [peer.id for peer in world.peers("1.0")] == ["m"]
    assert world.add_to_bridge("b", "1.0", NOW) == []


def test_a_channel_outside_bridges_has_no_peers() -> None:
    assert list(a_world().peers("1.0")) == []


def test_a_caller_who_hangs_up_leaves_media_and_bridge_behind() -> None:
    world = a_world(bridged=True)

    assert kinds(world.caller_hangs_up("1.0", NOW)) == [
        "ChannelHangupRequest",
        "ChannelVarset",
        "ChannelLeftBridge",
        "StasisEnd",
    ]
    assert set(world.channels) == {"m"}
    assert world.bridges["b"].channels == ["m"]
    assert world.caller_hangs_up("1.0", NOW) == []


def test_media_that_is_hung_up_is_destroyed() -> None:
    world = a_world(bridged=True)

    assert kinds(world.hang_up("m", NOW)) == [
        "ChannelHangupRequest",
        "ChannelVarset",
        "ChannelLeftBridge",
        "StasisEnd",
        "ChannelVarset",
        "ChannelDestroyed",
    ]
    assert world.channel_ends("m", NOW) == []


def test_going_on_in_the_dialplan_ends_stasis_without_a_hangup() -> None:
    world = a_world(bridged=True)

    assert kinds(world.go_on("1.0", NOW)) == ["ChannelVarset", "ChannelLeftBridge", "StasisEnd"]
    assert "1.0" not in world.channels


def test_a_bridge_is_made_once_and_lets_its_channels_go() -> None:
    world = a_world(bridged=True)

    assert world.create_bridge("b", "other", NOW).name == "name"
    assert kinds(world.destroy_bridge("b", NOW))[-1] == "BridgeDestroyed"
    assert world.channels["1.0"].bridge_id is None


def test_a_variable_is_kept() -> None:
    world = a_world()

    [event] = world.set_variable("1.0", "AGENT_STATUS", "COMPLETED", NOW)
    assert (event["variable"], event["value"]) == ("AGENT_STATUS", "COMPLETED")
    assert world.variable("1.0", "AGENT_STATUS") == "COMPLETED"


def test_what_is_there_is_listed() -> None:
    application = a_world().application()

    assert application["channel_ids"] == ["1.0", "m"]
    assert application["bridge_ids"] == ["b"]
    assert asterisk_info(NOW)["system"]["version"] == "22.10.1"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (lambda world: world.ring("x"), 404),
        (lambda world: world.answer("x", NOW), 404),
        (lambda world: world.hang_up("x", NOW), 404),
        (lambda world: world.go_on("x", NOW), 404),
        (lambda world: world.variable("1.0", "x"), 404),
        (lambda world: world.destroy_bridge("x", NOW), 404),
        (lambda world: world.add_to_bridge("x", "1.0", NOW), 404),
        (lambda world: world.add_to_bridge("b", "x", NOW), 400),
        (lambda world: world.add_to_bridge("b", "early", NOW), 422),
        (lambda world: world.answer("early", NOW), 409),
        (lambda world: world.open_media("m", "127.0.0.1:1", UUID, NOW), 500),
    ],
)
def test_what_asterisk_refuses_is_refused_with_its_status(request_, status: int) -> None:  # type: ignore[no-untyped-def]
    world = a_world()
    world.open_media("early", "127.0.0.1:9092", UUID, NOW)

    with pytest.raises(Refused) as refusal:
        request_(world)
    assert refusal.value.status == status


def test_our_own_client_understands_every_event_that_it_acts_on() -> None:
    world = a_world(bridged=True)
    events = world.call_arrives("2.0", NOW, number="bob", exten="100")
    events += world.answer("2.0", NOW) + world.hang_up("m", NOW)
    events += world.caller_hangs_up("1.0", NOW) + world.destroy_bridge("b", NOW)

    parsed = [parse_event(orjson.dumps(event)) for event in events]
    left_out = {event.type for event in parsed if isinstance(event, UnknownEvent)}
    assert left_out == {"BridgeDestroyed", "ChannelLeftBridge", "ChannelVarset"}
