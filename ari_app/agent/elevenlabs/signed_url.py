"""The address of a conversation's socket: the public one, or a signed one asked for by REST.

Source: https://elevenlabs.io/docs/eleven-agents/customization/authentication
"""

from __future__ import annotations

import re
import ssl

import aiohttp
from pydantic import SecretStr
from yarl import URL

from ari_app.agent.elevenlabs.errors import AgentUnavailable
from ari_app.agent.elevenlabs.rest import ask, json_or_none
from ari_app.errors import ConfigError
from ari_app.process.addresses import is_loopback

_SOCKET_PATH = "v1/convai/conversation"
_SIGNED_URL_PATH = "v1/convai/conversation/get-signed-url"
_CONVERSATION_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


def parse_base_url(text: str) -> URL:
    """Return the service's base address, checked.

    Raises:
        ConfigError: It is none.
    """
    try:
        url = URL(text)
    except ValueError:
        raise ConfigError("the agent's base URL cannot be read") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError("the agent's base URL must begin with https:// (or http:// in a lab)")
    if url.user is not None or url.password is not None:
        raise ConfigError("the agent's base URL must not hold a user or a password")
    return url.with_query(None).with_fragment(None)


def _is_loopback_url(url: URL) -> bool:
    """Return whether `url` stays on this machine."""
    return is_loopback(url.host or "")


def public_url(base_url: URL, agent_id: str, *, environment: str | None = None) -> SecretStr:
    """Return the socket's address of an agent that needs no key: https becomes wss, http becomes
    ws."""
    query = {"agent_id": agent_id}
    if environment is not None:
        query["environment"] = environment
    scheme = "wss" if base_url.scheme == "https" else "ws"
    return SecretStr(str((base_url / _SOCKET_PATH).with_scheme(scheme).with_query(query)))


async def fetch_signed_url(
    session: aiohttp.ClientSession,
    base_url: URL,
    api_key: SecretStr,
    agent_id: str,
    *,
    environment: str | None = None,
    branch_id: str | None = None,
    names_conversation: bool = False,
    tls: ssl.SSLContext | None = None,
) -> SecretStr:
    """Ask for a signed URL, good for 15 minutes; treat it as a password.

    With `names_conversation` it holds the conversation's id (`conversation_in`), and opens that
    one only. Has no deadline of its own.

    Raises:
        ConnectError: There is none.
    """
    query = {"agent_id": agent_id}
    if names_conversation:
        query["include_conversation_id"] = "true"
    if environment is not None:
        query["environment"] = environment
    if branch_id is not None:
        query["branch_id"] = branch_id
    url = (base_url / _SIGNED_URL_PATH).with_query(query)
    body = await ask(session, url, api_key, tls=tls)
    return _signed_url(body, secure=base_url.scheme == "https")


def conversation_in(url: SecretStr) -> str:
    """Return the id of the conversation that a signed URL opens; empty when it does not say."""
    try:
        named = URL(url.get_secret_value()).query.get("conversation_id", "")
    except ValueError:
        return ""
    return named if _CONVERSATION_ID.fullmatch(named) else ""


def _signed_url(body: bytes, *, secure: bool) -> SecretStr:
    match json_or_none(body):
        case {"signed_url": str(text)} if text.startswith(
            "wss://" if secure else ("ws://", "wss://")
        ):
            return SecretStr(text)
        case _:
            raise AgentUnavailable("the agent's service answered without a usable signed URL")
