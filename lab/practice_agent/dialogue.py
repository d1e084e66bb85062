"""What the agent says: a small script that a person can write in YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Variable = str | int | float | bool
Variables = Mapping[str, Variable]

_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*\}\}")

KNOWN_DURING_CALL = frozenset(
    {
        "heard_seconds",
        "heard_text",
        "tool_result",
        "system__agent_id",
        "system__conversation_id",
    }
)
"""Variables that the agent fills in by itself."""


class Model(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolCall(Model):
    """A client tool for the other side to run."""

    name: str = Field(min_length=1)
    parameters: dict[str, JsonValue] = {}
    """Strings in it may hold ``{{variables}}``."""
    expects_response: bool = True
    timeout_seconds: float = Field(default=20.0, gt=0)
    say_on_success: str = ""
    """May use ``{{tool_result}}``."""
    say_on_error: str = "Sorry, that did not work."
    """Said instead of the rest of the turn."""


class Turn(Model):
    """One answer: first ``say``, then ``tool``, then ``end_call``."""

    say: str = ""
    when_heard_seconds: float = Field(default=0.0, ge=0)
    """The caller must have spoken at least this long; otherwise the agent asks again."""
    tool: ToolCall | None = None
    end_call: bool = False

    @model_validator(mode="after")
    def _does_something(self) -> Turn:
        if not (self.say or self.tool or self.end_call):
            raise ValueError("a turn needs at least one of say, tool, end_call")
        return self


class Silence(Model):
    """What to do about a caller who says nothing."""

    after_seconds: float = Field(default=10.0, gt=0)
    say: str = Field(default="Are you still there?", min_length=1)
    times: int = Field(default=2, ge=1)


class Dialogue(Model):
    """A conversation from the agent's side."""

    first_message: str = ""
    """Empty: the agent waits for the caller."""
    turns: tuple[Turn, ...] = ()
    """Empty: the agent never answers."""
    after_last: Literal["repeat_last", "start_again", "end_call", "say_nothing"] = "repeat_last"
    when_too_short: str = "Sorry, I did not catch that. Could you say it again?"
    when_silent: Silence | None = None
    variables: dict[str, Variable] = {}
    """Values for ``{{variables}}`` that the client does not send."""

    def missing_variables(self, given: Variables) -> list[str]:
        """Names used in the dialogue that nobody has given a value, sorted."""
        used = _names_in(self.model_dump(exclude={"variables"}))
        return sorted(used - KNOWN_DURING_CALL - self.variables.keys() - given.keys())


def _names_in(value: object) -> set[str]:
    match value:
        case str():
            return set(_PLACEHOLDER.findall(value))
        case dict():
            return set().union(*map(_names_in, value.values()))
        case list() | tuple():
            return set().union(*map(_names_in, value))
        case _:
            return set()


def fill(text: str, variables: Variables) -> str:
    """Put values in place of ``{{names}}``; a name without a value stays as it is."""
    return _PLACEHOLDER.sub(lambda found: str(variables.get(found[1], found[0])), text)


def fill_json(value: JsonValue, variables: Variables) -> JsonValue:
    """Do the same in every string of a JSON value; keys stay as they are."""
    match value:
        case str():
            return fill(value, variables)
        case dict():
            return {key: fill_json(item, variables) for key, item in value.items()}
        case list():
            return [fill_json(item, variables) for item in value]
        case _:
            return value
