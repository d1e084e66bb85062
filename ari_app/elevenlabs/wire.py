"""The common ground of the server's messages: tolerant field types and the root of the models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pybase64
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)


def _integer(value: object) -> object:
    # A short string of digits is a number that an older server wrote as text. The bound keeps
    # int() from being given megabytes.
    if isinstance(value, str) and len(value) <= 20:
        return int(value)
    if isinstance(value, bool | str):
        raise ValueError("not an integer")
    return value


def _integer_or_none(value: object) -> object:
    try:
        return _integer(value)
    except ValueError:
        if isinstance(value, str):
            return None
        raise


def _base64(value: object) -> object:
    if isinstance(value, str):
        return pybase64.b64decode(value, validate=True)
    return value


_Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]
EventId = Annotated[_Int64, BeforeValidator(_integer)]
OptionalInt = Annotated[_Int64 | None, BeforeValidator(_integer_or_none)]
TextId = Annotated[_Int64 | str | None, Field(union_mode="left_to_right")]
Base64 = Annotated[
    bytes,
    BeforeValidator(_base64),
    PlainSerializer(lambda data: pybase64.b64encode(data).decode()),
]


class Part(BaseModel):
    model_config = ConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True, populate_by_name=True
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return {key: value for key, value in data.items() if value is not None}
        return data


class ServerMessage(Part):
    """The root of all messages that the server sends."""

    wire_type: ClassVar[str]
    payload_key: ClassVar[str]

    def to_wire(self) -> dict[str, Any]:
        """The message as the server writes it, before JSON."""
        payload = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return {"type": self.wire_type, self.payload_key: payload}


@dataclass(frozen=True, slots=True)
class Unknown:
    """A well-formed message of a type that this program does not know."""

    type: str
