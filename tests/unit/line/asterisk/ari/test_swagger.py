"""The checker is tried on a description made from what the client declares, and then spoilt.

A running Asterisk's own description is checked where there is one: in the end-to-end tests.
"""

from __future__ import annotations

from datetime import datetime
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import pytest

from ari_app.line.asterisk.ari.events import EVENTS, AriEvent
from ari_app.line.asterisk.ari.models import Resource
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.ari.socket import EVENT_SOCKET
from lab.asterisk.ari_description import check_against_swagger, models, operations

NAMES = {str: "string", int: "int", float: "double", bool: "boolean", datetime: "Date"}
COMMON = ("type", "application", "timestamp")


def swagger_type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        [annotation] = [each for each in inner if each is not NoneType]
        return swagger_type(annotation)
    if origin is tuple:
        return f"List[{swagger_type(inner[0])}]"
    if origin is dict:
        return "object"
    return NAMES[annotation] if annotation in NAMES else str(annotation.__name__)


def describe_operation(operation: Operation[Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "httpMethod": operation.method,
        "responseClass": "void" if operation.returns is None else swagger_type(operation.returns),
        "parameters": [
            {"name": name, "paramType": "path", "required": True} for name in operation.placeholders
        ]
        + [
            {
                "name": name,
                "paramType": "body" if name in ("variables", operation.whole_body) else "query",
            }
            for name in operation.parameters
        ],
    }
    if operation is EVENT_SOCKET:
        described |= {"upgrade": "websocket", "responseClass": "Message"}
    return described


def describe_model(model: type[Resource]) -> dict[str, Any]:
    inherited = COMMON if issubclass(model, AriEvent) else ()
    return {
        "properties": {
            name: {"type": swagger_type(info.annotation), "required": info.is_required()}
            for name, info in model.model_fields.items()
            if name not in inherited
        }
    }


@pytest.fixture
def documents() -> dict[str, dict[str, Any]]:
    described = {model.__name__: describe_model(model) for model in models()}
    described["Message"] = {
        "subTypes": ["Event"],
        "properties": {
            "type": {"type": "string", "required": True},
        },
    }
    described["Event"] = {
        "subTypes": list(EVENTS),
        "properties": {
            "application": {"type": "string", "required": True},
            "timestamp": {"type": "Date", "required": True},
        },
    }
    return {
        "all": {
            "apis": [
                {"path": each.path, "operations": [describe_operation(each)]}
                for each in operations()
            ]
        },
        "models": {"models": described},
        "resources": {"apis": [{"path": "/api-docs/channels.{format}"}]},
    }


Documents = dict[str, dict[str, Any]]


def operation_of(documents: Documents, method: str, path: str) -> dict[str, Any]:
    for api in documents["all"]["apis"]:
        for operation in api["operations"]:
            if (operation["httpMethod"], api["path"]) == (method, path):
                found: dict[str, Any] = operation
                return found
    raise LookupError(path)


def properties_of(documents: Documents, model: str) -> dict[str, Any]:
    found: dict[str, Any] = documents["models"]["models"][model]["properties"]
    return found


def test_a_description_that_fits(documents: Documents) -> None:
    assert check_against_swagger(documents) == []


def test_everything_that_is_read_is_checked() -> None:
    names = {model.__name__ for model in models()}
    assert set(EVENTS) <= names
    assert {"Channel", "CallerID", "Bridge", "AsteriskInfo", "SystemInfo"} <= names
    assert "Resource" not in names
    assert "UnknownEvent" not in names


def test_nothing_is_described() -> None:
    problems = check_against_swagger({})
    assert len(problems) == len(operations()) + len(models())


def test_a_path_is_missing(documents: Documents) -> None:
    documents["all"]["apis"] = [
        api for api in documents["all"]["apis"] if api["path"] != "/channels/externalMedia"
    ]
    assert check_against_swagger(documents) == [
        "POST /channels/externalMedia: there is no such operation"
    ]


def test_a_parameter_is_missing(documents: Documents) -> None:
    described = operation_of(documents, "POST", "/channels/{channelId}/dtmf")
    described["parameters"] = [each for each in described["parameters"] if each["name"] != "dtmf"]
    assert check_against_swagger(documents) == [
        "POST /channels/{channelId}/dtmf: there is no parameter dtmf"
    ]


def test_a_parameter_is_demanded(documents: Documents) -> None:
    described = operation_of(documents, "GET", "/channels")
    described["parameters"].append({"name": "page", "paramType": "query", "required": True})
    assert check_against_swagger(documents) == ["GET /channels: parameter page is required"]


def test_a_parameter_belongs_into_a_body(documents: Documents) -> None:
    described = operation_of(documents, "DELETE", "/channels/{channelId}")
    for parameter in described["parameters"]:
        if parameter["name"] == "reason":
            parameter["paramType"] = "body"
    assert check_against_swagger(documents) == [
        "DELETE /channels/{channelId}: parameter reason must be sent in a body"
    ]


@pytest.mark.parametrize("returned", ["void", "List[Channel]", "Bridge", "string"])
def test_something_else_comes_back(documents: Documents, returned: str) -> None:
    operation_of(documents, "GET", "/channels/{channelId}")["responseClass"] = returned
    assert check_against_swagger(documents) == [f"GET /channels/{{channelId}}: returns {returned}"]


def test_a_model_is_missing(documents: Documents) -> None:
    del documents["models"]["models"]["Dial"]
    assert check_against_swagger(documents) == ["Dial: there is no such model"]


def test_a_field_is_missing(documents: Documents) -> None:
    del properties_of(documents, "Channel")["dialplan"]
    assert check_against_swagger(documents) == ["Channel: there is no field dialplan"]


def test_an_inherited_field_is_missing(documents: Documents) -> None:
    del properties_of(documents, "Event")["timestamp"]
    problems = check_against_swagger(documents)
    assert "StasisStart: there is no field timestamp" in problems
    assert len(problems) == len(EVENTS) + 1


@pytest.mark.parametrize(
    ("model", "field", "kind"),
    [
        ("Channel", "id", "int"),
        ("Channel", "caller", "string"),
        ("Bridge", "channels", "string"),
        ("Bridge", "channels", "List[Channel]"),
        ("ChannelDestroyed", "tech_cause", "string"),
        ("Dial", "caller", "Bridge"),
    ],
)
def test_a_field_is_of_another_type(
    documents: Documents, model: str, field: str, kind: str
) -> None:
    properties_of(documents, model)[field]["type"] = kind
    assert check_against_swagger(documents) == [f"{model}.{field}: is a {kind}"]


def test_a_field_that_is_relied_on_may_be_missing(documents: Documents) -> None:
    properties_of(documents, "StasisStart")["channel"]["required"] = False
    assert check_against_swagger(documents) == ["StasisStart.channel: may be missing"]
