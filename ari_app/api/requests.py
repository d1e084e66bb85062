"""The bodies that the HTTP interface takes.

They are read strictly: a number in quotes is no number, and a field that is not named here is
refused, except within ``metadata``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from ari_app.call.control import Initiate, Variable
from ari_app.call.dialplan import CALLER_ID_PATTERN, TARGET_PATTERN

_MAX_VARIABLES = 100

AgentId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")]
SessionId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
# Asterisk's own limit for a channel's id is 150 characters.
CallId = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,149}$")]
CallerNumber = Annotated[str, StringConstraints(pattern=CALLER_ID_PATTERN)]
Reason = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,200}$")]
# What may be called is decided by the settings, in ari_app.call.numbers.
CalledNumber = Annotated[str, StringConstraints(min_length=1, max_length=40)]


def _not_reserved(name: str) -> str:
    if name.startswith("system__"):
        raise ValueError("names that begin with system__ belong to ElevenLabs")
    return name


VariableName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"),
    AfterValidator(_not_reserved),
]
VariableValue = (
    Annotated[str, StringConstraints(max_length=4096)]
    | int
    | Annotated[float, Field(allow_inf_nan=False)]
    | bool
)
Variables = Annotated[
    dict[VariableName, VariableValue],
    Field(
        max_length=_MAX_VARIABLES,
        json_schema_extra={
            "additionalProperties": False,
            "propertyNames": {"not": {"pattern": "^system__"}},
        },
    ),
]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CallMetadata(BaseModel):
    """What a dialer wants to keep with a call. Three names are ours, all others are free."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    call_id: CallId | None = Field(default=None, description="As at the top level, which wins.")
    caller_number: CallerNumber | None = Field(
        default=None, description="As at the top level, which wins."
    )
    dynamic_variables: Variables | None = Field(
        default=None, description="As at the top level, which wins name by name."
    )


class InitiateCallRequest(_Request):
    """A wish for an agent: for a number to call, or for a channel that waits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "called_number": "+4930123456",
                    "caller_number": "+4930654321",
                    "dynamic_variables": {"customer_name": "Jane"},
                    "ring_timeout_seconds": 25,
                },
                {
                    "agent_id": "agent_7",
                    "metadata": {
                        "call_id": "1700000000.42",
                        "dynamic_variables": {"customer_name": "Jane"},
                    },
                },
            ]
        }
    )

    agent_id: AgentId | None = Field(
        default=None, description="The agent at ElevenLabs; the one of the settings when left out."
    )
    session_id: SessionId | None = Field(
        default=None, description="A name for the session; chosen for you when left out."
    )
    metadata: CallMetadata | None = Field(
        default=None, description="Kept with the session and shown."
    )
    call_id: CallId | None = Field(
        default=None,
        description="Without called_number: the id of the channel that waits in the application. "
        "With it: the dialer's own reference.",
    )
    caller_number: CallerNumber | None = Field(
        default=None, description="The number that the callee sees."
    )
    called_number: CalledNumber | None = Field(default=None, description="The number to call.")
    dynamic_variables: Variables | None = Field(
        default=None, description="For the agent's prompt and first message."
    )
    conversation_config_override: dict[str, Any] | None = Field(
        default=None, description="Passed on to ElevenLabs as it is."
    )
    ring_timeout_seconds: float = Field(
        default=30, ge=1, le=300, description="How long it may ring."
    )
    amd: bool = Field(
        default=False, description="Let answering machine detection run before the agent joins."
    )
    wait_seconds: float = Field(
        default=0, ge=0, le=300, description="How long to wait for room; 0 refuses at once."
    )

    def to_initiate(self) -> Initiate:
        """The wish, with the names of the guide and the newer ones brought together."""
        metadata = self.metadata or CallMetadata()
        variables: dict[str, Variable] = {
            **(metadata.dynamic_variables or {}),
            **(self.dynamic_variables or {}),
        }
        extra: Mapping[str, Any] = metadata.model_extra or {}
        return Initiate(
            agent_id=self.agent_id,
            session_id=self.session_id,
            call_id=self.call_id or metadata.call_id,
            caller_number=self.caller_number or metadata.caller_number,
            called_number=self.called_number,
            variables=variables,
            overrides=self.conversation_config_override,
            ring_timeout_seconds=self.ring_timeout_seconds,
            amd=self.amd,
            wait_seconds=self.wait_seconds,
            metadata=dict(extra),
        )


class EndCallRequest(_Request):
    """Request to end an active call."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"session_id": "lead-4711", "reason": "customer has paid"}]}
    )

    session_id: SessionId = Field(description="Session to terminate.")
    reason: Reason | None = Field(default=None, description="Reason for ending call.")


class TransferRequest(_Request):
    """Where the caller is to go."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"to": "2000"}]})

    to: Annotated[str, StringConstraints(pattern=TARGET_PATTERN)] = Field(
        description="A number, or an extension of the dialplan."
    )
    mode: Literal["blind", "attended"] = Field(
        default="blind",
        description="blind: at once; attended: the target is rung first, and may refuse.",
    )


class DtmfRequest(_Request):
    """Keys to press."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"digits": "123#"}]})

    digits: Annotated[str, StringConstraints(pattern=r"^[0-9A-Da-d*#]{1,32}$")] = Field(
        description="0 to 9, A to D, * and #."
    )


class SayToAgentRequest(_Request):
    """Words for the agent, which the caller does not hear."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"kind": "context", "text": "The customer has paid."}]}
    )

    kind: Literal["context", "user"] = Field(
        default="context",
        description="context: something to know; user: as if the caller had said it.",
    )
    text: Annotated[str, StringConstraints(min_length=1, max_length=4000)]


class MuteRequest(_Request):
    """Whether the agent hears the caller."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"muted": True}]})

    muted: bool = Field(default=True, description="true: the agent hears silence.")
