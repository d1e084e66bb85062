"""All calls: takes arrivals in, lets callers wait for an agent, keeps the limit, ends them all."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol

import structlog

from ari_app.call.admission import Admission, Room
from ari_app.call.call import Call
from ari_app.call.checkpoint import Restored
from ari_app.call.context import traced
from ari_app.call.plan import CallPlan, Services
from ari_app.call.signals import EndRequested
from ari_app.errors import AppError
from ari_app.line.interface import (
    Arrival,
    CallEnd,
    Ended,
    Line,
    LineEvent,
    LineFailed,
    Outcome,
    Status,
)
from ari_app.process.logs import Number
from ari_app.records.events import CallEnded, StateChanged
from ari_app.records.record import CallRecord
from ari_app.records.spend.limits import Quota
from ari_app.records.trace import TraceContext

log = structlog.get_logger(__name__)

# An ended call stays visible for so long.
_KEEP_ENDED_SECONDS = 60.0
_MAX_ENDED = 1000
# A line may take so long to give everything back where its far end does not answer.
_RELEASE_SECONDS = 16.0
# After that its requests are given up, and each has a deadline of its own.
_GIVE_UP_SECONDS = 6.0
# Whoever asks for a call's end waits no longer, though the far end may be away.
_END_SECONDS = 10.0

_WAIT_TIMEOUT = Outcome(Status.FAILED, "wait_timeout")
_DRAINING = Outcome(Status.REJECTED, "draining")
_QUOTA = Outcome(Status.REJECTED, "quota")
_OUR_FAULT = Outcome(Status.FAILED, "internal_error")


class ArrivalPlanner(Protocol):
    """Decides about calls that come in; `ari_app.control.planner` does."""

    async def for_arrival(self, record: CallRecord, arrival: Arrival) -> CallPlan:
        """Plan for a call, and prepare its line.

        Raises:
            AppError: It cannot be made.
        """
        ...

    def for_refusal(self, arrival: Arrival) -> CallPlan:
        """Plan for a caller who gets no agent now: given back at once, or left to wait."""
        ...


class Waiting:
    """A caller who waits until a request names their agent. It is no call yet, but has a record.

    Args:
        services: What every call uses.
        arrival: The caller.
        record: Its record.

    Attributes:
        ended: Set once the caller has been given back, or has become a call.
    """

    def __init__(self, services: Services, arrival: Arrival, record: CallRecord) -> None:
        self.arrival = arrival
        self.record = record
        self.ended = asyncio.Event()
        self._journal = services.journal
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(arrival.wait_seconds or 0.0, self.end, _WAIT_TIMEOUT)
        self._state("waiting", "initializing")
        # If the caller has gone already, this tells so at once.
        arrival.line.listen(self._on_line)

    def begin(self) -> None:
        """Let the caller hear ringing, or music if the line is answered."""
        line = self.arrival.line
        # It may have ended meanwhile.
        if self._task is None:
            if line.answered:
                line.music()
            else:
                line.ring()

    @property
    def waits(self) -> bool:
        """Whether an agent can still be named."""
        return self._task is None and not self.ended.is_set()

    def refresh(self) -> None:
        """Do nothing: unlike a call, a waiting caller has no figures."""

    def become_call(self) -> Line:
        """Stop waiting, for an agent has been named; return the line, which is the call's now."""
        self._timer.cancel()
        self.ended.set()
        return self.arrival.line

    def end(self, outcome: Outcome) -> None:
        """Give the caller back."""
        if self.waits:
            self._timer.cancel()
            self.record.agent_status, self.record.end_reason = outcome.status.value, outcome.reason
            self._state("releasing", "active")
            self._task = self._loop.create_task(
                self._close(outcome), name=f"call {self.record.line_id}"
            )

    def _on_line(self, event: LineEvent) -> None:
        match event:
            case Ended(reason):
                self.end(Outcome(Status.COMPLETED, reason))
            case LineFailed(reason):
                self.end(Outcome(Status.FAILED, reason))
            case _:
                pass

    async def _close(self, outcome: Outcome) -> None:
        record, line = self.record, self.arrival.line
        await line.close(outcome, CallEnd(record.session_id))
        seconds = record.has_ended(self._loop.time())
        record.hangup_cause, record.sip_code = line.cause.hangup_cause, line.cause.sip_code
        self._state("ended", "ended")
        self._journal.note(
            record,
            CallEnded(record.agent_status, record.end_reason, round(seconds, 3)),
        )
        self.ended.set()

    def _state(self, state: str, status: str) -> None:
        self.record.state, self.record.status = state, status
        self._journal.note(self.record, StateChanged(state, status))


class Calls:
    """All calls of this process, and all callers who wait.

    Args:
        services: What every call uses.
        planner: Decides about a call that comes in.
        max_concurrent_calls: How many calls may hold an agent; one more is `REJECTED`.
        calls_per_second: How many we may place; 0: any number.
        queue_size: How many requests may wait for room.
        give_up: Gives up requests that still wait for a far end that is away.
        quota: Returns the limit of the day that forbids another call with an agent, if any; asked
            with an empty id, the limit that forbids one with every agent.
        admission: Gives out the places; None: one of this process' own.
        on_known: Called with the session id and the record of each new call, and with None instead
            of the record once it is forgotten.

    Attributes:
        records: By session id: the calls that run, those who wait, and those that ended in the last
            minute.
        admission: The places of the calls.
        quota: As given.
        draining: New calls are `REJECTED`.
    """

    def __init__(
        self,
        services: Services,
        planner: ArrivalPlanner,
        *,
        max_concurrent_calls: int,
        calls_per_second: float = 0.0,
        queue_size: int = 100,
        give_up: Callable[[], None] = lambda: None,
        quota: Callable[[str], Quota | None] = lambda agent_id: None,
        admission: Room | None = None,
        on_known: Callable[[str, CallRecord | None], None] = lambda name, record: None,
    ) -> None:
        self.max_concurrent_calls = max_concurrent_calls
        self.admission: Room = admission or Admission(
            max_concurrent_calls,
            self.count,
            per_second=calls_per_second,
            max_waiting=queue_size,
        )
        self._on_known = on_known
        self.records: dict[str, CallRecord] = {}
        self.draining = False
        self.quota = quota
        self._services = services
        self._planner = planner
        self._give_up = give_up
        self._live: dict[str, Call | Waiting] = {}
        # Of `records` those that have ended, the first one first, and until when they are kept.
        self._over: dict[str, float] = {}
        self._forgetting: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._taking_in: set[asyncio.Task[None]] = set()

    # --- calls come and go

    def take(self, arrival: Arrival) -> asyncio.Task[None]:
        """Take an arrival in, or refuse it: a refused one goes on elsewhere at once.

        Returns:
            A task that is done once the arrival has become a call, and counts as one, or has been
            refused.
        """
        task = self._spawn(self._begin(arrival))
        self._taking_in.add(task)
        task.add_done_callback(self._taking_in.discard)
        return task

    async def _begin(self, arrival: Arrival) -> None:
        record = self._record(uuid.uuid4().hex, arrival)
        try:
            await self._take_in(arrival, record)
        except Exception:
            log.exception("call_not_taken_in", call=arrival.line.id)
            await arrival.line.close(_OUR_FAULT, CallEnd(record.session_id))

    async def _take_in(self, arrival: Arrival, record: CallRecord) -> None:
        line = arrival.line
        for problem in arrival.problems:
            log.warning("bad_argument", call=line.id, problem=problem)
        line.name(record.session_id)
        if arrival.wait_seconds:
            self._let_wait(arrival, record)
            return
        failure: str | None = None
        try:
            plan = await self._planner.for_arrival(record, arrival)
        except AppError as error:
            plan, failure = self._planner.for_refusal(arrival), error.code
        log.info(
            "call_entered",
            call=line.id,
            session=record.session_id,
            caller=Number(line.caller),
            called=Number(line.called),
            **traced(record),
        )
        refusal = (
            self._refusal(plan, arrival) if failure is None else Outcome(Status.FAILED, failure)
        )
        call = self._add(plan, line, record)
        if call.context.over:
            return  # the caller hung up while the call was planned, as the line has told it
        if refusal is None:
            on_machine = self._services.policy.amd.decide(arrival.screened)
            if arrival.screened is not None:
                record.metadata.update(arrival.screened.known)
            call.arrive(on_machine)
        else:
            log.warning("call_refused", call=line.id, reason=refusal.reason)
            call.refuse(refusal)

    def _let_wait(self, arrival: Arrival, record: CallRecord) -> None:
        # The agent, should the request name no other.
        record.agent_id = self._planner.for_refusal(arrival).briefing.agent_id
        waiting = Waiting(self._services, arrival, record)
        self._keep(waiting)
        if self.draining:
            waiting.end(_DRAINING)
        elif self.quota("") is not None:
            # No agent could be named with which a call may begin.
            waiting.end(_QUOTA)
        else:
            waiting.begin()

    def place(
        self, plan: CallPlan, line: Line, record: CallRecord, *, screened: bool = False
    ) -> CallRecord:
        """Begin a call that we place. A place for it must have been taken."""
        self._add(plan, line, record).place(screened=screened)
        return record

    def adopt(
        self,
        restored: Restored,
        make_line: Callable[[str, Mapping[str, Any], Callable[[], None]], Line | None],
    ) -> bool:
        """Go on with a call whose process was lost, once its line can be used.

        Args:
            restored: The call as that process has kept it.
            make_line: `Gateway.adopt`.

        Returns:
            Whether a way in could make its line; otherwise nothing has been done.
        """
        record, checkpoint = restored.record, restored.checkpoint
        session_id = record.session_id
        line = make_line(session_id, checkpoint.line, lambda: self._take_up(session_id))
        if line is None:
            return False
        for at, event in restored.events:
            self._services.journal.restore(record, event, at)
        self._keep(Call(self._services, checkpoint.plan, line, record, restored))
        return True

    def _take_up(self, session_id: str) -> None:
        if (call := self.call(session_id)) is None:
            return
        try:
            call.take_up()
        except Exception:
            log.exception("call_not_taken_up", session=session_id)
            # Its line still holds the caller, so no sweep would give them back.
            call.fail(_OUR_FAULT)

    def assign(self, waiting: Waiting, plan: CallPlan, session_id: str) -> CallRecord:
        """Begin the call of a waiting caller, under the name `session_id`."""
        record, line = waiting.record, waiting.become_call()
        self._live.pop(record.session_id, None)
        self._forget(record.session_id)
        record.session_id = session_id
        line.name(session_id)
        self._add(plan, line, record).arrive()
        return record

    def begin_trace(self, traceparent: str, tracestate: str) -> TraceContext | None:
        """Return a call's place in the trace that it came with, or in a new one."""
        return self._services.begin_trace(traceparent, tracestate)

    def _record(self, session_id: str, arrival: Arrival) -> CallRecord:
        line = arrival.line
        return CallRecord(
            session_id,
            line.id,
            self._loop.time(),
            way=line.way,
            trunk=line.trunk,
            placed=line.placed,
            caller_number=line.caller,
            called_number=line.called,
            trace=self.begin_trace(arrival.traceparent, ""),
        )

    def _add(self, plan: CallPlan, line: Line, record: CallRecord) -> Call:
        call = Call(self._services, plan, line, record)
        self._keep(call)
        return call

    def _keep(self, live: Call | Waiting) -> None:
        name = live.record.session_id
        self.records[name] = live.record
        self._live[name] = live
        # The name may have been that of a call that has ended.
        self._over.pop(name, None)
        self._on_known(name, live.record)
        self._spawn(self._retire(live.record, live.ended))

    async def _retire(self, record: CallRecord, ended: asyncio.Event) -> None:
        await ended.wait()
        if record.ended_at is None:
            return  # somebody who waited, and has become a call
        self._live.pop(record.session_id, None)
        self.admission.changed()
        self._over[record.session_id] = self._loop.time() + _KEEP_ENDED_SECONDS
        while len(self._over) > _MAX_ENDED:
            self._forget(next(iter(self._over)))
        if self._forgetting is None:
            self._forgetting = self._loop.call_later(_KEEP_ENDED_SECONDS, self._forget_old)

    def _forget_old(self) -> None:
        self._forgetting = None
        now = self._loop.time()
        while self._over:
            name, until = next(iter(self._over.items()))
            if until > now:
                self._forgetting = self._loop.call_at(until, self._forget_old)
                return
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._over.pop(name, None)
        if self.records.pop(name, None) is not None:
            self._on_known(name, None)

    # --- who is here

    def call(self, session_id: str) -> Call | None:
        """Return the call of this name that has not ended."""
        live = self._live.get(session_id)
        return live if isinstance(live, Call) else None

    def live(self, session_id: str) -> Call | Waiting | None:
        """Return the call, or the waiting caller, of this name that has not ended."""
        return self._live.get(session_id)

    def record(self, session_id: str) -> CallRecord | None:
        """Return the record of a call, up to date; an ended one is there for another 60 seconds."""
        if (live := self._live.get(session_id)) is not None:
            live.refresh()
        return self.records.get(session_id)

    def waiting_on(self, line_id: str) -> Waiting | None:
        """Return the caller who waits for an agent on a line."""
        return next(
            (
                live
                for live in self._live.values()
                if isinstance(live, Waiting) and live.waits and live.record.line_id == line_id
            ),
            None,
        )

    def count(self) -> int:
        """Return how many calls hold an agent, or are about to."""
        return sum(1 for live in self._live.values() if isinstance(live, Call) and live.counts)

    # --- ends

    async def end(self, session_id: str, reason: str = "end_requested") -> None:
        """End a call and wait until everything has been given back, for ten seconds at most.

        While the far end cannot be reached the call stays `releasing`, and is given back later.

        Raises:
            KeyError: There is no such call.
        """
        if session_id not in self.records:
            raise KeyError(session_id)
        if (live := self._live.get(session_id)) is not None:
            _end(live, Outcome(Status.COMPLETED, reason))
            await _all_ended([live], _END_SECONDS)

    def end_all(self, reason: str) -> None:
        """End every call now; the callers go on elsewhere as `FAILED`."""
        for live in tuple(self._live.values()):
            _end(live, Outcome(Status.FAILED, reason))

    async def drain(self, timeout: float) -> None:
        """Refuse new calls, let the running ones finish, and after `timeout` seconds end them.

        Returns within another 22 s, also where the far end cannot be reached.
        """
        self.draining = True
        self.admission.close()
        for live in tuple(self._live.values()):
            if isinstance(live, Waiting):
                live.end(_DRAINING)
        if running := tuple(self._live.values()):
            log.info("draining", calls=len(running), limit_seconds=timeout)
            if not await _all_ended(running, timeout):
                self.end_all("shutting_down")
        with suppress(TimeoutError):
            async with asyncio.timeout(_RELEASE_SECONDS):
                # Arrivals of the meantime were refused, and are being given back.
                if self._taking_in:
                    await asyncio.wait(self._taking_in)
                await _all_ended(tuple(self._live.values()), None)
        if left := tuple(self._live.values()):
            log.error("calls_not_given_back", calls=len(left))
            self._give_up()
            await _all_ended(left, _GIVE_UP_SECONDS)

    async def close(self) -> None:
        """Stop what runs in the background. Calls must have ended: see `drain`."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refusal(self, plan: CallPlan, arrival: Arrival) -> Outcome | None:
        if self.draining:
            return _DRAINING
        full = self.admission.full if arrival.has_room is None else not arrival.has_room
        if full:
            return Outcome(Status.REJECTED, "at_capacity")
        if not plan.briefing.agent_id:
            return Outcome(Status.FAILED, "no_agent_id")
        if self.quota(plan.briefing.agent_id) is not None:
            return _QUOTA
        return None

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _end(live: Call | Waiting, outcome: Outcome) -> None:
    if isinstance(live, Waiting):
        live.end(outcome)
    else:
        live.context.post(EndRequested(outcome))


async def _all_ended(calls: Collection[Call | Waiting], timeout: float | None) -> bool:
    """Wait until calls have ended, for `timeout` seconds at most; return whether they have."""
    waiting = [asyncio.ensure_future(call.ended.wait()) for call in calls]
    if not waiting:
        return True
    try:
        _, late = await asyncio.wait(waiting, timeout=timeout)
    finally:
        for future in waiting:
            future.cancel()
    return not late
