from __future__ import annotations

import pytest
from aiohttp import WebSocketError, WSCloseCode

from ari_app.line.websocket_input import BadInput, FloodGuard, unreadable


def test_a_burst_may_bring_half_a_minute_at_once() -> None:
    guard = FloodGuard(100.0)
    guard.sound_came(30.0, 100.0)
    with pytest.raises(BadInput, match="10 times as much") as refused:
        guard.sound_came(0.02, 100.0)
    assert refused.value.reason == "too_fast"


def test_after_it_sound_may_come_at_ten_times_its_pace() -> None:
    guard = FloodGuard(0.0)
    guard.sound_came(30.0, 0.0)
    for second in range(1, 600):
        guard.sound_came(10.0, float(second))
    with pytest.raises(BadInput):
        guard.sound_came(10.1, 600.0)


def test_a_long_call_allows_no_longer_flood_than_a_short_one() -> None:
    guard = FloodGuard(0.0)
    for second in range(1, 3601):
        guard.sound_came(1.0, float(second))
    guard.sound_came(29.0, 3600.0)
    guard.sound_came(9.0, 3601.0)
    with pytest.raises(BadInput) as refusal:
        guard.sound_came(3.0, 3601.0)
    assert refusal.value.reason == "too_fast"


def test_a_text_counts_as_a_frame_of_sound() -> None:
    guard = FloodGuard(0.0)
    for _ in range(1499):
        guard.text_came(0.0)
    with pytest.raises(BadInput):
        guard.sound_came(0.03, 0.0)


@pytest.mark.parametrize(
    ("error", "reason", "sentence"),
    [
        (WebSocketError(WSCloseCode.MESSAGE_TOO_BIG, "x"), "oversized", "over 7 bytes"),
        (WebSocketError(WSCloseCode.PROTOCOL_ERROR, "x"), "malformed", "no WebSocket message"),
        (None, "malformed", "no WebSocket message"),
    ],
)
def test_what_cannot_be_read_has_a_reason(error: object, reason: str, sentence: str) -> None:
    found = unreadable(error, 7)
    assert (found.reason, sentence in str(found)) == (reason, True)
