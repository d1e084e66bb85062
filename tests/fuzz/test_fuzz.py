from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.fuzz.engine import attempt, changed, fuzz, inputs
from tests.fuzz.targets import TARGETS, Target

CRASHES = Path(__file__).parent / "crashes"
# `make fuzz` takes an hour; here a little of it, on inputs that are others each time.
SECONDS = float(os.environ.get("FUZZ_TEST_SECONDS", "40")) / len(TARGETS)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    silent = structlog.make_filtering_bound_logger(logging.CRITICAL)
    structlog.configure(wrapper_class=silent)
    yield
    structlog.reset_defaults()


each = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)


@each
def test_what_once_was_a_fault_is_none(target: Target) -> None:
    for path in sorted((CRASHES / target.name).glob("*")):
        target.run(path.read_bytes())
    for data in (*target.seeds, b"", b"\x00", b"{}", b"[]"):
        target.run(data)


@each
def test_no_input_is_a_fault(target: Target) -> None:
    seed = random.SystemRandom().randrange(2**31)
    tries, crash = fuzz(target, SECONDS, seed)
    assert tries > 0
    assert crash is None, f"seed {seed}, {crash.data!r}"


def test_a_fault_is_found() -> None:
    """The engine, on a parser that is known to be broken."""

    def broken(data: bytes) -> None:
        if b"\x00" in data and len(data) > 5:
            raise IndexError("a fault")

    target = Target("broken", broken, [b'{"a": "hello"}', b"hello"])
    tries, crash = fuzz(target, 1e9, 1)
    assert crash is not None
    assert isinstance(crash.error, IndexError)
    assert attempt(target, crash.data) is not None
    assert (tries, crash.data) == (fuzz(target, 1e9, 1)[0], crash.data), "the same seed, the same"


def test_inputs_differ_and_stay_within_bounds() -> None:
    chance = random.Random(7)
    seeds = TARGETS["http_bodies"].seeds
    stream = inputs(seeds, chance)
    some = [next(stream) for _ in range(2000)]
    assert some[: len(seeds)] == list(seeds)
    assert len(set(some)) > 1000
    big = changed(b"x" * 60_000, [b"y"], chance)
    for _ in range(200):
        big = changed(big, [b"y" * 60_000], chance)
        assert len(big) <= 64 * 1024
