"""Tells systemd how the service stands, where it wants to know (sd_notify(3))."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

READY: Final = "READY=1\nSTATUS=Calls are taken."
STOPPING: Final = "STOPPING=1\nSTATUS=No more calls are taken; running ones may finish."


def tell_systemd(state: str) -> None:
    """Send one of these states; has no effect where nobody wants to know. Never waits."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        # A name that is in no folder.
        address = f"\0{address[1:]}"
    # What systemd does not take now it learns from what becomes of the process.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(state.encode(), address)
