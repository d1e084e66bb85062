"""Gaps, hearing, scraping: what is measured while a soak runs."""

from __future__ import annotations

import asyncio
import json

import pytest

from ari_app.records.metrics import Metrics
from benchmarks.soak.gaps import GapBook
from benchmarks.soak.hearing import Hearing
from benchmarks.soak.scrape import parse_metrics
from lab.softphone.codec import codecs_named
from lab.softphone.ear import Arrival
from lab.softphone.sounds import tone

(PCMU,) = codecs_named("PCMU")
LOUD = PCMU.encode(tone(20, 1000, -15))
QUIET = PCMU.encode(bytes(320))


def packet(at: float, payload: bytes = QUIET) -> Arrival:
    return Arrival(at, 0, 0, False, 1, 0, payload, PCMU)


def test_percentiles_of_gaps() -> None:
    book = GapBook()
    for _ in range(98):
        book.note(20.2)
    book.note(40.0)
    book.note(312.4)
    assert (book.percentile(50), book.percentile(99), book.percentile(100)) == (20, 40, 312)
    assert book.longest_ms == 312.4
    assert GapBook().percentile(99) == 0


def test_books_go_through_a_pipe_and_add_up() -> None:
    book = GapBook({20: 3, 21: 1}, 21.3)
    again = GapBook.from_json(json.loads(json.dumps(book.to_json())))
    total = GapBook.sum([book, again, GapBook({500: 1}, 500.0)])
    assert total.counts == {20: 6, 21: 2, 500: 1}
    assert (total.packets, total.longest_ms) == (9, 500.0)


def test_gaps_are_counted_only_when_told_to() -> None:
    hearing = Hearing(0.0)
    assert hearing.hear(packet(1.00)) is None
    assert hearing.hear(packet(1.02)) is None
    hearing.counting = True
    assert hearing.hear(packet(1.05)) == pytest.approx(30)


def test_sound_is_noticed_and_silence_is_not() -> None:
    hearing = Hearing(10.0)
    for number in range(30):
        hearing.hear(packet(10 + number * 0.02))
    assert hearing.first_sound_at is None
    assert hearing.silent_for(15.0) == 5.0
    for number in range(30):
        hearing.hear(packet(20 + number * 0.02, LOUD))
    assert hearing.first_sound_at == pytest.approx(20, abs=0.06)
    assert hearing.silent_for(21.0) == pytest.approx(0.42, abs=0.06)


async def test_the_service_s_own_metrics_can_be_read() -> None:
    metrics = Metrics()
    metrics.lines.set(3)
    metrics.calls.labels("talking").inc(2)
    metrics.calls_total.labels("FAILED", "lost").inc(4)
    task = asyncio.create_task(asyncio.sleep(60))
    found = parse_metrics(metrics.render().decode())
    assert (found.lines, found.calls) == (3, 2)
    assert found.ended == {"FAILED lost": 4}
    assert found.tasks == len(asyncio.all_tasks())
    assert found.allocated_blocks > 1000
    assert found.gc_collections > 0
    task.cancel()


def test_metrics_that_are_not_there_are_nothing() -> None:
    assert parse_metrics("").tasks == 0
