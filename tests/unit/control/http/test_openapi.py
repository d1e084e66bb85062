"""The OpenAPI document: complete, true to what is served, and valid."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend

from ari_app.control.http.handlers import Handlers, ServiceView
from ari_app.control.http.idempotency import MAX_KEYS
from ari_app.control.http.openapi import openapi_document
from ari_app.control.http.operations import IDEMPOTENCY_KEY, OPERATIONS
from ari_app.control.http.problems import CODES
from ari_app.control.http.streams import as_json
from ari_app.line.numbers import check_number
from ari_app.records.events import AgentConnected, Responded
from ari_app.records.journal import Journal
from tests.unit.control.http.fake_service import FakeService, Http, end, note_end, talking
from tests.unit.control.http.test_sessions import ACTIONS
from tests.unit.words import words

DOCUMENT = openapi_document(keyed=True)


def _matches(_: Any, pattern: str, value: object, __: Any) -> Iterator[ValidationError]:
    # In a schema $ is the end; in Python it is also the place before a last newline.
    ended = re.sub(r"\$$", r"\\Z", pattern)
    if isinstance(value, str) and not re.search(ended, value):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


_Validator = extend(Draft202012Validator, {"pattern": _matches})  # type: ignore[no-untyped-call]


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    made: Draft202012Validator = _Validator({**schema, "components": DOCUMENT["components"]})
    return made


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, described in methods.items():
            yield method, path, described


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_every_reference_leads_somewhere() -> None:
    names = {reference.removeprefix("#/components/schemas/") for reference in references(DOCUMENT)}
    assert names == set(DOCUMENT["components"]["schemas"])


def test_every_schema_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_operation_is_whole() -> None:
    names = [described["operationId"] for _, _, described in operations()]
    assert len(names) == len(set(names)) == len(OPERATIONS)
    for method, path, described in operations():
        assert described["summary"]
        assert set(described["tags"]) <= {tag["name"] for tag in DOCUMENT["tags"]}
        in_path = {p["name"] for p in described["parameters"] if p["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
        assert all(answer["description"] for answer in described["responses"].values())
        assert "200" in described["responses"]
        assert "500" in described["responses"]
        assert method in ("get", "post", "delete")


def test_every_operation_has_a_handler_and_every_handler_an_operation() -> None:
    handlers = Handlers(cast(ServiceView, FakeService), keyed=True).by_name()
    assert set(handlers) == {operation.name for operation in OPERATIONS}
    assert all(inspect.iscoroutinefunction(handler) for handler in handlers.values())


def test_every_part_of_a_query_is_told() -> None:
    """A program that was made from the document knows no other."""
    modules = Path(inspect.getfile(Handlers)).parent.glob("*.py")
    texts = [module.read_text(encoding="utf-8") for module in modules]
    read = {name for text in texts for name in re.findall(r'request\.query\.get\("(\w+)"', text)}
    told = {
        parameter["name"]
        for _, _, described in operations()
        for parameter in described["parameters"]
        if parameter["in"] == "query"
    }
    # In the addresses that Twilio is given to come back to.
    assert read - told == {"worker"}


def test_a_range_of_a_recording_is_told_like_the_whole() -> None:
    answers = DOCUMENT["paths"]["/calls/{session_id}/recording"]["get"]["responses"]
    assert answers["206"]["content"] == answers["200"]["content"]
    # Where the file stands is known to the call log alone after a while.
    codes = answers["503"]["content"]["application/problem+json"]["examples"]
    assert "call_log_unavailable" in codes


def test_it_is_told_how_long_a_key_is_known() -> None:
    """Who calls more numbers than that in a day must not count on the day."""
    parameters = DOCUMENT["paths"]["/webhook/initiate-call"]["post"]["parameters"]
    (told,) = [each["description"] for each in parameters if each["name"] == IDEMPOTENCY_KEY]
    page = Path(__file__).parents[4] / "docs" / "http.md"
    for text in (told, page.read_text(encoding="utf-8").split("**Repeating it safely.**")[1]):
        assert re.search(rf"24 hours.{{,40}}\s{MAX_KEYS:,} other\skeys", text, re.S)


def test_every_code_is_told_somewhere() -> None:
    told = {
        example["value"]["code"]
        for keyed in (True, False)
        for methods in openapi_document(keyed=keyed)["paths"].values()
        for described in methods.values()
        for answer in described["responses"].values()
        for kind, content in answer.get("content", {}).items()
        if kind == "application/problem+json"
        for example in content["examples"].values()
    }
    # What belongs to no operation, because no operation was found.
    assert told == set(CODES) - {"not_found", "method_not_allowed"}


def test_every_example_fits_its_schema() -> None:
    problem = validator({"$ref": "#/components/schemas/ProblemDetails"})
    for _, _, described in operations():
        for answer in described["responses"].values():
            for content in answer.get("content", {}).values():
                for example in content.get("examples", {}).values():
                    problem.validate(example["value"])
    for schema in DOCUMENT["components"]["schemas"].values():
        for example in schema.get("examples", []):
            validator(schema).validate(example)


def test_security_is_told_as_it_is() -> None:
    assert DOCUMENT["security"] == [{"apiKey": []}, {"bearer": []}]
    for operation in OPERATIONS:
        described = DOCUMENT["paths"][operation.path][operation.method.lower()]
        assert (described.get("security") == []) is operation.is_open
        assert ("401" in described["responses"]) is not operation.is_open
    without = openapi_document(keyed=False)
    assert "security" not in without
    assert "securitySchemes" not in without["components"]


@pytest.mark.parametrize(
    "number",
    [
        "+493023125001",
        "+49 30 23125-001",
        "+1 (555) 010-0199",
        "\u202d+1/555\u2010010\u00a00199\u202c\n",
    ],
)
def test_a_number_that_can_be_called_fits(number: str) -> None:
    assert check_number(number)
    body = {"$ref": "#/components/schemas/InitiateCallRequest"}
    validator(body).validate({"called_number": number})


def test_the_pattern_for_numbers_is_that_of_the_settings() -> None:
    schemas = openapi_document(keyed=True, number_pattern="1[0-9]{3}")["components"]["schemas"]
    either = schemas["InitiateCallRequest"]["properties"]["called_number"]["anyOf"]
    assert "pattern" not in either[0]
    assert either[0]["description"] == "Without separators it must match 1[0-9]{3}"


async def test_it_is_served(http: Http) -> None:
    response = await http.get("/openapi.json")
    assert response.content_type == "application/json"
    assert await response.json() == DOCUMENT


@pytest.mark.parametrize(
    "request_",
    [
        ("POST", "/webhook/initiate-call", "/webhook/initiate-call", {"called_number": "+4930"}),
        ("POST", "/webhook/initiate-call", "/webhook/initiate-call", {"nothing": 1}),
        ("POST", "/webhook/end-call", "/webhook/end-call", {"session_id": "s1"}),
        ("GET", "/sessions", "/sessions", None),
        ("GET", "/sessions/s1", "/sessions/{session_id}", None),
        ("GET", "/sessions/s2", "/sessions/{session_id}", None),
        ("GET", "/health/live", "/health/live", None),
        ("GET", "/health/ready", "/health/ready", None),
        *(
            ("POST", f"/sessions/s1/{name}", f"/sessions/{{session_id}}/{name}", body)
            for name, body, _ in ACTIONS
        ),
    ],
    ids=lambda request_: f"{request_[0]} {request_[1]}",
)
async def test_answers_fit_what_is_told(
    http: Http, service: FakeService, request_: tuple[str, str, str, Any]
) -> None:
    method, path, template, body = request_
    end(service.add("s1", metadata={"x": [1]}))
    response = await (
        http.request(method, path) if body is None else http.request(method, path, json=body)
    )
    told = DOCUMENT["paths"][template][method.lower()]["responses"][str(response.status)]
    assert list(told["content"]) == [response.content_type]
    validator(told["content"][response.content_type]["schema"]).validate(await response.json())


async def test_events_fit_what_is_told() -> None:
    journal, record = Journal(), talking("s1")
    journal.note(record, AgentConnected("conv_1", 0.1))
    for who in ("agent", "interruption", "tool", "dtmf", "note"):
        journal.note(record, words(who, who))
    journal.note(record, Responded(0.5))
    note_end(journal, record)
    check = validator({"$ref": "#/components/schemas/SessionEvent"})
    with journal.follow(record) as entries:
        async for entry in entries:
            check.validate(orjson.loads(as_json(entry)))
    with pytest.raises(ValidationError):
        check.validate({"type": "unheard_of"})
