"""Hosts, addresses and URLs, as people write them. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Final
from urllib.parse import SplitResult, urlsplit

OWN_HEADERS: Final = frozenset(
    {"connection", "content-length", "content-type", "host", "te", "transfer-encoding", "upgrade"}
)
"""Headers that belong to the connection, in lower case: they would change what a request is."""


def is_loopback(host: str) -> bool:
    """Return whether `host` stays on this machine: nobody else can reach a listener on it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_unspecified(host: str) -> bool:
    """Return whether `host` is a wildcard such as 0.0.0.0, which can be bound but not dialled."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def can_be_host(name: str | None) -> bool:
    """Return whether somebody could be found by a name: whoever looks up one that IDNA cannot
    write, or read again, fails with what is no error of the network."""
    try:
        return name is not None and "\\" not in name and bool(name.encode("idna").decode("idna"))
    except UnicodeError:
        return False


def usable_url(text: str, schemes: Collection[str] = ("http", "https")) -> SplitResult | None:
    """Return the parts of a URL; None: it is none of these schemes, or with a host or a port that
    cannot be."""
    try:
        parts = urlsplit(text)
        usable = parts.scheme in schemes and can_be_host(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts if usable else None


def split_host(text: str) -> tuple[str, int | None]:
    """Split `host`, `host:port`, `[v6]` or `[v6]:port`; without a port it is None.

    >>> split_host("[::1]:9000")
    ('::1', 9000)

    Raises:
        ValueError: It is none of them.
    """
    parts = urlsplit(f"//{text}")
    host, port = parts.hostname, parts.port
    if not host or parts.netloc != text or "@" in text or port == 0:
        raise ValueError("must be host or host:port, such as media.example or 10.0.0.7:9000")
    return host, port


def split_host_port(value: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`.

    Raises:
        ValueError: No port, no host that can be, or a port outside 0 to 65535.
    """
    host, colon, port = value.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    known = port.isascii() and port.isdigit() and int(port) <= 65535
    if not colon or not can_be_host(host) or not known:
        raise ValueError("must be host:port")
    return host, int(port)


def join_host(host: str, port: int) -> str:
    """Write `host:port` as `split_host` reads it.

    >>> join_host("::1", 9000)
    '[::1]:9000'
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def page_url(host: str, port: int) -> str:
    """Find where a browser on this machine finds what listens on `host`.

    >>> page_url("0.0.0.0", 8080)
    'http://127.0.0.1:8080/'
    """
    if is_unspecified(host):
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://{join_host(host, port)}/"


def origin(url: str) -> str:
    """Return where a URL leads, without what may be secret in it: `https://example.com`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
