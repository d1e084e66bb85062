"""What is kept of a call that runs, so that another process can go on with it.

A call's file has a line for each event, as the journal tells it, and for each moment of the sound
that its chronicle was told; replayed in their order they are its record. All else, which is small
and changes with the call's state, stands whole in a line of its own, the last of which counts
(`KeptCall`).
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
from ari_app.records.events import CallEnded, CallEvent
from ari_app.records.plain import plain_json
from ari_app.records.record import CallRecord
from ari_app.records.running import STATE, TAKEN, CallFile, LeftCall, Unreadable

VERSION: Final = 1
"""Of all that stands in a file; what another version has written nobody goes on with."""

_EVENT: Final = "event"
_SOUND: Final = "sound"
# How long a piece of the agent's voice may wait to be written down: many come in a second.
_SOUND_SECONDS: Final = 0.5
# What is measured all the time is brought up to date so often.
_REFRESH_SECONDS: Final = 10.0
# Whoever died a moment after the end may not have told it: so long the next process could.
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
"""Timers that run on; the others belong to what is begun anew."""

# --- what is kept: pure

_LOST_DETAIL: Final = "The process that carried the call was lost."

_LEFT_OUT: Final = frozenset({"transcript", "chronicle", "response_times"})
"""What the events tell of a record."""
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
class KeptParts:
    """What the parts of a call know, beside its machine.

    Attributes:
        on_hold: The caller's phone holds us.
        recorded: It is to be recorded, while nothing pauses that.
        recordings: When each of its recordings began, in seconds of the call.
        announced: What the caller has been told, once each.
        audio_began: Caller and agent have been together.
        was_answered: The callee has answered.
        agent_holds: The caller hears music until the agent speaks.
        keys: What the caller has entered of an entry that is not complete.
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
class KeptCall:
    """A call as it was, beside its events.

    Attributes:
        version: Of this description.
        facts: Of its record.
        course: Of its machine.
        plan: As it was made.
        line: What its line needs, in the words of its way in.
        timers: When each `Timer` is due, on the clock of this machine (`CLOCK_MONOTONIC`).
        parts: See there.
    """

    version: int
    facts: Mapping[str, Any]
    course: Course
    plan: CallPlan
    line: Mapping[str, Any]
    timers: Mapping[str, float] = field(default_factory=dict)
    parts: KeptParts = KeptParts()

    def to_json(self) -> bytes:
        """Write it down. It never fails, whatever somebody has sent."""
        try:
            return orjson.dumps(self, default=_plain)
        except (orjson.JSONEncodeError, RecursionError):
            return orjson.dumps(plain_json(_KEPT.dump_python(self, mode="json")))

    @classmethod
    def from_json(cls, value: Any) -> KeptCall:
        """Read what `to_json` has written, as plain JSON.

        Raises:
            Unreadable: It is of another version, or torn.
        """
        if not isinstance(value, Mapping) or value.get("version") != VERSION:
            raise Unreadable("another version has written it")
        try:
            kept = _KEPT.validate_python(value)
            facts = _Facts.model_validate(kept.facts)
        except ValidationError as error:
            where = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
            raise Unreadable(f"{where} does not fit") from None
        return dataclasses.replace(kept, facts={name: getattr(facts, name) for name in FACTS})


_KEPT: Final = TypeAdapter(KeptCall)


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
    """A call whose process was lost, as its file tells it.

    Attributes:
        record: All that is known of its course.
        events: What was told of it, with the time of each.
        kept: All else.
        file: Goes on being its file.
        last_seen: Until when its process is known to have lived, on the clock of this machine.
        last_told: When the last of what happened did, in seconds of the call.
    """

    record: CallRecord
    events: Sequence[tuple[datetime, CallEvent]]
    kept: KeptCall
    file: CallFile
    last_seen: float
    last_told: float = 0.0


_EVENTS: Final[Mapping[str, Callable[..., CallEvent]]] = MappingProxyType(
    {kind.kind: kind for kind in get_args(CallEvent)}
)


def restore(left: LeftCall) -> Restored:
    """Read a call's file.

    Raises:
        Unreadable: It cannot be gone on with.
    """
    states = [line for line in left.lines if line[0] == STATE]
    if not states:
        raise Unreadable("its beginning was not written")
    kept = KeptCall.from_json(states[-1][1])
    record = CallRecord(**kept.facts)
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
    # What events change of them has been changed already.
    for name, value in kept.facts.items():
        setattr(record, name, value)
    return Restored(record, events, kept, left.file, left.last_seen, last_told)


def give_up(restored: Restored) -> CallEnded:
    """Bring the record of a call that nobody goes on with to its end: when its process was last
    seen, with all that is known until then.

    Returns:
        What is to be told of it.
    """
    record, course = restored.record, restored.kept.course
    seen = restored.last_seen - record.began
    seconds = max(restored.last_told, seen if math.isfinite(seen) else 0.0)
    outcome = WORKER_LOST if course.outcome is None else course.outcome
    if course.state is State.HANDED_OVER:
        outcome = TRANSFERRED
    record.ended_at_last_sign(seconds)
    record.agent_status, record.end_reason = outcome.status.value, outcome.reason
    record.detail = record.detail or _LOST_DETAIL
    if record.placed and record.result is None:
        answered = restored.kept.parts.was_answered
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


class CallKeeper:
    """Keeps what another process would need of one call. It never waits, and never raises.

    Args:
        file: Where it is written.
        state: Looks at the call; asked once for however many changes of a moment.
        refresh: Brings the record up to date with what is measured all the time.
        now: Unix time.
    """

    def __init__(
        self,
        file: CallFile,
        state: Callable[[], KeptCall],
        refresh: Callable[[], None],
        now: Callable[[], float] = lambda: datetime.now(UTC).timestamp(),
    ) -> None:
        self._file = file
        self._state = state
        self._refresh = refresh
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._soon: asyncio.Handle | None = None
        self._begun = False
        self._hears: tuple[int, float, float] | None = None
        self._hears_timer: asyncio.TimerHandle | None = None
        self._timer = self._loop.call_later(_REFRESH_SECONDS, self._look)

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return self._file.path

    def changed(self) -> None:
        """Take note that something of the call has changed that no event tells."""
        if self._soon is None:
            self._soon = self._loop.call_soon(self._write_state)

    def event(self, event: CallEvent, at: float) -> None:
        """Keep what has happened, `at` so many seconds since the call began."""
        self._write_heard()
        if not self._begun:
            # Nobody can make anything of events alone.
            self._write_state()
        self._file.add(_EVENT, self._now(), at, event.kind, event)

    def sound(self, name: str, *args: Any) -> None:
        """Keep what the chronicle was told beside events; its `watch`."""
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
        """Keep that the call is over; a moment later nothing is kept any more."""
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


def _nothing() -> KeptCall:
    raise AssertionError("the call is over")


def facts_of(record: CallRecord) -> dict[str, Any]:
    """Return what events do not tell of a record."""
    return {name: getattr(record, name) for name in FACTS}


def lasting(due: Mapping[Timer, float]) -> dict[str, float]:
    """Return the timers that run on in another process, by their names."""
    return {timer.value: due[timer] for timer in _LASTING if timer in due}
