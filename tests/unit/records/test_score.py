from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from ari_app.records.record import SoundReport
from ari_app.records.score import score

GOOD = SoundReport(heard_by_agent_ms=60_000, said_to_caller_ms=30_000)


def document(sound: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A call of a minute that went well, but for this."""
    usual: dict[str, Any] = {
        "answered_at": "2025-01-01T00:00:00.000000Z",
        "status": "COMPLETED",
        "reason": "agent_ended",
        "conversation_ids": ["conv_1"],
        "response_times": [0.8, 0.9],
        "take_overs": [],
        "sound": asdict(GOOD) | (sound or {}),
    }
    return usual | changes


def rtp(**known: Any) -> dict[str, Any]:
    return {"rtp": {"received": 3000, "sent": 3000, "received_lost": 0, **known}}


def test_a_good_call() -> None:
    assert score(document()) == {"value": 100, "reasons": []}


def test_an_agent_that_leaves_while_a_supervisor_speaks_is_not_missed() -> None:
    ids = ["conv_1", "conv_2"]
    assert score(document(conversation_ids=ids))["value"] == 85
    held = [{"renewed": False}, {"renewed": True}]
    assert score(document(conversation_ids=ids, take_overs=held))["value"] == 100


def test_nobody_was_there() -> None:
    told = score(document(answered_at=None))
    assert told["value"] is None
    assert told["reasons"] == ["Caller and agent were never together."]


@pytest.mark.parametrize(
    ("sound", "points"),
    [
        # ITU-T G.107 with G.113's Bpl of 25.1: 95 * 5 / (5 + 25.1), and so on.
        (rtp(received_lost=158), 15.8),
        (rtp(received_lost=30), 3.6),
        (rtp(received_lost=None), 0),
        ({"short_gaps_ms": 3158}, 15.8),
        ({"frames_not_read": 75}, 15.8),
        (rtp(rtcp=True, sent_lost=150, round_trip_ms=0.0), 15.8),
        (rtp(round_trip_ms=100.0), 1.2),
        (rtp(round_trip_ms=600.0), 20.7),
        (rtp(round_trip_ms=None), 0),
        ({"not_sent_ms": 500.0}, 10),
        ({"not_sent_ms": 2500.0}, 20),
        ({"surplus_ms": 3500.0}, 3),
        ({"underruns": 2}, 6),
        ({"underruns": 200}, 20),
        ({"barge_in_ms": (20.0, 140.0)}, 0),
        ({"barge_in_ms": (20.0, 200.0)}, 3),
        ({"barge_in_ms": (400.0,)}, 8),
        ({"barge_in_ms": (501.0,)}, 15),
        ({"late_ticks": 1, "latest_ms": 61.0}, 5),
        ({"late_ticks": 1, "latest_ms": 900.0}, 15),
    ],
)
def test_what_the_sound_costs(sound: dict[str, Any], points: float) -> None:
    told = score(document(sound))
    assert told["value"] == round(100 - points)
    assert len(told["reasons"]) == (points > 1)


@pytest.mark.parametrize(
    ("changes", "points"),
    [
        ({"response_times": []}, 0),
        ({"response_times": [1.6, 1.6, 0.1]}, 5),
        ({"response_times": [2.6]}, 15),
        ({"response_times": [4.1]}, 25),
        ({"response_times": [0.5, 0.5, 7.0]}, 5),
        ({"conversation_ids": ["conv_1", "conv_2"]}, 15),
        ({"status": "FAILED", "reason": "agent_silent"}, 30),
    ],
)
def test_what_else_costs(changes: dict[str, Any], points: int) -> None:
    told = score(document(**changes))
    assert told["value"] == 100 - points
    assert len(told["reasons"]) == (points > 0)


def test_the_worst_is_told_first_and_nothing_is_below_0() -> None:
    everything = {
        **rtp(received_lost=3000),
        "underruns": 9,
        "not_sent_ms": 9e3,
        "latest_ms": 300.0,
    }
    told = score(document(everything, status="FAILED", reason="agent_silent"))
    assert told["value"] == 0
    assert told["reasons"][0] == "50.0% of the caller's sound was lost on the way to us (-63)"
    assert "The call failed: agent_silent (-30)" in told["reasons"]
