"""Conferences: named rooms in which calls meet. No sound is mixed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lab.twilio.account import new_sid


@dataclass(slots=True)
class Participant:
    """A call in a conference.

    Attributes:
        left: Set when it is to leave: kicked, or the conference has ended.
    """

    call_sid: str
    label: str = ""
    muted: bool = False
    hold: bool = False
    starts: bool = True
    ends: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def resource(self, account_sid: str, conference_sid: str) -> dict[str, Any]:
        """Return it as REST shows it."""
        return {
            "account_sid": account_sid,
            "call_sid": self.call_sid,
            "conference_sid": conference_sid,
            "label": self.label or None,
            "muted": self.muted,
            "hold": self.hold,
            "start_conference_on_enter": self.starts,
            "end_conference_on_exit": self.ends,
            "status": "connected",
        }


@dataclass(slots=True)
class Conference:
    """A room; it lives from the first that enters to the last that leaves.

    Attributes:
        history: The calls that have been in it, in order.
    """

    name: str
    account_sid: str
    sid: str = field(default_factory=lambda: new_sid("CF"))
    participants: dict[str, Participant] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)
    status: str = "init"

    def enter(self, participant: Participant) -> None:
        """Let a call in."""
        self.participants[participant.call_sid] = participant
        self.history.append(participant.call_sid)
        if participant.starts:
            self.status = "in-progress"

    def leave(self, call_sid: str) -> None:
        """Let a call out; the last one, and one that ends it, takes the conference along."""
        gone = self.participants.pop(call_sid, None)
        if gone is not None:
            gone.left.set()
            if gone.ends or not self.participants:
                self.end()

    def end(self) -> None:
        """End it for all."""
        self.status = "completed"
        for each in list(self.participants.values()):
            each.left.set()

    def resource(self) -> dict[str, Any]:
        """Return it as REST shows it."""
        return {
            "account_sid": self.account_sid,
            "sid": self.sid,
            "friendly_name": self.name,
            "status": self.status,
        }


class Conferences:
    """All conferences of an account."""

    def __init__(self, account_sid: str) -> None:
        self.all: list[Conference] = []
        self._account_sid = account_sid

    def __iter__(self) -> Iterator[Conference]:
        return iter(self.all)

    def named(self, name: str) -> Conference:
        """Return the running conference of this name or SID, or a new one."""
        for each in self.all:
            if name in (each.name, each.sid) and each.status != "completed":
                return each
        self.all.append(Conference(name, self._account_sid))
        return self.all[-1]
