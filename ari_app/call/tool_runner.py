"""Carries out what the agent's tool calls ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from ari_app.ari import AriError, Client
from ari_app.call.dialplan import text_value
from ari_app.call.policy import CallPolicy
from ari_app.call.states import State
from ari_app.call.tools import (
    Action,
    AskElsewhere,
    Consult,
    HoldCaller,
    PressKeys,
    SetVariable,
    ToolAnswer,
    not_now,
    read_tool_call,
)
from ari_app.tools.builtin import BUILT_IN
from ari_app.tools.http_request import CallFacts
from ari_app.tools.http_tools import HttpTools

log = structlog.get_logger(__name__)

MAX_RUNNING: Final = 8
"""More at once no conversation needs; an agent that has lost its way fills memory with them."""
TOO_MANY: Final = ToolAnswer(
    f"{MAX_RUNNING} tools are running; wait for their results.", is_error=True
)
"""The answer to one more."""


class ToolsCall(Protocol):
    """What a tool may do with the call."""

    @property
    def call_id(self) -> str:
        """The caller's channel."""
        ...

    @property
    def state(self) -> State:
        """Where the call is."""
        ...

    @property
    def ends(self) -> bool:
        """Whether it is decided that the call ends."""
        ...

    def facts(self) -> CallFacts:
        """What HTTP tools may be told about the call."""
        ...

    async def agent_silent(self) -> None:
        """Wait until the agent has finished its sentence."""
        ...

    async def consult(self, endpoint: str) -> str | None:
        """Call a transfer's target; None when it hears the agent, otherwise why it does not."""
        ...

    def hold_when_silent(self) -> None:
        """Give the caller music once the agent is silent, until it speaks again."""
        ...


class ToolRunner:
    """Runs the tools of one call.

    Args:
        call: The call.
        ari: Asterisk.
        policy: What is allowed.
        http_tools: The HTTP tools; None: there are none.
    """

    def __init__(
        self, call: ToolsCall, ari: Client, policy: CallPolicy, http_tools: HttpTools | None
    ) -> None:
        self._call = call
        self._ari = ari
        self._policy = policy
        self._http_tools = http_tools

    async def run(self, name: str, parameters: Mapping[str, object]) -> ToolAnswer:
        """Run a tool; what goes wrong is said in the answer."""
        elsewhere = () if self._http_tools is None else self._http_tools.names
        try:
            action = read_tool_call(name, parameters, self._policy, elsewhere)
            if (refusal := self._not_now(name, action)) is not None:
                return refusal
            match action:
                case ToolAnswer() as answer:
                    return answer
                case Consult(endpoint):
                    return await self._consult(endpoint)
                case PressKeys(digits):
                    await self._ari.channels.send_dtmf(self._call.call_id, digits)
                    return ToolAnswer("The keys are pressed.")
                case SetVariable(variable, value):
                    await self._ari.channels.set_channel_var(
                        self._call.call_id, variable, text_value(value)
                    )
                    return ToolAnswer("The variable is set.")
                case HoldCaller():
                    self._call.hold_when_silent()
                    return ToolAnswer(
                        "As soon as you are silent the caller hears music, until you speak again."
                    )
                case AskElsewhere():
                    assert self._http_tools is not None, "it has named the tool"
                    return await self._http_tools.call(name, parameters, self._call.facts())
        except AriError as error:
            log.warning("tool_failed", tool=name, code=error.code, error=str(error))
            return ToolAnswer(
                f"{BUILT_IN[name].not_done}: the telephone system refused it.", is_error=True
            )

    def _not_now(self, name: str, action: Action) -> ToolAnswer | None:
        call, reachable = self._call, self._ari.link.up
        problem = not_now(action, call.state, ends=call.ends, reachable=reachable)
        if problem is None:
            return None
        return ToolAnswer(f"{BUILT_IN[name].not_done}: {problem}.", is_error=True)

    async def _consult(self, endpoint: str) -> ToolAnswer:
        await self._call.agent_silent()
        # Much may have happened meanwhile.
        refusal = self._not_now("transfer_call", Consult(endpoint))
        if refusal is not None:
            return refusal
        lost = await self._call.consult(endpoint)
        if lost is None:
            return ToolAnswer(
                "The target has answered and hears you now; the caller hears music. Say in a "
                "sentence or two whom you pass on and why. When you are silent the two are "
                "connected and your part ends."
            )
        words = lost.replace("_", " ")
        return ToolAnswer(
            f"{BUILT_IN['transfer_call'].not_done}: the target could not be reached ({words}). "
            "The caller hears you again.",
            is_error=True,
        )
