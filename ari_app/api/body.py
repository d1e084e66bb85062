"""Reads the body of a request into a model, or says what is wrong with it."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from ari_app.api.problems import FieldError, Problem
from ari_app.json_text import NotJson, read_json

Model = TypeVar("Model", bound=BaseModel)

_JSON = "application/json"
_READ_SECONDS = 10.0
_MAX_ERRORS = 20


async def read_model(request: web.Request, model: type[Model]) -> Model:
    """The body of ``request``.

    Raises:
        Problem: ``unsupported_media_type``, ``body_too_large``, ``body_too_late``,
            ``bad_request``, ``invalid_json`` or ``invalid_request``, which names every field that
            is wrong. Values are not repeated: they may be personal.
    """
    if request.content_type != _JSON:
        raise Problem("unsupported_media_type", f"Send the body as {_JSON}.")
    try:
        value = read_json(await _read(request))
    except NotJson as error:
        raise Problem("invalid_json", f"The body cannot be read: {error}.") from None
    return validate(value, model)


async def read_nothing(request: web.Request) -> None:
    """Make sure that the body is empty or ``{}``.

    Raises:
        Problem: It is not.
    """
    if (await _read(request)).strip() not in (b"", b"{}"):
        raise Problem("invalid_request", "This operation takes no body.")


async def _read(request: web.Request) -> bytes:
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
    except (web.RequestPayloadError, ConnectionError):
        raise Problem("bad_request", "The body did not arrive as announced.") from None


def validate(value: object, model: type[Model]) -> Model:
    """``value``, as JSON gave it, as a model.

    Raises:
        Problem: ``invalid_request``.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
    unknown = [_name(item["loc"]) for item in found if item["type"] == "extra_forbidden"]
    # An alternative of a union fails for itself; the field is named once.
    wrong: dict[str, str] = {}
    for item in found:
        wrong.setdefault(_name(item["loc"]), item["msg"].removeprefix("Value error, "))
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
    """A field's name, with dots; without the name that pydantic gives a union's alternative."""
    parts = [str(part)[:64] for part in location]
    if len(parts) > 1 and parts[-1] in _ALTERNATIVES:
        parts.pop()
    return ".".join(parts)
