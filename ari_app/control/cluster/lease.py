"""Whether this machine is the front of its Asterisk, as far as it may believe so. Pure.

Whoever holds the lease has the application that the dialplan names. Three things guard it, each
against what the one before cannot see:

- **The own clock.** A lease is good until `TTL` after it was *asked* for, however late the answer
  came. Somebody who was frozen finds it over before doing anything.
- **The store.** It gives the lease to one at a time, with a token that only grows.
- **Asterisk.** An application has one client: the next one replaces the last, who is told.

So while the store is away, the holder goes on: nobody else can take what only the store gives, and
callers must not wait for it. Where it is away for this machine alone, another takes the lease and
with it the application; Asterisk's word ends it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

TTL: Final = 1.5
"""Seconds for which a lease is good. With `BEAT` it makes the time in which another takes over."""
BEAT: Final = 0.3
"""Seconds between two requests for it."""


class Standing(Enum):
    """How a machine stands to a lease."""

    OTHERS = "others"
    """It is somebody else's, or nobody's."""
    HOLDS = "holds"
    """It is ours, by the store's word."""
    ALONE = "alone"
    """It was ours when the store went away."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What the store says of a lease.

    Attributes:
        holder: Whose it is; empty: nobody's.
        token: Grows with each holder; 0: there never was one.
    """

    holder: str
    token: int


class FrontLease:
    """One lease, as one machine sees it.

    Args:
        holder: This process; one that takes its place has another name.

    Attributes:
        standing: As last known; see `may_act` for whether that is still so.
        token: The token of our own lease; 0: there is none.
    """

    def __init__(self, holder: str) -> None:
        self.holder = holder
        self.standing = Standing.OTHERS
        self.token = 0
        self._until = 0.0
        self._highest = 0
        self._in_touch_since: float | None = None

    @property
    def is_ours(self) -> bool:
        """Whether it is ours as far as we know; it may have run out."""
        return self.standing is not Standing.OTHERS

    def may_act(self, now: float) -> bool:
        """Return whether this machine may act as the front at this moment.

        False with `is_ours` means that it must ask the store first: it has not run for a while.
        """
        return self.is_ours and now < self._until

    def may_want(self, now: float, *, others: bool) -> bool:
        """Return whether to ask for it, rather than only to look.

        Somebody who has just found the store again leaves it for one `TTL` to whoever had it
        before: the store may have come back empty.

        Args:
            now: On the clock of all of this.
            others: There are other machines of the same Asterisk.
        """
        if self.is_ours or not others:
            return True
        return self._in_touch_since is not None and now - self._in_touch_since >= TTL

    def answered(self, asked_at: float, grant: Grant) -> None:
        """Take the store's answer to a question of `asked_at`."""
        if self._in_touch_since is None:
            self._in_touch_since = asked_at
        if grant.token < self._highest and grant.holder != self.holder:
            return  # an answer that others have overtaken
        self._highest = max(self._highest, grant.token)
        if grant.holder == self.holder:
            self.standing, self.token = Standing.HOLDS, grant.token
            self._until = asked_at + TTL
        else:
            self.lose()

    def unanswered(self, asked_at: float) -> None:
        """Take that a question of `asked_at` was not answered: the store is away."""
        self._in_touch_since = None
        if self.is_ours:
            self.standing = Standing.ALONE
            self._until = asked_at + TTL

    def lose(self) -> None:
        """Hold it no more: by the word of the store or of Asterisk, or of our own will."""
        self.standing, self.token, self._until = Standing.OTHERS, 0, 0.0
