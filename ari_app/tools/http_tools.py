"""The HTTP tools: requests that are made for the agent, whose results it hears about."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import aiohttp
import orjson
import structlog
from yarl import URL

from ari_app.json_text import NotJson, read_json
from ari_app.process.network import read_bounded, session_for_others
from ari_app.records.record import CallFacts
from ari_app.tools.http_config import HttpTool, load_http_tools, process_environment
from ari_app.tools.tool import ParameterSchema, ToolAnswer

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SEPARATOR: Final = re.compile(r"[/\\]")
_MAX_SEGMENT: Final = 200


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """A request that is ready to be sent.

    Attributes:
        url: Encoded already.
        body: JSON; None for methods that carry the parameters in the query.
        headers: Of this call's, besides the tool's.
    """

    method: str
    url: URL
    body: bytes | None
    headers: Mapping[str, str] = field(default_factory=dict)


def build_request(
    tool: HttpTool, parameters: Mapping[str, object], facts: CallFacts
) -> ToolRequest:
    """Put the parameters, which fit the tool's schema, into its request.

    Parameters that the schema does not name are left out.

    Raises:
        ValueError: A value cannot stand in a path; a clause such as `'id' cannot be used`.
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
    text = _as_text(value)
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
            yield from ((name, _as_text(item)) for item in value)
        elif value is not None:
            yield name, _as_text(value)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


log = structlog.get_logger(__name__)

_MAX_CONNECTIONS: Final = 100
# What a server says about a request that it refuses helps the agent; a page of HTML does not.
_MAX_REFUSAL_CHARACTERS: Final = 500


class _Failed(Exception):
    """The tool came to nothing. The text is a sentence for the agent."""


class HttpTools:
    """Carries out HTTP tools over one shared session, which opens with the first `async with`.

    Nothing of one call reaches another: cookies are not kept. Redirects are not followed, so no
    server can send a request, with its headers, to a place that the file does not name.

    Args:
        tools: See `ari_app.tools.http_config.load_http_tools`.
    """

    def __init__(self, tools: Sequence[HttpTool] = ()) -> None:
        self._tools = {
            tool.name: (tool, ParameterSchema(tool.parameters, checked=True)) for tool in tools
        }
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def load(cls, path: Path | None, env_file: str | None = ".env") -> Self:
        """Load the tools of a file; None: there are none.

        Args:
            path: The file.
            env_file: What has the variables that headers may name, beside the environment.

        Raises:
            ConfigError: The file cannot be used.
        """
        if path is None:
            return cls()
        return cls(load_http_tools(path, process_environment(env_file), env_file))

    @property
    def names(self) -> tuple[str, ...]:
        """The tools' names, in the file's order."""
        return tuple(self._tools)

    async def __aenter__(self) -> Self:
        if self._tools:
            self._session = session_for_others(max_connections=_MAX_CONNECTIONS)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def call(
        self,
        name: str,
        parameters: Mapping[str, object],
        facts: CallFacts,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> ToolAnswer:
        """Run a tool. Never raises for what the agent or the server did: the answer says so.

        `headers` are sent besides the tool's own, which win.

        Takes as long as the tool's timeout allows: run it as a task of its own.

        Raises:
            KeyError: There is no such tool.
            RuntimeError: Used outside `async with`.
        """
        tool, schema = self._tools[name]
        if self._session is None:
            raise RuntimeError("HttpTools must be opened with `async with`")
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            text = await self._run(self._session, tool, schema, parameters, facts, headers)
        except _Failed as failure:
            answer = ToolAnswer(str(failure), is_error=True)
        else:
            answer = ToolAnswer(text or f"{name} was successful.")
        log.info(
            "http_tool_called",
            tool=name,
            session=facts.session_id,
            failed=answer.is_error,
            seconds=round(loop.time() - began, 3),
        )
        return answer

    async def _run(
        self,
        session: aiohttp.ClientSession,
        tool: HttpTool,
        schema: ParameterSchema,
        parameters: Mapping[str, object],
        facts: CallFacts,
        more: Mapping[str, str],
    ) -> str:
        if (problem := schema.problem(parameters)) is not None:
            raise _Failed(f"{tool.name} was not called: {problem.rstrip('.')}.")
        try:
            request = replace(build_request(tool, parameters, facts), headers=more)
        except ValueError as error:
            raise _Failed(f"{tool.name} was not called: {error}.") from None
        try:
            async with asyncio.timeout(tool.timeout_seconds):
                return await _send(session, tool, request)
        except TimeoutError:
            raise _Failed(
                f"{tool.name} did not answer within {tool.timeout_seconds:g} seconds."
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            log.warning("http_tool_unreachable", tool=tool.name, error=type(error).__name__)
            raise _Failed(f"{tool.name} could not be reached.") from None


async def _send(session: aiohttp.ClientSession, tool: HttpTool, request: ToolRequest) -> str:
    headers = {"Accept": "application/json, text/*;q=0.9", **request.headers, **tool.headers}
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    async with session.request(
        request.method,
        request.url,
        data=request.body,
        headers=headers,
        allow_redirects=False,
    ) as response:
        status = response.status
        body = await read_bounded(response, tool.max_result_bytes)
        if body is None:
            raise _Failed(f"{tool.name} answered with more than {tool.max_result_bytes} bytes.")
        text = _text(response, body)
    if text is not None:
        text = await tool.without_secrets(text)
    if 200 <= status < 300:
        if text is None:
            raise _Failed(f"{tool.name} answered with something that is not text.")
        return text
    log.warning("http_tool_refused", tool=tool.name, status=status)
    if 400 <= status < 500 and text:
        raise _Failed(f"{tool.name} answered {status}: {text[:_MAX_REFUSAL_CHARACTERS]}")
    raise _Failed(f"{tool.name} failed with the HTTP status {status}.")


def _text(response: aiohttp.ClientResponse, body: bytes) -> str | None:
    """Return the answer as text; None when it is none, such as a picture."""
    kind = response.content_type
    if not body:
        return ""
    if not (kind.startswith("text/") or kind == "application/json" or kind.endswith("+json")):
        # Many a service says nothing of the type, or something that says nothing.
        return body.decode("utf-8-sig").strip() if _is_json(body) else None
    if kind == "text/html" and response.status >= 400:
        return None
    try:
        text = body.decode(response.charset or "utf-8", errors="replace")
    except (LookupError, UnicodeError):
        # There is no such charset, or Python knows something else by its name, as by `undefined`.
        text = body.decode("utf-8", errors="replace")
    # Some charsets can spell halves of characters, which cannot be sent on.
    return text.removeprefix("\ufeff").encode(errors="replace").decode().strip()


def _is_json(body: bytes) -> bool:
    try:
        read_json(body)
    except NotJson:
        return False
    return True
