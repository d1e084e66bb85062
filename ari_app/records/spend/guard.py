"""Keeps calls within the limits of a day: counts them, says which may begin, and tells in time."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Final, NamedTuple

import structlog

from ari_app.errors import AppError
from ari_app.process.loop import Soon
from ari_app.records.events import CallEnded, CallEvent, StateChanged
from ari_app.records.record import CallRecord
from ari_app.records.spend.ledger import AgentTime, Ledger
from ari_app.records.spend.limits import Level, Quota, SpendAlert, SpendLimits, Spent, Use
from ari_app.records.spend.shares import Change, Share, Telling
from ari_app.records.store.log import CallLog

log = structlog.get_logger(__name__)

_LOOK_SECONDS: Final = 5.0
_ASK_EVERY: Final = 3
"""So many looks between two questions to the call log, where other processes' calls are, too."""
_MOST_WAITING: Final = 5000
_MOST_WARNINGS: Final = 20
# A caller who waits has no agent yet; one who is given back gets none.
_NO_AGENT: Final = ("waiting", "releasing", "ended")


class _Told(NamedTuple):
    """What another process had told at some moment; see `Share`."""

    losses: int
    day: str
    spent: dict[str, Spent]


class _Other:
    """Another process.

    Attributes:
        share: What it has told.
        counts: What of that is added to what the call log has said.
    """

    def __init__(self) -> None:
        self.share = Share()
        self.counts = self.told

    @property
    def told(self) -> _Told:
        return _Told(self.share.losses, self.share.day, dict(self.share.spent))

    @property
    def is_behind(self) -> bool:
        """Whether the call log must be asked first: it has calls that are counted no more."""
        return self.counts.losses != self.share.losses


class SpendGuard:
    """The guard: `heard` is a listener of the journal, after the one that keeps calls.

    It never waits, and never holds up a call: while the call log cannot be read it goes by what
    this process knows.

    Args:
        limits: Of a day.
        call_log: Has the calls of before the start, and of other processes.
        loop_time: The event loop's clock.
        now: The time of day.
        tell: Told once of each limit that is near, and once when it is reached; None: another
            process tells.
        on_counted: Told that what this process counts has changed: `news`.
    """

    def __init__(
        self,
        limits: SpendLimits,
        call_log: CallLog,
        loop_time: Callable[[], float],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        tell: Callable[[SpendAlert], None] | None = lambda alert: None,
        on_counted: Callable[[], None] = lambda: None,
    ) -> None:
        self._limits = limits
        self._call_log = call_log
        self._now = now
        self._tell = tell
        self._on_counted = on_counted
        self._others: dict[int, _Other] = {}
        self._wanted = asyncio.Event()
        self._told: dict[tuple[str | None, str], Level] = {}
        self._told_of: date | None = None
        self._problem: str | None = None
        self._looking = Soon(self.look)
        self._ledger: Ledger[CallRecord] = Ledger(_agent_time, loop_time)
        self._telling = Telling(self._ledger)

    def close(self) -> None:
        """Tell nobody any more."""
        self._tell = None
        self._looking.cancel()

    # --- a listener of the journal

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        """Count what has happened in a call."""
        match event:
            case CallEnded():
                self._ledger.leaves(record, self._call_log.counts.given)
                self._on_counted()
                self._look_soon()
            case StateChanged(state) if state not in _NO_AGENT:
                day = self._limits.day_of(record.started_at)
                self._ledger.enters(record, record.session_id, day, record.agent_id)
                self._on_counted()
            case _:
                # An agent that comes is not always an event of its own, but at least `StepTook`
                # is told of in the same turn of the loop.
                self._ledger.changes(record)

    # --- other processes

    def news(self, *, anew: bool = False) -> list[Change]:
        """Return what is new of what this process counts today, for the others.

        Args:
            anew: They know nothing of it, or what another process has told.
        """
        return self._telling.news(self._today(), anew=anew)

    def elsewhere(self, process: int, change: Change) -> None:
        """Take what is new of what another process counts; it counts until that tells otherwise."""
        other = self._others.setdefault(process, _Other())
        losses = other.share.losses
        if not other.share.take(change):
            return
        if other.share.losses != losses:
            # At other news not: those that ask tell news themselves, and so on.
            self._wanted.set()
        elif not other.is_behind:
            other.counts = other.told
        self._look_soon()

    def _spent(self) -> dict[str, Spent]:
        today = self._today()
        found = self._ledger.spent(today)
        for other in self._others.values():
            if other.counts.day == today.isoformat():
                for agent_id, spent in other.counts.spent.items():
                    found[agent_id] = found.get(agent_id, Spent()) + spent
        return found

    # --- what is asked

    def quota(self, agent_id: str) -> Quota | None:
        """Say why no call with this agent may begin now, or with any if it is empty; None: one
        may."""
        use = self._limits.reached(agent_id, self._spent())
        return None if use is None else Quota(f"{use}.", self._left_of_today())

    def uses(self) -> list[Use]:
        """Return all limits with what is used of them now."""
        return self._limits.uses(self._spent())

    def ratio(self, of: str, *, together: bool) -> float:
        """Return how much of the limits is used: of the one that is nearest.

        Args:
            of: `minutes` or `calls`.
            together: That of all agents; otherwise the one of a single agent.

        Returns:
            0 where there is no such limit.
        """
        ratios = [
            use.ratio for use in self.uses() if use.of == of and (use.agent_id is None) is together
        ]
        return max(ratios, default=0.0)

    def warnings(self) -> list[str]:
        """Say which limits are near or reached, in sentences: for `/health/ready`."""
        found = []
        for use in self.uses():
            if use.level is Level.REACHED:
                found.append(f"{use}: new calls are refused as `quota`.")
            elif use.level is Level.NEAR:
                found.append(f"{use}.")
        if len(found) > _MOST_WARNINGS:
            found[_MOST_WARNINGS:] = [f"{len(found) - _MOST_WARNINGS} more limits are near."]
        if self._problem is not None and not self._ledger.knows(self._today()):
            found.append(
                f"What was spent today before the start is not counted yet. {self._problem}"
            )
        return found

    # --- time goes on

    async def run(self) -> None:
        """Count on, and tell in time, until cancelled."""
        looks = 0
        while True:
            self._wanted.clear()
            if looks % _ASK_EVERY == 0 or any(other.is_behind for other in self._others.values()):
                await self.ask()
            looks += 1
            self._on_counted()
            self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._wanted.wait()

    async def ask(self) -> None:
        """Ask the call log what it has of today."""
        day, settled = self._today(), self._call_log.counts.settled
        if self._ledger.lacks(day, settled, _MOST_WAITING):
            # The database is away, or it cannot keep up: what is here counts meanwhile.
            return
        behind = [(other, other.told) for other in self._others.values() if other.is_behind]
        but = self._ledger.counted_here(day, settled)
        for other in self._others.values():
            if other.share.day == day.isoformat():
                but += other.share.ended
        limits = self._limits
        try:
            has = await self._call_log.spent(limits.begin_of(day), limits.end_of(day), but)
        except AppError as error:
            if self._problem is None:
                log.warning("spend_not_read", problem=str(error))
            self._problem = str(error)
            return
        self._problem = None
        by_agent = {agent_id: Spent(*each) for agent_id, each in has.items()}
        if self._ledger.log_says(day, settled, but, by_agent):
            for other, told in behind:
                other.counts = told
                if not other.is_behind:
                    # What it has told meanwhile is no more than an addition to that.
                    other.counts = other.told

    def _look_soon(self) -> None:
        if self._tell is not None:
            self._looking.ask()

    def look(self) -> None:
        """Tell of limits that have come near, or were reached, since the last look."""
        tell = self._tell
        if tell is None:
            return
        today = self._today()
        if today != self._told_of:
            self._told_of = today
            self._told.clear()
        for use in self.uses():
            key = (use.agent_id, use.of)
            if use.level > self._told.get(key, Level.FAR):
                self._told[key] = use.level
                alert = SpendAlert(today.isoformat(), str(self._limits.zone), use)
                self._log(alert)
                tell(alert)

    def _log(self, alert: SpendAlert) -> None:
        use = alert.use
        write, event = (
            (log.error, "spend_limit_reached")
            if alert.reached
            else (log.warning, "spend_near_limit")
        )
        write(
            event,
            agent=use.agent_id or "all",
            of=use.of,
            used=round(use.used, 1),
            limit=use.limit,
            day=alert.day,
        )

    def _today(self) -> date:
        return self._limits.day_of(self._now())

    def _left_of_today(self) -> float:
        now = self._now()
        end = self._limits.end_of(self._limits.day_of(now))
        return max(math.ceil((end - now).total_seconds()), 1)


def _agent_time(record: CallRecord) -> AgentTime:
    since = record.agent_since
    return AgentTime(record.agent_seconds, None if since is None else record.began + since)
