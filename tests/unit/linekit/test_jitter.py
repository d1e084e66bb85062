from __future__ import annotations

import pytest

from linekit.jitter import MOST_MS, JitterBuffer


def buffer(patience: int = 0) -> JitterBuffer:
    return JitterBuffer(1, behind_ms=40, patience=patience)


def test_sound_begins_when_enough_of_it_is_there() -> None:
    waiting = buffer()
    waiting.add(bytes(20))
    assert (waiting.ready_bytes, waiting.take(20)) == (0, b"")
    waiting.add(bytes(20))
    assert (waiting.ready_bytes, waiting.take(20)) == (40, bytes(20))
    assert waiting.take(60) == bytes(20), "what is there, and no more"


def test_it_comes_out_in_its_order() -> None:
    waiting = buffer()
    waiting.add(bytes(range(40)))
    waiting.add(bytes(range(40, 60)))
    assert waiting.take(30) + waiting.take(30) == bytes(range(60))


@pytest.mark.parametrize(("missed", "goes_on"), [(0, True), (2, True), (3, False)])
def test_what_comes_late_goes_on_at_once_while_there_is_patience(
    missed: int, goes_on: bool
) -> None:
    waiting = buffer(patience=2)
    waiting.add(bytes(40))
    waiting.take(40)
    for _ in range(missed):
        assert waiting.take(20) == b""
    waiting.add(bytes(20))
    assert bool(waiting.ready_bytes) is goes_on


def test_without_patience_it_begins_anew_as_soon_as_it_is_empty() -> None:
    waiting = buffer()
    waiting.add(bytes(40))
    waiting.take(40)
    waiting.add(bytes(20))
    assert waiting.ready_bytes == 0


def test_of_a_burst_the_newest_is_kept() -> None:
    waiting = buffer()
    waiting.add(bytes(MOST_MS))
    assert waiting.ready_bytes == MOST_MS
    waiting.add(bytes(range(40)))
    assert waiting.take(MOST_MS) == bytes(range(40))
