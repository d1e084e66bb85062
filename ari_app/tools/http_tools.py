"""The HTTP tools: requests that are made for the agent, whose results it hears about."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import aiohttp
import structlog

from ari_app.call.tools import ToolAnswer
from ari_app.json_text import NotJson, read_json
from ari_app.resolver import OwnThreadResolver
from ari_app.tools.http_config import HttpTool, load_http_tools, process_environment
from ari_app.tools.http_request import CallFacts, ToolRequest, build_request
from ari_app.tools.schema import ParameterSchema

log = structlog.get_logger(__name__)

_MAX_CONNECTIONS: Final = 100
# What a server says about a request that it refuses helps the agent; a page of HTML does not.
_MAX_REFUSAL_CHARACTERS: Final = 500


class _Failed(Exception):
    """The tool came to nothing. The text is a sentence for the agent."""


class HttpTools:
    """Carries out HTTP tools over one shared session, which opens with the first ``async with``.

    Nothing of one call reaches another: cookies are not kept. Redirects are not followed, so no
    server can send a request, with its headers, to a place that the file does not name.

    Args:
        tools: See :func:`ari_app.tools.http_config.load_http_tools`.
    """

    def __init__(self, tools: Sequence[HttpTool] = ()) -> None:
        self._tools = {tool.name: (tool, ParameterSchema(tool.parameters)) for tool in tools}
        self._session: aiohttp.ClientSession | None = None

    @classmethod
    def load(cls, path: Path | None, environment: Mapping[str, str] | None = None) -> Self:
        """The tools of a file; None: there are none.

        Args:
            environment: The variables that headers may name; those of the process and of ``.env``
                when it is not given.

        Raises:
            ConfigError: The file cannot be used.
        """
        if path is None:
            return cls()
        known = process_environment() if environment is None else environment
        return cls(load_http_tools(path, known))

    @property
    def names(self) -> tuple[str, ...]:
        """The tools' names, in the file's order."""
        return tuple(self._tools)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_MAX_CONNECTIONS, resolver=OwnThreadResolver()),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Each tool has its own deadline.
            timeout=aiohttp.ClientTimeout(total=None),
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. May be called twice."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def call(
        self, name: str, parameters: Mapping[str, object], facts: CallFacts
    ) -> ToolAnswer:
        """Run a tool. Never raises for what the agent or the server did: the answer says so.

        Takes as long as the tool's timeout allows: run it as a task of its own.

        Raises:
            KeyError: There is no such tool.
            RuntimeError: Used outside ``async with``.
        """
        tool, schema = self._tools[name]
        if self._session is None:
            raise RuntimeError("HttpTools must be opened with `async with`")
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            text = await self._run(self._session, tool, schema, parameters, facts)
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
    ) -> str:
        if (problem := schema.problem(parameters)) is not None:
            raise _Failed(f"{tool.name} was not called: {problem.rstrip('.')}.")
        try:
            request = build_request(tool, parameters, facts)
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
    headers = {"Accept": "application/json, text/*;q=0.9", **tool.headers}
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
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > tool.max_result_bytes:
                raise _Failed(f"{tool.name} answered with more than {tool.max_result_bytes} bytes.")
        text = _text(response, bytes(body))
    if text is not None:
        text = tool.without_secrets(text)
    if 200 <= status < 300:
        if text is None:
            raise _Failed(f"{tool.name} answered with something that is not text.")
        return text
    log.warning("http_tool_refused", tool=tool.name, status=status)
    if 400 <= status < 500 and text:
        raise _Failed(f"{tool.name} answered {status}: {text[:_MAX_REFUSAL_CHARACTERS]}")
    raise _Failed(f"{tool.name} failed with the HTTP status {status}.")


def _text(response: aiohttp.ClientResponse, body: bytes) -> str | None:
    """The answer as text; None when it is none, such as a picture."""
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
    except LookupError:
        text = body.decode("utf-8", errors="replace")
    return text.removeprefix("\ufeff").strip()


def _is_json(body: bytes) -> bool:
    try:
        read_json(body)
    except NotJson:
        return False
    return True
