"""What each of several processes counts, and how it tells the others: pure.

While the database is away a process counts thousands of calls that are over, and each that ends is
news to all others. So they are told what has changed, in pieces, and all of it only where they know
nothing of it yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from ari_app.records.spend.ledger import Ledger
from ari_app.records.spend.limits import Spent

_PIECE: Final = 200
"""So many agents and sessions are told of in one piece, of 7 KB mostly and 50 KB at most: what is
long holds up all that waits behind it."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is new of what a process counts of a day, or a piece of that.

    Attributes:
        day: Which day, as ISO 8601 has it.
        spent: By agent: its calls and seconds, where they are others than before.
        ended: The sessions of calls that are over now, which the call log may have by now.
        gone: So many of those told of first are not among them any more: the call log has them.
        anew: What was told before does not hold.
        more: It holds once the pieces that follow are there, too.
    """

    day: str
    spent: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    ended: Sequence[str] = ()
    gone: int = 0
    anew: bool = False
    more: bool = False


class Telling:
    """What others have been told of a ledger.

    Args:
        ledger: What they are told of.
    """

    def __init__(self, ledger: Ledger[Any]) -> None:
        self._ledger = ledger
        self._day: date | None = None
        self._spent: dict[str, Spent] = {}
        # How many calls that are over they were told of, and how many of those are gone.
        self._ended = self._gone = 0

    def news(self, day: date, *, anew: bool) -> list[Change]:
        """Return what they have not been told yet; they are told now.

        Args:
            day: Which day counts.
            anew: They know nothing, or something else.
        """
        ledger = self._ledger
        gone = ledger.gone(day)
        if anew or day != self._day:
            anew, self._day, self._spent = True, day, {}
            self._ended = self._gone = gone
        here, ended = ledger.here(day), ledger.ended(day, self._ended)
        spent = {
            agent_id: (each.calls, each.seconds)
            for agent_id, each in here.items()
            if each != self._spent.get(agent_id)
        }
        spent |= dict.fromkeys(self._spent.keys() - here.keys(), (0, 0.0))
        lost = min(gone, self._ended) - self._gone
        self._spent, self._gone = here, gone
        self._ended = max(gone, self._ended) + len(ended)
        if not (anew or spent or ended or lost):
            return []
        return _pieces(Change(day.isoformat(), spent, ended, lost, anew))


class Share:
    """What another process counts, as far as it has told.

    Attributes:
        day: Which day, as ISO 8601 has it; empty: it has told nothing.
        spent: By agent.
        ended: The sessions of calls that are over, the first one first.
        losses: How often it has told that it counts calls no more that it has counted.
    """

    def __init__(self) -> None:
        self.day = ""
        self.spent: dict[str, Spent] = {}
        self.ended: deque[str] = deque()
        self.losses = 0
        self._pieces: list[Change] = []

    def take(self, change: Change) -> list[Change]:
        """Take what has changed.

        Returns:
            The pieces that hold with this one; empty: more are to follow.
        """
        if change.anew:
            # Whoever tells anew has been cut off perhaps before the last piece.
            self._pieces = []
        self._pieces.append(change)
        if change.more:
            return []
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            self._add(piece)
        return pieces

    def _add(self, change: Change) -> None:
        if change.anew:
            # They end in one order, and go in it: where the first one is the same, none has gone.
            if self.day == change.day and self.ended and self.ended[0] not in change.ended[:1]:
                self.losses += 1
            self.day, self.spent, self.ended = change.day, {}, deque()
        elif change.day != self.day:
            return  # we have missed its beginning
        for agent_id, told in change.spent.items():
            spent = Spent(*told)
            if spent.calls:
                self.spent[agent_id] = spent
            else:
                self.spent.pop(agent_id, None)
        if change.gone:
            self.losses += 1
            for _ in range(min(change.gone, len(self.ended))):
                self.ended.popleft()
        self.ended.extend(change.ended)

    def whole(self) -> list[Change]:
        """Return all of it, for whoever knows nothing."""
        if not self.day:
            return []
        spent = {agent_id: (each.calls, each.seconds) for agent_id, each in self.spent.items()}
        return _pieces(Change(self.day, spent, list(self.ended), anew=True))


def _pieces(change: Change) -> list[Change]:
    agents, ended = list(change.spent.items()), change.ended
    cuts = range(0, max(len(agents), len(ended), 1), _PIECE)
    return [
        Change(
            change.day,
            dict(agents[cut : cut + _PIECE]),
            ended[cut : cut + _PIECE],
            0 if cut else change.gone,
            change.anew and not cut,
            cut != cuts[-1],
        )
        for cut in cuts
    ]
