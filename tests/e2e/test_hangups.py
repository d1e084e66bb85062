"""Calls that end at random moments: at every state, and at every request that Asterisk gets.

`ARI_APP_HANGUPS` says how many (1000 by `make hangups`), `ARI_APP_SEED` repeats a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import pytest
import structlog

from ari_app.call.states import State
from ari_app.control.planner import Wish
from ari_app.control.refusals import NotPossible
from ari_app.line.asterisk.ari import resources as bridges
from ari_app.line.asterisk.ari import resources as channels
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.records.events import AgentConnected, CallEvent, StateChanged
from ari_app.records.record import CallRecord
from lab.asterisk import LabAsterisk
from lab.softphone import Answer, CallFailed, Phone
from lab.softphone.call import Call
from lab.softphone.incoming import IncomingLeg
from tests.e2e.harness import Bench, bench, book
from tests.session_view import Session
from tests.waiting import until

pytestmark = pytest.mark.e2e

log = structlog.get_logger(__name__)

CALLS = int(os.environ.get("ARI_APP_HANGUPS", "140"))
AT_ONCE = 24
LONGEST_DELAY = 0.03
BRIEF = {"dialogue": {"first_message": "Hello.", "turns": []}}

REQUESTS: dict[Operation[Any], str] = {
    channels.RING: "ring",
    bridges.CREATE_BRIDGE: "make bridge",
    channels.EXTERNAL_MEDIA: "open media",
    bridges.ADD_CHANNEL: "join",
    channels.ANSWER: "answer",
    channels.SET_VARIABLE: "set variable",
    channels.CONTINUE: "continue",
    channels.HANGUP: "hang up",
    bridges.DESTROY_BRIDGE: "destroy bridge",
    channels.ORIGINATE_WITH_ID: "originate",
    channels.START_MOH: "start music",
    bridges.REMOVE_CHANNEL: "leave bridge",
}
ON_THE_WAY_IN = [
    "dialled",
    "connecting",
    "agent connected",
    "joining",
    "talking",
    *(f"{name} {when}" for name in ("ring", "make bridge", "open media", "join", "answer")
      for when in ("asked", "done")),
]  # fmt: skip
IN_THE_MIDDLE = ["holding", "leave bridge asked", "leave bridge done", "start music asked"]
ON_THE_WAY_OUT = [
    "closing",
    "draining",
    "releasing",
    *(f"{name} {when}" for name in ("set variable", "continue", "hang up", "destroy bridge")
      for when in ("asked", "done")),
]  # fmt: skip
PLACED = [
    "originate asked",
    "originate done",
    "dialling",
    "ringing",
    "agent connected",
    "joining",
    "talking",
]
KINDS = {
    "in": ON_THE_WAY_IN + IN_THE_MIDDLE + ON_THE_WAY_OUT,
    "wait": ["waiting", "connecting", "ring asked", "ring done"],
    "out": PLACED,
}
MOMENTS = [(kind, moment) for kind, moments in KINDS.items() for moment in moments]


@dataclass
class Plan:
    """How one call is to end.

    Attributes:
        number: Dialled by the caller, or by us: its name.
        by_phone: The phone hangs up; otherwise an end is asked for.
        delay: From the moment to the end, in seconds.
    """

    number: str
    kind: str
    moment: str
    by_phone: bool
    delay: float
    hit: asyncio.Event = field(default_factory=asyncio.Event)
    session: Session | None = None


class Moments:
    """Sees each moment of each call, and tells the one whose plan it is."""

    def __init__(self) -> None:
        self.plans: dict[str, Plan] = {}
        self.hits: Counter[tuple[str, str]] = Counter()
        self._by_id: dict[str, Plan] = {}
        self._bench: Bench | None = None

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        plan = self.plans.get(record.called_number.removeprefix("+"))
        if plan is None or self._bench is None:
            return
        session = plan.session = Session(self._bench.bridge.calls, record)
        for name in (session.call_id, session.media_id, session.bridge_id):
            self._by_id[name] = plan
        match event:
            case StateChanged(state):
                self._came(plan, state)
            case AgentConnected():
                self._came(plan, "agent connected")

    def watch(self, b: Bench) -> None:
        """See the requests too."""
        self._bench = b
        rest = b.bridge.ari.rest
        send = rest.call

        async def call(
            operation: Operation[Any], ids: tuple[str, ...], given: dict[str, Any], deadline: float
        ) -> Any:
            name = REQUESTS.get(operation)
            plan = self._by_id.get(ids[0] if ids else str(given.get("channelId")))
            self._came(plan, f"{name} asked")
            try:
                return await send(operation, ids, given, deadline)
            finally:
                self._came(plan, f"{name} done")

        rest.call = call  # type: ignore[method-assign]

    def _came(self, plan: Plan | None, moment: str) -> None:
        if plan is not None and plan.moment == moment and not plan.hit.is_set():
            self.reached(plan)

    def reached(self, plan: Plan) -> None:
        self.hits[plan.kind, plan.moment] += 1
        plan.hit.set()


@dataclass
class Crowd:
    """The phones, and what they are called with."""

    b: Bench
    moments: Moments
    phones: list[Phone]
    callee: Phone

    async def live(self, plan: Plan) -> None:
        """One call, from its first moment to its last."""
        self.moments.plans[plan.number] = plan
        pushing = asyncio.create_task(self._push_on(plan))
        call = await self._begin(plan)
        try:
            async with asyncio.timeout(60):
                await plan.hit.wait()
            await asyncio.sleep(plan.delay)
            if plan.by_phone or plan.session is None:
                await self._hang_up(plan, call)
            else:
                await self.b.bridge.control.end(plan.session.session_id)
            if plan.session is not None:
                async with asyncio.timeout(60):
                    await plan.session.ended.wait()
        finally:
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)
            await self._hang_up(plan, call)

    async def _begin(self, plan: Plan) -> Call | None:
        if plan.kind == "out":
            asked = Wish(called_number=f"+{plan.number}")
            await self.b.initiate(asked)
            return None
        asterisk = self.b.asterisk
        target = f"sip:{plan.number}@{asterisk.sip_host}:{asterisk.sip_port}"
        call = await self.phones[int(plan.number) % len(self.phones)].dial(target)
        if plan.moment == "dialled":
            self.moments.reached(plan)
        return call

    async def _push_on(self, plan: Plan) -> None:
        """Bring a call to the moments that it would not come to by itself."""
        control = self.b.bridge.control
        await until(lambda: plan.session is not None)
        session = plan.session
        assert session is not None
        if plan.kind == "wait" and plan.moment != "waiting":
            await until(lambda: session.state != "new")
            await control.initiate(Wish(reference=session.call_id))
        if plan.moment in IN_THE_MIDDLE + ON_THE_WAY_OUT:
            await until(lambda: session.state is State.TALKING or session.ended.is_set())
            with contextlib.suppress(NotPossible):
                if plan.moment in IN_THE_MIDDLE:
                    await control.hold(session.session_id, on=True)
                else:
                    await control.transfer(session.session_id, "9876")

    async def _hang_up(self, plan: Plan, call: Call | None) -> None:
        call = call or next(
            (
                each
                for each in self.callee.calls
                if isinstance(each.leg, IncomingLeg) and plan.number in str(each.leg.called)
            ),
            None,
        )
        if call is not None and call.ending is None:
            with contextlib.suppress(CallFailed):
                await call.hang_up()
        elif call is None and plan.session is not None and not plan.session.ended.is_set():
            # Nobody has been called yet who could hang up.
            await self.b.bridge.control.end(plan.session.session_id)


@contextlib.asynccontextmanager
async def crowd(asterisk: LabAsterisk) -> AsyncIterator[Crowd]:
    moments = Moments()
    async with contextlib.AsyncExitStack() as stack:
        callee = await stack.enter_async_context(
            Phone(on_incoming=Answer(after_s=0.2), max_incoming=max(CALLS, 64))
        )
        phones = [await stack.enter_async_context(Phone()) for _ in range(6)]
        b = await stack.enter_async_context(
            bench(
                asterisk,
                book(**BRIEF),
                [moments.heard],
                max_concurrent_calls=2 * AT_ONCE,
                outbound_endpoint=f"PJSIP/lab/sip:{{number}}@127.0.0.1:{callee.address.port}",
            )
        )
        moments.watch(b)
        yield Crowd(b, moments, phones, callee)


def plans(seed: int) -> list[Plan]:
    chance = random.Random(seed)
    order = list(islice(cycle(MOMENTS), max(CALLS, len(MOMENTS))))
    chance.shuffle(order)
    waits = {"wait": "8", "in": "9", "out": "7"}
    return [
        Plan(
            f"{waits[kind]}{number:06d}",
            kind,
            moment,
            by_phone=chance.random() < 0.6,
            delay=chance.choice((0.0, chance.uniform(0, LONGEST_DELAY))),
        )
        for number, (kind, moment) in enumerate(order)
    ]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


WAITING = """
[from-phones](+)
exten => _8XXXXXX,1,Stasis(${APP},wait=30)
 same => n,Goto(after-agent,s,1)
"""


@pytest.mark.timeout(1800)
async def test_nothing_is_left_of_calls_that_end_at_any_moment(asterisk: LabAsterisk) -> None:
    seed = int(os.environ.get("ARI_APP_SEED", random.randrange(1_000_000)))
    log.info("hangups", calls=CALLS, repeat_with=f"ARI_APP_SEED={seed}")
    await asterisk.add_dialplan("hangups", WAITING)
    files = open_files()
    async with crowd(asterisk) as those:
        room = asyncio.Semaphore(AT_ONCE)

        async def live(plan: Plan) -> None:
            async with room:
                try:
                    await those.live(plan)
                except BaseException as error:
                    error.add_note(f"ARI_APP_SEED={seed}: {plan}")
                    raise

        async with asyncio.TaskGroup() as group:
            for plan in plans(seed):
                group.create_task(live(plan))
        await those.b.all_gone(5)
        assert set(those.moments.hits) == set(MOMENTS)
        hits = {f"{kind}: {moment}": n for (kind, moment), n in those.moments.hits.items()}
        log.info("moments hit", **dict(sorted(hits.items())))
    await until(lambda: open_files() <= files)
