"""The bodies that the HTTP interface takes.

They are read strictly: a number in quotes is no number, and a field that is not named here is
refused, except within `metadata`. Null is as good as nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from itertools import islice
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from aiohttp import web
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from ari_app.agent.interface import Variable
from ari_app.call.amd import OnMachine
from ari_app.control.http.audit import note_asked
from ari_app.control.http.problems import FieldError, Problem
from ari_app.control.planner import Wish
from ari_app.errors import forget_frames
from ari_app.json_text import NotJson, TooDeep, read_json
from ari_app.line.interface import CallLimits, OwnAudio, OwnAudioAbility, OwnAudioFormat

Model = TypeVar("Model", bound=BaseModel)

_JSON = "application/json"
_READ_SECONDS = 10.0
_MAX_ERRORS = 20
# Of lists and objects within each other. What is taken can be written again: JSON writers give up
# at 255.
_MAX_DEPTH = 64


async def read_model(request: web.Request, model: type[Model]) -> Model:
    """Return the body of `request`.

    Raises:
        Problem: `unsupported_media_type`, `body_too_large`, `body_too_late`,
            `bad_request`, `invalid_json` or `invalid_request`, which names every field that
            is wrong, or says that the body is nested too deep. Values are not repeated: they may
            be personal.
    """
    if request.content_type != _JSON:
        raise Problem("unsupported_media_type", f"Send the body as {_JSON}.")
    try:
        body = await read_body(request)
        value = read_json(body, max_depth=_MAX_DEPTH)
    except TooDeep:
        raise Problem(
            "invalid_request", f"The body is nested more than {_MAX_DEPTH} levels deep."
        ) from None
    except NotJson as error:
        raise Problem("invalid_json", f"The body cannot be read: {error}.") from None
    found = validate(value, model)
    note_asked(request, found)
    return found


async def read_nothing(request: web.Request) -> None:
    """Make sure that the body is empty or `{}`.

    Raises:
        Problem: It is not.
    """
    if (await read_body(request)).strip() not in (b"", b"{}"):
        raise Problem("invalid_request", "This operation takes no body.")


async def read_body(request: web.Request) -> bytes:
    """Return the body of `request`, as it came.

    Raises:
        Problem: `unsupported_media_type`, `body_too_large`, `body_too_late` or `bad_request`.
    """
    encoding = request.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise Problem(
            "unsupported_media_type",
            "Send the body uncompressed.",
            headers={"Accept-Encoding": "identity"},
        )
    try:
        async with asyncio.timeout(_READ_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Problem("body_too_late") from None
    except web.HTTPRequestEntityTooLarge:
        raise Problem("body_too_large") from None
    except (web.RequestPayloadError, ConnectionError) as error:
        # The request keeps it, and it knows the frames that have the request.
        forget_frames(error)
        raise Problem("bad_request", "The body did not arrive as announced.") from None


def validate(value: object, model: type[Model]) -> Model:
    """Return `value`, as JSON gave it, as a model.

    Raises:
        Problem: `invalid_request`.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    unknown = [_name(item["loc"]) for item in found if item["type"] == "extra_forbidden"]
    # An alternative of a union fails for itself; the field is named once.
    wrong: dict[str, str] = {}
    for item in found:
        shape = _SHAPES.get(item.get("ctx", {}).get("pattern", ""))
        message = f"must be {shape}" if shape else item["msg"].removeprefix("Value error, ")
        wrong.setdefault(_name(item["loc"]), message)
    # What pydantic tells beside it knows the frames that have the value.
    del found
    errors = [
        FieldError(field=name, message=message)
        for name, message in islice(wrong.items(), _MAX_ERRORS)
    ]
    sentences = [
        f"{error.field or 'body'}: {error.message}."
        for error in errors
        if error.field not in unknown
    ]
    if unknown:
        sentences.insert(0, f"There is no field {', '.join(unknown[:_MAX_ERRORS])}.")
    raise Problem("invalid_request", " ".join(sentences), errors=errors)


_ALTERNATIVES = frozenset({"str", "int", "float", "bool", "constrained-str", "[key]"})


def _name(location: tuple[int | str, ...]) -> str:
    """Return a field's name, with dots; without the name that pydantic gives a union's
    alternative."""
    parts = [str(part)[:64] for part in location]
    if len(parts) > 1 and parts[-1] in _ALTERNATIVES:
        parts.pop()
    return ".".join(parts)


MOST_WAIT_SECONDS: Final = 300
"""So long a wish may wait for room; whoever passes it on has to wait longer."""
_MAX_VARIABLES = 100
_MAX_FOR_CHANNEL = 30

_SHAPES: Final[dict[str, str]] = {}


def _shaped(pattern: str, told: str) -> StringConstraints:
    """Return what a text must match, and keep how people are told of it."""
    _SHAPES[pattern] = told
    return StringConstraints(pattern=pattern)


AgentId = Annotated[
    str, _shaped(r"^[A-Za-z0-9_.:-]{1,128}$", "1 to 128 letters, digits and _ . : -")
]
SessionId = Annotated[str, _shaped(r"^[A-Za-z0-9_-]{1,64}$", "1 to 64 letters, digits, _ and -")]
# Asterisk's own limit for a channel's id is 150 characters.
CallId = Annotated[str, _shaped(r"^[!-~]{1,149}$", "1 to 149 characters of ASCII, without spaces")]
Reason = Annotated[
    str,
    _shaped(r"^[^\x00-\x1f\x7f]{1,200}$", "1 to 200 characters, without control characters"),
]
# As people write and paste it. What it may have in it is decided in ari_app.line.numbers: what may
# be called, by the settings.
Number = Annotated[str, StringConstraints(min_length=1, max_length=80)]


def _not_reserved(name: str) -> str:
    if name.startswith("system__"):
        raise ValueError("names that begin with system__ belong to ElevenLabs")
    return name


VariableName = Annotated[
    str,
    _shaped(
        r"^[A-Za-z_][A-Za-z0-9_]{0,63}$",
        "a name of 1 to 64 letters, digits and _ that begins with no digit",
    ),
    AfterValidator(_not_reserved),
]
VariableValue = (
    Annotated[str, StringConstraints(max_length=4096)]
    | int
    | Annotated[float, Field(allow_inf_nan=False)]
    | bool
    | None
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


_ChannelVariables = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")],
        Annotated[str, StringConstraints(max_length=1000)],
    ],
    Field(max_length=_MAX_FOR_CHANNEL, json_schema_extra={"additionalProperties": False}),
]
_SipHeaders = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^X-[A-Za-z0-9-]{1,62}$")],
        Annotated[str, StringConstraints(max_length=1000)],
    ],
    Field(max_length=_MAX_FOR_CHANNEL, json_schema_extra={"additionalProperties": False}),
]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        # A name that does not exist is told, whatever its value.
        return {
            name: value
            for name, value in body.items()
            if value is not None or name not in cls.model_fields
        }

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        for name, field in cls.model_fields.items():
            told = handler.resolve_ref_schema(schema)["properties"][name]
            if not field.is_required() and "anyOf" not in told:
                kept = ("default", "description", "title")
                rest = {key: told.pop(key) for key in [*told] if key not in kept}
                told["anyOf"] = [rest, {"type": "null"}]
        return schema


class CallMetadata(BaseModel):
    """What a dialer wants to keep with a call. Three names are ours, all others are free."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    call_id: CallId | None = Field(default=None, description="As at the top level, which wins.")
    caller_number: Number | None = Field(
        default=None, description="As at the top level, which wins."
    )
    dynamic_variables: Variables | None = Field(
        default=None, description="As at the top level, which wins name by name."
    )


def _has(name: str, schema: JsonSchemaValue) -> JsonSchemaValue:
    # With the type: null, which is no object, lacks nothing.
    return {"type": "object", "required": [name], "properties": {name: schema}}


def _lacks(name: str) -> JsonSchemaValue:
    return {"properties": {name: {"type": "null"}}}


_NAMED: Final = (
    _has("call_id", {"type": "string"}),
    _has("metadata", _has("call_id", {"type": "string"})),
)
_WRITTEN: Final = _has("audio", _has("format", {"type": "string"}))
"""It is said how the sound is written."""


class CallAudio(_Request):
    """The sound of a call that a dialer of one's own holds."""

    format: OwnAudioFormat | None = Field(
        default=None,
        description="How it is written, both ways: samples of 16 bits, little-endian, or G.711. "
        "Left out: DIALER_API_URL is asked by call_id.",
    )
    pacing: Literal["ours", "theirs"] = Field(
        default="ours",
        description="ours: a message of 20 ms every 20 ms; theirs: up to a second ahead of what "
        "the dialer says it has played.",
    )

    abilities: list[OwnAudioAbility] = Field(
        default_factory=list,
        max_length=10,
        description="What the dialer can do beyond sound, keys and a blind transfer.",
    )

    def own(self, url: str | None) -> OwnAudio:
        """Return it, with where it is, or with a token of its own."""
        return OwnAudio(
            self.format,
            theirs=self.pacing == "theirs",
            url=url,
            abilities=OwnAudio.abilities_of(self.abilities),
        )


class InitiateCallRequest(_Request):
    """A wish for an agent: for a number to call, or for a channel that waits."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                _has("called_number", {"type": "string"}),
                *_NAMED,
                _has("audio", {"type": "object"}),
            ],
            "allOf": [
                {"anyOf": [_lacks("audio"), _WRITTEN, *_NAMED]},
                {"anyOf": [_lacks("audio_url"), _WRITTEN]},
                {"anyOf": [_lacks("amd_on_machine"), _has("amd", {"const": True})]},
            ],
            "examples": [
                {
                    "called_number": "+493023125001",
                    "caller_number": "+493023125002",
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
            ],
        }
    )

    called_number: Number | None = Field(default=None, description="The number to call.")
    call_id: CallId | None = Field(
        default=None,
        description="Without called_number: the id of the channel that waits in the application. "
        "With it: the dialer's own reference.",
    )
    agent_id: AgentId | None = Field(
        default=None, description="The agent at ElevenLabs; the one of the settings when left out."
    )
    session_id: SessionId | None = Field(
        default=None, description="A name for the session; chosen for you when left out."
    )
    caller_number: Number | None = Field(
        default=None, description="The number that the callee sees."
    )
    dynamic_variables: Variables | None = Field(
        default=None, description="For the agent's prompt and first message."
    )
    conversation_config_override: dict[str, Any] | None = Field(
        default=None, description="Passed on to ElevenLabs as it is."
    )
    user_id: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,256}$")] | None = Field(
        default=None,
        description="Who the other side is, such as a customer's number in the CRM: passed on to "
        "ElevenLabs with the conversation.",
    )
    ring_timeout_seconds: float = Field(
        default=30, ge=1, le=300, description="How long it may ring."
    )
    amd: bool = Field(
        default=False, description="Let answering machine detection run before the agent joins."
    )
    amd_on_machine: Literal["talk", "leave_message", "hang_up"] | None = Field(
        default=None,
        description="With amd: what is done when a machine answers; as AMD_ON_MACHINE says when "
        "left out.",
    )
    call_timeout_seconds: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="The call ends when it has lasted so long, and no later than "
        "CALL_TIMEOUT_SECONDS says.",
    )
    no_speech_timeout_seconds: float | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="The call ends when nobody has spoken for so long; 0: never. As "
        "NO_SPEECH_TIMEOUT_SECONDS says when left out.",
    )
    channel_variables: _ChannelVariables | None = Field(
        default=None,
        description="Variables of the callee's channel in Asterisk, for the route that it takes; "
        "only those that OUTBOUND_VARIABLES names.",
    )
    sip_headers: _SipHeaders | None = Field(
        default=None,
        description="Headers of the INVITE to the callee; only those that OUTBOUND_HEADERS names.",
    )
    wait_seconds: float = Field(
        default=0,
        ge=0,
        le=MOST_WAIT_SECONDS,
        description="How long to wait for room; 0 refuses at once.",
    )
    audio: CallAudio | None = Field(
        default=None,
        description="The dialer has the call already, and this is its sound.",
    )
    audio_url: str | None = Field(
        default=None,
        min_length=1,
        max_length=2000,
        description="With audio: the WebSocket where its sound is fetched; left out, it is brought "
        "to the `audio_url` of the answer.",
    )
    record: bool | None = Field(
        default=None,
        description="Whether the call is recorded from its beginning; as RECORD_CALLS says when "
        "left out.",
    )
    metadata: CallMetadata | None = Field(
        default=None, description="Kept with the session and shown."
    )

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.called_number is None and self._channel is None and self.audio is None:
            raise ValueError(
                "called_number is needed, a number to call, or call_id, the channel that waits in "
                "the application"
            )
        if self.audio_url is not None and (self.audio is None or self.audio.format is None):
            raise ValueError("audio_url needs audio.format beside it")
        if self.audio is not None and self.audio.format is None and self._channel is None:
            raise ValueError("audio without a format needs call_id, by which the dialer is asked")
        if self.amd_on_machine is not None and not self.amd:
            raise ValueError("amd_on_machine needs amd beside it")
        return self

    @property
    def _channel(self) -> str | None:
        return self.call_id or (self.metadata.call_id if self.metadata is not None else None)

    def to_wish(self) -> Wish:
        """Return the wish, with the names of the guide and the newer ones brought together."""
        metadata = self.metadata or CallMetadata()
        given = {**(metadata.dynamic_variables or {}), **(self.dynamic_variables or {})}
        variables: dict[str, Variable] = {
            name: value for name, value in given.items() if value is not None
        }
        extra: Mapping[str, Any] = metadata.model_extra or {}
        return Wish(
            agent_id=self.agent_id,
            session_id=self.session_id,
            reference=self._channel,
            caller_number=self.caller_number or metadata.caller_number,
            called_number=self.called_number,
            variables=variables,
            overrides=self.conversation_config_override,
            user_id=self.user_id,
            ring_timeout_seconds=self.ring_timeout_seconds,
            amd=self.amd,
            on_machine=None if self.amd_on_machine is None else OnMachine(self.amd_on_machine),
            wait_seconds=self.wait_seconds,
            channel_variables=self.channel_variables or {},
            sip_headers=self.sip_headers or {},
            limits=CallLimits(self.call_timeout_seconds, self.no_speech_timeout_seconds),
            audio=None if self.audio is None else self.audio.own(self.audio_url),
            recorded=self.record,
            metadata=dict(extra),
        )


class EndCallRequest(_Request):
    """Request to end an active call."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"session_id": "lead-4711", "reason": "customer_paid"}]}
    )

    session_id: SessionId = Field(description="Session to terminate.")
    reason: Reason | None = Field(default=None, description="Reason for ending call.")


class TransferRequest(_Request):
    """Where the caller is to go."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"to": "2000"}]})

    to: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="A number, or an extension of the dialplan."
    )
    mode: Literal["blind", "attended"] = Field(
        default="blind",
        description="blind: at once; attended: the target is rung first, and may refuse.",
    )


class TakeOverRequest(_Request):
    """Which telephone is to ring."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"endpoint": "+493023125004"}]})

    endpoint: Annotated[str, StringConstraints(min_length=1, max_length=200)] = Field(
        description="The supervisor's telephone: a number, or what TAKE_OVER_ENDPOINT dials."
    )


class DtmfRequest(_Request):
    """Keys to press."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"digits": "123#"}]})

    digits: Annotated[
        str, _shaped(r"^[0-9A-Da-d*#]{1,32}$", "1 to 32 keys: 0 to 9, A to D, * and #")
    ] = Field(description="0 to 9, A to D, * and #.")


class SayToAgentRequest(_Request):
    """Words for the agent, which the caller does not hear."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "The customer has paid.", "kind": "context"}]}
    )

    text: Annotated[str, StringConstraints(min_length=1, max_length=4000)] = Field(
        description="What the agent is told."
    )
    kind: Literal["context", "user"] = Field(
        default="context",
        description="context: something to know; user: as if the caller had said it.",
    )


class MuteRequest(_Request):
    """Whether the agent hears the caller."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"muted": True}]})

    muted: bool = Field(default=True, description="true: the agent hears silence.")


class RecordingRequest(_Request):
    """Whether a call is recorded."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"on": False}]})

    on: bool = Field(description="true: from now on; false: pause, which is silence in the file.")
