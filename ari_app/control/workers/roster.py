"""What the front knows of its workers, and whom it gives the next call: no sockets, no Asterisk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

_MOST_TOKENS: Final = 64
_TOKEN_MARK: Final = "."


@dataclass(slots=True, eq=False)
class Worker:
    """A worker that is linked.

    Attributes:
        number: Which one.
        pid: Its process.
        app: Its application in Asterisk.
        used: How many of its calls hold a place.
        takes: It can take calls in.
        draining: It refuses new ones.
        promised: How many are on their way to it that it does not count yet.
        sessions: Its calls, and those that ended a moment ago, each with its line.
        lines: How many of them there are on each line.
    """

    number: int
    pid: int
    app: str
    used: int = 0
    takes: bool = False
    draining: bool = False
    promised: int = 0
    sessions: dict[str, str] = field(default_factory=dict)
    lines: Counter[str] = field(default_factory=Counter)

    @property
    def load(self) -> int:
        """How many calls it has, or is about to have."""
        return self.used + self.promised


class Roster:
    """All workers that are linked.

    Args:
        expected: How many there should be.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self._workers: dict[int, Worker] = {}
        self._of_session: dict[str, Worker] = {}
        self._of_line: dict[str, Worker] = {}
        # What workers had that are gone: the next of the same number goes on with it, or frees it.
        self._left: dict[int, int] = {}
        self._left_calls: dict[int, dict[str, str]] = {}
        self._are_replaced = True

    def __iter__(self) -> Iterator[Worker]:
        """Go through them by their numbers."""
        return iter([self._workers[number] for number in sorted(self._workers)])

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._workers)

    # --- who comes and goes

    def came(self, worker: Worker) -> None:
        """Note a worker; one of the same number is forgotten."""
        if (before := self._workers.get(worker.number)) is not None:
            self.went(before)
        self._workers[worker.number] = worker

    def went(self, worker: Worker) -> None:
        """Forget a worker, with all that it had. May be told twice."""
        had = dict(worker.sessions)
        for session_id in had:
            self.has_not(worker, session_id)
        if self._workers.get(worker.number) is worker:
            del self._workers[worker.number]
            self._left[worker.number] = max(worker.used, self._left.get(worker.number, 0))
            # One that has drained has gone as it should.
            if self._are_replaced and (worker.used or not worker.draining):
                self._left_calls[worker.number] = {
                    **self._left_calls.get(worker.number, {}),
                    **had,
                }

    def stands(self, worker: Worker, used: int, *, takes: bool, draining: bool) -> bool:
        """Note how a worker stands.

        Returns:
            Whether calls of the one before it are nobody's now.
        """
        worker.used, worker.takes, worker.draining = used, takes, draining
        if takes or draining:
            # It has looked after what the one before it had.
            self._left.pop(worker.number, None)
            return self._left_calls.pop(worker.number, None) is not None
        return False

    def ends(self) -> None:
        """Note that nobody comes any more in the place of a worker that is lost."""
        self._are_replaced = False
        self._left_calls.clear()

    def has(self, worker: Worker, session_id: str, line_id: str) -> None:
        """Note that a worker has a call."""
        self.has_not(worker, session_id)
        worker.sessions[session_id] = line_id
        worker.lines[line_id] += 1
        self._of_session[session_id] = worker
        self._of_line[line_id] = worker

    def has_not(self, worker: Worker, session_id: str) -> None:
        """Note that it knows nothing of it any more. Has no effect where it did not."""
        line_id = worker.sessions.pop(session_id, None)
        if line_id is None:
            return
        if self._of_session.get(session_id) is worker:
            del self._of_session[session_id]
        worker.lines[line_id] -= 1
        if not worker.lines[line_id]:
            del worker.lines[line_id]
            if self._of_line.get(line_id) is worker:
                del self._of_line[line_id]

    # --- who is asked

    def numbered(self, number: int) -> Worker | None:
        """Return the worker of this number."""
        return self._workers.get(number)

    def of_session(self, session_id: str) -> Worker | None:
        """Return who has a call."""
        return self._of_session.get(session_id)

    def is_awaited(self, name: str) -> bool:
        """Return whether a call, or a line, was a lost worker's, and the next may go on with it."""
        return any(name in left or name in left.values() for left in self._left_calls.values())

    def sessions(self) -> Iterator[tuple[str, str]]:
        """Go through all calls, those that are awaited among them: session and line."""
        here = (worker.sessions for worker in self)
        return (call for calls in (*self._left_calls.values(), *here) for call in calls.items())

    def of_line(self, line_id: str) -> Worker | None:
        """Return who has the call on a line."""
        return self._of_line.get(line_id)

    def of_token(self, token: str) -> Worker | None:
        """Return who has made a token, which begins with its number."""
        number, mark, _ = token[:_MOST_TOKENS].partition(_TOKEN_MARK)
        if not mark or not number.isascii() or not number.isdigit():
            return None
        return self._workers.get(int(number))

    def of_channel(self, channel_id: str) -> Worker | None:
        """Return who has placed a channel, which begins with the name of its application."""
        return next(
            (worker for worker in self if channel_id.startswith(f"{worker.app}-")),
            None,
        )

    def roomiest(self, without: Collection[Worker] = ()) -> Worker | None:
        """Return the worker with the most room: one that takes calls; if none does, one that is
        linked and at least answers why. None: there is none left."""
        left = [worker for worker in self if worker not in without]
        return min(
            left,
            key=lambda worker: (not worker.takes, worker.draining, worker.load, worker.number),
            default=None,
        )

    @property
    def used(self) -> int:
        """How many calls of all hold a place; those of a worker that is gone still do, until the
        next one has taken its place."""
        left = dict(self._left)
        for worker in self:
            left[worker.number] = max(worker.used, left.get(worker.number, 0))
        return sum(left.values())

    @property
    def takes(self) -> bool:
        """Whether any takes calls."""
        return any(worker.takes and not worker.draining for worker in self)

    def problems(self) -> list[str]:
        """Say which are missing, or take no calls."""
        problems = []
        for number in range(1, self.expected + 1):
            worker = self._workers.get(number)
            if worker is None:
                problems.append(f"worker {number} is not there")
            elif worker.draining:
                problems.append(f"worker {number} drains")
            elif not worker.takes:
                problems.append(f"worker {number} takes no calls")
        return problems


def token_of(number: int, token: str) -> str:
    """Return a token by which the front finds the worker that has made it."""
    return f"{number}{_TOKEN_MARK}{token}"
