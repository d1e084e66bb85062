"""Validates parameters by jsonschema, which takes 3 MB, and a core for 30 ms to load: only where an
agent calls a tool (`tool.load_validator`), or somebody brings a schema. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from jsonschema.validators import extend
from referencing import Registry

from ari_app.patterns import LinearPattern

_ARTICLES: Final = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


def check_schema(schema: Mapping[str, Any]) -> None:
    """See that it is a schema for the parameters of a tool.

    Raises:
        ValueError: It is no schema of an object, or refers to another one.
    """
    if schema.get("type") != "object":
        raise ValueError("the parameters' schema must have the type object")
    if _has(schema, "$ref", "$dynamicRef"):
        raise ValueError("the parameters' schema must not have a $ref in it")
    # They would be tried by Python's engine, in more than one place.
    if _has(schema, "patternProperties"):
        raise ValueError(
            "the parameters' schema must not have patternProperties in it: name the properties"
        )
    try:
        Draft202012Validator.check_schema(schema, format_checker=_PATTERNS)
    except SchemaError as error:
        why = f": {error.cause}" if error.cause is not None else ""
        raise ValueError(
            f"the parameters' schema is no JSON Schema at {error.json_path}{why}"
        ) from None


def validator_for(schema: Mapping[str, Any]) -> Any:
    """Return what `problem` validates by."""
    return _Validator(schema, registry=Registry())


def problem(validator: Any, parameters: Mapping[str, object]) -> str | None:
    """Say what is wrong with parameters, as a clause; None when they fit."""
    error = best_match(validator.iter_errors(dict(parameters)))
    return None if error is None else _clause(error)


def _has(schema: object, *keywords: str) -> bool:
    match schema:
        case Mapping():
            return any(key in keywords or _has(value, *keywords) for key, value in schema.items())
        case list():
            return any(_has(part, *keywords) for part in schema)
        case _:
            return False


def _clause(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path)
    subject = f"'{where}'" if where else "the call"
    match error.validator, error.validator_value, error.schema, error.instance:
        case "required", [*names], _, {**given}:
            missing = next(name for name in names if name not in given)
            return f"'{where}.{missing}' is missing" if where else f"'{missing}' is missing"
        case "type", str(name), _, _:
            return f"{subject} must be {_ARTICLES[name]}"
        case "enum", [*values], _, _:
            return f"{subject} must be one of {', '.join(map(str, values))}"
        case "pattern", _, {"description": description}, _:
            return f"{subject} does not fit its description: {description}"
        case str(keyword), int(limit) | float(limit), _, _ if keyword.startswith(("min", "max")):
            return f"{subject} is beyond its {keyword} of {limit}"
        case _:
            return f"{subject} does not fit the tool's schema ({error.validator})"


_linear = lru_cache(maxsize=1024)(LinearPattern)


def _pattern(
    _validator: object, pattern: str, instance: object, _schema: object
) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _linear(pattern).search(instance):
        yield ValidationError("does not match")


_Validator = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"pattern": _pattern}
)
_PATTERNS: Final = FormatChecker(formats=())


@_PATTERNS.checks("regex", raises=ValueError)
def _is_pattern(value: object) -> bool:
    """Return whether a pattern, at each place where the schema of schemas has one, can be used."""
    if isinstance(value, str):
        _linear(value)
    return True
