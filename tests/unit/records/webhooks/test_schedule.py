from __future__ import annotations

import pytest

from ari_app.records.webhooks.schedule import PAUSES, Answer, Fate, judge, retry_after


def test_it_is_tried_for_a_day_with_growing_pauses() -> None:
    pauses = []
    for attempt in range(1, 100):
        then = judge(Answer(500), attempt, 0.0)
        if then.fate is Fate.DEAD:
            break
        pauses.append(then.pause)
    assert pauses == sorted(pauses)
    assert pauses[0] == 5
    assert sum(pauses) == pytest.approx(24 * 3600, rel=0.01)


@pytest.mark.parametrize("attempt", [1, 3, len(PAUSES)])
def test_the_pause_differs_from_one_to_the_next(attempt: int) -> None:
    shortest, longest = (judge(Answer(503), attempt, jitter).pause for jitter in (-1, 1))
    assert longest == pytest.approx(1.1 * PAUSES[attempt - 1])
    assert shortest == pytest.approx(0.9 * PAUSES[attempt - 1])


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        (Answer(200), Fate.DELIVERED),
        (Answer(204), Fate.DELIVERED),
        (Answer(299), Fate.DELIVERED),
        (Answer(302), Fate.AGAIN),
        (Answer(400), Fate.AGAIN),
        (Answer(404), Fate.AGAIN),
        (Answer(410), Fate.DEAD),
        (Answer(429), Fate.AGAIN),
        (Answer(500), Fate.AGAIN),
        (Answer(error="no answer within 15 s"), Fate.AGAIN),
    ],
)
def test_what_an_answer_means(answer: Answer, fate: Fate) -> None:
    assert judge(answer, 1, 0.0).fate is fate


def test_a_receiver_may_ask_for_a_longer_pause_but_not_for_a_shorter_one() -> None:
    assert judge(Answer(429, retry_after=120.0), 1, 0.0).pause == 120
    assert judge(Answer(503, retry_after=1.0), 4, 0.0).pause == PAUSES[3]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("999999999999", 3600.0),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        (100 * "9", None),
        (None, None),
    ],
)
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, 1_700_000_000) == seconds
