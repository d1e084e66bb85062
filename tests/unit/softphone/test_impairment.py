from __future__ import annotations

import pytest

from lab.softphone.impairment import ImpairedLine, Impairment


def delays(impairment: Impairment, count: int = 2000) -> list[list[float]]:
    line = ImpairedLine(impairment)
    return [line.delays_ms() for _ in range(count)]


def test_a_good_line_does_nothing() -> None:
    assert delays(Impairment(), 10) == [[0.0]] * 10


def test_the_same_seed_does_the_same_harm() -> None:
    bad = Impairment(loss=0.1, duplicate=0.1, jitter_ms=30, seed=4)
    assert delays(bad) == delays(bad)
    assert delays(bad) != delays(Impairment(loss=0.1, duplicate=0.1, jitter_ms=30, seed=5))


def test_harm_is_as_large_as_asked_for() -> None:
    copies = delays(Impairment(loss=0.25, duplicate=0.5, jitter_ms=30))
    assert sum(not one for one in copies) / len(copies) == pytest.approx(0.25, abs=0.05)
    arrived = [one for one in copies if one]
    assert sum(len(one) == 2 for one in arrived) / len(arrived) == pytest.approx(0.5, abs=0.05)
    assert all(0 <= delay <= 30 for one in arrived for delay in one)


@pytest.mark.parametrize(
    "harm", [{"loss": -0.1}, {"loss": 1.1}, {"duplicate": 2.0}, {"jitter_ms": -1.0}]
)
def test_impossible_harm(harm: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Impairment(**harm)  # type: ignore[arg-type]
