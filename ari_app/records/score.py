"""The score of a call: how well the two heard each other, 0 to 100, with its reasons. Pure.

What is lost on the way and how late it comes is judged as the E-model does (ITU-T G.107, with
G.113's figures for G.711 with concealment); everything else takes off what `docs/call-log.md` says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

_BEST: Final = 100
_ROBUSTNESS: Final = 25.1
"""Bpl of G.711 with packet loss concealment."""
_LOSS_AT_MOST: Final = 95.0
_EASY_DELAY_MS: Final = 177.3
_FRAME_MS: Final = 20.0

_SLOW: Final = ((4.0, 25), (2.5, 15), (1.5, 5))
"""The median wait for an answer, in seconds, and what it takes off."""
_SLOWEST: Final = (6.0, 5)
_BARGE_IN: Final = ((500.0, 15), (300.0, 8), (150.0, 3))
_HELD_UP: Final = ((200.0, 15), (60.0, 5))
_NOT_SENT: Final = ((2000.0, 20), (0.0, 10))
_UNDERRUN: Final = 3
_UNDERRUNS_AT_MOST: Final = 20
_SURPLUS: Final = (0.05, 3)
_AGENT_LOST: Final = 15
_FAILED: Final = 30
_WORTH_TELLING: Final = 1


def score(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the score of a call's document: `value`, None where nobody could hear anybody, and
    `reasons`, the worst first."""
    sound = document["sound"]
    if document["answered_at"] is None:
        return {"value": None, "reasons": ["Caller and agent were never together."]}
    found = [
        *_lost(sound),
        *_late(document["response_times"], sound),
        *_troubles(document, sound),
    ]
    found.sort(key=lambda each: -each[0])
    value = max(0, round(_BEST - sum(points for points, _ in found)))
    reasons = [
        f"{sentence} (-{points:.0f})" for points, sentence in found if points >= _WORTH_TELLING
    ]
    return {"value": value, "reasons": reasons}


Found = list[tuple[float, str]]


def _lost(sound: Mapping[str, Any]) -> Found:
    """Judge what was lost between telephone and agent, each way."""
    rtp = sound["rtp"] or {}
    heard, said = sound["heard_by_agent_ms"], sound["said_to_caller_ms"]
    up = max(
        _share(sound["short_gaps_ms"], heard + sound["short_gaps_ms"]),
        _share(rtp.get("received_lost"), rtp.get("received", 0) + (rtp.get("received_lost") or 0)),
    )
    down = max(
        _share(sound["frames_not_read"] * _FRAME_MS, said + sound["dropped_ms"]),
        _share(rtp.get("sent_lost"), rtp.get("sent")),
    )
    found: Found = []
    if up:
        found.append((_by_loss(up), f"{up:.1%} of the caller's sound was lost on the way to us"))
    if down:
        found.append((_by_loss(down), f"{down:.1%} of the agent's sound was lost on the way"))
    if sound["not_sent_ms"]:
        points = _by_step(sound["not_sent_ms"], _NOT_SENT)
        seconds = sound["not_sent_ms"] / 1000
        found.append((points, f"{seconds:.1f} s of the caller's sound came too late for the agent"))
    limit, points = _SURPLUS
    if _share(sound["surplus_ms"], heard) > limit:
        found.append((points, "The telephone sent more sound than there was time for"))
    return found


def _late(response_times: Sequence[float], sound: Mapping[str, Any]) -> Found:
    """Judge what came late."""
    found: Found = []
    if response_times:
        usual, slowest = median(response_times), max(response_times)
        if points := _by_step(usual, _SLOW):
            found.append((points, f"The caller waited {usual:.1f} s for an answer, as a rule"))
        if slowest > _SLOWEST[0]:
            found.append((_SLOWEST[1], f"The slowest answer took {slowest:.1f} s"))
    if sound["barge_in_ms"] and (points := _by_step(worst := max(sound["barge_in_ms"]), _BARGE_IN)):
        found.append((points, f"The agent spoke on for {worst:.0f} ms after an interruption"))
    if points := _by_step(sound["latest_ms"], _HELD_UP):
        found.append(
            (points, f"This service's own clock was late, by {sound['latest_ms']:.0f} ms at most")
        )
    round_trip = (sound["rtp"] or {}).get("round_trip_ms")
    if round_trip is not None:
        found.append((_by_delay(round_trip / 2), f"A way of {round_trip / 2:.0f} ms to the phone"))
    return found


def _troubles(document: Mapping[str, Any], sound: Mapping[str, Any]) -> Found:
    """Judge what broke off."""
    found: Found = []
    if sound["underruns"]:
        points = min(_UNDERRUN * sound["underruns"], _UNDERRUNS_AT_MOST)
        found.append((points, f"The agent's voice broke off, {sound['underruns']} x"))
    # While a supervisor speaks, an agent that leaves is not missed.
    renewed = sum(each["renewed"] for each in document["take_overs"])
    if (lost := len(document["conversation_ids"]) - 1 - renewed) > 0:
        found.append((_AGENT_LOST * lost, "The agent was lost, and another took its place"))
    if document["status"] == "FAILED":
        found.append((_FAILED, f"The call failed: {document['reason']}"))
    return found


def _share(part: float | None, whole: float | None) -> float:
    return min(1.0, part / whole) if part and whole else 0.0


def _by_loss(share: float) -> float:
    percent = share * 100
    return _LOSS_AT_MOST * percent / (percent + _ROBUSTNESS)


def _by_delay(one_way_ms: float) -> float:
    return 0.024 * one_way_ms + 0.11 * max(0.0, one_way_ms - _EASY_DELAY_MS)


def _by_step(value: float, steps: Sequence[tuple[float, int]]) -> int:
    return next((points for limit, points in steps if value > limit), 0)
