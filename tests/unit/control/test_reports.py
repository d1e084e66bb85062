from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from ari_app.control.reports import PAUSES, ReportFetcher
from ari_app.errors import AgentError
from ari_app.records.agent_report import Report
from ari_app.records.events import CallEnded, StateChanged
from ari_app.records.record import CallRecord
from tests.unit.records.test_agent_report import DATA
from tests.unit.virtual_loop import VirtualLoop

ENDED = CallEnded("COMPLETED", "agent_ended", 60.0)


def call(number: int = 1, *, conversed: bool = True) -> CallRecord:
    record = CallRecord(f"s{number}", "line", 0.0)
    if conversed:
        record.converses(f"conv_{number}")
    return record


class Service:
    """Answers in turn, and the last answer for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, str]] = []
        self.at_once = self.most_at_once = 0
        self.kept: list[Report] = []
        self.fetcher = ReportFetcher(self.fetch, self.kept.append)

    async def fetch(self, conversation_id: str) -> object:
        self.asked.append((asyncio.get_running_loop().time(), conversation_id))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(1)
        self.at_once -= 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def run_virtually(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)


def test_a_conversation_is_asked_for_until_it_is_analysed() -> None:
    async def main() -> None:
        away = AgentError("away", retryable=True)
        service = Service({**DATA, "status": "processing"}, away, DATA)
        began = asyncio.get_running_loop().time()
        service.fetcher.heard(call(), StateChanged("talking", "active"))
        service.fetcher.heard(call(), ENDED)
        await asyncio.sleep(3600)
        assert [at - began for at, _ in service.asked] == pytest.approx([10, 31, 62])
        assert [report.value["cost"] for report in service.kept] == [350]

    run_virtually(main())


def test_it_is_not_asked_for_ever_nor_where_that_makes_no_sense() -> None:
    async def main() -> None:
        never = Service({**DATA, "status": "processing"})
        never.fetcher.heard(call(), ENDED)
        refused = Service(AgentError("no such conversation"))
        refused.fetcher.heard(call(), ENDED)
        nothing = Service("what?")
        nothing.fetcher.heard(call(), ENDED)
        silent = Service(DATA)
        silent.fetcher.heard(call(conversed=False), ENDED)
        await asyncio.sleep(86_400)
        assert len(never.asked) == len(PAUSES)
        assert len(refused.asked) == len(nothing.asked) == 1
        assert silent.asked == []
        assert never.kept == refused.kept == nothing.kept == []

    run_virtually(main())


def test_many_are_asked_for_a_few_at_a_time_and_none_after_the_end() -> None:
    async def main() -> None:
        service = Service(DATA)
        for number in range(1500):
            service.fetcher.heard(call(number), ENDED)
        await asyncio.sleep(10 + 100)
        assert service.most_at_once == 4
        await service.fetcher.close()
        asked = len(service.asked)
        assert asked <= 404
        await asyncio.sleep(3600)
        assert len(service.asked) == asked

    run_virtually(main())
