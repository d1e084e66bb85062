"""Chooses the transport of sound between Asterisk and us: AudioSocket, or chan_websocket.

AudioSocket works with every Asterisk from 18 on. chan_websocket costs less and plays on through a
stall of ours; it is fit for calls from 22.8, 20.18 and 23.2 on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriError
from ari_app.line.asterisk.ari.version import Assessment

Transport = Literal["audiosocket", "websocket"]

SETTING: Final = "MEDIA_TRANSPORT"
MODULE: Final = "chan_websocket.so"
NEEDED: Final = (MODULE, "res_websocket_client.so", "res_http_websocket.so")
FIRST_VERSION: Final = "22.8 (20.18, 23.2)"


@dataclass(frozen=True, slots=True)
class Choice:
    """The transport that is used.

    Attributes:
        transport: Which one.
        why: The reason, for the log.
        problem: Why no call can be held over it, as a sentence; empty when all is well.
    """

    transport: Transport
    why: str = ""
    problem: str = ""

    @classmethod
    def before(cls, wanted: str) -> Choice:
        """Choose before anything is known of Asterisk."""
        return cls("websocket" if wanted == "websocket" else "audiosocket")


def choose(wanted: str, version: Assessment, running: frozenset[str]) -> Choice:
    """Choose the transport. Pure.

    Args:
        wanted: The setting `MEDIA_TRANSPORT`.
        version: Asterisk's version.
        running: The modules that Asterisk has loaded.
    """
    if wanted == "audiosocket":
        return Choice("audiosocket", f"{SETTING} says so")
    obstacle = ""
    if not version.capabilities.websocket:
        obstacle = f"chan_websocket is fit for calls from Asterisk {FIRST_VERSION} on"
    elif missing := [name for name in NEEDED if name not in running]:
        obstacle = f"Asterisk has not loaded {' and '.join(missing)}"
    if wanted == "auto":
        return Choice("audiosocket" if obstacle else "websocket", obstacle or "Asterisk has it")
    problem = f"{SETTING} is websocket, but {obstacle}" if obstacle else ""
    return Choice("websocket", f"{SETTING} says so", problem)


async def choose_transport(ari: Client, wanted: str, version: Assessment) -> Choice:
    """Choose the transport; ask Asterisk for its modules where that matters."""
    running: frozenset[str] = frozenset()
    if wanted != "audiosocket" and version.capabilities.websocket:
        try:
            found = await ari.asterisk.list_modules()
        except AriError:
            # Where the setting asks for chan_websocket, take it for loaded.
            running = frozenset(NEEDED) if wanted == "websocket" else running
        else:
            running = frozenset(each.name for each in found if each.status == "Running")
    return choose(wanted, version, running)
