"""Asks the service by REST: one request, its answer, or why there is none."""

from __future__ import annotations

import ssl
from typing import Final

import aiohttp
import orjson
from pydantic import SecretStr
from yarl import URL

from ari_app.agent.elevenlabs.errors import (
    AgentTimeout,
    AgentUnavailable,
    error_from_status,
    untrusted,
)
from ari_app.process.network import read_bounded, why_unreachable

_MAX_ANSWER_BYTES: Final = 64 * 1024


async def ask(
    session: aiohttp.ClientSession,
    url: URL,
    api_key: SecretStr,
    *,
    tls: ssl.SSLContext | None = None,
    max_bytes: int = _MAX_ANSWER_BYTES,
) -> bytes:
    """Return what the service answers. Has no deadline of its own.

    Raises:
        ConnectError: It is no answer.
    """
    try:
        async with session.get(
            url,
            headers={"xi-api-key": api_key.get_secret_value()},
            ssl=tls or True,
            # A redirect would take the key elsewhere.
            allow_redirects=False,
        ) as response:
            status = response.status
            retry_after = response.headers.get("Retry-After")
            body = await read_bounded(response, max_bytes)
    except TimeoutError:
        raise AgentTimeout("the agent's service did not answer the request") from None
    except aiohttp.ClientConnectorCertificateError as error:
        raise untrusted(error.certificate_error) from None
    except aiohttp.ClientError as error:
        raise AgentUnavailable(
            f"the agent's service cannot be reached: {why_unreachable(error)}"
        ) from None
    if body is None:
        raise AgentUnavailable("the agent's service sent too long an answer")
    if status != 200:
        raise error_from_status(status, _status_word(body, api_key), retry_after=retry_after)
    return body


def _status_word(body: bytes, api_key: SecretStr) -> str:
    """Say what the service calls its refusal; empty when it says nothing, or repeats the key."""
    match json_or_none(body):
        case {"detail": {"status": str(word)}} if api_key.get_secret_value() not in word:
            return word
        case _:
            return ""


def json_or_none(body: bytes) -> object:
    """Return what a body holds; None when it is no JSON."""
    try:
        return orjson.loads(body)
    except ValueError:
        return None
