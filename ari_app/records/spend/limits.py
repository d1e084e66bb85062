"""The limits of a day, and how near they are. Pure, but for reading the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from ari_app.errors import ConfigError
from ari_app.process.files import why_unreadable
from ari_app.process.yaml_text import NotYaml, read_yaml

NEAR: Final = 0.8
"""From this share of a limit on somebody is told."""
_OTHERS: Final = "*"
_FIELDS: Final = frozenset({"minutes", "calls"})
_MOST_AGENTS: Final = 1000


@dataclass(frozen=True, slots=True)
class Limit:
    """So much in a day; None: any amount."""

    minutes: float | None = None
    calls: int | None = None

    def __bool__(self) -> bool:
        return self.minutes is not None or self.calls is not None

    def __str__(self) -> str:
        parts = [] if self.minutes is None else [f"{self.minutes:g} minutes"]
        parts += [] if self.calls is None else [f"{self.calls} calls"]
        return " and ".join(parts) or "any number"


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent.

    Attributes:
        calls: Calls that had an agent, or may still get one.
        seconds: How long agents were there.
    """

    calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.calls + other.calls, self.seconds + other.seconds)


class Level(IntEnum):
    """How near a limit is."""

    FAR = 0
    NEAR = 1
    REACHED = 2


@dataclass(frozen=True, slots=True)
class Use:
    """One limit, and how much of it is used.

    Attributes:
        agent_id: Whose limit; None: of all agents together.
        of: What is limited.
        used, limit: In minutes, or calls.
    """

    agent_id: str | None
    of: Literal["minutes", "calls"]
    used: float
    limit: float

    @property
    def ratio(self) -> float:
        """Which share of the limit is used; may be more than 1."""
        return self.used / self.limit

    @property
    def level(self) -> Level:
        """How near it is."""
        if self.used >= self.limit:
            return Level.REACHED
        return Level.NEAR if self.ratio >= NEAR else Level.FAR

    def __str__(self) -> str:
        whose = "All agents together have" if self.agent_id is None else f"{self.agent_id} has"
        # Just below a limit is not at it.
        percent = int(self.ratio * 100 + 1e-9)
        return f"{whose} used {percent} % of today's {self.limit:g} {self.of}"


@dataclass(frozen=True, slots=True)
class SpendAlert:
    """A limit is near, or reached.

    Attributes:
        day: Of which day, `2026-11-29`.
        time_zone: Where that day is.
        use: Which limit, and how much of it is used.
    """

    day: str
    time_zone: str
    use: Use

    @property
    def reached(self) -> bool:
        """Whether new calls are refused by it."""
        return self.use.level is Level.REACHED


@dataclass(frozen=True, slots=True)
class Quota:
    """A call may not begin: a limit of the day is reached.

    Attributes:
        text: Which one; a sentence.
        seconds: Until the day is over.
    """

    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class SpendLimits:
    """All limits of a day.

    Attributes:
        together: Of all agents.
        agents: Of single ones.
        others: Of each agent that is not named there.
        zone: A day begins at midnight there.
    """

    together: Limit = Limit()
    agents: Mapping[str, Limit] = field(default_factory=dict)
    others: Limit = Limit()
    zone: tzinfo = UTC

    def __bool__(self) -> bool:
        return any((self.together, self.others, *self.agents.values()))

    def day_of(self, moment: datetime) -> date:
        """Return the day to which a moment belongs."""
        return moment.astimezone(self.zone).date()

    def begin_of(self, day: date) -> datetime:
        """Return the moment at which a day begins; it may have 23 or 25 hours."""
        return datetime.combine(day, time(), self.zone).astimezone(UTC)

    def end_of(self, day: date) -> datetime:
        """Return the moment at which the next day begins."""
        return self.begin_of(day + timedelta(days=1))

    def uses(self, spent: Mapping[str, Spent]) -> list[Use]:
        """Return all limits with what is used of them, those of all agents first.

        Args:
            spent: By agent.
        """
        found = _uses(None, self.together, sum(spent.values(), Spent()))
        for agent_id in sorted(spent.keys() | self.agents.keys()):
            found += self._of(agent_id, spent)
        return found

    def reached(self, agent_id: str, spent: Mapping[str, Spent]) -> Use | None:
        """Return a limit that lets no further call of an agent begin; None: there is none."""
        found = _uses(None, self.together, sum(spent.values(), Spent()))
        found += self._of(agent_id, spent)
        return next((use for use in found if use.level is Level.REACHED), None)

    def _of(self, agent_id: str, spent: Mapping[str, Spent]) -> list[Use]:
        limit = self.agents.get(agent_id, self.others)
        return _uses(agent_id, limit, spent.get(agent_id, Spent()))


def _uses(agent_id: str | None, limit: Limit, spent: Spent) -> list[Use]:
    found = []
    if limit.minutes is not None:
        found.append(Use(agent_id, "minutes", spent.seconds / 60, limit.minutes))
    if limit.calls is not None:
        found.append(Use(agent_id, "calls", spent.calls, limit.calls))
    return found


def read_limits(file: Path | None) -> tuple[Mapping[str, Limit], Limit]:
    """Read the limits of single agents, and that of each other one, from `SPEND_LIMITS_FILE`.

    Raises:
        ConfigError: The file cannot be used; a sentence.
    """
    if file is None:
        return MappingProxyType({}), Limit()
    where = f"SPEND_LIMITS_FILE {file}"
    try:
        data = read_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where} cannot be read: {why_unreadable(error)}.") from None
    except NotYaml as error:
        raise ConfigError(f"{where} {error}.") from None
    if not isinstance(data, dict) or len(data) > _MOST_AGENTS:
        raise ConfigError(
            f"{where} must have a line for each agent, such as `agent_7: {{minutes: 600, calls: "
            f"300}}`, {_MOST_AGENTS} at most."
        )
    agents = {}
    for name, entry in data.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{where}: {name!r:.40} is no agent's id; put it into quotes.")
        agents[name] = _read_limit(entry, f"{where}, {name[:64]}")
    others = agents.pop(_OTHERS, Limit())
    return MappingProxyType(agents), others


def _read_limit(entry: Any, where: str) -> Limit:
    if not isinstance(entry, dict) or not entry or not entry.keys() <= _FIELDS:
        raise ConfigError(f"{where}: must have minutes, calls or both, and no more.")
    minutes, calls = entry.get("minutes"), entry.get("calls")
    for name, value, kinds in (("minutes", minutes, (int, float)), ("calls", calls, (int,))):
        if name not in entry:
            continue
        if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < 1e9:
            kind = "a number" if float in kinds else "a whole number"
            raise ConfigError(f"{where}: {name} must be {kind} above 0.")
    return Limit(None if minutes is None else float(minutes), calls)
