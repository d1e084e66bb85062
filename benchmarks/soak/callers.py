"""`python -m benchmarks.soak.callers`: all phones, in a process of their own.

Lines of JSON both ways. The first one out names the address at which callees are reached; the first
one in says where Asterisk and the service are. Then `{"do": "call", "plan": …}` makes a call,
`{"do": "end"}` hangs all of them up. Out come `{"event": "ended", "result": …}` for each call and,
every second, `{"event": "second", "gaps": …}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import structlog
import uvloop

from benchmarks.soak.gaps import GapBook
from benchmarks.soak.ledger import CallResult
from benchmarks.soak.plan import CallPlan
from benchmarks.soak.scenarios import Scenario, Surroundings
from benchmarks.soak.service_api import ServiceApi
from benchmarks.soak.world import TARGET_NUMBER
from lab.softphone import Call, Phone, Ring
from lab.softphone.errors import SoftphoneError
from lab.softphone.fields import Uri
from lab.softphone.incoming import IncomingLeg

_BRIEFED_SECONDS = 6.0
_TARGET_DELAY_SECONDS = 0.5
_HTTP_SECONDS = 15.0


@dataclass(slots=True)
class Callees:
    """One phone that takes all calls that come in, each for whoever waits for its number."""

    phone: Phone
    _waiting: dict[str, asyncio.Future[Call]] = field(default_factory=dict)
    _targets: set[asyncio.Task[None]] = field(default_factory=set)

    async def called(self, number: str) -> Call:
        """The call for a number. The caller of this bounds the time."""
        future: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    async def serve(self) -> None:
        """Hand calls out until cancelled."""
        try:
            while True:
                call = await self.phone.incoming()
                assert isinstance(call.leg, IncomingLeg)
                number = Uri.parse(call.leg.called).user or ""
                future = self._waiting.get(number)
                if future is not None and not future.done():
                    future.set_result(call)
                elif number == TARGET_NUMBER:
                    task = asyncio.create_task(_be_consulted(call))
                    self._targets.add(task)
                    task.add_done_callback(self._targets.discard)
                else:
                    call.reject(404)
        finally:
            for task in self._targets:
                task.cancel()
            await asyncio.gather(*self._targets, return_exceptions=True)


async def _be_consulted(call: Call) -> None:
    """Be the person whom an agent asks, who talks to the caller for a while and hangs up."""
    with contextlib.suppress(SoftphoneError, TimeoutError, RuntimeError):
        await asyncio.sleep(_TARGET_DELAY_SECONDS)
        await call.answer()
        await asyncio.wait_for(call.ended, _BRIEFED_SECONDS)
    await call.hang_up()


class Callers:
    """The calls that run in this process."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._running: dict[Scenario, asyncio.Task[None]] = {}

    def start(self, plan: CallPlan) -> None:
        """Make a call; its result is said when it is over."""
        scenario = Scenario(plan, self._around)
        self._running[scenario] = asyncio.create_task(self._run(scenario), name=plan.name)

    def __len__(self) -> int:
        return len(self._running)

    async def end(self) -> None:
        """Let all of them hang up, and wait until each has told its result."""
        tasks = list(self._running.values())
        await asyncio.gather(*(scenario.end() for scenario in list(self._running)))
        await asyncio.gather(*tasks)

    async def _run(self, scenario: Scenario) -> None:
        began = time.monotonic()
        plan = scenario.plan
        try:
            result = await scenario.run()
        except Exception as error:
            # A mistake of the phone's own must show, and must not look like a call that is up.
            why = f"the phone failed: {error!r}"
            result = CallResult(plan.number, plan.kind, began, time.monotonic(), failed=why)
        finally:
            del self._running[scenario]
        _say({"event": "ended", "result": result.to_json()})


def main() -> None:
    """Make calls until whoever started this closes our input."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())


async def _serve() -> None:
    lines = await _standard_input()
    async with contextlib.AsyncExitStack() as stack:
        phone = await stack.enter_async_context(Phone(username="callee", on_incoming=Ring()))
        _say({"event": "callee", "port": phone.address.port})
        where = json.loads(await lines.readline())
        timeout = aiohttp.ClientTimeout(total=_HTTP_SECONDS)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(
                timeout=timeout,
                headers={"X-API-Key": where["key"]},
                # An idle connection would look like something that a call has left behind.
                connector=aiohttp.TCPConnector(force_close=True),
            )
        )
        callees = Callees(phone)
        serving = asyncio.create_task(callees.serve(), name="callees")
        book = GapBook()

        async def dial(phone: Phone, extension: str, codec: str) -> Call:
            return await phone.dial(f"sip:{extension}@{where['sip']}", codec=codec)

        callers = Callers(
            Surroundings(
                ServiceApi(http, where["api"]),
                dial,
                callees.called,
                lambda _, gap_ms: book.note(gap_ms),
                where["dead_air_seconds"],
            )
        )
        gc.collect()
        gc.freeze()

        async def tell_seconds() -> None:
            nonlocal book
            while True:
                await asyncio.sleep(1)
                gaps, book = book, GapBook()
                now = time.monotonic()
                _say({"event": "second", "at": now, "calls": len(callers), "gaps": gaps.to_json()})

        seconds = asyncio.create_task(tell_seconds(), name="seconds")
        try:
            while line := await lines.readline():
                await _obey(json.loads(line), callers)
        finally:
            await callers.end()
            for task in (seconds, serving):
                task.cancel()
            await asyncio.gather(seconds, serving, return_exceptions=True)


async def _obey(order: dict[str, Any], callers: Callers) -> None:
    match order:
        case {"do": "call", "plan": plan}:
            callers.start(CallPlan.from_json(plan))
        case {"do": "end"}:
            await callers.end()
        case _:
            raise ValueError(f"not understood: {order}")


async def _standard_input() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
