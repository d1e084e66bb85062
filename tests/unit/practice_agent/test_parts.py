"""The small timekeepers: utterances, liveness, signatures."""

from __future__ import annotations

import pytest

from lab.practice_agent import Limits
from lab.practice_agent.formats import Chunk
from lab.practice_agent.liveness import (
    MAX_OUTSTANDING,
    Liveness,
    MaxDuration,
    PingDue,
    ReceiveTimeout,
)
from lab.practice_agent.signatures import MAX_SIGNATURES, Admission, Signatures
from lab.practice_agent.utterance import Utterance


def utterance(duration_s: float = 4.0, plays_from: float = 100.0) -> Utterance:
    chunks = tuple(Chunk(bytes([number]), float(number)) for number in range(int(duration_s)))
    return Utterance(
        "one two three four",
        "r1",
        1,
        chunks,
        duration_s=duration_s,
        started_at=100.0,
        plays_from=plays_from,
        speed=4.0,
    )


def test_chunks_leave_faster_than_they_play() -> None:
    speech = utterance()
    assert speech.next_due_at == 100.0
    first = speech.take_due(100.0)
    assert [(chunk.payload, chunk.is_first, chunk.is_final) for chunk in first] == [
        (b"\x00", True, False)
    ]
    assert speech.take_due(100.2) == []
    assert speech.next_due_at == 100.25
    rest = speech.take_due(101.0)
    assert [chunk.is_final for chunk in rest] == [False, False, True]
    assert not speech.next_due_at
    assert speech.ends_at == 104.0


@pytest.mark.parametrize(
    ("now", "heard"),
    [(99, ""), (100.9, ""), (101, "one..."), (103.9, "one two three..."), (104, None), (200, None)],
)
def test_what_was_heard_follows_the_clock(now: float, heard: str | None) -> None:
    assert utterance().heard(now) == ("one two three four" if heard is None else heard)


def test_speech_behind_other_speech_is_heard_later() -> None:
    speech = utterance(plays_from=110.0)
    assert speech.heard(105.0) == ""
    assert speech.ends_at == 114.0


def test_text_without_sound_is_heard_at_once() -> None:
    assert utterance(duration_s=0.0).heard(100.0) == "one two three four"


def alive(**limits: float) -> Liveness:
    given = Limits.model_validate(limits)
    return Liveness(given, duration_seconds=given.duration_seconds, now=10.0)


def test_pings_come_at_fixed_times_and_carry_the_round_trip() -> None:
    liveness = alive(ping_seconds=5)
    assert liveness.next_at == 10.0
    assert liveness.take_due(10.1) == [PingDue(1, None)]
    assert liveness.take_due(14.9) == []
    assert liveness.pong(1, 10.15) == pytest.approx(0.05)
    assert liveness.pong(1, 10.2) is None
    assert liveness.next_at == 15.0
    assert liveness.take_due(15.0) == [PingDue(2, 50)]


def test_after_a_long_stall_one_ping_is_enough() -> None:
    liveness = alive(ping_seconds=1, receive_seconds=100)
    assert liveness.take_due(50.0) == [PingDue(1, None)]
    assert liveness.next_at == 51.0


def test_pings_that_nobody_answers_are_forgotten() -> None:
    liveness = alive(ping_seconds=1, receive_seconds=1000)
    for second in range(MAX_OUTSTANDING + 1):
        liveness.take_due(10.0 + second)
    assert liveness.pong(1, 40.0) is None
    assert liveness.pong(2, 40.0) is not None


def test_silence_and_length_have_limits() -> None:
    liveness = alive(receive_seconds=60, duration_seconds=100, ping_seconds=1000)
    liveness.take_due(10.0)
    liveness.user_input(30.0)
    assert liveness.next_at == 90.0
    assert liveness.take_due(89.0) == []
    assert liveness.take_due(90.0) == [ReceiveTimeout()]
    liveness.user_input(90.0)
    assert liveness.next_at == 110.0
    assert liveness.take_due(110.0) == [MaxDuration()]


def test_a_signature_opens_its_own_agent_until_it_expires() -> None:
    signatures = Signatures(lifetime_s=900)
    token = signatures.issue("a", conversation_id=None, now=0.0)
    assert signatures.redeem(token, "b", 1.0) is None
    assert signatures.redeem("other", "a", 1.0) is None
    assert signatures.redeem(token, "a", 899.0) == Admission(None)
    assert signatures.redeem(token, "a", 899.5) == Admission(None)
    assert signatures.redeem(token, "a", 900.0) is None


def test_a_signature_with_a_conversation_opens_once() -> None:
    signatures = Signatures(lifetime_s=900)
    token = signatures.issue("a", conversation_id="conv_1", now=0.0)
    assert signatures.redeem(token, "a", 1.0) == Admission("conv_1")
    assert signatures.redeem(token, "a", 1.0) is None


def test_only_so_many_signatures_are_kept() -> None:
    signatures = Signatures(lifetime_s=900)
    first, second = (signatures.issue("a", conversation_id=None, now=0.0) for _ in range(2))
    for _ in range(MAX_SIGNATURES - 1):
        signatures.issue("a", conversation_id=None, now=0.0)
    assert signatures.redeem(first, "a", 1.0) is None
    assert signatures.redeem(second, "a", 1.0) is not None
