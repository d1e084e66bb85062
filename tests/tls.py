"""TLS between the two ends of a test."""

from __future__ import annotations

import ssl
from typing import Any

import trustme


def server_tls(authority: trustme.CA, name: str, **issued: Any) -> ssl.SSLContext:
    """What a server goes by that has a certificate for this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **issued).configure_cert(context)
    return context


def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    """What a client goes by that trusts the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
