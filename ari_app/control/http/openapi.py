"""The OpenAPI 3.1 document, made from the table of operations and the models."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from functools import cache, partial
from http import HTTPStatus
from importlib import resources
from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from ari_app import __version__
from ari_app.control.http.keys import Scope
from ari_app.control.http.operations import OPERATIONS, TAGS, HeaderField, Operation
from ari_app.control.http.problems import CODES, MEDIA_TYPE, ProblemDetails
from ari_app.control.http.streams import EVENT, EVENT_STREAM
from ari_app.process.loop import compute

DOCS_PATH = "/docs"


def docs_page(status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    """Return the page."""
    text, policy = _page()
    return web.Response(
        status=status.value,
        text=text,
        content_type="text/html",
        headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"},
    )


def sign_in(request: web.Request) -> web.Response | None:
    """Return the page, for a browser that wants it and has brought no key."""
    if request.path != DOCS_PATH or "text/html" not in request.headers.get("Accept", ""):
        return None
    return docs_page(HTTPStatus.UNAUTHORIZED)


@cache
def _page() -> tuple[str, str]:
    """Return the page and its Content-Security-Policy, which allows this one script and no
    other."""
    text = resources.files(__package__).joinpath("docs.html").read_text(encoding="utf-8")
    parts = {
        name: base64.b64encode(
            hashlib.sha256(
                re.findall(f"<{name}>(.*?)</{name}>", text, re.DOTALL)[0].encode()
            ).digest()
        ).decode()
        for name in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src 'sha256-{parts['script']}'; "
        f"style-src 'sha256-{parts['style']}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


_PATH_PARAMETER = re.compile(r"\{(\w+)\}")
_REQUEST_ID: Final = HeaderField(
    "X-Request-ID",
    "A name for the request, which the answer and the log repeat: up to 128 letters, digits and "
    "`. _ : -`. Any other is replaced.",
    {"type": "string"},
)
_EXAMPLES: Final = {"session_id": "lead-4711"}
_EVERYWHERE: Final = (
    "internal",
    "rate_limited",
    "head_too_late",
    "too_many_connections",
    "worker_away",
)
_EVENT_NAME: Final = "SessionEvent"
# What ari_app.line.numbers takes; brackets as well, which are left out here for legibility.
# Between the digits may stand whatever people paste; what it may be, the service decides.
_E164: Final = r"^[^0-9A-Za-z]*\+(?:[^0-9A-Za-z]*[0-9]){7,15}[^0-9A-Za-z]*$"

_Models = list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]]


class Description:
    """The description of the interface. It is made when it is first asked for, for most services
    never are, and beside the loop: it takes as long as some frames.

    Args:
        keyed: See `openapi_document`.
        number_pattern: See `openapi_document`.
    """

    def __init__(self, *, keyed: bool, number_pattern: str | None) -> None:
        self._describe = partial(openapi_document, keyed=keyed, number_pattern=number_pattern)
        self._described: bytes | None = None

    async def answer(self) -> web.Response:
        """Answer with it."""
        if self._described is None:
            self._described = orjson.dumps(await compute(self._describe))
        return web.Response(body=self._described, content_type="application/json")


def openapi_document(*, keyed: bool, number_pattern: str | None = None) -> dict[str, Any]:
    """Return the description of the interface.

    Args:
        keyed: The service asks for an API key.
        number_pattern: What a number to call must match as a whole; None is E.164.
    """
    references, definitions = TypeAdapter.json_schemas(
        _models(), ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = dict(definitions.get("$defs", {}))
    # A union has no name of its own, so it is not among the definitions.
    schemas[_EVENT_NAME] = references[_EVENT_NAME, "serialization"]
    number = schemas["InitiateCallRequest"]["properties"]["called_number"]["anyOf"][0]
    if number_pattern is None:
        number["pattern"] = _E164
    else:
        number["description"] = f"Without separators it must match {number_pattern}"
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        described = _operation(operation, keyed=keyed)
        paths.setdefault(operation.path, {})[operation.method.lower()] = described
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "ari-app",
            "version": __version__,
            "summary": "Calls on Asterisk that talk to an ElevenLabs agent",
            "description": (
                "Every failure is `application/problem+json` (RFC 9457) with a stable `code`. "
                "Every answer carries `X-Request-ID`, which the log repeats."
            ),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items()))},
    }
    if keyed:
        document["components"]["securitySchemes"] = {
            "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        document["security"] = [{"apiKey": []}, {"bearer": []}]
    return document


def _models() -> _Models:
    found: dict[tuple[str, JsonSchemaMode], TypeAdapter[Any]] = {
        (_EVENT_NAME, "serialization"): EVENT
    }

    def add(model: type[BaseModel] | None, mode: JsonSchemaMode) -> None:
        if model is not None:
            found[model.__name__, mode] = TypeAdapter(model)

    for operation in OPERATIONS:
        add(operation.body, "validation")
        add(operation.answer, "serialization")
    add(ProblemDetails, "serialization")
    return [(name, mode, adapter) for (name, mode), adapter in found.items()]


def _operation(operation: Operation, *, keyed: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    if operation.description:
        described["description"] = operation.description
    if operation.is_open and keyed:
        described["security"] = []
    described["parameters"] = [
        *(_path_parameter(name) for name in _PATH_PARAMETER.findall(operation.path)),
        *_query_parameters(operation.query),
        *(_header(header) for header in (*operation.headers, _REQUEST_ID)),
    ]
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _reference(operation.body.__name__)}},
        }
    described["responses"] = _responses(operation, keyed=keyed)
    return described


def _responses(operation: Operation, *, keyed: bool) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "200": {
            "description": "Here it is." if operation.method == "GET" else "Done.",
            "content": {
                operation.media_type: {"schema": _answer_schema(operation)},
                **{each: {"schema": {"type": "string"}} for each in operation.media_types},
            },
        }
    }
    for status, meaning in operation.also.items():
        responses[str(status)] = {"description": meaning}
        if operation.answer is not None or status == HTTPStatus.PARTIAL_CONTENT:
            responses[str(status)]["content"] = responses["200"]["content"]
    codes = list(dict.fromkeys((*operation.problems, *_EVERYWHERE)))
    if not operation.is_open:
        codes.append("unauthorized" if keyed else "forbidden_origin")
        if keyed and operation.needs > Scope.READ:
            codes.append("forbidden")
    for status, described in _problems(codes):
        told = responses.setdefault(str(status.value), described)
        if told is not described:
            # A status with an answer of its own, such as that of a service that is not ready.
            told["description"] += " " + described["description"]
            told["content"] = {**told["content"], **described["content"]}
    return dict(sorted(responses.items()))


def _problems(codes: Iterable[str]) -> Iterable[tuple[HTTPStatus, dict[str, Any]]]:
    by_status: dict[HTTPStatus, list[str]] = {}
    for code in codes:
        by_status.setdefault(CODES[code][0], []).append(code)
    for status, names in by_status.items():
        response: dict[str, Any] = {
            "description": " ".join(f"`{name}`: {CODES[name][1]}" for name in names),
            "content": {
                MEDIA_TYPE: {
                    "schema": _reference(ProblemDetails.__name__),
                    "examples": {name: {"value": _example(name)} for name in names},
                }
            },
        }
        if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
            response["headers"] = {
                "Retry-After": {
                    "description": "Seconds after which it may be granted.",
                    "schema": {"type": "integer", "minimum": 1},
                }
            }
        yield status, response


def _example(code: str) -> dict[str, Any]:
    status, meaning = CODES[code]
    return {
        "type": "about:blank",
        "title": status.phrase,
        "status": status.value,
        "detail": meaning,
        "code": code,
        "request_id": "0f6ad2c4b1d84d0f9d3c8a55a0f0b7a1",
    }


def _answer_schema(operation: Operation) -> dict[str, Any]:
    if operation.answer is not None:
        return _reference(operation.answer.__name__)
    if operation.media_type == EVENT_STREAM:
        # One event; OpenAPI 3.1 has no word for a stream of them.
        return {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "event": {"type": "string"},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": _reference(_EVENT_NAME),
                },
            },
            "required": ["id", "event", "data"],
        }
    return {"type": "object" if operation.media_type == "application/json" else "string"}


def _path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        "example": _EXAMPLES[name],
    }


def _query_parameters(query: type[BaseModel] | None) -> Iterable[dict[str, Any]]:
    if query is None:
        return
    for name, schema in query.model_json_schema()["properties"].items():
        # What is not said has no value: null cannot be written in a URL.
        told = {key: value for key, value in schema.items() if key not in ("title", "description")}
        kinds = [each for each in told.pop("anyOf", ()) if each != {"type": "null"}]
        if told.get("default", ...) is None:
            del told["default"]
        yield {
            "name": name,
            "in": "query",
            "required": False,
            "description": schema["description"],
            "schema": {**told, **(kinds[0] if kinds else {})},
        }


def _header(header: HeaderField) -> dict[str, Any]:
    return {
        "name": header.name,
        "in": "header",
        "required": False,
        "description": header.description,
        "schema": dict(header.schema),
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
