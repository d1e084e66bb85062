"""Sees to it that the caller is answered: the watch of :mod:`ari_app.call.silence`, on a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from ari_app.call.line_audio import LineAudio
from ari_app.call.silence import SilenceWatch, Verdict
from ari_app.call.speech import AgentSpeech

log = structlog.get_logger(__name__)

_LOOK_SECONDS = 1.0
# A tool of ElevenLabs' own may take so long, where its request does not say.
_THEIR_TOOL_SECONDS = 60.0
# More at once no conversation needs; of them those are forgotten that end first.
_MAX_THEIR_TOOLS = 64
_ID_CHARACTERS = 128


class Attention:
    """Knows what the agent owes the caller.

    Args:
        audio: The line, on which the caller is heard.
        speech: What the caller hears of the agent.
        limit_seconds: See :class:`~ari_app.call.silence.SilenceWatch`.
    """

    def __init__(self, audio: LineAudio, speech: AgentSpeech, limit_seconds: float) -> None:
        self._audio = audio
        self._speech = speech
        self._limit_seconds = limit_seconds
        self._watch = SilenceWatch(limit_seconds)
        self._loop = asyncio.get_running_loop()
        self._their_tools: dict[str, float] = {}
        self._said_at = self._meant_at = 0.0

    @property
    def tools_under_way(self) -> int:
        """How many tools of ElevenLabs' own have begun, and not ended."""
        return len(self._their_tools)

    async def watch(self, *, excused: Callable[[], bool], tell: Callable[[], None]) -> None:
        """Watch until the agent has failed; for ever where there is no limit.

        Args:
            excused: Whether something explains a silence now.
            tell: Tells the agent that it owes an answer.
        """
        while self._limit_seconds:
            await asyncio.sleep(_LOOK_SECONDS)
            now = self._loop.time()
            verdict = self._watch.look(
                now,
                spoke_at=max(self._said_at, self._audio.hearing.last_utterance_at),
                answered_at=max(self._speech.heard_until, self._meant_at),
                excused=excused() or any(until > now for until in self._their_tools.values()),
            )
            if verdict is Verdict.TELL:
                tell()
            elif verdict is Verdict.GIVE_UP:
                return
        await self._loop.create_future()

    def caller_said(self) -> None:
        """The agent has understood something."""
        # This may come after the answer has begun; the line knows better when the caller spoke.
        self._said_at = self._audio.hearing.last_speech_at or self._loop.time()

    def tool_begins(self, call_id: str, seconds: float | None) -> None:
        """A tool of ElevenLabs' own runs, for so long at most."""
        tools = self._their_tools
        tools[_key(call_id)] = self._loop.time() + (seconds or _THEIR_TOOL_SECONDS)
        if len(tools) > _MAX_THEIR_TOOLS:
            del tools[min(tools, key=tools.__getitem__)]

    def tool_ended(self, call_id: str, name: str) -> None:
        """It has run; one of them means that the agent is silent on purpose."""
        self._their_tools.pop(_key(call_id), None)
        if name == "skip_turn":
            self._meant_at = self._loop.time()

    def forget(self) -> None:
        """The agent is another one."""
        self._their_tools.clear()


def _key(call_id: str) -> str:
    """As much of an id as tells it from others, whoever chose it."""
    return call_id[:_ID_CHARACTERS]
