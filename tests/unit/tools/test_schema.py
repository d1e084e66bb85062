from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.tools.tool import ParameterSchema


def of(required: list[str] | None = None, **properties: Any) -> ParameterSchema:
    return ParameterSchema({"type": "object", "properties": properties, "required": required or []})


@pytest.mark.parametrize(
    ("schema", "sentence"),
    [
        ({}, "type object"),
        ({"type": "string"}, "type object"),
        ({"type": "object", "properties": {"a": {"type": "text"}}}, r"no JSON Schema at \$\.prop"),
        ({"type": "object", "properties": {"a": {"pattern": "["}}}, "no JSON Schema at"),
        (
            {"type": "object", "properties": {"a": {"anyOf": [{"pattern": "(?=a)"}]}}},
            r"at \$\.properties\.a\.anyOf\[0\]\.pattern: look-around and back references",
        ),
        ({"type": "object", "patternProperties": {"^a": {}}}, "must not have patternProperties"),
        ({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/"}}}, r"a \$ref"),
        ({"type": "object", "allOf": [{"$dynamicRef": "#a"}]}, r"a \$ref"),
    ],
)
def test_schemas_that_cannot_be_used(schema: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ParameterSchema(schema)


def test_no_value_keeps_a_pattern_busy() -> None:
    """Python's engine would take longer than anybody waits."""
    schema = of(p={"pattern": "^(([a-z])+.)+[A-Z]([a-z])+$", "description": "A name."})
    assert schema.problem({"p": "a" * 10_000}) == "'p' does not fit its description: A name."


def test_what_fits_has_no_problem() -> None:
    schema = of(["to"], to={"type": "string"}, times={"type": "integer"})
    assert schema.problem({"to": "x", "times": 2}) is None
    assert schema.problem({"to": "x", "more": True}) is None
    assert schema.names == {"to", "times"}
    assert ParameterSchema({"type": "object"}).names == frozenset()


@pytest.mark.parametrize(
    ("rule", "value", "problem"),
    [
        ({"type": "string"}, 7, "'p' must be a text"),
        ({"type": "integer"}, "7", "'p' must be a whole number"),
        ({"type": "boolean"}, "yes", "'p' must be true or false"),
        ({"type": ["string", "null"]}, 7, "'p' does not fit the tool's schema (type)"),
        ({"enum": ["a", 1]}, "b", "'p' must be one of a, 1"),
        (
            {"pattern": "^a$", "description": "An a."},
            "b",
            "'p' does not fit its description: An a.",
        ),
        ({"pattern": "^a$"}, "b", "'p' does not fit the tool's schema (pattern)"),
        ({"maximum": 3}, 4, "'p' is beyond its maximum of 3"),
        ({"minLength": 2}, "x", "'p' is beyond its minLength of 2"),
        ({"minimum": 1.5}, 1, "'p' is beyond its minimum of 1.5"),
        ({"const": 3}, 4, "'p' does not fit the tool's schema (const)"),
        (False, 4, "the call does not fit the tool's schema (None)"),
        ({"type": "object", "required": ["q"]}, {}, "'p.q' is missing"),
        ({"type": "array", "items": {"type": "number"}}, [1, "x"], "'p.1' must be a number"),
    ],
)
def test_problems_are_clauses_for_the_agent(rule: Any, value: object, problem: str) -> None:
    assert of(p=rule).problem({"p": value}) == problem


def test_what_is_missing_is_named() -> None:
    assert of(["a", "b"]).problem({"a": 1}) == "'b' is missing"
    limited = ParameterSchema({"type": "object", "maxProperties": 1})
    assert limited.problem({"a": 1, "b": 2}) == "the call is beyond its maxProperties of 1"


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("^[0-9]+$", "12", "12\n"),
        ("^a$|^b$", "a", "a\n"),
        (r"^\$[$]$", "$$", "$$\n"),
        ("^[^a]?$", "", "bb"),
    ],
)
def test_a_dollar_is_the_very_end(pattern: str, fits: str, does_not: str) -> None:
    schema = of(p={"pattern": pattern})
    assert schema.problem({"p": fits}) is None
    assert schema.problem({"p": does_not}) is not None
    assert schema.problem({"p": 7}) is None  # a pattern says nothing about numbers


@pytest.mark.parametrize("value", ["\ud800", 2**70, object()])
def test_what_json_cannot_say(value: object) -> None:
    assert of().problem({"p": value}) == "the parameters cannot be written as JSON"


def test_too_much() -> None:
    assert of().problem({"p": "x" * 20_000}) == "the parameters are longer than 16384 bytes"


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c"]) | st.text(max_size=5), json))
def test_no_parameters_raise(parameters: dict[str, object]) -> None:
    schema = of(["a"], a={"type": "string", "pattern": "^x$"}, b={"type": "array", "minItems": 2})
    problem = schema.problem(parameters)
    assert problem is None or len(problem) < 200
    if problem is None:
        assert parameters["a"] == "x"
