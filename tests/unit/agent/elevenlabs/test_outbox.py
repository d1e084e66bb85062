from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.agent.elevenlabs.connection import Outbox, PeerStalled, Waiting


def test_control_goes_first_and_both_keep_their_order() -> None:
    outbox = Outbox()
    outbox.push_audio(b"a1", 0.0)
    outbox.push_control(b"c1", 0.1)
    outbox.push_audio(b"a2", 0.2)
    outbox.push_control(b"c2", 0.3)
    assert len(outbox) == 4
    taken = [outbox.pop(0.4) for _ in range(5)]
    assert taken == [
        Waiting(b"c1", False, 0.1),
        Waiting(b"c2", False, 0.3),
        Waiting(b"a1", True, 0.0),
        Waiting(b"a2", True, 0.2),
        None,
    ]


def test_old_audio_is_dropped_when_more_comes_and_when_it_is_taken() -> None:
    outbox = Outbox(max_age_s=2.0)
    outbox.push_audio(b"123", 0.0)
    outbox.push_audio(b"45", 1.0)
    outbox.push_audio(b"6", 2.5)
    assert (outbox.dropped_messages, outbox.dropped_bytes) == (1, 3)
    assert outbox.pop(4.0) == Waiting(b"6", True, 2.5)
    assert (outbox.dropped_messages, outbox.dropped_bytes) == (2, 5)


def test_control_is_never_too_old() -> None:
    outbox = Outbox(max_age_s=2.0)
    outbox.push_control(b"c", 0.0)
    assert outbox.pop(1000.0) == Waiting(b"c", False, 0.0)


def test_too_much_audio_is_dropped_from_the_old_end() -> None:
    outbox = Outbox(max_audio_bytes=4)
    for name in (b"aa", b"bb", b"cc"):
        outbox.push_audio(name, 0.0)
    assert (outbox.dropped_messages, outbox.dropped_bytes) == (1, 2)
    assert outbox.pop(0.0) == Waiting(b"bb", True, 0.0)


def test_too_many_control_messages_mean_a_dead_peer() -> None:
    outbox = Outbox(max_control=2)
    outbox.push_control(b"1", 0.0)
    outbox.push_control(b"2", 0.0)
    with pytest.raises(PeerStalled):
        outbox.push_control(b"3", 0.0)
    assert len(outbox) == 2


def test_too_long_control_messages_mean_one_too() -> None:
    outbox = Outbox(max_control_bytes=10)
    outbox.push_control(b"12345", 0.0)
    outbox.push_control(b"12345", 0.0)
    with pytest.raises(PeerStalled):
        outbox.push_control(b"6", 0.0)
    outbox.pop(0.0)
    outbox.push_control(b"6", 0.0)


def test_a_peer_that_takes_nothing_for_long_is_dead() -> None:
    outbox = Outbox(max_stall_s=20.0)
    outbox.push_audio(b"a", 100.0)
    outbox.push_audio(b"a", 119.0)
    with pytest.raises(PeerStalled):
        outbox.push_audio(b"a", 120.5)
    with pytest.raises(PeerStalled):
        outbox.push_control(b"c", 120.5)


def test_taking_something_or_being_empty_begins_the_wait_anew() -> None:
    outbox = Outbox(max_stall_s=20.0)
    outbox.push_control(b"1", 100.0)
    outbox.push_control(b"2", 100.0)
    assert outbox.pop(119.0) is not None
    outbox.push_control(b"3", 130.0)
    outbox.clear()
    assert len(outbox) == 0
    outbox.push_control(b"4", 1000.0)
    assert outbox.pop(1000.0) == Waiting(b"4", False, 1000.0)


@given(st.lists(st.tuples(st.sampled_from("acp"), st.integers(0, 8), st.floats(0, 1.5))))
def test_every_byte_of_audio_is_sent_or_counted_and_all_control_arrives(
    steps: list[tuple[str, int, float]],
) -> None:
    outbox = Outbox(max_audio_bytes=20, max_stall_s=1e9)
    now = 0.0
    pushed_bytes = sent_bytes = 0
    pushed_control: list[bytes] = []
    sent_control: list[bytes] = []
    for number, (step, size, pause) in enumerate(steps):
        now += pause
        waiting = None
        match step:
            case "a":
                outbox.push_audio(b"x" * size, now)
                pushed_bytes += size
            case "c":
                outbox.push_control(b"%d" % number, now)
                pushed_control.append(b"%d" % number)
            case _:
                waiting = outbox.pop(now)
        if waiting is not None and waiting.is_audio:
            assert now - waiting.since <= 2.0
            sent_bytes += len(waiting.payload)
        elif waiting is not None:
            sent_control.append(waiting.payload)
    while (waiting := outbox.pop(now)) is not None:
        if waiting.is_audio:
            sent_bytes += len(waiting.payload)
        else:
            sent_control.append(waiting.payload)
    assert sent_bytes + outbox.dropped_bytes == pushed_bytes
    assert sent_control == pushed_control
