"""What an address says about who can be reached by it. Pure."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether ``host`` stays on this machine: nobody else can reach a listener on it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_unspecified(host: str) -> bool:
    """Whether ``host`` is a wildcard such as 0.0.0.0, which can be bound but not dialled."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
