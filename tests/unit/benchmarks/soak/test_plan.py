from __future__ import annotations

from itertools import islice

import pytest

from benchmarks.soak.plan import AGENT_FORMATS, CODECS, MIX, CallPlan, Kind, mix


def take(seed: int, count: int, *kinds: Kind) -> list[CallPlan]:
    return list(islice(mix(seed, kinds or MIX), count))


def test_the_same_seed_gives_the_same_calls() -> None:
    assert take(7, 200) == take(7, 200)
    assert take(7, 200) != take(8, 200)


def test_every_kind_comes_in_each_deck_and_none_that_strands() -> None:
    plans = take(1, 400)
    first = {plan.kind for plan in plans[:60]}
    assert first == set(MIX)
    assert Kind.STRANDED not in {plan.kind for plan in plans}


def test_formats_and_codecs_are_mixed_and_numbers_count_up() -> None:
    plans = take(3, 200)
    assert {plan.agent_format for plan in plans} == set(AGENT_FORMATS)
    assert {plan.codec for plan in plans} == set(CODECS)
    assert [plan.number for plan in plans] == list(range(200))
    assert next(mix(1, first=50)).number == 50


def test_long_calls_are_long_and_short_ones_short() -> None:
    plans = take(2, 500)
    assert min(plan.talk_seconds for plan in plans if plan.kind is Kind.LONG) >= 40
    assert max(plan.talk_seconds for plan in plans if plan.kind is not Kind.LONG) <= 16


def test_plans_go_through_a_pipe() -> None:
    for plan in take(4, 30):
        assert CallPlan.from_json(plan.to_json()) == plan


def test_a_mix_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one kind"):
        next(mix(1, ()))
