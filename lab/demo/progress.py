"""The steps of a set-up, ticked off in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.text import Text

_NAME_WIDTH = 18


@dataclass(slots=True)
class Step:
    """A step that is under way."""

    name: str
    result: str
    """What is shown behind the name once it is done."""
    _console: Console
    _status: Status

    def report(self, detail: str) -> None:
        """Show what is being done just now. May be called from any thread."""
        self._status.update(f"{self.name:{_NAME_WIDTH}} [dim]{escape(detail)}")
        if not self._console.is_terminal:
            self._console.print(Text(f"   {detail}", style="dim"))


class Steps:
    """Shows each step with a tick or a cross and the time that it took."""

    def __init__(self, console: Console, *, now: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._now = now

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Show a step for as long as the block lasts."""
        begun = self._now()
        with self._console.status(name) as status:
            step = Step(name, "", self._console, status)
            try:
                yield step
            except BaseException:
                self._line("✗", "red", step, begun)
                raise
        self._line("✓", "green", step, begun)

    def _line(self, mark: str, style: str, step: Step, begun: float) -> None:
        taken = f"{self._now() - begun:6.2f} s"
        self._console.print(
            Text.assemble(
                (f" {mark} ", style),
                f"{step.name:{_NAME_WIDTH}}",
                (taken, "dim"),
                f"   {step.result}",
            )
        )
