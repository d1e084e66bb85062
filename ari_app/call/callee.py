"""Carries out what is special about a call that we place: calling, and listening to a machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from ari_app.ari import AriError, AriServerError
from ari_app.call.hearing import GreetingEar
from ari_app.call.results import Result, result_of
from ari_app.call.signals import CalleeLost, SilenceHeard, SpeechHeard, Status
from ari_app.call.states import State

if TYPE_CHECKING:
    from ari_app.call.session import CallSession

log = structlog.get_logger(__name__)

_LISTEN_SECONDS = 0.05


class Callee:
    """Whom a call goes to.

    Args:
        call: The call.

    Attributes:
        answered: They have.
    """

    def __init__(self, call: CallSession) -> None:
        self._call = call
        self._placing: asyncio.Task[None] | None = None
        self.answered = False

    def place(self) -> None:
        """Call them; CalleeRings, CalleeAnswered or CalleeLost follows."""
        self._placing = self._call.spawn(self._place())

    async def placed(self) -> None:
        """Wait until Asterisk has been told: a channel that is being made cannot be hung up."""
        placing, self._placing = self._placing, None
        if placing is not None:
            await asyncio.wait([placing])

    async def listen_to_greeting(self) -> None:
        """Report when a machine speaks, and when it has ended."""
        call = self._call
        ear, said = GreetingEar(call.audio_interface.rate_hz), False
        call.audio_interface.overhear = ear.heard
        while call.state is State.GREETING:
            await asyncio.sleep(_LISTEN_SECONDS)
            if ear.spoke and not said:
                said = True
                call.post(SpeechHeard())
            if ear.over(asyncio.get_running_loop().time()):
                call.post(SilenceHeard())
        call.audio_interface.overhear = None

    def lost(self) -> CalleeLost:
        """Say why their channel, which has ended, was never answered."""
        call = self._call
        rang = call.state is State.RINGING
        return CalleeLost(result_of(call.hangup_cause, call.sip_code, rang=rang).value)

    def result(self) -> str | None:
        """What became of the call; None while it is not known."""
        if self.answered:
            return Result.ANSWERED.value
        outcome = self._call.outcome
        if outcome is None:
            return None
        # A reason that somebody gave for ending the call may be any word.
        known = outcome.status is Status.FAILED and outcome.reason in set(Result)
        return outcome.reason if known else Result.FAILED.value

    async def _place(self) -> None:
        call = self._call
        try:
            await call.caller.place()
        except AriServerError as error:
            # "Allocation failed": the endpoint is not known, or nobody is registered there.
            log.info("callee_not_dialled", code=error.code, error=str(error))
            call.post(CalleeLost(Result.UNREACHABLE.value))
        except AriError as error:
            log.warning("callee_not_dialled", code=error.code, error=str(error))
            call.post(CalleeLost(Result.FAILED.value, present=True))
