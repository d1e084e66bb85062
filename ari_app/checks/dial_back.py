"""The way back: Asterisk is made to dial our AudioSocket port, and we wait for the UUID."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from typing import Final

from ari_app.ari import AriError, AriTimeout, AriUnauthorized, Client
from ari_app.call.release import media_channel_id, quietly
from ari_app.checks.finding import Finding, failed, ok, warning
from ari_app.checks.listening import is_serving, listening
from ari_app.settings import Settings, split_host_port
from audiosocket import SLIN, AudioSocketServer, FrameClock, Kind, Line

_WHAT: Final = "Audio"
DIAL_BACK_SECONDS = 4.0


async def check_dial_back(ari: Client, settings: Settings) -> Finding:
    """Whether Asterisk reaches our AudioSocket port.

    While ``serve`` has the port, Asterisk is made to dial that; it closes the connection, whose
    UUID it does not know, and no call notices.
    """
    async with AsyncExitStack() as stack:
        host, port = split_host_port(settings.audiosocket_bind)
        clock = FrameClock()
        server = AudioSocketServer(clock)
        called: _Called | None = _Called()
        try:
            bound = await server.start(host, port)
        except OSError:
            if not await is_serving(settings):
                return warning(
                    _WHAT,
                    f"Port {settings.audiosocket_bind} is taken, so Asterisk was not asked to dial "
                    "it. If that is not `ari-app serve`, choose another AUDIOSOCKET_BIND.",
                )
            called, bound = None, (host, port)
        else:
            stack.push_async_callback(server.close)
            clock.start()
            stack.callback(clock.stop)
        dialled = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        target = settings.audiosocket_advertise or f"{dialled}:{bound[1]}"
        try:
            await stack.enter_async_context(listening(ari))
        except AriTimeout:
            return failed(
                _WHAT,
                f"Asterisk at {settings.ari_url} opens no event socket. Has it loaded "
                "res_http_websocket.so, and does a proxy before it pass WebSockets on?",
            )
        try:
            await _dialled(ari, server, target, called, stack)
        except AriUnauthorized:
            return failed(
                _WHAT,
                f"Asterisk lets the user {settings.ari_username!r} read only. Set read_only=no in "
                "its ari.conf.",
            )
        except (AriError, TimeoutError):
            return failed(
                _WHAT,
                f"Asterisk cannot reach {target}. Set AUDIOSOCKET_ADVERTISE to an address of this "
                "machine that Asterisk's machine reaches, and let that port through the firewall.",
            )
    where = "" if called is not None else ", where `ari-app serve` listens"
    return ok(_WHAT, f"Asterisk reaches {target}{where}")


async def _dialled(
    ari: Client,
    server: AudioSocketServer,
    target: str,
    called: _Called | None,
    stack: AsyncExitStack,
) -> None:
    """Return when Asterisk has dialled `target`, and we have taken it if we are to."""
    name = uuid.uuid4() if called is None else called.uuid
    if called is not None:
        server.expect(name, called, SLIN, ttl=DIAL_BACK_SECONDS)
    channel = media_channel_id(ari.app, name.hex)
    stack.push_async_callback(quietly, lambda: ari.channels.hangup(channel))
    async with asyncio.timeout(DIAL_BACK_SECONDS):
        # Asterisk connects within this request.
        await ari.channels.external_media(channel, target, format=SLIN.name, data=str(name))
        if called is not None:
            await called.connected.wait()


class _Called:
    """Waits for Asterisk to dial us, and hangs up when it does."""

    def __init__(self) -> None:
        self.uuid = uuid.uuid4()
        self.connected = asyncio.Event()

    def line_connected(self, line: Line) -> None:
        self.connected.set()
        line.hang_up()

    def audio_received(self, payload: bytes, kind: Kind) -> None:
        """Nobody listens."""

    def digit_received(self, digit: str) -> None:
        """Nobody listens."""

    def tick(self, frames_due: int) -> None:
        """Nothing to do."""

    def line_lost(self, reason: str) -> None:
        """As it should be."""
