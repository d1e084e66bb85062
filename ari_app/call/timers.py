"""The timers of one call: how long each is, and what it waits for beyond that."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ari_app.call.signals import Timer, TimerFired
from ari_app.call.states import State

if TYPE_CHECKING:
    from ari_app.call.session import CallSession

# The agent's client has the same deadline, and its error says more than this timer.
_SPARE_SECONDS = 0.2
_JOIN_SECONDS = 5.0
# AMD() takes 5 s at most (amd.conf, total_analysis_time); then there is still the way to and fro.
_SCREEN_SECONDS = 12.0
# A machine that says nothing for so long has spoken before it was known to be one.
_MACHINE_QUIET_SECONDS = 3.0
_GREETING_SECONDS = 60.0
# How long the agent may take until it begins to speak to a transfer's target.
_BRIEF_SECONDS = 4.0
# A caller takes more silence than this for the end of the call; an agent that returns in less needs
# no cover.
_COVER_SECONDS = 1.0
_AT_ONCE_SECONDS = 0.01
# How long a model may take for its first word.
_RESUME_SECONDS = 4.0


class CallTimers:
    """One of each kind at most; one that runs out is reported as :class:`TimerFired`.

    Args:
        call: Whose timers they are.
    """

    def __init__(self, call: CallSession) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._handles: dict[Timer, asyncio.TimerHandle] = {}

    def set(self, timer: Timer) -> None:
        """Start a timer, or begin it anew; one whose time is 0 is off."""
        if (seconds := self._seconds(timer)) > 0:
            self._start(timer, seconds)

    def cancel(self, timer: Timer) -> None:
        """Forget a timer, if it runs."""
        if handle := self._handles.pop(timer, None):
            handle.cancel()

    def _seconds(self, timer: Timer) -> float:
        call = self._call
        plan, policy, placement = call.plan, call.services.policy, call.party.placement
        match timer:
            case Timer.CALL:
                return plan.call_timeout_seconds
            case Timer.CONNECT:
                return plan.connect_timeout_seconds + _SPARE_SECONDS
            case Timer.JOIN:
                return _JOIN_SECONDS
            case Timer.WAIT:
                return plan.wait_seconds
            case Timer.RING:
                return placement.ring_seconds if placement is not None else 0.0
            case Timer.SCREEN:
                return _SCREEN_SECONDS
            case Timer.QUIET:
                return _MACHINE_QUIET_SECONDS
            case Timer.GREETING:
                return _GREETING_SECONDS
            case Timer.CONSULT:
                return policy.consult_ring_seconds
            case Timer.SPEECH:
                return policy.no_speech_timeout_seconds
            case Timer.HOLD:
                return policy.hold_timeout_seconds
            case Timer.CLOSE:
                return call.agent_side.speech.begin_quiet()
            case Timer.BRIEF:
                call.agent_side.speech.begin_quiet()
                return _BRIEF_SECONDS
            case Timer.RECONNECT:
                return plan.connect_timeout_seconds + _SPARE_SECONDS
            case Timer.COVER:
                return max(_COVER_SECONDS - call.agent_side.waited_seconds, _AT_ONCE_SECONDS)
            case Timer.RESUME:
                return _RESUME_SECONDS

    def _start(self, timer: Timer, seconds: float) -> None:
        self.cancel(timer)
        self._handles[timer] = self._loop.call_later(seconds, self._fired, timer)

    def _fired(self, timer: Timer) -> None:
        self._handles.pop(timer, None)
        if (left := self._too_early(timer)) > 0:
            self._start(timer, left)
        else:
            self._call.post(TimerFired(timer))

    def _too_early(self, timer: Timer) -> float:
        """Seconds that a timer has to wait on, for what it waits for goes on."""
        call = self._call
        match timer:
            case Timer.CLOSE | Timer.BRIEF:
                return call.agent_side.speech.still_speaking()
            case Timer.SPEECH:
                limit = call.services.policy.no_speech_timeout_seconds
                # Whoever is on hold need not speak.
                waits = call.on_hold or call.state is not State.TALKING
                return limit if waits else call.agent_side.speech.silence_lacks(limit)
            case Timer.COVER:
                queued = call.agent_side.speech.queued_seconds
                return queued + _COVER_SECONDS if queued else 0.0
            case _:
                return 0.0
