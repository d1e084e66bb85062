"""What a call of the demonstration leaves behind."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from lab.demo.analysis import Analysis
from lab.demo.picture import Mark
from lab.demo.transcript import Entry
from lab.softphone import Ending, HeardStats

_ENDED_BY = {
    "us": "the caller hangs up",
    "far": "the agent hangs up",
    "network": "the call is lost",
}


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the call left behind. Times are seconds since it was dialled."""

    recording: Path
    """Stereo: the caller on the left, the agent on the right."""
    picture: Path
    log: Path
    analysis: Analysis
    heard: HeardStats
    sound: tuple[tuple[str, str], ...]
    """How evenly the agent's voice came, as names and values with units."""
    ringing_s: float | None
    answered_s: float
    greeting_s: float | None
    """When the agent's first sound had come; None when none did."""
    ended_s: float
    ending: Ending
    agent_delay_s: float
    """How much silence the agent itself waits for before it answers."""
    transcript: tuple[Entry, ...] = field(repr=False)
    begins: str = "INVITE"
    """What dialling sends."""

    def marks(self) -> list[Mark]:
        """The moments of set-up and end, for the picture."""
        moments = [
            (0.0, f"{self.begins} at"),
            (self.ringing_s, "ringing after"),
            (self.answered_s, "answered after"),
            (self.greeting_s, "greeting heard after"),
        ]
        marks = [Mark(at_s, f"{name} {_ms(at_s)}") for at_s, name in moments if at_s is not None]
        return [*marks, Mark(self.ended_s, _ENDED_BY[self.ending.by])]

    def figures(self) -> list[tuple[str, str]]:
        """What was measured, as names and values with units."""
        analysis = self.analysis
        responses = (reply.seconds for reply in analysis.replies)
        silences = (barge_in.seconds for barge_in in analysis.barge_ins)
        rows = [(f"{self.begins} to answer", _ms(self.answered_s))]
        if self.greeting_s is not None:
            rows.append(("answer to greeting", _ms(self.greeting_s - self.answered_s)))
        rows += _each("response time", responses)
        if analysis.replies:
            rows.append(("the agent answers after", f"{_ms(self.agent_delay_s)} of silence"))
        # From the caller's mouth, so the agent's own time to notice is in it: not what a benchmark
        # measures, which begins with the agent's word that it was interrupted.
        rows += _each("caller's first sound to silence", silences)
        return [*rows, *self.sound]

    def table(self) -> Table:
        """The figures for the terminal."""
        table = Table(show_header=False, box=None, padding=(0, 3, 0, 1))
        table.add_column(style="dim")
        table.add_column()
        for name, value in self.figures():
            table.add_row(name, value)
        return table


def _each(name: str, seconds: Iterable[float]) -> list[tuple[str, str]]:
    values = sorted(seconds)
    match values:
        case []:
            return []
        case [only]:
            return [(name, _ms(only))]
        case _:
            middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2
            return [(name, f"median {_ms(middle)}, longest {_ms(values[-1])}")]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
