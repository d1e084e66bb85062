"""Whether the agent owes the caller an answer, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import Final

from ari_app.call.sound import CallSound
from ari_app.call.speech import AgentSpeech
from ari_app.process.beat import seconds_to_beat

_LOOK_SECONDS = 1.0
# A tool of the agent's own service may take so long, where its request does not say.
_THEIR_TOOL_SECONDS = 60.0
# ElevenLabs lets a tool be given two minutes at most; whoever says more explains no longer silence.
_LONGEST_TOOL_SECONDS = 120.0
# More at once no conversation needs; of them those are forgotten that end first.
_MAX_THEIR_TOOLS = 64
_ID_CHARACTERS = 128
_PAUSE: Final = 0.2
"""Part of the limit for which the caller must have paused: who is still speaking is not waiting."""


class Verdict(Enum):
    """The decision about an agent's silence."""

    TELL = auto()
    """Tell the agent, once."""
    GIVE_UP = auto()
    """It has been told, and said nothing."""


class SilenceWatch:
    """Watches one call. All times are seconds on the clock of `now`.

    Args:
        limit_seconds: How long the caller waits until the agent is told; 0: for ever.
    """

    def __init__(self, limit_seconds: float) -> None:
        self._limit = limit_seconds
        self._since: float | None = None
        self._told = False

    def look(
        self, now: float, *, spoke_at: float, answered_at: float, excused: bool
    ) -> Verdict | None:
        """Take a look; once a second is often enough.

        The time runs from the first word of the caller's that was not answered: one who asks
        "hello?" again and again does not begin it anew.

        Args:
            now: The time.
            spoke_at: When the caller last stopped speaking.
            answered_at: When the caller last heard the agent.
            excused: Something explains the silence: a tool is running, the caller is on hold.
        """
        if spoke_at <= answered_at or not self._limit:
            self._since, self._told = None, False
            return None
        if excused or self._since is None:
            self._since = now if excused else spoke_at
            return None
        if now - self._since < self._limit or now - spoke_at < self._limit * _PAUSE:
            return None
        if self._told:
            return Verdict.GIVE_UP
        self._since, self._told = now, True
        return Verdict.TELL


class Attention:
    """Knows what the agent owes the caller.

    Args:
        sound: The call's sound, in which the caller is heard.
        speech: What the caller hears of the agent.
        limit_seconds: See `SilenceWatch`.
    """

    def __init__(self, sound: CallSound, speech: AgentSpeech, limit_seconds: float) -> None:
        self._sound = sound
        self._speech = speech
        self._limit_seconds = limit_seconds
        self._watch = SilenceWatch(limit_seconds)
        self._loop = asyncio.get_running_loop()
        self._their_tools: dict[str, float] = {}
        self._said_at = self._meant_at = 0.0

    async def watch(self, *, excused: Callable[[], bool], tell: Callable[[], None]) -> None:
        """Watch until the agent has failed; for ever where there is no limit.

        Args:
            excused: Whether something explains a silence now.
            tell: Tells the agent that it owes an answer.
        """
        while self._limit_seconds:
            await asyncio.sleep(seconds_to_beat(self._loop.time(), _LOOK_SECONDS))
            now = self._loop.time()
            verdict = self._watch.look(
                now,
                spoke_at=max(self._said_at, self._sound.hearing.last_utterance_at),
                answered_at=max(self._speech.heard_until, self._meant_at),
                excused=excused() or any(until > now for until in self._their_tools.values()),
            )
            if verdict is Verdict.TELL:
                tell()
            elif verdict is Verdict.GIVE_UP:
                return
        await self._loop.create_future()

    def caller_said(self) -> None:
        """Note that the agent has understood something."""
        # This may come after the answer has begun; the line knows better when the caller spoke.
        self._said_at = self._sound.hearing.last_speech_at or self._loop.time()

    def tool_begins(self, call_id: str, seconds: float | None) -> None:
        """Note that a tool of the agent's own service runs, for so long at most."""
        tools = self._their_tools
        lasts = min(seconds or _THEIR_TOOL_SECONDS, _LONGEST_TOOL_SECONDS)
        tools[_key(call_id)] = self._loop.time() + lasts
        if len(tools) > _MAX_THEIR_TOOLS:
            del tools[min(tools, key=tools.__getitem__)]

    def tool_ended(self, call_id: str, name: str) -> None:
        """Note that a tool has run; one of them means that the agent is silent on purpose."""
        self._their_tools.pop(_key(call_id), None)
        if name == "skip_turn":
            self._meant_at = self._loop.time()

    def forget(self) -> None:
        """Begin anew, for the agent is another one."""
        self._their_tools.clear()

    def begin_anew(self) -> None:
        """Let nobody owe the other anything: somebody else has spoken with the caller."""
        self._meant_at = self._loop.time()


def _key(call_id: str) -> str:
    """Return as much of an id as tells it from others, whoever chose it."""
    return call_id[:_ID_CHARACTERS]
