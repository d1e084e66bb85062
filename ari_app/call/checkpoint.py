"""Keeps a running call in a file, so that another process can go on with it if this one is lost.

The file has a line for each event of the journal and for each moment that the chronicle was told
of; replayed in order they give the call's record. All other state is small, and is written as a
whole whenever it changes (`Checkpoint`): the last such line counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, get_args, get_type_hints

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model

from ari_app.call.course import TRANSFERRED, Course
from ari_app.call.plan import Announcement, CallPlan
from ari_app.call.signals import Timer
from ari_app.call.states import State
from ari_app.line.interface import WORKER_LOST, Result
from ari_app.records.checkpoints import STATE, TAKEN, CheckpointFile, OrphanedCall, Unreadable
from ari_app.records.events import CallEnded, CallEvent
from ari_app.records.plain_json import plain_json
from ari_app.records.record import CallRecord

VERSION: Final = 1
"""The version of the file's format; a call in a file of another version is not gone on with."""

_EVENT: Final = "event"
_SOUND: Final = "sound"
# How long pieces of the agent's voice are gathered before they are written: many come in a second.
_SOUND_SECONDS: Final = 0.5
# How often figures that change all the time, such as those of the sound, are written.
_REFRESH_SECONDS: Final = 10.0
# The file outlives the call by this: a process that dies right after a call's end may not have told
# of it, and the next one then can.
_AFTER_END_SECONDS: Final = 1.0
_POISON_TIMES: Final = 3
_POISON_SECONDS: Final = 60.0

_LASTING: Final = (
    Timer.CALL,
    Timer.RING,
    Timer.SCREEN,
    Timer.CONSULT,
    Timer.BRING_IN,
    Timer.SPEECH,
    Timer.HOLD,
)
"""Timers that run on in the next process; the others belong to steps that it begins anew."""

# --- what is written: pure

_LOST_DETAIL: Final = "The process that carried the call was lost."

_LEFT_OUT: Final = frozenset({"transcript", "chronicle", "response_times"})
"""Fields of a record that the events restore."""
FACTS: Final = tuple(
    each.name for each in dataclasses.fields(CallRecord) if each.name not in _LEFT_OUT
)
_HINTS: Final = get_type_hints(CallRecord)
_Facts: type[BaseModel] = create_model(
    "_Facts",
    __config__=ConfigDict(extra="forbid"),
    **{name: (_HINTS[name], ...) for name in FACTS},  # type: ignore[call-overload]
)


@dataclass(frozen=True, slots=True)
class PartsState:
    """The state of a call's parts, beside that of its machine.

    Attributes:
        on_hold: The caller's phone holds us.
        recorded: It is to be recorded, while nothing pauses that.
        recordings: When each of its recordings began, in seconds of the call.
        announced: What the caller has been told, once each.
        audio_began: Caller and agent have been together.
        was_answered: The callee has answered.
        agent_holds: The caller hears music until the agent speaks.
        keys: The keys of an entry that is not complete.
        secrets: Keys that nobody may keep beyond the call.
    """

    on_hold: bool = False
    recorded: bool = False
    recordings: tuple[float, ...] = ()
    announced: frozenset[Announcement] = frozenset()
    audio_began: bool = False
    was_answered: bool = False
    agent_holds: bool = False
    keys: str = ""
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a call, without what its events restore.

    Attributes:
        version: `VERSION` of the program that wrote it.
        facts: The fields of its record that `FACTS` names.
        course: The state of its machine.
        plan: The plan that it began with.
        line: What `Line.checkpoint` returned.
        timers: When each `Timer` is due, in seconds of `CLOCK_MONOTONIC`.
        parts: The state of its parts.
    """

    version: int
    facts: Mapping[str, Any]
    course: Course
    plan: CallPlan
    line: Mapping[str, Any]
    timers: Mapping[str, float] = field(default_factory=dict)
    parts: PartsState = PartsState()

    def to_json(self) -> bytes:
        """Return it as JSON. Never fails, whatever values came from outside."""
        try:
            return orjson.dumps(self, default=_plain)
        except (orjson.JSONEncodeError, RecursionError):
            return orjson.dumps(plain_json(_CHECKPOINT.dump_python(self, mode="json")))

    @classmethod
    def from_json(cls, value: Any) -> Checkpoint:
        """Read what `to_json` has written, as plain JSON.

        Raises:
            Unreadable: It is of another version, or torn.
        """
        if not isinstance(value, Mapping) or value.get("version") != VERSION:
            raise Unreadable("another version has written it")
        try:
            checkpoint = _CHECKPOINT.validate_python(value)
            facts = _Facts.model_validate(checkpoint.facts)
        except ValidationError as error:
            where = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
            raise Unreadable(f"{where} does not fit") from None
        return dataclasses.replace(checkpoint, facts={name: getattr(facts, name) for name in FACTS})


_CHECKPOINT: Final = TypeAdapter(Checkpoint)


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return dict(value)
        case frozenset() | set():
            return list(value)
        case _:
            return str(value)


@dataclass(frozen=True, slots=True)
class Restored:
    """A call whose process was lost, as read from its file.

    Attributes:
        record: Its record.
        events: Its events, with the time of each.
        checkpoint: Its other state.
        file: Its file, which is written on.
        last_seen: Until when its process is known to have lived, in seconds of `CLOCK_MONOTONIC`.
        last_told: When the last event happened, in seconds since the call began.
    """

    record: CallRecord
    events: Sequence[tuple[datetime, CallEvent]]
    checkpoint: Checkpoint
    file: CheckpointFile
    last_seen: float
    last_told: float = 0.0


_EVENTS: Final[Mapping[str, Callable[..., CallEvent]]] = MappingProxyType(
    {kind.kind: kind for kind in get_args(CallEvent)}
)


def restore(left: OrphanedCall) -> Restored:
    """Restore a call from its file.

    Raises:
        Unreadable: The file is torn, or of another version.
    """
    states = [line for line in left.lines if line[0] == STATE]
    if not states:
        raise Unreadable("its beginning was not written")
    checkpoint = Checkpoint.from_json(states[-1][1])
    record = CallRecord(**checkpoint.facts)
    events: list[tuple[datetime, CallEvent]] = []
    last_told = 0.0
    try:
        for kind, *parts in left.lines:
            match kind:
                case str() if kind == _EVENT:
                    wall, at, name, fields = parts
                    event = _EVENTS[name](**fields)
                    events.append((datetime.fromtimestamp(wall, UTC), event))
                    record.fold(event, at)
                    last_told = float(at)
                case str() if kind == _SOUND:
                    record.chronicle.replay(*parts)
                case str() if kind in (STATE, TAKEN):
                    pass
                case _:
                    raise Unreadable("another version has written it")
    except (TypeError, ValueError, KeyError) as error:
        raise Unreadable(f"an entry does not fit ({type(error).__name__})") from None
    # The events have changed some of these once more.
    for name, value in checkpoint.facts.items():
        setattr(record, name, value)
    return Restored(record, events, checkpoint, left.file, left.last_seen, last_told)


def give_up(restored: Restored) -> CallEnded:
    """End the record of a call that cannot be gone on with, at the time when its process was last
    seen.

    Returns:
        The event to tell.
    """
    record, course = restored.record, restored.checkpoint.course
    seen = restored.last_seen - record.began
    seconds = max(restored.last_told, seen if math.isfinite(seen) else 0.0)
    outcome = WORKER_LOST if course.outcome is None else course.outcome
    if course.state is State.HANDED_OVER:
        outcome = TRANSFERRED
    record.ended_at_last_sign(seconds)
    record.agent_status, record.end_reason = outcome.status.value, outcome.reason
    record.detail = record.detail or _LOST_DETAIL
    if record.placed and record.result is None:
        answered = restored.checkpoint.parts.was_answered
        record.result = (Result.ANSWERED if answered else Result.FAILED).value
    return CallEnded(record.agent_status, record.end_reason, round(seconds, 3))


def is_poison(taken: Iterable[float]) -> bool:
    """Return whether processes have taken a call over, and were lost, so often and so quickly that
    the call itself may be what ends them: three times within 60 s.

    Args:
        taken: When each took it over, in seconds, the last one included.
    """
    last = sorted(taken)[-_POISON_TIMES:]
    return len(last) == _POISON_TIMES and last[-1] - last[0] < _POISON_SECONDS


# --- keeping it


class CheckpointWriter:
    """Writes one call's file. Never waits, and never raises.

    Args:
        file: The file.
        state: Returns the call's state; called once for all changes of one turn of the loop.
        refresh: Brings the record's figures up to date.
    """

    def __init__(
        self,
        file: CheckpointFile,
        state: Callable[[], Checkpoint],
        refresh: Callable[[], None],
    ) -> None:
        self._file = file
        self._state = state
        self._refresh = refresh
        self._loop = asyncio.get_running_loop()
        self._soon: asyncio.Handle | None = None
        self._begun = False
        self._hears: tuple[int, float, float] | None = None
        self._hears_timer: asyncio.TimerHandle | None = None
        self._timer = self._loop.call_later(_REFRESH_SECONDS, self._look)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def changed(self) -> None:
        """Write the call's state in the next turn of the loop."""
        if self._soon is None:
            self._soon = self._loop.call_soon(self._write_state)

    def event(self, event: CallEvent, at: float) -> None:
        """Write an event that happened `at` seconds after the call began."""
        self._write_heard()
        if not self._begun:
            # Without a state before them events cannot be restored.
            self._write_state()
        self._file.add(_EVENT, datetime.now(UTC).timestamp(), at, event.kind, event)

    def sound(self, name: str, *args: Any) -> None:
        """Write what the chronicle was told beside events; this is its `watch`."""
        if name != "hears":
            self._write_heard()
            self._file.add(_SOUND, name, *args)
            return
        event_id, began, until = args
        last = self._hears
        if last is not None and last[0] == event_id and last[2] == began:
            began = last[1]
        else:
            self._write_heard()
        self._hears = (event_id, began, until)
        if self._hears_timer is None:
            self._hears_timer = self._loop.call_later(_SOUND_SECONDS, self._write_heard)

    def end(self) -> None:
        """Write that the call is over, and remove the file a moment later."""
        self._timer.cancel()
        self._write_heard()
        self._write_state()
        self._file.remove(_AFTER_END_SECONDS)
        # It leads back to the call.
        self._state = _nothing
        self._refresh = lambda: None

    def _look(self) -> None:
        self._timer = self._loop.call_later(_REFRESH_SECONDS, self._look)
        self._refresh()
        self.changed()

    def _write_state(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        self._begun = True
        self._file.add(STATE, orjson.Fragment(self._state().to_json()))

    def _write_heard(self) -> None:
        if self._hears_timer is not None:
            self._hears_timer.cancel()
            self._hears_timer = None
        if (hears := self._hears) is not None:
            self._hears = None
            self._file.add(_SOUND, "hears", *hears)


def _nothing() -> Checkpoint:
    raise AssertionError("the call is over")


def facts_of(record: CallRecord) -> dict[str, Any]:
    """Return the fields of a record that events do not restore."""
    return {name: getattr(record, name) for name in FACTS}


def lasting(due: Mapping[Timer, float]) -> dict[str, float]:
    """Return when those timers are due that run on in another process, by their names."""
    return {timer.value: due[timer] for timer in _LASTING if timer in due}
