"""The conversation as it goes on, in the terminal."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ari_app.call.states import State
from ari_app.records.events import (
    AgentConnected,
    CallEnded,
    CallerInterrupted,
    CallEvent,
    KeysPressed,
    Noted,
    Said,
    StateChanged,
    ToolRan,
)
from ari_app.records.record import CallRecord

Kind = Literal["agent", "caller", "heard", "interruption", "correction", "tool", "call"]

MAX_ENTRIES = 2000
_KINDS: dict[str, Kind] = {
    "agent": "agent",
    "caller": "heard",
    "interruption": "interruption",
    "correction": "correction",
    "tool": "tool",
}
_LOOKS: dict[Kind, tuple[str, str, str]] = {
    "agent": ("agent", "bold cyan", ""),
    "caller": ("caller", "bold yellow", ""),
    "heard": ("", "", "dim"),
    "interruption": ("barge-in", "bold red", "red"),
    "correction": ("", "", "dim"),
    "tool": ("tool", "bold magenta", "magenta"),
    "call": ("", "", "green"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that was said or happened, so many seconds after the call began.

    `heard` is what the agent took the caller's words for, `correction` what the caller has really
    heard of an answer that was interrupted.
    """

    at_s: float
    kind: Kind
    text: str


def render(entry: Entry) -> Table:
    """Lay an entry out: the time, who it was, the words."""
    label, label_style, style = _LOOKS[entry.kind]
    match entry.kind:
        case "correction":
            text = f"the caller heard: {entry.text}" if entry.text else "the caller heard nothing"
        case "heard":
            text = f"the agent heard: {entry.text}"
        case _:
            text = entry.text
    row = Table.grid(padding=(0, 2))
    row.add_column(width=9, justify="right", style="dim")
    row.add_column(width=8)
    row.add_column()
    row.add_row(clock(entry.at_s), Text(label, style=label_style), Text(text, style=style))
    return row


def clock(seconds: float) -> str:
    """Minutes and seconds: ``0:07.3``."""
    tenths = round(max(0.0, seconds) * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"


class LiveTranscript:
    """Prints what is said as it is said, and keeps it; `heard` is a listener of the journal.

    Times count from the start of the call, or from `start_at` when that has been called.
    """

    def __init__(self, console: Console, *, now: Callable[[], float] = time.monotonic) -> None:
        self.entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        """The oldest go first."""
        self.ended = asyncio.Event()
        """A call has ended."""
        self.outcome: CallEnded | None = None
        """How the last call ended."""
        self._console = console
        self._now = now
        self._origin: float | None = None

    def start_at(self, origin: float | None) -> None:
        """Count from this monotonic time; from each call's own start after None."""
        self._origin = origin

    def caller_speaks(self, text: str) -> None:
        """The scripted caller begins to say this."""
        self._add(0.0, "caller", text)

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        """Show what has happened in a call."""
        match event:
            case StateChanged(State.CONNECTING):
                self._add(0.0, "call", "the call has reached the service")
            case StateChanged(State.TALKING):
                at_s = record.duration(asyncio.get_running_loop().time())
                self._add(at_s, "call", "answered; the caller and the agent are joined")
            case AgentConnected(_, seconds):
                self._add(seconds, "call", f"the agent is ready after {seconds * 1000:.0f} ms")
            case Said() | CallerInterrupted() | ToolRan() | KeysPressed() | Noted():
                line = record.transcript[-1]
                self._add(line.at_seconds, _KINDS.get(line.who, "call"), line.text)
            case CallEnded(status, reason, duration):
                self.outcome = event
                self.ended.set()
                how = f": {status}, {reason}" if status else ""
                self._add(duration, "call", f"the service has let the call go{how}")
            case _:
                pass

    def _add(self, at_s: float, kind: Kind, text: str) -> None:
        entry = Entry(at_s if self._origin is None else self._now() - self._origin, kind, text)
        self.entries.append(entry)
        self._console.print(render(entry))
