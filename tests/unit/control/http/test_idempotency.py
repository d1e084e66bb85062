from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref

import pytest

from ari_app.control.http.idempotency import IdempotentAnswers


class Worker:
    """Answers with a number that grows."""

    def __init__(self) -> None:
        self.times = 0
        self.gate = asyncio.Event()
        self.error: Exception | None = None

    async def work(self) -> int:
        self.times += 1
        mine = self.times
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return mine


@pytest.fixture
async def worker() -> Worker:
    made = Worker()
    made.gate.set()
    return made


async def test_a_failure_that_nobody_waits_for_goes_without_a_collector(worker: Worker) -> None:
    answers: IdempotentAnswers[int] = IdempotentAnswers(lambda: 0.0)

    class Refused(Exception):
        pass

    worker.error = Refused()
    gone = weakref.ref(worker.error)
    gc.disable()
    try:
        with contextlib.suppress(Refused):
            await answers.answer("k", b"", worker.work)
        worker.error = None
        assert gone() is None
    finally:
        gc.enable()


async def test_an_answer_is_forgotten_after_its_time(worker: Worker) -> None:
    now = 0.0
    answers: IdempotentAnswers[int] = IdempotentAnswers(lambda: now, keep_seconds=100)
    assert await answers.answer("k", b"", worker.work) == (1, False)
    now = 99.0
    assert await answers.answer("k", b"", worker.work) == (1, True)
    now = 100.0
    assert await answers.answer("k", b"", worker.work) == (2, False)


async def test_the_oldest_makes_room(worker: Worker) -> None:
    answers: IdempotentAnswers[int] = IdempotentAnswers(lambda: 0.0, max_keys=2)
    for key in ("a", "b", "c"):
        await answers.answer(key, b"", worker.work)
    assert len(answers) == 2
    assert await answers.answer("c", b"", worker.work) == (3, True)
    assert await answers.answer("a", b"", worker.work) == (4, False)


async def test_all_who_wait_get_the_failure_and_the_next_tries_again(worker: Worker) -> None:
    answers: IdempotentAnswers[int] = IdempotentAnswers(lambda: 0.0)
    worker.gate.clear()
    worker.error = ValueError("no")
    asked = [asyncio.ensure_future(answers.answer("k", b"", worker.work)) for _ in range(3)]
    await asyncio.sleep(0)
    worker.gate.set()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(result, ValueError) for result in results)
    assert (worker.times, len(answers)) == (1, 0)
    worker.error = None
    assert await answers.answer("k", b"", worker.work) == (2, False)


async def test_who_waits_is_not_left_waiting_when_the_first_is_cancelled(worker: Worker) -> None:
    answers: IdempotentAnswers[int] = IdempotentAnswers(lambda: 0.0)
    worker.gate.clear()
    first = asyncio.ensure_future(answers.answer("k", b"", worker.work))
    second = asyncio.ensure_future(answers.answer("k", b"", worker.work))
    await asyncio.sleep(0)
    first.cancel()
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 2
    assert len(answers) == 0


async def test_one_who_stops_waiting_harms_nobody(worker: Worker) -> None:
    answers: IdempotentAnswers[int] = IdempotentAnswers(lambda: 0.0)
    worker.gate.clear()
    first = asyncio.ensure_future(answers.answer("k", b"", worker.work))
    second = asyncio.ensure_future(answers.answer("k", b"", worker.work))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait([second])
    worker.gate.set()
    assert await first == (1, False)


async def test_a_failure_that_was_overtaken_takes_nothing_with_it(worker: Worker) -> None:
    answers: IdempotentAnswers[int] = IdempotentAnswers(lambda: 0.0, max_keys=1)
    worker.gate.clear()
    worker.error = ValueError("no")
    first = asyncio.ensure_future(answers.answer("k", b"", worker.work))
    await asyncio.sleep(0)

    async def quick() -> int:
        return 7

    await answers.answer("other", b"", quick)
    await answers.answer("k", b"", quick)
    worker.gate.set()
    with pytest.raises(ValueError, match="no"):
        await first
    assert await answers.answer("k", b"", quick) == (7, True)
