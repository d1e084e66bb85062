from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from ari_app.line.asterisk.ari.errors import AriMalformed
from ari_app.line.asterisk.ari.events import (
    EVENTS,
    ApplicationReplaced,
    ChannelDestroyed,
    ChannelEnteredBridge,
    Dial,
    StasisStart,
    UnknownEvent,
    parse_event,
)
from tests.unit.line.asterisk.ari.samples import bridge, channel, event

# The fields of each event as Asterisk sends them, beside those that all have.
FIELDS: dict[str, dict[str, Any]] = {
    "ApplicationReplaced": {},
    "ChannelDestroyed": {
        "channel": channel(),
        "cause": 17,
        "tech_cause": 486,
    },
    "ChannelDtmfReceived": {"channel": channel(), "digit": "5", "duration_ms": 120},
    "ChannelEnteredBridge": {"bridge": bridge(), "channel": channel()},
    "ChannelHangupRequest": {"channel": channel(), "cause": 16, "soft": True},
    "ChannelHold": {"channel": channel()},
    "ChannelStateChange": {"channel": channel(state="Up")},
    "ChannelUnhold": {"channel": channel()},
    "Dial": {"peer": channel("2"), "dialstring": "phone", "dialstatus": "RINGING"},
    "StasisEnd": {"channel": channel()},
    "StasisStart": {"channel": channel(), "args": ["agent_id=agent_7", "wait=30"]},
}


def test_there_is_a_sample_of_every_event() -> None:
    assert set(FIELDS) == set(EVENTS)


@pytest.mark.parametrize("kind", sorted(FIELDS))
def test_every_event_becomes_its_class(kind: str) -> None:
    sent = event(kind, **FIELDS[kind])
    parsed = parse_event(orjson.dumps(sent))
    assert type(parsed) is EVENTS[kind]
    assert parsed.type == kind
    assert parsed.application == "voice-agent"
    assert parsed.timestamp == datetime(2026, 8, 6, 12, 34, 56, 900_000, tzinfo=UTC)
    # Every field that was sent under a name of ours arrived.
    assert set(FIELDS[kind]) <= parsed.model_fields_set


def test_text_is_as_good_as_bytes() -> None:
    sent = orjson.dumps(event("StasisStart", **FIELDS["StasisStart"]))
    assert parse_event(sent.decode()) == parse_event(sent)


def test_contents() -> None:
    match parse_event(orjson.dumps(event("StasisStart", **FIELDS["StasisStart"]))):
        case StasisStart(channel=entered, args=args):
            assert args == ("agent_id=agent_7", "wait=30")
            assert entered.id == "1754480000.1"
            assert entered.caller.number == "12025550123"
            assert entered.dialplan.exten == "100"
        case other:
            pytest.fail(f"not a StasisStart: {other}")
    match parse_event(orjson.dumps(event("ChannelDestroyed", **FIELDS["ChannelDestroyed"]))):
        case ChannelDestroyed(cause=17, tech_cause=486):
            pass
        case other:
            pytest.fail(f"not the ChannelDestroyed that was sent: {other}")


def test_what_an_old_asterisk_leaves_out_has_a_default() -> None:
    sent = channel()
    del sent["dialplan"]
    parsed = parse_event(orjson.dumps(event("ChannelEnteredBridge", bridge={"id": "b"})))
    assert isinstance(parsed, ChannelEnteredBridge)
    assert parsed.channel is None
    gone = parse_event(orjson.dumps(event("ChannelDestroyed", channel=sent, cause=0)))
    assert isinstance(gone, ChannelDestroyed)
    assert gone.tech_cause is None
    dial = parse_event(orjson.dumps(event("Dial", peer=sent, dialstatus="")))
    assert isinstance(dial, Dial)
    assert dial.caller is None


def test_a_type_that_is_not_known_is_kept_by_its_name() -> None:
    parsed = parse_event(orjson.dumps(event("ChannelToneDetected", channel={"odd": 1})))
    assert type(parsed) is UnknownEvent
    assert parsed.type == "ChannelToneDetected"


def test_a_base_class_is_no_type() -> None:
    assert isinstance(parse_event(b'{"type":"Event"}'), UnknownEvent)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not JSON"),
        (b'{"type":', "not JSON"),
        (b'{"type":"StasisEnd","x":"\xff"}', "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"{}", "no type"),
        (b'{"type":7}', "no type"),
        (b'{"type":"StasisEnd"}', "event StasisEnd: channel: Field required"),
        (b'{"type":"ApplicationReplaced","timestamp":"soon"}', "timestamp"),
    ],
)
def test_malformed(text: bytes, says: str) -> None:
    with pytest.raises(AriMalformed, match=says) as caught:
        parse_event(text)
    assert caught.value.code == "ari_malformed"
    assert not caught.value.retryable


def test_no_personal_data_shows() -> None:
    sent = event("StasisStart", channel=channel(id=["12025550123"]), args=["secret=1"])
    with pytest.raises(AriMalformed) as caught:
        parse_event(orjson.dumps(sent))
    assert "channel.id" in str(caught.value)
    assert "12025550123" not in str(caught.value)

    sent = event("StasisStart", channel=channel(), args=["secret=1"])
    shown = repr(parse_event(orjson.dumps(sent)))
    assert "1754480000.1" in shown
    assert "12025550123" not in shown
    assert "Jane" not in shown
    assert "secret=1" not in shown


def test_events_cannot_be_changed() -> None:
    parsed = parse_event(orjson.dumps(event("ApplicationReplaced")))
    assert isinstance(parsed, ApplicationReplaced)
    with pytest.raises(ValueError, match="frozen"):
        setattr(parsed, "application", "other")  # noqa: B010


def test_an_endless_type_is_not_repeated() -> None:
    with pytest.raises(AriMalformed, match=r"^event x{64}: application") as caught:
        parse_event(b'{"type": "' + b"x" * 20_000 + b'", "application": 1}')
    assert len(str(caught.value)) < 1000
