"""The client tools that every agent on the line may be given. Pure data.

The same schemas check the agent's calls and are pasted into ElevenLabs: `docs/agent-tools.md` is
written from them. Source: https://elevenlabs.io/docs/eleven-agents/customization/tools/client-tools
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from ari_app.line.numbers import TEXT_PATTERN, TEXT_RULE
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
        """Return the sentence for a call with parameters that do not fit; None when they do."""
        problem = self.parameters.problem(parameters)
        return None if problem is None else f"{self.not_done}: {problem.rstrip('.')}."

    def for_elevenlabs(self) -> dict[str, Any]:
        """Return the tool as ElevenLabs' API and the JSON view of its form take it."""
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
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return ParameterSchema(schema, checked=True)


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
        "cancel_transfer",
        "Takes the caller back while the target of an attended transfer hears you. Use it when the "
        "target does not want the call.",
        _parameters(),
        "The transfer was not cancelled",
        # What you are saying to the target is heard first.
        response_timeout_seconds=30,
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
        "record_call",
        "Pauses the recording of the call, begins it, or goes on with it. Pause it before the "
        "caller says a card number or a password, and go on when it has been said.",
        _parameters(
            ("on",),
            on={
                "type": "boolean",
                "description": "true: record from now on. false: keep nothing of what is said.",
            },
        ),
        "The recording was not changed",
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
    """Return the tools for the documentation: each one ready to be pasted into ElevenLabs."""
    return "\n\n".join(
        f"### {tool.name}\n\n```json\n{json.dumps(tool.for_elevenlabs(), indent=2)}\n```"
        for tool in _TOOLS
    )
