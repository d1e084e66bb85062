from __future__ import annotations

from audiosocket.server import RefusalLog


def test_a_few_are_told_one_by_one() -> None:
    log = RefusalLog(3)
    assert [log.add("limit", now=0.1 * number) for number in range(3)] == [True] * 3
    assert log.summary_at is None
    assert log.add("limit", now=1.0)


def test_the_rest_of_a_second_is_told_together() -> None:
    log = RefusalLog(2)
    told = [log.add("limit", now=0.0) for _ in range(10)]
    told += [log.add("malformed", now=0.5)]
    assert told.count(True) == 2
    assert log.summary_at == 1.0
    assert log.take_untold(now=1.0) == {"limit": 8, "malformed": 1}
    assert log.summary_at is None


def test_while_a_flood_goes_on_only_sums_are_told() -> None:
    log = RefusalLog(2)
    for _ in range(5):
        log.add("limit", now=0.0)
    log.take_untold(now=1.0)
    assert not log.add("limit", now=1.2)
    assert log.summary_at == 2.0
    assert log.take_untold(now=2.0) == {"limit": 1}
    assert log.add("limit", now=3.5)
