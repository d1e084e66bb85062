"""A line that does what a test says, and writes down what is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from ari_app.audio.formats import AgentFormats
from ari_app.line.interface import (
    Ability,
    Answered,
    Arrival,
    CallEnd,
    Connected,
    EndCause,
    Ended,
    Hear,
    LineEvent,
    LineFormat,
    LineSound,
    Opened,
    Outcome,
    Placing,
    Screened,
    TargetConnected,
    Tell,
)

EVERYTHING: Final = ~Ability.NOTHING
RATE_HZ: Final = 8000
FRAME: Final = bytes(RATE_HZ // 50 * 2)


class FakeLine:
    """A line whose far side does at once what is asked, but for what `slow` names.

    Attributes:
        asked: What was asked of it, in order.
        heard: All frames that the caller has heard; None is silence.
        ahead_ms: What it would have to take back.
        hear_target: Gets what a third party says, where the line has it apart.
        outcome, end: How it was closed; None while it is open.
    """

    way = "fake"
    trunk = ""
    rtp = None

    def __init__(
        self,
        line_id: str = "line-1",
        *,
        placed: bool = False,
        answered: bool = False,
        abilities: Ability = EVERYTHING,
        slow: frozenset[str] = frozenset(),
    ) -> None:
        self.id, self.caller, self.called = line_id, "+15550100001", "8500"
        self.placed, self.answered, self.abilities = placed, answered, abilities
        self.cause = EndCause()
        self.reachable = True
        self.frames_not_read = 0
        self.session_id = ""
        self.asked: list[str] = []
        self.heard: list[bytes | None] = []
        self.ahead_ms = 0.0
        self.outcome: Outcome | None = None
        self.end: CallEnd | None = None
        self.sound: LineSound | None = None
        self.hear_target: Hear | None = None
        self._slow = slow
        self._tell: Tell | None = None
        self._ended: Ended | None = None

    # --- ari_app.line.interface.Line

    def listen(self, tell: Tell) -> None:
        self._tell = tell
        if self._ended is not None:
            tell(self._ended)

    def name(self, session_id: str) -> None:
        self.session_id = session_id

    async def prepare(self, agent: AgentFormats) -> LineFormat:
        return LineFormat("fake", RATE_HZ)

    def ring(self) -> None:
        self.asked.append("ring")

    def dial(self) -> None:
        self._answer("dial", Answered())

    def screen(self) -> None:
        self._answer("screen", Screened("HUMAN"))

    def open(self, sound: LineSound, seconds: float) -> None:
        self.sound = sound
        self._answer("open", Opened())

    def connect(self) -> None:
        self._answer("connect", Connected())

    def music(self) -> None:
        self.asked.append("music")

    def consult(self, target: str, ring_seconds: float) -> None:
        self._answer(f"consult {target}", TargetConnected())

    def bring_in(self, target: str, ring_seconds: float, hear: Hear) -> None:
        self.hear_target = hear
        self._answer(f"bring_in {target}", TargetConnected())

    def drop_target(self) -> None:
        self.asked.append("drop_target")

    def hand_over(self) -> None:
        self.asked.append("hand_over")

    def take_back(self) -> float:
        taken, self.ahead_ms = self.ahead_ms, 0.0
        return taken

    async def send_keys(self, keys: str) -> None:
        self.asked.append(f"keys {keys}")

    async def set_variable(self, name: str, value: str) -> None:
        self.asked.append(f"{name}={value}")

    def checkpoint(self) -> None:
        """Keep nothing: the far end's connection ends with this process."""

    async def close(self, outcome: Outcome, end: CallEnd) -> None:
        self.outcome, self.end, self._tell, self.sound = outcome, end, None, None

    # --- what the far side does

    def tells(self, event: LineEvent) -> None:
        """Something happens on the line."""
        if isinstance(event, Ended):
            self._ended = event
        if isinstance(event, Answered | Connected):
            self.answered = True
        if self._tell is not None:
            self._tell(event)

    def beats(self, times: int = 1, pcm: bytes = FRAME) -> None:
        """So many times 20 ms: the caller is heard, and hears a frame."""
        for _ in range(times):
            assert self.sound is not None, "the line is open"
            self.sound.heard(pcm)
            self.sound.tick()
            self.heard.append(self.sound.next_frame())

    def _answer(self, asked: str, event: LineEvent) -> None:
        self.asked.append(asked)
        if asked.partition(" ")[0] not in self._slow:
            asyncio.get_running_loop().call_soon(self.tells, event)


class FakeGateway:
    """A way in and out of `FakeLine`s.

    Attributes:
        lines: All that were placed.
        slow: What they do not do by themselves.
    """

    name = "fake"
    routes = ()

    def __init__(self) -> None:
        self.connected = True
        self.slow: frozenset[str] = frozenset()
        self.lines: list[FakeLine] = []
        self.take: Callable[[Arrival], object] | None = None

    async def run(self, take: Callable[[Arrival], object]) -> None:
        self.take = take
        await asyncio.get_running_loop().create_future()

    def serves(self, how: Placing) -> bool:
        return how.audio is None and not how.needs_channel

    def place(self, session_id: str, number: str, how: Placing) -> FakeLine:
        line = FakeLine(f"out-{session_id}", placed=True, slow=self.slow)
        line.caller, line.called = how.caller_id, number
        self.lines.append(line)
        return line

    def problems(self) -> list[str]:
        return []

    def adopt(self, session_id: str, kept: Mapping[str, Any], begin: Callable[[], None]) -> None:
        """Adopt none: their sound ended with the process that they came to."""

    async def mend(self, *, expected: bool, adopting: bool = False) -> None:
        """Nothing outlives it."""

    async def close(self) -> None:
        """Nothing runs."""
