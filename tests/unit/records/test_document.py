from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.records.document import call_document
from ari_app.records.events import KeysPressed, Noted, Responded, Said, ToolRan
from ari_app.records.record import CallRecord, Leg, Listener, TakeOver
from ari_app.records.trace import TraceContext


def ended(**details: Any) -> CallRecord:
    """The record of a call that has ended."""
    return CallRecord(
        "s1",
        "1700000000.1",
        100.0,
        way="asterisk",
        placed=True,
        caller_number="+493023125002",
        called_number="+493023125001",
        agent_id="agent_7",
        agent_status="TRANSFER",
        end_reason="agent_transfer",
        transfer_to="2000",
        result="answered",
        hangup_cause=16,
        sip_code=200,
        started_at=datetime(2025, 1, 1, tzinfo=UTC),
        answered_at=datetime(2025, 1, 1, 0, 0, 2, 500, UTC),
        ended_at=datetime(2025, 1, 1, 0, 1, tzinfo=UTC),
        seconds=60.00049,
        trunk="PJSIP/trunk",
        agent_seconds=57.50049,
        **details,
    )


def test_a_call() -> None:
    record = ended(reference="crm-9", metadata={"campaign": "spring"})
    record.trace = TraceContext("1" * 32, "2" * 16)
    record.converses("conv_1")
    record.converses("conv_2")
    record.legs = [
        Leg("callee", "+493023125001", 0.0, 2.00049, 60.0, "answered", 16, 200),
        Leg("target", "2000", 40.0, result="busy"),
    ]
    record.take_overs = [TakeOver("lea", "2001", 10.0, 12.0, 20.5)]
    record.listeners = [Listener("tom", 9.0, 21.0)]
    record.chronicle.sound_began(2.0)
    record.chronicle.hears(1, 2.0, 4.0)
    record.fold(Said("agent", "Hello.", event_id=1), 2.1)
    record.fold(Responded(0.812), 5.0)
    record.fold(ToolRan("t: r", name="t", arguments={"x": [1]}, result="r", seconds=0.5), 6.0)
    record.fold(KeysPressed("[digits]"), 7.0)
    record.fold(Noted("the caller holds"), 8.0)
    record.fold(Said("caller", "Hm.", began=1.0, until=1.5), 9.0)
    document = call_document(record)
    sound, score = document.pop("sound"), document.pop("score")
    assert document == {
        "version": 1,
        "session_id": "s1",
        "trace_id": "1" * 32,
        "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
        "direction": "out",
        "way": "asterisk",
        "trunk": "PJSIP/trunk",
        "line_id": "1700000000.1",
        "reference": "crm-9",
        "campaign_id": None,
        "caller_number": "+493023125002",
        "called_number": "+493023125001",
        "agent_id": "agent_7",
        "conversation_id": "conv_2",
        "conversation_ids": ["conv_1", "conv_2"],
        "status": "TRANSFER",
        "reason": "agent_transfer",
        "transfer_to": "2000",
        "result": "answered",
        "hangup_cause": 16,
        "sip_code": 200,
        "detail": None,
        "metadata": {"campaign": "spring", "first_conversation_id": "conv_1"},
        "started_at": "2025-01-01T00:00:00.000000Z",
        "answered_at": "2025-01-01T00:00:02.000500Z",
        "ended_at": "2025-01-01T00:01:00.000000Z",
        "seconds": 60.0,
        "agent_seconds": 57.5,
        "legs": [
            {
                "kind": "callee",
                "number": "+493023125001",
                "began": 0.0,
                "answered": 2.0,
                "ended": 60.0,
                "result": "answered",
                "cause": 16,
                "sip_code": 200,
            },
            {
                "kind": "target",
                "number": "2000",
                "began": 40.0,
                "answered": None,
                "ended": None,
                "result": "busy",
                "cause": None,
                "sip_code": None,
            },
        ],
        "turns": [
            {
                "at": 1.0,
                "who": "caller",
                "text": "Hm.",
                "until": 1.5,
                "interrupted": False,
                "heard": None,
            },
            {
                "at": 2.0,
                "who": "agent",
                "text": "Hello.",
                "until": 4.0,
                "interrupted": False,
                "heard": None,
            },
        ],
        "tools": [
            {
                "at": 5.5,
                "name": "t",
                "arguments": {"x": [1]},
                "result": "r",
                "is_error": False,
                "seconds": 0.5,
            }
        ],
        "keys": [{"at": 7.0, "digits": "[digits]"}],
        "notes": [{"at": 8.0, "text": "the caller holds"}],
        "take_overs": [
            {
                "who": "lea",
                "number": "2001",
                "asked": 10.0,
                "from": 12.0,
                "until": 20.5,
                "failed": None,
                "renewed": False,
            }
        ],
        "listeners": [{"who": "tom", "from": 9.0, "until": 21.0}],
        "left_out": 0,
        "response_times": [0.812],
        "hidden": [],
    }
    assert sound["rtp"] is None
    assert score == {
        "value": 85,
        "reasons": ["The agent was lost, and another took its place (-15)"],
    }


def test_somebody_who_only_waited() -> None:
    record = CallRecord("s1", "sip-1", 0.0, caller_number="100", seconds=3.0)
    document = call_document(record)
    assert document["legs"][0]["kind"] == "caller"
    assert document["legs"][0]["ended"] == 3.0
    assert document["score"]["value"] is None


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("spring", "spring"), ("c" * 128, "c" * 128), ("c" * 129, None), ("", None), (7, None)],
)
def test_the_campaign_is_that_of_the_metadata(sent: object, kept: str | None) -> None:
    document = call_document(ended(metadata={"campaign_id": sent}))
    assert document["campaign_id"] == kept
    assert document["metadata"]["campaign_id"] == sent


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(st.characters()), ANYTHING, max_size=3), st.text(st.characters()))
def test_whatever_somebody_sends_it_can_be_stored(sent: dict[str, Any], text: str) -> None:
    record = ended(metadata=sent, reference=text)
    record.fold(Said("caller", text), 1.0)
    record.fold(ToolRan(text, name=text, arguments=sent, result=text), 2.0)
    for what in ((), ("numbers", "words")):
        written = orjson.dumps(call_document(record, what))
        assert b"\\u0000" not in written
        assert orjson.loads(written)["session_id"] == "s1"


def test_what_is_too_deep_is_cut() -> None:
    deep: Any = "the bottom"
    for _ in range(5000):
        deep = [deep]
    document = call_document(ended(metadata={"deep": deep}))
    assert b"the bottom" not in orjson.dumps(document)
