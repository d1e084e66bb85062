"""Makes the request of an HTTP tool from what the agent said. Pure.

The agent chooses values, never where they go: the host, the port and the fixed part of the path
are the file's, and a value cannot leave its path segment, its query parameter or its place in the
body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import orjson
from yarl import URL

from ari_app.tools.http_config import HttpTool

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SEPARATOR: Final = re.compile(r"[/\\]")
_MAX_SEGMENT: Final = 200


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What is known about a call: the values that ``from_call`` may name."""

    session_id: str = ""
    call_id: str = ""
    conversation_id: str = ""
    agent_id: str = ""
    caller_number: str = ""
    called_number: str = ""


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A request that is ready to be sent.

    Attributes:
        url: Encoded already.
        body: JSON; None for methods that carry the parameters in the query.
    """

    method: str
    url: URL
    body: bytes | None


def build_request(
    tool: HttpTool, parameters: Mapping[str, object], facts: CallFacts
) -> ToolRequest:
    """Put the parameters, which fit the tool's schema, into its request.

    Parameters that the schema does not name are left out.

    Raises:
        ValueError: A value cannot stand in a path; a clause such as ``'id' cannot be used``.
    """
    known = tool.parameters.get("properties", {})
    values = {name: value for name, value in parameters.items() if name in known}
    told = {field.name: getattr(facts, field.name) for field in fields(facts)}
    values |= {name: told[fact] for name, fact in tool.from_call.items()}

    parts = urlsplit(tool.url)
    path = parts.path
    for name in tool.in_path:
        path = path.replace(f"{{{name}}}", _segment(name, values[name]))
    rest = {name: value for name, value in values.items() if name not in tool.in_path}
    query, body = parts.query, None
    if tool.in_query:
        pairs = "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in _pairs(rest))
        query = "&".join(filter(None, (query, pairs)))
    else:
        body = orjson.dumps(rest)
    url = URL(urlunsplit((parts.scheme, parts.netloc, path, query, "")), encoded=True)
    return ToolRequest(tool.method, url, body)


def _segment(name: str, value: object) -> str:
    text = _text(value)
    # Servers in front of the tool may undo the quoting before they look at the path.
    plain = unquote(text)
    if (
        not text
        or len(text) > _MAX_SEGMENT
        or _CONTROL.search(plain)
        or any(piece.strip(" ") in (".", "..") for piece in _SEPARATOR.split(plain))
    ):
        raise ValueError(f"'{name}' cannot be used in the tool's address")
    return quote(text, safe="")


def _pairs(values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, list):
            yield from ((name, _text(item)) for item in value)
        elif value is not None:
            yield name, _text(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
