"""What was spent on which day: the calls of this process, and what the call log has of others.

A call belongs to the day on which it began, with all of its minutes, as in the call log. Pure: the
time comes in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar

from ari_app.records.spend.limits import Spent

_DAYS_KEPT: Final = 3
"""A clock may be set back."""
_IN_SECOND: Final = 1_000_000
"""What runs is added up in whole microseconds: sums of floats that calls come into and leave all
day would drift."""

Key = TypeVar("Key")


class AgentTime(NamedTuple):
    """How long a call has had agents.

    Attributes:
        past: The seconds of those that have gone.
        since: When the one that is there came, on the clock; None: none is there.
    """

    past: float
    since: float | None = None

    def until(self, now: float) -> float:
        """Return the seconds of all agents until `now` on the clock."""
        return self.past if self.since is None else self.past + max(now - self.since, 0.0)


@dataclass(slots=True)
class _Sums:
    """Of the calls of one day and agent that run, times in microseconds.

    Attributes:
        calls: How many.
        past: How long agents were there that have gone.
        present: How many have an agent now.
        since: When those agents came, added up.
    """

    calls: int = 0
    past: int = 0
    present: int = 0
    since: int = 0

    def add(self, time: AgentTime, count: int) -> None:
        """Count a call that has had agents so long once more, or, with -1, once less."""
        self.calls += count
        self.past += count * _exact(time.past)
        if time.since is not None:
            self.present += count
            self.since += count * _exact(time.since)

    def spent(self, now: float) -> Spent:
        """Return what they have spent until `now` on the clock."""
        return Spent(
            self.calls,
            (self.past + max(self.present * _exact(now) - self.since, 0)) / _IN_SECOND,
        )


def _exact(seconds: float) -> int:
    return round(seconds * _IN_SECOND)


@dataclass(slots=True)
class _Running:
    """A call that runs; `time` is what the sums have of it."""

    session_id: str
    day: date
    agent_id: str
    time: AgentTime


@dataclass(frozen=True, slots=True)
class _Ended:
    """A call that is over, and may not be in the call log yet.

    Attributes:
        place: In the order in which the call log was told.
    """

    session_id: str
    agent_id: str
    seconds: float
    place: int


@dataclass(slots=True)
class _Over:
    """The calls of a day that are over, and may not be in the call log yet.

    Attributes:
        calls: In the order in which the call log was told, which is that in which they go. There
            may be thousands of them while the database is away.
        sums: By agent.
        gone: How many have gone.
    """

    calls: deque[_Ended] = field(default_factory=deque)
    sums: dict[str, Spent] = field(default_factory=dict)
    gone: int = 0

    def add(self, call: _Ended) -> None:
        self.calls.append(call)
        self._count(call)

    def settle(self, settled: int) -> None:
        """Let those go that the call log has."""
        gone = self.gone
        while self.calls and self.calls[0].place <= settled:
            self.calls.popleft()
            self.gone += 1
        if self.gone != gone:
            self.sums = {}
            for call in self.calls:
                self._count(call)

    def _count(self, call: _Ended) -> None:
        spent = Spent(1, call.seconds)
        self.sums[call.agent_id] = self.sums.get(call.agent_id, Spent()) + spent

    def newest(self, count: int) -> list[_Ended]:
        """Return those that ended last, so many, the last one last."""
        found = list(islice(reversed(self.calls), count))
        found.reverse()
        return found


class Ledger(Generic[Key]):
    """Counts calls and the seconds of their agents, by day and agent.

    Each call counts once: while it runs and until the call log has it by itself, then as part of
    what the call log says.

    What runs is kept in sums, for hundreds of calls may end at once, and each end asks what is
    spent.

    Args:
        time: Says how long a call has had agents. When that may be another than it was, except by
            the clock, `changes` must be called.
        now: The clock.
    """

    def __init__(self, time: Callable[[Key], AgentTime], now: Callable[[], float]) -> None:
        self._time = time
        self._now = now
        self._running: dict[Key, _Running] = {}
        self._sums: dict[date, dict[str, _Sums]] = {}
        self._changed: set[Key] = set()
        self._over: dict[date, _Over] = {}
        self._known: dict[date, dict[str, Spent]] = {}

    def enters(self, key: Key, session_id: str, day: date, agent_id: str) -> None:
        """Count a call that has an agent or may get one; said again, its agent is another."""
        self._remove(key)
        self._running[key] = call = _Running(session_id, day, agent_id, self._time(key))
        self._sums.setdefault(day, {}).setdefault(agent_id, _Sums()).add(call.time, 1)
        self._changed.add(key)

    def changes(self, key: Key) -> None:
        """Look at how long a call has had agents before the next answer: something happens to it.

        Whatever changes after this and before that is looked at, too.

        Args:
            key: As it entered; one that did not is none of ours.
        """
        if key in self._running:
            self._changed.add(key)

    def leaves(self, key: Key, place: int) -> None:
        """Count a call no longer as one that runs; one that had no agent was none.

        Args:
            key: As it entered; one that did not is none of ours.
            place: In the order in which the call log was told.
        """
        call = self._remove(key)
        if call is not None and (seconds := self._time(key).until(self._now())) > 0:
            ended = _Ended(call.session_id, call.agent_id, seconds, place)
            self._over.setdefault(call.day, _Over()).add(ended)

    def _remove(self, key: Key) -> _Running | None:
        self._changed.discard(key)
        call = self._running.pop(key, None)
        if call is not None:
            of_day = self._sums[call.day]
            sums = of_day[call.agent_id]
            sums.add(call.time, -1)
            if not sums.calls:
                del of_day[call.agent_id]
            if not of_day:
                del self._sums[call.day]
        return call

    def _look_at_changed(self) -> None:
        for key in self._changed:
            call = self._running[key]
            sums = self._sums[call.day][call.agent_id]
            sums.add(call.time, -1)
            call.time = self._time(key)
            sums.add(call.time, 1)
        self._changed.clear()

    def spent(self, day: date) -> dict[str, Spent]:
        """Return what was spent on a day until now, by agent."""
        found = dict(self._known.get(day, {}))
        for agent_id, spent in self.here(day).items():
            found[agent_id] = found.get(agent_id, Spent()) + spent
        return found

    def here(self, day: date) -> dict[str, Spent]:
        """Return what is counted here, by agent, and is none of what the call log has said."""
        self._look_at_changed()
        over, now = self._over.get(day), self._now()
        found = {} if over is None else dict(over.sums)
        for agent_id, sums in self._sums.get(day, {}).items():
            found[agent_id] = found.get(agent_id, Spent()) + sums.spent(now)
        return found

    def gone(self, day: date) -> int:
        """Return how many calls of a day that are over were counted here, and are no more."""
        over = self._over.get(day)
        return 0 if over is None else over.gone

    def ended(self, day: date, after: int) -> list[str]:
        """Return the sessions of those that are over and counted here, but for the first `after` of
        all that ever were, the gone ones too."""
        over = self._over.get(day)
        if over is None:
            return []
        count = over.gone + len(over.calls) - max(after, over.gone)
        return [call.session_id for call in over.newest(count)]

    def knows(self, day: date) -> bool:
        """Whether the call log has said what it has of a day."""
        return day in self._known

    def counted_here(self, day: date, settled: int) -> list[str]:
        """Return the sessions of a day that the call log must leave out: those that are counted
        here, for they may be in it, or come into it meanwhile.

        Args:
            day: Which day.
            settled: The call log has what it was told up to this place.
        """
        here = [call.session_id for call in self._running.values() if call.day == day]
        return here + [call.session_id for call in self._waiting(day, settled)]

    def lacks(self, day: date, settled: int, most: int) -> bool:
        """Whether the call log still lacks more than `most` of the calls that are over."""
        over = self._over.get(day)
        return over is not None and len(over.calls) > most and over.calls[-1 - most].place > settled

    def _waiting(self, day: date, settled: int) -> list[_Ended]:
        over = self._over.get(day)
        return [] if over is None else [call for call in over.calls if call.place > settled]

    def log_says(
        self, day: date, settled: int, but: Collection[str], told: Mapping[str, Spent]
    ) -> bool:
        """Take what the call log has of a day; whether it could be used.

        Args:
            day: Which day.
            settled: As `counted_here` was told.
            but: What that returned: the calls that are not among them.
            told: By agent. Less than it said before, since calls were deleted, changes nothing:
                their money is spent.
        """
        left_out = set(but)
        if any(call.session_id not in left_out for call in self._waiting(day, settled)):
            # It began and ended while the call log was asked, and may be in it or not.
            return False
        for of, over in tuple(self._over.items()):
            over.settle(settled)
            if abs((day - of).days) >= _DAYS_KEPT:
                del self._over[of]
        before = self._known.get(day, {})
        self._known[day] = {
            agent_id: _most(before.get(agent_id, Spent()), told.get(agent_id, Spent()))
            for agent_id in before.keys() | told.keys()
        }
        for old in sorted(self._known)[:-_DAYS_KEPT]:
            del self._known[old]
        return True


def _most(one: Spent, other: Spent) -> Spent:
    return Spent(max(one.calls, other.calls), max(one.seconds, other.seconds))
