"""The decisions of the parent: start a worker, kill it, give up. Pure.

`now` is in seconds of a clock that never goes back. `Supervision.next_action` says what is to
be done; whoever does it comes back at `Supervision.deadline` at the latest.
"""

from __future__ import annotations

import signal
import socket
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import Final


class Mode(StrEnum):
    """The purposes of a worker."""

    FIRST = "first"
    """Serve. Nothing has been served yet: what is wrong with the set-up ends the command."""
    AGAIN = "again"
    """Serve after a worker that was lost: what is wrong may pass."""
    MEND = "mend"
    """Give back what a lost worker has left in Asterisk, and end."""


class Standing(bytes, Enum):
    """The standing of a worker, which its beats tell."""

    STARTING = b"s"
    SERVING = b"u"
    REPLACED = b"r"
    """Another process has the application; this one only finishes its calls."""


class Order(bytes, Enum):
    """The orders of a parent."""

    DRAIN = b"d"
    """Refuse new calls, let the running ones finish, and end."""
    END = b"e"
    """End the running calls too."""


FRONT: Final = 0
"""The number of the front, which stands before several workers; those have 1, 2, 3 ..."""
SPARE: Final = -1
"""The number of a process that has loaded the code and waits until a place is free."""


@dataclass(frozen=True, slots=True)
class Duty:
    """The duty that a worker gets at its start.

    Attributes:
        mode: What it is for.
        restarts: How many workers were started in place of one that was lost, this one included.
        channel: Its end of the line to the parent; not blocking.
        number: Which of the workers it is, `FRONT` or `SPARE`.
        afresh: The code is to be loaded again, for it may be another by now.
    """

    mode: Mode
    restarts: int
    channel: socket.socket
    number: int = 1
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class Limits:
    """The patience of the parent, in seconds.

    Attributes:
        stall: A worker without a beat for so long is killed; 0: never.
        start: The same before its first beat.
        end: How long a worker may take to end after its line has closed.
        steady: Who has served for so long is no part of a crash loop.
        back_off, most_back_off: Before the third restart of a crash loop; each one after that
            waits twice as long, up to the most.
        overslept: When the parent wakes up later than this it was held up itself, and a beat that
            is missing proves nothing.
    """

    stall: float = 2.0
    start: float = 15.0
    end: float = 10.0
    steady: float = 10.0
    back_off: float = 1.0
    most_back_off: float = 30.0
    overslept: float = 0.3


@dataclass(frozen=True, slots=True)
class Start:
    """Start a worker, and say `Supervision.started`."""

    mode: Mode
    restarts: int


@dataclass(frozen=True, slots=True)
class Kill:
    """The worker has stalled: kill it, and wait for its end."""


@dataclass(frozen=True, slots=True)
class Exit:
    """There is nothing left to do."""

    code: int


Action = Start | Kill | Exit


class _Phase(Enum):
    DOWN = auto()
    UP = auto()
    KILLED = auto()
    DONE = auto()


LOST_CALLS = 1
"""The exit code when a worker was lost that was to end, or had lost the application."""


class Supervision:
    """Decides for one parent and its workers, one after the other.

    Args:
        limits: How patient it is.
        now: The time.
        stays: There is always to be one: what ends well without having been told to stop is
            started again, unless another process has its application.
        leaves_calls: What is lost may have left something in Asterisk, which is given back when
            nobody comes after it.
        mode: What its first worker is for.

    Attributes:
        restarts: How many workers were started in place of one that was lost.
        stopping: The parent was told to stop.
        retry_at: When the next worker is to be started, while there is none.
    """

    def __init__(
        self,
        limits: Limits,
        now: float,
        *,
        stays: bool = False,
        leaves_calls: bool = True,
        mode: Mode = Mode.FIRST,
    ) -> None:
        self.restarts = 0
        self.stopping = False
        self.retry_at = now
        self._stays = stays
        self._leaves_calls = leaves_calls
        self._limits = limits
        self._phase = _Phase.DOWN
        self._mode = mode
        self._code = 0
        self._failures = 0
        self._beat_due: float | None = None
        self._excused = False
        self._serving_since: float | None = None
        self._replaced = False

    @property
    def serving(self) -> bool:
        """Whether there is a worker that has said that it serves."""
        return self._phase is _Phase.UP and self._serving_since is not None

    @property
    def replaced(self) -> bool:
        """Whether another process has the application of the worker."""
        return self._replaced

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self._phase is _Phase.DONE

    @property
    def deadline(self) -> float | None:
        """When `next_action` is to be asked again at the latest; None: when something has
        happened."""
        match self._phase:
            case _Phase.DOWN:
                return self.retry_at
            case _Phase.UP:
                return self._beat_due
            case _:
                return None

    def next_action(self, now: float) -> Action | None:
        """Say what is to be done now."""
        match self._phase:
            case _Phase.DONE:
                return Exit(self._code)
            case _Phase.DOWN if now >= self.retry_at:
                return Start(self._mode, self.restarts)
            case _Phase.UP if self._stalled(now):
                self._phase = _Phase.KILLED
                return Kill()
            case _:
                return None

    def _stalled(self, now: float) -> bool:
        if self._beat_due is None or now < self._beat_due:
            return False
        if now - self._beat_due > self._limits.overslept and not self._excused:
            self._excused = True
            self._beat_due = now + self._limits.stall
            return False
        return True

    # --- what has happened

    def started(self, now: float) -> None:
        """Note that the worker of the last `Start` is there."""
        self._phase = _Phase.UP
        self._excused = False
        self._serving_since = None
        self._beat_due = now + self._limits.start if self._limits.stall else None

    def not_started(self, now: float) -> None:
        """Note that the system had no process for the last `Start`: that may pass."""
        self._wait_longer(now)
        self._serving_since = None

    def beat(self, standing: Standing, now: float) -> None:
        """Note that the worker's loop turns."""
        self._excused = False
        if self._limits.stall:
            self._beat_due = now + self._limits.stall
        self._replaced = standing is Standing.REPLACED
        if standing is not Standing.STARTING and self._serving_since is None:
            self._serving_since = now
            self._mode = Mode.AGAIN

    def closed(self, now: float) -> None:
        """Note that the worker has closed its line: it is about to end."""
        self._beat_due = now + self._limits.end if self._limits.stall else None

    def stop(self, now: float) -> Order | None:
        """Stop, for the parent was told to; told again: at once.

        Returns:
            What the worker is to be told.
        """
        again, self.stopping = self.stopping, True
        if self._phase is not _Phase.DOWN:
            return Order.END if again else Order.DRAIN
        if not again:
            self._leave(now)
        return None

    def ended(self, code: int, now: float) -> bool:
        """Note that the worker is gone; `code` as `os.waitstatus_to_exitcode` says it: -9 for
        SIGKILL.

        Returns:
            Whether it was lost, rather than done.
        """
        self._phase = _Phase.DOWN
        if code == 0 and self._stays and not (self.stopping or self._replaced):
            self.retry_at = now
            return False
        if code == 0 or (code > 0 and self._mode is Mode.FIRST):
            self._finish(LOST_CALLS if self._mode is Mode.MEND else code)
            return False
        if self._mode is Mode.MEND or self._replaced:
            # To take an application back would start a fight; who has it cleans up.
            self._finish(LOST_CALLS)
        elif self.stopping:
            self._leave(now)
        else:
            self._retry(now)
        return True

    def _retry(self, now: float) -> None:
        self._wait_longer(now)
        self.restarts += 1

    def _wait_longer(self, now: float) -> None:
        since = self._serving_since
        if since is not None and now - since >= self._limits.steady:
            self._failures = 0
        # Callers wait for the next one to go on with their calls; two may be an accident.
        delay = self._limits.back_off * 2.0 ** (self._failures - 2) if self._failures > 1 else 0.0
        self._failures = min(self._failures + 1, 32)
        self.retry_at = now + min(delay, self._limits.most_back_off)

    def _leave(self, now: float) -> None:
        """Stop without a worker: what one may have left in Asterisk is given back first."""
        if not self._leaves_calls:
            self._finish(0)
        elif self._mode is Mode.FIRST:
            self._finish(LOST_CALLS)
        else:
            self._mode = Mode.MEND
            self.retry_at = now

    def _finish(self, code: int) -> None:
        self._phase = _Phase.DONE
        self._code = code


def name_of_end(code: int) -> dict[str, int | str]:
    """Say how a worker ended, for the log: `{"signal": "SIGKILL"}` or `{"code": 2}`."""
    if code >= 0:
        return {"code": code}
    try:
        return {"signal": signal.Signals(-code).name}
    except ValueError:
        return {"signal": -code}
