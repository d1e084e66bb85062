"""What is made of a conversation that was heard: here one that was made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import pytest

from benchmarks.ear import _figures, _uplink_ratio
from benchmarks.heard import Packets
from benchmarks.marked import sweep
from benchmarks.stage import Caller, Response
from benchmarks.stall import _latencies, _missing_ms
from lab.softphone import HeardStats

FRAME = 0.02
QUIET = bytes(320)


@dataclass
class MadeUpCall:
    """The softphone's part."""

    def stats(self) -> HeardStats:
        return HeardStats(100, 1, 2, 0, 20.0, 21.0, 25.0, 0.1)


@dataclass
class MadeUpCaller:
    """A caller who hears what the test says, from second 10 on."""

    sounds: list[bytes]
    said: list[Response]
    cuts: list[float] = field(default_factory=list)
    messages: list[tuple[float, bytes]] = field(default_factory=list)
    answered_at: float = 10.0
    call: MadeUpCall = field(default_factory=MadeUpCall)

    def packets(self) -> Packets:
        return Packets([10.0 + FRAME * n for n in range(len(self.sounds))], self.sounds)

    def responses(self) -> list[Response]:
        return self.said

    def interruptions(self) -> list[float]:
        return self.cuts

    def agent_heard(self) -> list[tuple[float, bytes]]:
        return self.messages


def frames(seconds: float) -> list[bytes]:
    pcm = sweep(seconds, 8000).tobytes()
    return [pcm[start : start + 320] for start in range(0, len(pcm), 320)]


def messages(seconds: float, onset: float) -> list[tuple[float, bytes]]:
    """Messages of 40 ms at 16 kHz from second 10 on; sound begins in one of them."""
    loud = b"\x00\x40" * 640
    times = [10.0 + 0.04 * n for n in range(round(seconds / 0.04))]
    return [(at, loud if at >= onset else bytes(1280)) for at in times]


def a_caller() -> MadeUpCaller:
    # A greeting of 1 s that begins 15 ms after the answer, then an answer of 1 s that is cut short.
    sounds = [QUIET, *frames(1.0), *[QUIET] * 20, *frames(1.0)[:25], *[QUIET] * 20]
    return MadeUpCaller(
        sounds,
        [Response(9.5, 1.0), Response(11.41, 1.0)],
        cuts=[11.90],
        messages=messages(3.0, 11.0),
    )


def test_every_latency_is_taken_from_its_own_beginning() -> None:
    caller = a_caller()

    step = _figures([cast(Caller, caller)], {id(caller): [10.99]}, 1, 3.0, 0, 1.0)
    assert step.greeting_ms["max"] == pytest.approx(20.0)
    assert step.agent_to_ear_ms["max"] == pytest.approx(10.0)
    assert step.barge_in_ms["max"] == pytest.approx(20.0, abs=0.1)
    # The packet before it was heard to its end.
    assert step.silence_ms["max"] == pytest.approx(20.0, abs=1.0)
    assert step.mouth_to_agent_ms["max"] == pytest.approx(30.0, abs=0.1)
    assert step.gaps_ms["max"] == pytest.approx(20.0)
    assert (step.rtp_lost, step.rtp_doubled, step.packets) == (1, 2, 100)
    assert (step.frames_lost, step.frames_doubled) == (0, 0)


def test_a_response_that_was_never_heard_is_no_latency() -> None:
    caller = MadeUpCaller([QUIET] * 100, [Response(9.5, 1.0), Response(10.5, 1.0)])

    step = _figures([cast(Caller, caller)], {}, 1, 3.0, 1, 0.0)
    assert step.greeting_ms["count"] == step.agent_to_ear_ms["count"] == 0
    assert step.failed_calls == 1


def test_the_uplink_is_held_against_the_clock() -> None:
    caller = MadeUpCaller([], [], messages=messages(4.0, 99.0))

    assert _uplink_ratio(cast(Caller, caller)) == pytest.approx(1.0)
    assert _missing_ms(cast(Caller, caller)) == pytest.approx(0.0, abs=0.1)
    del caller.messages[50:60]
    assert _missing_ms(cast(Caller, caller)) == pytest.approx(400.0)
    assert _uplink_ratio(cast(Caller, MadeUpCaller([], []))) == 0.0


def test_a_turn_is_found_by_when_the_caller_spoke() -> None:
    caller = a_caller()
    caller.said = [Response(9.5, 1.0), Response(11.41, 1.0)]

    mouth_ms, ear_ms, track = _latencies(cast(Caller, caller), 10.2)
    assert ear_ms == pytest.approx(10.0)
    assert mouth_ms > 0
    assert track.frames > 10
    assert _latencies(cast(Caller, caller), 12.0)[1] == -1.0
    caller.sounds = [QUIET]
    assert _latencies(cast(Caller, caller), 10.2)[1] == -1.0
