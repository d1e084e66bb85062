"""Far more calls at once than there are places: all of them are taken, and the rest goes on.

`ARI_APP_BURST=200` is a measurement: so many calls in one second, four for each place, and those
without one are in the dialplan within a second. It needs a machine that has nothing else to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
import structlog

from ari_app.call.states import State
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.ari.resources import CONTINUE, SET_VARIABLE
from ari_app.records.events import CallEvent
from ari_app.records.record import CallRecord
from lab.asterisk import LabAsterisk
from lab.softphone import Phone
from tests.e2e.harness import Bench, bench, book
from tests.waiting import until

pytestmark = pytest.mark.e2e

MEASURED = "ARI_APP_BURST" in os.environ
CALLS = int(os.environ.get("ARI_APP_BURST", "60"))
PLACES = CALLS // 4
WITHIN_SECONDS = 1.0
PHONES = 8
QUIET = {"dialogue": {"first_message": "", "turns": []}}
DIALPLAN = """
[from-phones](+)
exten => 990,1,Log(NOTICE,entered=${UNIQUEID})
 same => n,Stasis(${APP})
 same => n,Log(NOTICE,went_on=${UNIQUEID} status=${AGENT_STATUS} reason=${AGENT_REASON})
 same => n,Hangup()
"""
_LINE = re.compile(
    r"^\[(?P<at>[^\]]+)\] NOTICE.*(?P<what>entered|went_on)=(?P<id>\S+)"
    r"(?: status=(?P<status>\w*) reason=(?P<reason>\w*))?",
    re.MULTILINE,
)


class Places:
    """Counts how many hold one, at each change."""

    def __init__(self) -> None:
        self.most = 0
        self.bench: Bench | None = None

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        if self.bench is not None:
            taken = self.bench.bridge.calls.count()
            self.most = max(self.most, taken)


def went_on(asterisk: LabAsterisk, since: int) -> dict[str, tuple[str, str, float]]:
    """Who went on in the dialplan: status, reason, and seconds since entering."""
    text = asterisk.log_path.read_bytes()[since:].decode(errors="replace")
    entered: dict[str, datetime] = {}
    found: dict[str, tuple[str, str, float]] = {}
    for line in _LINE.finditer(text):
        at = datetime.fromisoformat(line["at"])
        if line["what"] == "entered":
            entered[line["id"]] = at
        else:
            seconds = (at - entered[line["id"]]).total_seconds()
            found[line["id"]] = (line["status"], line["reason"], seconds)
    return found


@contextlib.contextmanager
def few_logs() -> Iterator[None]:
    """A console is no part of what is measured."""
    usual = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        yield
    finally:
        structlog.configure(**usual)


async def test_a_burst_takes_all_places_and_not_one_more(asterisk: LabAsterisk) -> None:
    await asterisk.add_dialplan("burst", DIALPLAN)
    mark, places, requests = asterisk.log_size(), Places(), Counter[Operation[Any]]()
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(few_logs())
        b = await stack.enter_async_context(
            # Time to set up is not the question here, on whichever machine.
            bench(
                asterisk,
                book(**QUIET),
                [places.heard],
                max_concurrent_calls=PLACES,
                agent_connect_timeout_seconds=20,
            )
        )
        places.bench = b
        send = b.bridge.ari.rest.call

        async def counted(operation: Operation[Any], *rest: Any) -> Any:
            requests[operation] += 1
            return await send(operation, *rest)

        b.bridge.ari.rest.call = counted  # type: ignore[assignment, method-assign]
        phones = [await stack.enter_async_context(Phone()) for _ in range(PHONES)]

        async def call(number: int) -> None:
            await asyncio.sleep(number / CALLS)
            uri = f"sip:990@{asterisk.sip_host}:{asterisk.sip_port}"
            await phones[number % PHONES].dial(uri)

        await asyncio.gather(*(call(number) for number in range(CALLS)))
        await until(lambda: len(went_on(asterisk, mark)) == CALLS - PLACES)
        talking = [s for s in b.sessions() if s.counts]
        await until(lambda: {s.state for s in talking} == {State.TALKING})
        await until(lambda: all(s.counts or s.ended.is_set() for s in b.sessions()))
        assert len(talking) == places.most == PLACES
        refused = went_on(asterisk, mark).values()
        assert {(status, reason) for status, reason, _ in refused} == {("REJECTED", "at_capacity")}
        # Each call is named when it comes. A refusal costs the four variables of the dialplan and
        # the way back to it, no more.
        assert requests[SET_VARIABLE] == CALLS + 4 * len(refused)
        assert requests[CONTINUE] == len(refused)
        took = sorted(seconds for *_, seconds in refused)
        await asyncio.gather(*(c.hang_up() for phone in phones for c in phone.calls))
        await b.all_gone(5)
    log = structlog.get_logger(__name__)
    log.info("refused", calls=len(took), p50_s=took[len(took) // 2], slowest_s=took[-1])
    if MEASURED:
        assert took[-1] < WITHIN_SECONDS
