"""The context that the parts of a call share: record, machine and events, tasks, journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import structlog

from ari_app.call.checkpoint import CheckpointWriter
from ari_app.call.course import Course
from ari_app.call.keypad import DigitMode
from ari_app.call.machine import CallMachine
from ari_app.call.plan import CallPolicy
from ari_app.call.signals import Effect, Event
from ari_app.call.states import IDLE, INITIALIZING, OVER, State
from ari_app.line.interface import LineFailed, Outcome, Status
from ari_app.records.bounded import shortened
from ari_app.records.events import CallEvent, StateChanged, StepTook, Words
from ari_app.records.hiding import Secrets
from ari_app.records.journal import Journal
from ari_app.records.record import CallRecord

log = structlog.get_logger(__name__)


class CallContext:
    """Holds what the parts of a call share, and passes events to the machine.

    `perform` and `changed` lead back to the call. `let_go` cuts them, so that an ended call is
    freed at once and not by the next full garbage collection.

    Args:
        record: The call's record.
        policy: The rules of every call.
        journal: Where its events go.
        course: The machine's state, of a call whose process was lost; None: a new one.

    Attributes:
        on_hold: The caller's phone has put us on hold.
        secrets: Keys that the caller has entered and that must not be kept.
        perform: Carries out an effect of the machine's; never waits.
        changed: Called with the state before, when the state has changed.
        keeper: Writes the call's file for another process; None: there is none.
    """

    def __init__(
        self,
        record: CallRecord,
        policy: CallPolicy,
        journal: Journal,
        course: Course | None = None,
    ) -> None:
        self.record = record
        self.policy = policy
        self.on_hold = False
        self.secrets = Secrets(beginnings=policy.digit_mode is DigitMode.EACH)
        self.perform: Callable[[Effect], None] = _ignore
        self.changed: Callable[[State], None] = _ignore
        self.log = log.bind(session=record.session_id, call=record.line_id, **traced(record))
        self._journal = journal
        self._machine = CallMachine(course)
        self.keeper: CheckpointWriter | None = None
        self._loop = asyncio.get_running_loop()
        self._events: list[Event] = []
        self._handling = False
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the machine

    @property
    def state(self) -> State:
        """Where the call is."""
        return self._machine.state

    @property
    def course(self) -> Course:
        """The machine's state; read only."""
        return self._machine.course

    @property
    def outcome(self) -> Outcome | None:
        """How the call ends; None until that is decided."""
        return self._machine.outcome

    @property
    def ends(self) -> bool:
        """Whether it is decided that the call ends, now or once what was said has been heard."""
        return self._machine.ends

    @property
    def calls_in(self) -> bool:
        """Whether a supervisor's phone rings."""
        return self._machine.calls_in

    @property
    def over(self) -> bool:
        """Whether everything is being given back, or has been."""
        return self._machine.state in OVER

    @property
    def counts(self) -> bool:
        """Whether the call holds an agent or is about to: it counts against the limit."""
        return self._machine.state not in IDLE

    def post(self, event: Event) -> None:
        """Feed one event to the machine and carry out what it asks for, in order."""
        self._events.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._events:
                before = self._machine.state
                effects = self._machine.handle(self._events.pop(0))
                # Much of its course may have changed and not the state.
                self.mark()
                for effect in effects:
                    self.perform(effect)
                if self._machine.state is not before:
                    self._state_changed(before)
        finally:
            self._handling = False

    def _state_changed(self, before: State) -> None:
        state, record = self._machine.state, self.record
        self.log.debug("call_state", state=state.value)
        record.state = state.value
        if state in INITIALIZING:
            record.status = "initializing"
        else:
            record.status = "ended" if state is State.ENDED else "active"
        if (outcome := self._machine.outcome) is not None:
            if record.agent_status == Status.TRANSFER:
                # If it is another end by now, the caller has gone nowhere.
                record.transfer_to = None
            record.agent_status, record.end_reason = outcome.status.value, outcome.reason
            if outcome.transfer_to is not None:
                record.transfer_to = outcome.transfer_to
        self.mark()
        self.changed(before)

    # --- the journal

    def note(self, event: CallEvent) -> None:
        """Add an event to the record, and tell everybody who watches."""
        at = round(self.duration(), 3)
        self.record.fold(event, at)
        if self.keeper is not None:
            self.keeper.event(event, at)
        self._journal.note(self.record, event)

    def mark(self) -> None:
        """Have the call's state kept anew, for something has changed that no event tells."""
        if self.keeper is not None:
            self.keeper.changed()

    def took(self, step: str, began: float, failure: str | None = None) -> None:
        """Tell that a step is over.

        Args:
            step: Its name.
            began: When it began, in seconds since the call did.
            failure: Why it failed: a slug; None: it did not.
        """
        self.note(StepTook(step, round(self.duration() - began, 3), failure))

    def note_state(self) -> None:
        """Tell where the call is now."""
        self.note(StateChanged(self.record.state, self.record.status))

    def say(self, event: Words) -> None:
        """Add words to the transcript, cut to what one entry may hold, and without secrets."""
        if self.secrets:
            told = ("text", "original", "arguments", "result")
            changes = {
                name: self.secrets.out_of(getattr(event, name))
                for name in told
                if hasattr(event, name)
            }
            event = replace(event, **changes)
        text = shortened(event.text)
        self.note(event if text is event.text else replace(event, text=text))

    def loop_time(self) -> float:
        """Return the time on the event loop's clock."""
        return self._loop.time()

    def duration(self) -> float:
        """Return the seconds that the call has lasted."""
        return self.record.duration(self._loop.time())

    # --- tasks

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a task of this call; one that fails ends the call."""
        task = self._loop.create_task(work, name=f"call {self.record.line_id}")
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    async def stop_tasks(self) -> None:
        """Cancel all tasks but the one that asks, and wait until they have ended."""
        others = self._tasks - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others)

    def let_go(self) -> None:
        """Cut the references that lead back to the call, which is over."""
        self.perform = self.changed = _ignore
        self.keeper = None

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.log.error("call_task_failed", exc_info=error)
            if not self.over:
                self.post(LineFailed("internal_error"))


def traced(record: CallRecord) -> Mapping[str, str]:
    """Return the fields with which a line of the log names a call's trace; none without one."""
    return {} if record.trace is None else {"trace_id": record.trace.trace_id}


def _ignore(told: object) -> None:
    """Do nothing: the call is over, or not there yet."""
