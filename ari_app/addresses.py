"""What an address says about who can be reached by it, and an error about who cannot. Pure."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket


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


def why_unreachable(error: BaseException) -> str:
    """Why nobody could be connected to, in a few words: an unknown name, a refusal, no way there.

    Args:
        error: What connecting failed with; aiohttp wraps the system's in `os_error`.
    """
    error = getattr(error, "os_error", error)
    if isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, socket.gaierror):
        return "this name is not known here"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError):
        # Several addresses of one host were tried, and asyncio has put their errors into words.
        if error.errno is None:
            refused = os.strerror(errno.ECONNREFUSED)
            return refused.lower() if "refused" in str(error).lower() else str(error)
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__
