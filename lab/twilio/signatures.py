"""How Twilio signs what it sends (twilio.com/docs/usage/security). Pure."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit, urlunsplit

HEADER = "X-Twilio-Signature"
Fields = Iterable[tuple[str, str]]


def sign(url: str, fields: Fields, token: str) -> str:
    """Return the signature of a request.

    Args:
        url: The public address as it is configured or written in TwiML, query included.
        fields: What a POST carries as a form, empty values too; nothing of a GET or an upgrade.
        token: The primary auth token of the account.
    """
    text = signed_url(url) + "".join(name + value for name, value in sorted(fields))
    digest = hmac.digest(token.encode(), text.encode(), "sha1")
    return base64.b64encode(digest).decode()


def signed_url(url: str) -> str:
    """Return the address as it is signed: no user, no fragment, no port of https or wss."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme in ("https", "wss"):
        host = host.partition(":")[0]
    return urlunsplit((parts.scheme, host, parts.path, parts.query, ""))


def fragment_of(url: str) -> Mapping[str, str]:
    """Return the connection overrides behind an address: `#ct=2000&rc=2&rp=all`."""
    pairs = (item.partition("=") for item in urlsplit(url).fragment.split("&"))
    return {name: value for name, _, value in pairs if name}
