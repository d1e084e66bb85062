"""Whatever comes as a body is either taken or refused by name, just as the description says."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ari_app.control.http.operations import OPERATIONS
from ari_app.control.http.problems import Problem
from ari_app.control.http.requests import validate
from tests.unit.control.http.test_openapi import validator

MODELS = [operation.body for operation in OPERATIONS if operation.body is not None]
TEXTS = ["", "x", "s1", "a b", "42#", "user", "blind", "+493023125001", "x\n", "ü", "\0", "a" * 200]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(TEXTS)
    | st.text(st.characters(codec="utf-8"))
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*TEXTS, "name", "call_id", "dynamic_variables"]), inner)
    ),
    max_leaves=6,
)


def bodies(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    known = dict.fromkeys(model.model_fields, VALUES)
    return VALUES | st.fixed_dictionaries({}, optional={**known, "unheard_of": VALUES})


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
@given(data=st.data())
def test_a_body_is_taken_if_it_fits_the_description(
    model: type[BaseModel], data: st.DataObject
) -> None:
    body = data.draw(bodies(model))
    fits = validator({"$ref": f"#/components/schemas/{model.__name__}"}).is_valid(body)
    try:
        taken = validate(body, model)
    except Problem as problem:
        assert not fits or "called_number" in body
        assert problem.code == "invalid_request"
        assert problem.errors
        assert all(error.message for error in problem.errors)
    else:
        # The description says more about numbers: what may be called is up to the settings.
        assert fits or "called_number" in body
        assert orjson.dumps(taken.model_dump(mode="json"))
