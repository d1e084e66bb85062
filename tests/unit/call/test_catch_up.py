from __future__ import annotations

from ari_app.ari import Bridge, Channel, ChannelEnteredBridge, ChannelStateChange, StasisStart
from ari_app.ari.models import DialplanCEP
from ari_app.call.catch_up import missed

APP = "voice-agent"


def channel(name: str, state: str = "Up", *, stasis: str | None = None) -> Channel:
    place = DialplanCEP() if stasis is None else DialplanCEP(app_name="Stasis", app_data=stasis)
    return Channel(id=name, name=f"PJSIP/{name}", state=state, dialplan=place)


def told(*channels: Channel, bridges: tuple[Bridge, ...] = ()) -> list[tuple[str, str]]:
    return [(name, event.type) for name, event in missed(channels, bridges, APP)]


def test_nothing_is_told_of_nothing() -> None:
    assert told() == []
    assert told(channel("a", "Down"), channel("b", "Ring")) == []


def test_what_rings_is_answered_or_entered_is_told() -> None:
    assert told(channel("a", "Ringing")) == [("a", "ChannelStateChange")]
    assert told(channel("a")) == [("a", "ChannelStateChange")]
    assert told(channel("a", stasis=APP)) == [("a", "ChannelStateChange"), ("a", "StasisStart")]
    assert told(channel("a", "Ring", stasis=f"{APP},wait=3")) == [("a", "StasisStart")]


def test_another_application_is_none_of_ours() -> None:
    assert told(channel("a", "Ring", stasis="voice-agent-2")) == []
    assert told(channel("a", "Ring", stasis="other,voice-agent")) == []


def test_arguments_come_back() -> None:
    (_, event), *_ = missed([channel("a", "Ring", stasis=f"{APP},amd_status=HUMAN,x=1")], (), APP)
    assert isinstance(event, StasisStart)
    assert event.args == ("amd_status=HUMAN", "x=1")


def test_who_is_in_a_bridge_entered_it_after_all_else() -> None:
    bridge = Bridge(id="b", channels=("a", "gone"))
    events = [event for _, event in missed([channel("a", stasis=APP)], [bridge], APP)]
    assert [type(event) for event in events] == [
        ChannelStateChange,
        StasisStart,
        ChannelEnteredBridge,
    ]
