from __future__ import annotations

import pytest

from ari_app.line.websocket_input import BadInput, FloodGuard


def test_a_long_call_allows_no_longer_flood_than_a_short_one() -> None:
    guard = FloodGuard(0.0)
    for second in range(1, 3601):
        guard.sound_came(1.0, float(second))
    guard.sound_came(29.0, 3600.0)
    guard.sound_came(9.0, 3601.0)
    with pytest.raises(BadInput) as refusal:
        guard.sound_came(3.0, 3601.0)
    assert refusal.value.reason == "too_fast"
