"""The JSON that an event stream tells."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from ari_app.control.http.streams import EVENT, as_json
from ari_app.records.events import (
    Adopted,
    AgentConnected,
    AgentLost,
    AgentResumed,
    CallEnded,
    CallerInterrupted,
    CallEvent,
    GivenBack,
    Overflowed,
    Responded,
    StateChanged,
    TakenOver,
    TakeOverFailed,
)
from ari_app.records.journal import Entry
from tests.unit.words import words

AT = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            StateChanged("talking", "active"),
            {"type": "state", "state": "talking", "status": "active"},
        ),
        (
            AgentConnected("conv_1", 0.123),
            {"type": "agent", "conversation_id": "conv_1", "connect_seconds": 0.123},
        ),
        (AgentLost("conv_1"), {"type": "agent_lost", "conversation_id": "conv_1"}),
        (Adopted(0.251), {"type": "adopted", "gap_seconds": 0.251}),
        (
            AgentResumed("conv_2", 1.235),
            {"type": "agent_resumed", "conversation_id": "conv_2", "gap_seconds": 1.235},
        ),
        (TakenOver("lea"), {"type": "taken_over", "who": "lea"}),
        (GivenBack("lea", 12.5), {"type": "given_back", "who": "lea", "seconds": 12.5}),
        (
            TakeOverFailed("lea", "busy"),
            {"type": "take_over_failed", "who": "lea", "reason": "busy"},
        ),
        *(
            (words(who, "x"), {"type": "transcript", "who": who, "text": "x"})
            for who in ("agent", "caller", "correction")
        ),
        *((words(who, "x"), {"type": who, "text": "x"}) for who in ("tool", "dtmf", "note")),
        (
            CallerInterrupted("x", 505.0, 1255.5),
            {"type": "interruption", "text": "x", "heard_ms": 505.0, "unheard_ms": 1255.5},
        ),
        (Responded(0.812), {"type": "response_time", "seconds": 0.812}),
        (
            CallEnded("TRANSFER", "agent_transfer", 12.346),
            {
                "type": "ended",
                "agent_status": "TRANSFER",
                "end_reason": "agent_transfer",
                "duration": 12.346,
            },
        ),
        (
            CallEnded(None, None, 0.5),
            {"type": "ended", "agent_status": None, "end_reason": None, "duration": 0.5},
        ),
        (Overflowed(2), {"type": "overflow", "missed": 2}),
    ],
    ids=lambda value: value.kind if hasattr(value, "kind") else "",
)
def test_an_event_on_the_wire(event: CallEvent, told: dict[str, object]) -> None:
    written = as_json(Entry(7, AT, event))
    found = orjson.loads(written)
    at = found.pop("at")
    assert datetime.fromisoformat(at) == AT
    assert at.endswith("Z")
    assert found == {"seq": 7, **told}
    assert EVENT.validate_json(written).type == told["type"]
