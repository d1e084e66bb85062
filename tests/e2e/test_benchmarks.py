"""Each benchmark that starts programs, as short as it can be."""

from __future__ import annotations

import pytest

from benchmarks.bridge import measure_format
from benchmarks.ear import measure_ear
from benchmarks.flood import measure_flood
from benchmarks.lines import WAYS
from benchmarks.setups import measure_setups
from benchmarks.stall import measure_stall

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("line", WAYS)
async def test_the_bridge_carries_calls_and_loses_nothing(line: str) -> None:
    run = await measure_format("ulaw_8000", (2,), 2.0, lambda text: None, line=line)

    assert [step.calls for step in run.steps] == [2]
    assert all(step.cpu_percent > 0 and step.memory_mb > 10 for step in run.steps)
    assert all(step.lost_lines == 0 for step in run.steps)


async def test_the_ear_hears_every_frame() -> None:
    [step], version = await measure_ear(((1, 18.0),), lambda text: None)

    assert version
    assert step.failed_calls == 0
    assert step.sweep_frames > 200
    assert step.frames_lost == step.frames_doubled == 0
    assert step.barge_in_ms["count"] == 1
    assert 0 < step.agent_to_ear_ms["p50"] < 100


async def test_calls_are_set_up_at_a_rate() -> None:
    [rate], version = await measure_setups((5,), 1.0, lambda text: None)

    assert version
    assert (rate.calls, rate.failed) == (5, 0)
    assert 0 < rate.p50_ms <= rate.max_ms
    assert rate.cpu_ms > 0.5


@pytest.mark.long
@pytest.mark.parametrize("line", ["audiosocket", "websocket"])
async def test_speech_goes_on_after_a_stall(line: str) -> None:
    [stall] = await measure_stall(1, 1, lambda text: None, line=line)

    # Asterisk plays on by itself over a WebSocket: nobody hears it.
    assert (stall.gap_ms > 150) is (line == "audiosocket")
    assert stall.lost_frames == stall.doubled_frames == 0


async def test_strangers_are_counted() -> None:
    before, flooded = await measure_flood(1, ("unknown",), 1.0, lambda text: None, crowd=200)

    assert (before.kind, before.refused) == ("none", {})
    assert flooded.connections >= 200
    assert set(flooded.refused) <= {"unknown_uuid", "address_limit"}
    assert flooded.refused["unknown_uuid"] > 0
    assert flooded.lost_lines == 0
