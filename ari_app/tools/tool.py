"""Checks the parameters of a tool call against the tool's JSON Schema. Pure.

Problems are sentences for the agent, which can call again or speak about them.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ari_app.line.interface import Outcome
from ari_app.process.loop import compute

JsonSchema = Mapping[str, Any]

_MAX_PARAMETER_BYTES: Final = 16 * 1024


async def load_validator() -> None:
    """Load what `ParameterSchema.problem` needs, in a thread, so that no frame waits for it."""
    if not _loaded:
        await compute(importlib.import_module, "ari_app.tools.validator")
        _loaded.append(True)


_loaded: list[bool] = []


class ParameterSchema:
    """The JSON Schema (draft 2020-12) of a tool's parameters.

    Args:
        schema: An object's schema. It stands for itself: a `$ref` could make the validator
            fetch what is not ours.
        checked: It is known to be a schema. To find that out, all drafts of JSON Schema are loaded:
            8 MB.

    Raises:
        ValueError: It is no schema of an object, or refers to another one.
    """

    def __init__(self, schema: JsonSchema, *, checked: bool = False) -> None:
        if not checked:
            from ari_app.tools.validator import check_schema

            check_schema(schema)
        self.schema: Final = schema
        self._validator: Any = None

    @property
    def names(self) -> frozenset[str]:
        """The parameters that the schema has."""
        return frozenset(self.schema.get("properties", {}))

    def problem(self, parameters: Mapping[str, object]) -> str | None:
        """Say what is wrong with `parameters`, as a clause such as `'to' is missing`.

        None when they fit. Values are not repeated.
        """
        try:
            size = len(orjson.dumps(dict(parameters)))
        except TypeError:
            return "the parameters cannot be written as JSON"
        if size > _MAX_PARAMETER_BYTES:
            return f"the parameters are longer than {_MAX_PARAMETER_BYTES} bytes"
        from ari_app.tools.validator import problem, validator_for

        if self._validator is None:
            self._validator = validator_for(self.schema)
        return problem(self._validator, parameters)


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """The answer of a tool.

    Attributes:
        text: For the agent.
        is_error: The tool did not do what it was asked.
        ends_with: The call ends so, after the agent's last words; None: it goes on.
    """

    text: str
    is_error: bool = False
    ends_with: Outcome | None = None
