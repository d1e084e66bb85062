"""What the agent's tool calls mean for the call. Pure.

A tool that is unknown or is called wrongly is answered with ``is_error`` and a sentence that the
agent can speak about; it never ends the conversation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

import structlog

from ari_app.call.plan import CallPolicy
from ari_app.call.states import State
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriError
from ari_app.line.asterisk.dialplan import TEXT_PATTERN, TEXT_RULE, text_value
from ari_app.line.interface import Outcome, Status
from ari_app.tools.http_tools import CallFacts, HttpTools
from ari_app.tools.tool import JsonSchema, ParameterSchema

# What ElevenLabs' form knows about one parameter (LiteralJsonSchemaProperty of its API).
_FORM_KEYWORDS: Final = ("type", "description", "enum")


@dataclass(frozen=True, slots=True)
class ClientTool:
    """A tool as the agent sees it.

    Attributes:
        name: What the agent calls.
        description: For the model: what it does and when to use it.
        parameters: What a call must have.
        not_done: How the sentence begins that tells the agent of a call that cannot be carried out.
        response_timeout_seconds: How long the agent should wait for the result.
    """

    name: str
    description: str
    parameters: ParameterSchema
    not_done: str
    response_timeout_seconds: int = 10

    def refusal(self, parameters: Mapping[str, object]) -> str | None:
        """The sentence for a call with parameters that do not fit; None when they do."""
        problem = self.parameters.problem(parameters)
        return None if problem is None else f"{self.not_done}: {problem.rstrip('.')}."

    def for_elevenlabs(self) -> dict[str, Any]:
        """The tool as ElevenLabs' API and the JSON view of its form take it."""
        schema = self.parameters.schema
        return {
            "type": "client",
            "name": self.name,
            "description": self.description,
            "expects_response": True,
            "response_timeout_secs": self.response_timeout_seconds,
            "parameters": {
                "type": "object",
                "required": list(schema.get("required", ())),
                "properties": {
                    name: {key: rule[key] for key in _FORM_KEYWORDS if key in rule}
                    for name, rule in schema["properties"].items()
                },
            },
        }


def _parameters(required: tuple[str, ...] = (), **properties: JsonSchema) -> ParameterSchema:
    return ParameterSchema({"type": "object", "properties": properties, "required": list(required)})


_TOOLS: Final = (
    ClientTool(
        "transfer_call",
        "Hands the caller over to a person or another number. Say first that you will transfer "
        "the call. Use it when the caller asks for a person or when you cannot help.",
        _parameters(
            ("to",),
            to={
                "type": "string",
                "description": "Whom to transfer to: a number, as people write it, or the name "
                "of an extension.",
                "maxLength": 200,
            },
            mode={
                "type": "string",
                "description": "blind: hand over at once. attended: ring the target first while "
                "the caller waits, and come back to the caller if nobody answers. blind when "
                "left out.",
                "enum": ["blind", "attended"],
            },
        ),
        "The call was not transferred",
        # An attended transfer rings the target before it has a result.
        response_timeout_seconds=60,
    ),
    ClientTool(
        "hang_up",
        "Ends the call after your last words have been heard. Say good-bye first.",
        _parameters(),
        "The call was not ended",
    ),
    ClientTool(
        "send_dtmf",
        "Presses keys of the telephone, for example in the menu of another system.",
        _parameters(
            ("digits",),
            digits={
                "type": "string",
                "description": "The keys in order: 0 to 9, *, # and A to D, 64 at most. w waits "
                "half a second, W a whole one.",
                "pattern": r"^[0-9*#A-Da-dwW]{1,64}$",
            },
        ),
        "No keys were pressed",
        # 64 keys take their time.
        response_timeout_seconds=30,
    ),
    ClientTool(
        "hold",
        "Puts the caller on hold: the caller hears music until you speak again.",
        _parameters(),
        "The caller was not put on hold",
    ),
    ClientTool(
        "set_variable",
        "Notes something about the call for the systems that go on with it. Only the names that "
        "your instructions mention can be set.",
        _parameters(
            ("name", "value"),
            name={
                "type": "string",
                "description": "The variable's name: letters, digits and _, not beginning with a "
                "digit.",
                "pattern": r"^[A-Za-z_][A-Za-z0-9_]{0,79}$",
            },
            value={
                "type": "string",
                "description": f"The value: {TEXT_RULE}.",
                "pattern": TEXT_PATTERN,
            },
        ),
        "The variable was not set",
    ),
)

BUILT_IN: Final[Mapping[str, ClientTool]] = MappingProxyType({tool.name: tool for tool in _TOOLS})
"""The tools by name."""


def markdown() -> str:
    """The tools for the documentation: each one ready to be pasted into ElevenLabs."""
    return "\n\n".join(
        f"### {tool.name}\n\n```json\n{json.dumps(tool.for_elevenlabs(), indent=2)}\n```"
        for tool in _TOOLS
    )


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
