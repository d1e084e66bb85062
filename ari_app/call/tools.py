"""Carries out the tool calls of the agent.

A tool that is unknown or is called wrongly is answered with `is_error` and a sentence that the
agent can speak about; it never ends the conversation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import structlog

from ari_app.call.context import CallContext
from ari_app.call.course import AGENT_LOST
from ari_app.call.plan import CallPolicy
from ari_app.call.states import State
from ari_app.call.taking_over import GIVEN_UP
from ari_app.errors import LineError
from ari_app.line.interface import DECLINED, Ability, Line, Outcome, Status
from ari_app.tools.built_in import BUILT_IN
from ari_app.tools.http_tools import HttpTools
from ari_app.tools.tool import ToolAnswer, load_validator


@dataclass(frozen=True, slots=True)
class Consult:
    """Ask a transfer's target first.

    Attributes:
        target: A checked number.
    """

    target: str


@dataclass(frozen=True, slots=True)
class CancelTransfer:
    """Take the caller back from a transfer whose target hears the agent."""


@dataclass(frozen=True, slots=True)
class PressKeys:
    """Send keys to the caller's side."""

    digits: str


@dataclass(frozen=True, slots=True)
class HoldCaller:
    """Give the caller music until the agent speaks again."""


@dataclass(frozen=True, slots=True)
class SetVariable:
    """Set a variable of the line."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Record:
    """Record the call from now on, or pause."""

    on: bool


@dataclass(frozen=True, slots=True)
class RunHttpTool:
    """Run one of the HTTP tools."""


_NEEDS: Final = MappingProxyType(
    {
        "transfer_call": Ability.TRANSFER,
        "cancel_transfer": Ability.CONSULT,
        "send_dtmf": Ability.SEND_KEYS,
        "hold": Ability.MUSIC,
        "set_variable": Ability.SET_VARIABLE,
    }
)
_NOT_NOW: Final = MappingProxyType(
    {
        State.CONSULTING: "a transfer is under way, and its result comes first",
        State.BRIEFING: "the transfer's target hears you; your part ends when you are silent",
        State.HANDED_OVER: "the caller speaks with the transfer's target",
        State.TAKEN_OVER: "a colleague speaks with the caller at present",
    }
)
_ENDS: Final = "the call ends already"
_NOT_HEARD: Final = "the caller does not hear you at present"
_RINGS_IN: Final = "a colleague is being called who takes the call over"
_ONLY_BLIND: Final = "on this line only the mode `blind` is possible"
_NO_TARGET: Final = "no target of a transfer hears you"
_UNREACHABLE: Final = "the telephone system cannot be reached just now"


_WHY_LOST: Final = MappingProxyType(
    {
        DECLINED: "the target does not want the call",
        "hung_up": "the target has hung up",
        GIVEN_UP: "somebody else has called it off",
        AGENT_LOST: "the agent was lost before it was answered",
    }
)


def not_now(action: Action, state: State, *, ends: bool, reachable: bool) -> str | None:
    """Return why an action cannot be carried out in this state of the call, as a clause.

    None: it can, now or as soon as the agent is silent.

    Args:
        action: What the tool asks for.
        state: The state of the call.
        ends: It is decided that the call ends.
        reachable: The line takes requests.
    """
    match action:
        case ToolAnswer(ends_with=Outcome() as outcome):
            if outcome.status is Status.TRANSFER and not reachable:
                return _UNREACHABLE
            return _ENDS if ends else _NOT_NOW.get(state)
        case Consult() if ends:
            return _ENDS
        case Consult() if state in _NOT_NOW:
            return _NOT_NOW[state]
        case PressKeys() if state is State.TAKEN_OVER:
            return _NOT_NOW[state]
        case Consult() | HoldCaller() if not reachable:
            return _UNREACHABLE
        case CancelTransfer() if state is not State.BRIEFING:
            return _NO_TARGET
        case HoldCaller() if state is not State.TALKING:
            return _NOT_HEARD
        case _:
            return None


def why_lost(lost: str) -> str:
    """Return why a transfer has come to nothing, as a clause.

    Args:
        lost: As in `TargetLost`, or a reason of the call's own: a slug.
    """
    return _WHY_LOST.get(lost) or f"the target could not be reached ({lost.replace('_', ' ')})"


def briefing_rules(decline_key: str) -> str:
    """Return what an agent is told about a target that hears it."""
    key = f" Tell them that they can decline with the key {decline_key}." if decline_key else ""
    return (
        "Say in a sentence or two whom you pass on and why; answer them if they ask. When both of "
        "you are silent, the two are connected and your part ends. If they do not want the call, "
        f"use the tool cancel_transfer, where you have it.{key}"
    )


Action = (
    ToolAnswer
    | Consult
    | CancelTransfer
    | PressKeys
    | HoldCaller
    | SetVariable
    | Record
    | RunHttpTool
)


def read_tool_call(
    name: str,
    parameters: Mapping[str, object],
    policy: CallPolicy,
    http_tools: Sequence[str] = (),
    abilities: Ability = ~Ability.NOTHING,
    *,
    recordable: bool = True,
) -> Action:
    """Return the action for a tool call of the agent's, or a `ToolAnswer` where there is nothing to
    do: the tool is not offered, a parameter is wrong, or the call only ends.

    Args:
        name, parameters: The tool call.
        policy: What is allowed.
        http_tools: The names of the HTTP tools.
        abilities: What the line can do; a tool that needs more is not offered.
        recordable: Calls can be recorded.
    """
    offered = [
        tool
        for tool in BUILT_IN
        if _NEEDS.get(tool, Ability.NOTHING) in abilities and (recordable or tool != "record_call")
    ]
    tool = BUILT_IN[name] if name in offered else None
    if tool is None:
        if name in http_tools:
            return RunHttpTool()
        known = ", ".join((*offered, *http_tools))
        return ToolAnswer(
            f"There is no tool {name[:64]!r} on this line. There are: {known}.", is_error=True
        )
    if (refusal := tool.refusal(parameters)) is not None:
        return ToolAnswer(refusal, is_error=True)
    match name:
        case "hang_up":
            return ToolAnswer(
                "The call ends after your last words.",
                ends_with=Outcome(Status.COMPLETED, "agent_hung_up"),
            )
        case "transfer_call":
            to = str(parameters["to"])
            try:
                if parameters.get("mode", "blind") == "attended":
                    if Ability.CONSULT not in abilities:
                        return ToolAnswer(f"{tool.not_done}: {_ONLY_BLIND}.", is_error=True)
                    return Consult(policy.target(to))
                outcome = Outcome(
                    Status.TRANSFER, "agent_transfer", transfer_to=policy.blind_target(to)
                )
            except ValueError as error:
                return ToolAnswer(f"{tool.not_done}: {error}", is_error=True)
            return ToolAnswer("The caller is transferred after your last words.", ends_with=outcome)
        case "cancel_transfer":
            return CancelTransfer()
        case "send_dtmf":
            return PressKeys(str(parameters["digits"]))
        case "set_variable":
            variable = str(parameters["name"])
            if variable not in policy.settable_variables:
                return ToolAnswer(
                    f"{tool.not_done}: {variable!r} is not among those that may be set.",
                    is_error=True,
                )
            return SetVariable(variable, str(parameters["value"]))
        case "record_call":
            return Record(bool(parameters["on"]))
        case _:
            return HoldCaller()


log = structlog.get_logger(__name__)

MAX_RUNNING: Final = 8
"""More at once no conversation needs; an agent that has lost its way fills memory with them."""
NOT_POSSIBLE: Final = "not_possible_now"
"""Why a target is not called where nobody can be, or not yet."""
TOO_MANY: Final = ToolAnswer(
    f"{MAX_RUNNING} tools are running; wait for their results.", is_error=True
)
"""The answer to one more."""


class ToolRunner:
    """Runs the tools of one call.

    Args:
        context: What the parts of the call share.
        line: The way to the caller.
        consult: `Call.consult`.
        decline: `Call.decline`.
        http_tools: The HTTP tools; None: there are none.
        record: `Call.set_recording`; None: calls are not recorded.
    """

    def __init__(
        self,
        context: CallContext,
        line: Line,
        consult: Callable[[str], Awaitable[str | None]],
        decline: Callable[[], None],
        http_tools: HttpTools | None,
        record: Callable[[bool], str | None] | None = None,
    ) -> None:
        self._context = context
        self._line = line
        self._consult_target = consult
        self._decline = decline
        self._http_tools = http_tools
        self._record = record

    async def run(
        self,
        name: str,
        parameters: Mapping[str, object],
        *,
        silent: Callable[[], Awaitable[None]],
        hold_when_silent: Callable[[], None],
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> ToolAnswer:
        """Run a tool, and return its answer; a failure is an answer, too.

        Args:
            name, parameters: The tool call.
            silent: Waits until the agent has finished its sentence.
            hold_when_silent: Gives the caller music once the agent is silent, until it speaks.
            headers: Headers for a request of an HTTP tool.
        """
        elsewhere = () if self._http_tools is None else self._http_tools.names
        await load_validator()
        try:
            action = read_tool_call(
                name,
                parameters,
                self._context.policy,
                elsewhere,
                self._line.abilities,
                recordable=self._record is not None,
            )
            if (refusal := self._not_now(name, action)) is not None:
                return refusal
            match action:
                case ToolAnswer() as answer:
                    return answer
                case Consult(target):
                    return await self._consult(target, silent)
                case CancelTransfer():
                    await silent()
                    # They may have been connected, or have hung up, meanwhile.
                    if (refusal := self._not_now(name, action)) is not None:
                        return refusal
                    self._decline()
                    return ToolAnswer("The target is gone; the caller hears you again.")
                case PressKeys(digits):
                    await self._line.send_keys(digits)
                    return ToolAnswer("The keys are pressed.")
                case SetVariable(variable, value):
                    await self._line.set_variable(variable, value)
                    return ToolAnswer("The variable is set.")
                case Record(on):
                    return self._set_recording(on)
                case HoldCaller():
                    hold_when_silent()
                    return ToolAnswer(
                        "As soon as you are silent the caller hears music, until you speak again."
                    )
                case RunHttpTool():
                    assert self._http_tools is not None, "it has named the tool"
                    facts = self._context.record.facts()
                    return await self._http_tools.call(name, parameters, facts, headers)
        except LineError as error:
            log.warning("tool_failed", tool=name, code=error.code, error=str(error))
            return ToolAnswer(
                f"{BUILT_IN[name].not_done}: the telephone system refused it.", is_error=True
            )

    def _not_now(self, name: str, action: Action) -> ToolAnswer | None:
        context = self._context
        problem = not_now(action, context.state, ends=context.ends, reachable=self._line.reachable)
        if problem is None:
            return None
        return ToolAnswer(f"{BUILT_IN[name].not_done}: {problem}.", is_error=True)

    def _set_recording(self, on: bool) -> ToolAnswer:
        assert self._record is not None, "the tool is not there otherwise"
        if (why := self._record(on)) is not None:
            return ToolAnswer(f"{BUILT_IN['record_call'].not_done}: {why}.", is_error=True)
        return ToolAnswer(
            "The call is recorded from now on." if on else "Nothing is recorded until you go on."
        )

    async def _consult(self, target: str, silent: Callable[[], Awaitable[None]]) -> ToolAnswer:
        await silent()
        # Much may have happened meanwhile.
        refusal = self._not_now("transfer_call", Consult(target))
        if refusal is not None:
            return refusal
        lost = await self._consult_target(target)
        if lost == NOT_POSSIBLE:
            why = _RINGS_IN if self._context.calls_in else _NOT_HEARD
            return ToolAnswer(f"{BUILT_IN['transfer_call'].not_done}: {why}.", is_error=True)
        if lost is None:
            return ToolAnswer(
                "The target has answered and hears you now; the caller hears music. "
                + briefing_rules(self._context.policy.decline_key)
            )
        return ToolAnswer(
            f"{BUILT_IN['transfer_call'].not_done}: {why_lost(lost)}. The caller hears you again.",
            is_error=True,
        )
