"""Carries out an attended transfer: the target is called, hears the agent, and stays or goes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from ari_app.ari import AriError
from ari_app.call.legs import TargetLeg
from ari_app.call.release import target_channel_id
from ari_app.call.results import Result, result_of
from ari_app.call.signals import ConsultRequested, TargetLost
from ari_app.call.states import State

if TYPE_CHECKING:
    from ari_app.call.session import CallSession

log = structlog.get_logger(__name__)

_TARGET_THERE = (
    "The caller is being transferred and hears music. The person who takes the call hears you now; "
    "the two are connected when you are silent."
)
_TARGET_LOST = "The transfer came to nothing. The caller hears you again."


class Consultation:
    """The targets of one call's transfers, one after another.

    Args:
        call: The call.
    """

    def __init__(self, call: CallSession) -> None:
        self._call = call
        prefix = target_channel_id(call.services.app, call.session_id)
        self._leg = TargetLeg(call.services.ari, prefix, call.bridge_id)
        self._asked: asyncio.Future[str | None] | None = None
        self._calling: list[asyncio.Task[None]] = []

    @property
    def channel_id(self) -> str:
        """The target's channel; empty when there is none."""
        return self._leg.channel_id

    async def ask(self, endpoint: str) -> str | None:
        """Call a target; None when it hears the agent, otherwise why it does not."""
        if self._call.state is not State.TALKING:
            return "not_possible_now"
        self._asked = asyncio.get_running_loop().create_future()
        self._call.post(ConsultRequested(endpoint))
        return await self._asked

    # --- effects

    def dial(self, endpoint: str) -> None:
        """Call the target; TargetAnswered or TargetLost follows."""
        self._calling.append(self._call.spawn(self._dial(endpoint)))

    async def join(self) -> None:
        """Put the target into the bridge; TargetJoined or TargetLost follows."""
        try:
            await self._leg.join()
        except AriError as error:
            log.info("target_not_joined", code=error.code, error=str(error))
            self._call.post(TargetLost(Result.FAILED.value))

    async def drop(self) -> None:
        """Hang the target up, if there is one."""
        # A channel that is still being made cannot be hung up.
        if self._calling:
            await asyncio.wait(self._calling)
            self._calling = [task for task in self._calling if not task.done()]
        await self._leg.drop()

    def tell(self, lost: str | None) -> None:
        """Tell the agent that the target hears it, or why there is none."""
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(lost)
        elif (agent := self._call.agent) is not None:
            # Nobody waits for an answer: the transfer was asked for from outside, or the target
            # has hung up after it was there.
            agent.send_contextual_update(
                _TARGET_THERE if lost is None else _TARGET_LOST, context_id="transfer"
            )

    # --- what Asterisk reports

    def rings(self) -> None:
        """Take note that it rings at the target."""
        self._leg.rang = True

    def answered(self) -> None:
        """Take note that the target has answered."""
        self._leg.answered = True

    def ended(self, cause: int | None, sip_code: int | None) -> TargetLost:
        """Say why the target has gone."""
        if self._leg.answered:
            return TargetLost("hung_up")
        return TargetLost(result_of(cause, sip_code, rang=self._leg.rang).value)

    async def _dial(self, endpoint: str) -> None:
        call = self._call
        try:
            await self._leg.call(
                endpoint,
                caller_id=call.caller_number,
                ring_seconds=call.services.policy.consult_ring_seconds,
            )
        except AriError as error:
            log.info("target_not_dialled", code=error.code, error=str(error))
            call.post(TargetLost(Result.UNREACHABLE.value))
