"""What the agent's tool calls mean for the call. Pure.

A tool that is unknown or is called wrongly is answered with ``is_error`` and a sentence that the
agent can speak about; it never ends the conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ari_app.call.policy import CallPolicy
from ari_app.call.signals import Outcome, Status
from ari_app.call.states import State
from ari_app.tools.builtin import BUILT_IN


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool did.

    Attributes:
        text: For the agent.
        is_error: The tool did not do what it was asked.
        ends_with: The call ends so, after the agent's last words; None: it goes on.
    """

    text: str
    is_error: bool = False
    ends_with: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Consult:
    """Ask a transfer's target first.

    Attributes:
        endpoint: As Asterisk dials it.
    """

    endpoint: str


@dataclass(frozen=True, slots=True)
class PressKeys:
    """Send keys to the caller's side."""

    digits: str


@dataclass(frozen=True, slots=True)
class HoldCaller:
    """Give the caller music until the agent speaks again."""


@dataclass(frozen=True, slots=True)
class SetVariable:
    """Set a variable of the caller's channel."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class AskElsewhere:
    """Run one of the HTTP tools."""


_NOT_NOW: Final = MappingProxyType(
    {
        State.CONSULTING: "a transfer is under way, and its result comes first",
        State.BRIEFING: "the transfer's target hears you; your part ends when you are silent",
        State.HANDED_OVER: "the caller speaks with the transfer's target",
    }
)
_NOT_HOLDING: Final = "the caller does not hear you at present"
_UNREACHABLE: Final = "the telephone system cannot be reached just now"


def not_now(action: Action, state: State, *, ends: bool, reachable: bool) -> str | None:
    """Why something cannot be done at this point of the call; None: it can, or will be soon.

    Args:
        action: What the tool asks for.
        state: Where the call is.
        ends: It is decided that the call ends.
        reachable: Asterisk can be asked.
    """
    match action:
        case ToolAnswer(ends_with=Outcome() as outcome):
            if outcome.status is Status.TRANSFER and not reachable:
                return _UNREACHABLE
            return "the call ends already" if ends else _NOT_NOW.get(state)
        case Consult() | HoldCaller() if not reachable:
            return _UNREACHABLE
        case HoldCaller() if state is not State.TALKING:
            return _NOT_HOLDING
        case _:
            return None


Action = ToolAnswer | Consult | PressKeys | HoldCaller | SetVariable | AskElsewhere


def read_tool_call(
    name: str,
    parameters: Mapping[str, object],
    policy: CallPolicy,
    http_tools: Sequence[str] = (),
) -> Action:
    """Say what is to be done for a call of the tool ``name``; an answer, when that is nothing."""
    tool = BUILT_IN.get(name)
    if tool is None:
        if name in http_tools:
            return AskElsewhere()
        known = ", ".join((*BUILT_IN, *http_tools))
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
                    return Consult(policy.target(to))
                outcome = Outcome(
                    Status.TRANSFER, "agent_transfer", transfer_to=policy.blind_target(to)
                )
            except ValueError as error:
                return ToolAnswer(f"{tool.not_done}: {error}", is_error=True)
            return ToolAnswer("The caller is transferred after your last words.", ends_with=outcome)
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
        case _:
            return HoldCaller()
