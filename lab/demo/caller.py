"""The caller: waits, speaks, interrupts, and lets the agent end the call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from lab.asterisk import LabError
from lab.demo.scene import Line
from lab.softphone import CallOver, Ending, Utterance

TURN_PAUSE_MS = 800.0
"""Silence after which the agent is believed to have finished: longer than between sentences."""
ANSWER_SECONDS = 15.0
"""How long to wait for the agent to say something."""
SPEECH_SECONDS = 60.0
"""How long the agent may speak without a pause."""
PATIENCE_MS = 4000.0
"""Silence after the last answer, after which the caller hangs up."""


class Handset(Protocol):
    """What the caller needs of a `lab.softphone.Call`."""

    @property
    def ended(self) -> Awaitable[Ending]: ...

    async def play(self, sound: bytes) -> Utterance: ...

    async def wait_for_sound(
        self, threshold_dbfs: float = ..., timeout: float = ..., *, since: float | None = None
    ) -> float: ...

    async def wait_for_silence(
        self, quiet_ms: float = ..., threshold_dbfs: float = ..., timeout: float = ...
    ) -> float: ...

    async def hang_up(self) -> Ending: ...


@dataclass(frozen=True, slots=True)
class Spoken:
    """A line that the caller has said."""

    text: str
    utterance: Utterance


class ScriptedCaller:
    """Goes through the lines of a scene on a call that is up.

    `sounds` holds the PCM of each line. `on_speaking` is told each text as it is begun.
    """

    def __init__(
        self,
        call: Handset,
        lines: Sequence[Line],
        sounds: Sequence[bytes],
        *,
        on_speaking: Callable[[str], None],
    ) -> None:
        self.spoken: list[Spoken] = []
        self._call = call
        self._lines = tuple(zip(lines, sounds, strict=True))
        self._on_speaking = on_speaking

    async def converse(self) -> Ending:
        """Say every line at its time; then wait for the agent to hang up, or hang up.

        A call that ends in the middle is no error.

        Raises:
            LabError: the agent is not heard when it should be, or never stops.
        """
        try:
            await self._hear_agent("greet", since=0.0)
            for line, sound in self._lines:
                await self._wait_for_turn(line)
                self._on_speaking(line.text)
                utterance = await self._call.play(sound)
                self.spoken.append(Spoken(line.text, utterance))
                await self._hear_agent("answer", since=utterance.finished_at)
        except CallOver:
            return await self._call.ended
        return await self._take_leave()

    async def _take_leave(self) -> Ending:
        """Leave the end to the agent; hang up when it has nothing more to say."""
        silence = asyncio.ensure_future(
            self._call.wait_for_silence(PATIENCE_MS, timeout=SPEECH_SECONDS)
        )
        try:
            await asyncio.wait(
                {silence, asyncio.ensure_future(self._call.ended)},
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            silence.cancel()
            await asyncio.gather(silence, return_exceptions=True)
        return await self._call.hang_up()

    async def _wait_for_turn(self, line: Line) -> None:
        if line.interrupts_after_s is not None:
            await asyncio.sleep(line.interrupts_after_s)
            return
        try:
            await self._call.wait_for_silence(TURN_PAUSE_MS, timeout=SPEECH_SECONDS)
        except TimeoutError:
            raise LabError(
                f"The agent did not stop speaking within {SPEECH_SECONDS:g} s."
            ) from None

    async def _hear_agent(self, what: str, *, since: float | None) -> None:
        try:
            await self._call.wait_for_sound(timeout=ANSWER_SECONDS, since=since)
        except TimeoutError:
            raise LabError(f"The agent did not {what} within {ANSWER_SECONDS:g} s.") from None
