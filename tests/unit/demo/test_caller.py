from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from lab.asterisk import LabError
from lab.demo.caller import ScriptedCaller
from lab.demo.scene import Line
from lab.softphone import CallOver, Ending, Utterance

HUNG_UP = Ending("far", 200, "hung up")


class FakeCall:
    """A call that notes what is done with it; `over_at` is the step at which the agent hangs up."""

    def __init__(self, *, over_at: str = "", silent_at: str = "", endless: bool = False) -> None:
        self.steps: list[str] = []
        self._over_at = over_at
        self._silent_at = silent_at
        self._endless = endless
        self._ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()

    @property
    def ended(self) -> Awaitable[Ending]:
        return asyncio.shield(self._ended)

    async def play(self, sound: bytes) -> Utterance:
        self._step(f"play {sound.decode()}")
        utterance = Utterance(sound)
        utterance.finished_at = float(len(self.steps))
        return utterance

    async def wait_for_sound(
        self, threshold_dbfs: float = -40.0, timeout: float = 10.0, *, since: float | None = None
    ) -> float:
        self._step(f"sound since {since}")
        if self.steps[-1] == self._silent_at:
            raise TimeoutError
        return 0.0

    async def wait_for_silence(
        self, quiet_ms: float = 200.0, threshold_dbfs: float = -40.0, timeout: float = 10.0
    ) -> float:
        self._step(f"silence of {quiet_ms:g} ms")
        if self._endless:
            raise TimeoutError
        if quiet_ms > 1000 and self._over_at == "patience":
            self._ended.set_result(HUNG_UP)
            await asyncio.Event().wait()
        return 0.0

    async def hang_up(self) -> Ending:
        self.steps.append("hang up")
        return self._ended.result() if self._ended.done() else Ending("us", 200, "hung up")

    def _step(self, step: str) -> None:
        self.steps.append(step)
        if step == self._over_at:
            self._ended.set_result(HUNG_UP)
            raise CallOver("the call ended first")


LINES = (Line("one"), Line("two", interrupts_after_s=0.0))


def converse(call: FakeCall, texts: list[str]) -> Awaitable[Ending]:
    sounds = [line.text.encode() for line in LINES]
    return ScriptedCaller(call, LINES, sounds, on_speaking=texts.append).converse()


async def test_the_caller_waits_for_its_turn_or_interrupts() -> None:
    call, texts = FakeCall(over_at="patience"), list[str]()
    assert await converse(call, texts) is HUNG_UP
    assert texts == ["one", "two"]
    assert call.steps == [
        "sound since 0.0",
        "silence of 800 ms",
        "play one",
        "sound since 3.0",
        "play two",
        "sound since 5.0",
        "silence of 4000 ms",
        "hang up",
    ]


async def test_the_caller_hangs_up_on_an_agent_with_nothing_more_to_say() -> None:
    assert (await converse(FakeCall(), [])).by == "us"


async def test_a_call_that_ends_in_the_middle_is_no_error() -> None:
    call, texts = FakeCall(over_at="play two"), list[str]()
    assert await converse(call, texts) is HUNG_UP
    assert texts == ["one", "two"]


async def test_what_has_been_said_is_kept() -> None:
    caller = ScriptedCaller(
        FakeCall(over_at="play two"), LINES, [b"one", b"two"], on_speaking=lambda _: None
    )
    await caller.converse()
    assert [(line.text, line.utterance.pcm) for line in caller.spoken] == [("one", b"one")]


async def test_an_agent_that_does_not_greet() -> None:
    with pytest.raises(LabError, match="did not greet within 15 s"):
        await converse(FakeCall(silent_at="sound since 0.0"), [])


async def test_an_agent_that_does_not_answer() -> None:
    with pytest.raises(LabError, match="did not answer within 15 s"):
        await converse(FakeCall(silent_at="sound since 3.0"), [])


async def test_an_agent_that_never_stops() -> None:
    with pytest.raises(LabError, match="did not stop speaking within 60 s"):
        await converse(FakeCall(endless=True), [])


async def test_each_line_needs_its_sound() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ScriptedCaller(FakeCall(), LINES, [b"one"], on_speaking=lambda _: None)
