"""What Asterisk can only show on a channel: the way back to us, clock, dialplan, and what its files
say.

The check is an application of Asterisk's for as long as it takes. It makes one channel to our
AudioSocket port, and one Local channel that is never dialled; both are removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from ari_app.checks.asterisk import unauthorized
from ari_app.checks.conf_rules import (
    CONFIGURATION,
    DIALPLAN,
    Demand,
    Needs,
    Said,
    demands,
    judge,
    needed_contexts,
)
from ari_app.checks.finding import CALLS_IN, EVERYTHING, NOTHING, Finding, failed, note, ok, warning
from ari_app.checks.host import is_serving, not_to_be_had
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import (
    AriError,
    AriNotFound,
    AriServerError,
    AriTimeout,
    AriUnauthorized,
)
from ari_app.line.asterisk.ari.events import AriEvent
from ari_app.line.asterisk.ari.socket import EventSocket, SocketState
from ari_app.line.asterisk.channels import quietly
from ari_app.line.asterisk.names import media_channel_id
from ari_app.process.addresses import join_host, split_host_port
from ari_app.settings import Settings
from audiosocket.connection import AudioSocketConnection
from audiosocket.frames import SLIN, Kind
from audiosocket.server import AudioSocketServer
from linekit.clock import FrameClock
from linekit.listener import Networks

AUDIO: Final = "Audio"
_CLOCK: Final = "Clock"

CONNECT_SECONDS = 4.0
DIAL_BACK_SECONDS = 4.0
EVENT_SECONDS = 0.5
"""How long an event may take that tells Asterisk's time: a channel that was made tells of itself
when Asterisk comes to it, mostly within milliseconds."""
_CLOCK_SECONDS: Final = 1.0


@dataclass(slots=True)
class Listener:
    """A listener on the event socket.

    Attributes:
        clock_ahead_seconds: How far Asterisk's clock is ahead of ours, from the first event that
            had a time; None before.
        timed: Set once there was one.
    """

    clock_ahead_seconds: float | None = None
    timed: asyncio.Event = field(default_factory=asyncio.Event)

    def heard(self, event: AriEvent) -> None:
        """Take note of an event."""
        if self.clock_ahead_seconds is None and event.timestamp is not None:
            ahead = event.timestamp - datetime.now(UTC)
            self.clock_ahead_seconds = ahead.total_seconds()
            self.timed.set()


@asynccontextmanager
async def listening(ari: Client) -> AsyncIterator[Listener]:
    """Register the client's application, which Asterisk makes channels for.

    Raises:
        AriTimeout: No event socket could be opened.
        AriUnauthorized: Asterisk refuses our user, or lets it only read.
    """
    listener = Listener()
    connected = asyncio.Event()

    def changed(state: SocketState) -> None:
        if state is SocketState.CONNECTED:
            connected.set()

    socket = EventSocket(ari, listener.heard, changed)
    task = asyncio.create_task(socket.run())
    task.add_done_callback(lambda _: connected.set())
    try:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connected.wait()
        except TimeoutError:
            raise AriTimeout("no event socket could be opened") from None
        if task.done():
            task.result()
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def check_dial_back(ari: Client, settings: Settings) -> Finding:
    """Check whether Asterisk reaches our AudioSocket port, and may.

    While `serve` has the port, Asterisk is made to dial that; it closes the connection, whose
    UUID it does not know, and no call notices.
    """
    async with AsyncExitStack() as stack:
        host, port = split_host_port(settings.audiosocket_bind)
        server: AudioSocketServer | None = None
        bound = (host, port)
        try:
            server, bound = await stack.enter_async_context(_open_server(host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not await is_serving(settings):
                return not_to_be_had(AUDIO, "AUDIOSOCKET_BIND", settings.audiosocket_bind, error)
        target = settings.audiosocket_advertise or join_host(*bound)
        try:
            await stack.enter_async_context(listening(ari))
        except AriUnauthorized as error:
            return failed(AUDIO, unauthorized(settings, error))
        except AriTimeout:
            return failed(
                AUDIO,
                f"Asterisk at {settings.ari_url} opens no event socket. Has it loaded "
                "res_http_websocket.so, and does a proxy before it pass WebSockets on?",
            )
        try:
            dials_from = await _dialled(ari, target, server)
        except AriUnauthorized as error:
            return failed(AUDIO, unauthorized(settings, error))
        except (AriError, TimeoutError):
            return failed(
                AUDIO,
                f"Asterisk cannot reach {target}{_other_port(target, bound[1])}. Set "
                "AUDIOSOCKET_ADVERTISE to an address of this machine that Asterisk's machine "
                "reaches, and let that port through the firewall.",
            )
        if server is None and settings.audiosocket_allow:
            dials_from = await _dialled_elsewhere(ari, split_host_port(target)[0], host)
    where = "" if server is not None else ", where `ari-app serve` listens"
    if settings.audiosocket_allow:
        if not dials_from:
            return warning(
                AUDIO,
                f"Asterisk reaches {target}{where}, but whether AUDIOSOCKET_ALLOW has the address "
                "from which it dials could not be told. Stop `ari-app serve` and try again.",
                uses=EVERYTHING,
            )
        if dials_from not in Networks(settings.audiosocket_allow):
            return failed(
                AUDIO,
                f"AUDIOSOCKET_ALLOW does not have {dials_from}, from which Asterisk dials. Add it, "
                "or no call has sound.",
                about="AUDIOSOCKET_ALLOW",
            )
    return ok(AUDIO, f"Asterisk reaches {target}{where}")


def _other_port(target: str, bound: int) -> str:
    """Say that nobody listens at the port that Asterisk dials, unless something passes it on."""
    port = split_host_port(target)[1]
    return "" if port == bound else f": its port is {port}, and AUDIOSOCKET_BIND listens at {bound}"


@asynccontextmanager
async def _open_server(
    host: str, port: int
) -> AsyncIterator[tuple[AudioSocketServer, tuple[str, int]]]:
    """Listen; with the address. It lets everybody in: who may come is judged by whoever asks.

    Raises:
        OSError: The address cannot be had.
    """
    clock = FrameClock()
    server = AudioSocketServer(clock)
    bound = await server.start(host, port)
    clock.start()
    try:
        yield server, bound
    finally:
        clock.stop()
        await server.close()


async def _dialled(ari: Client, target: str, server: AudioSocketServer | None) -> str:
    """Return when Asterisk has dialled `target`, and our server, if it is ours, has taken it.

    Returns:
        The address from which Asterisk has dialled; empty without a server of ours.
    """
    called = _Called()
    if server is not None:
        server.expect(called.uuid, called, SLIN, ttl=DIAL_BACK_SECONDS)
    channel = media_channel_id(ari.app, called.uuid.hex)
    try:
        async with asyncio.timeout(DIAL_BACK_SECONDS):
            # Asterisk connects within this request.
            await ari.channels.external_media(
                channel, target, format=SLIN.name, data=str(called.uuid)
            )
            if server is not None:
                await called.connected.wait()
    finally:
        await quietly(lambda: ari.channels.hangup(channel))
    return called.peer.rpartition(":")[0].strip("[]")


async def _dialled_elsewhere(ari: Client, target: str, host: str) -> str:
    """Have Asterisk dial a port that nobody has, for `serve` does not tell whom it lets in.

    Args:
        ari: Asterisk.
        target: The host that Asterisk dials.
        host: Where `serve` listens.

    Returns:
        The address from which Asterisk has dialled; empty where it does not get there, as with a
        firewall that lets only the usual port through.
    """
    try:
        async with _open_server(host, 0) as (server, (_, port)):
            return await _dialled(ari, join_host(target, port), server)
    except (AriError, OSError):
        return ""


class _Called:
    """Waits for Asterisk to dial us, and hangs up when it does."""

    def __init__(self) -> None:
        self.uuid = uuid.uuid4()
        self.connected = asyncio.Event()
        self.peer = ""

    def line_connected(self, line: AudioSocketConnection) -> None:
        self.peer = line.peer
        self.connected.set()
        line.hang_up()

    def audio_received(self, payload: bytes, kind: Kind) -> None:
        """Ignore it: nobody listens."""

    def digit_received(self, digit: str) -> None:
        """Ignore it: nobody listens."""

    def tick(self, frames_due: int) -> None:
        """Do nothing."""

    def line_lost(self, reason: str) -> None:
        """Do nothing: it ends as it should."""


async def check_questions(
    ari: Client, settings: Settings, *, configuration: bool = True
) -> list[Finding]:
    """Ask a channel.

    Args:
        ari: Asterisk.
        settings: What is asked for.
        configuration: Whether its files are out of reach, so that it is asked for single settings
            of them.
    """
    try:
        modules = {each.name for each in await ari.asterisk.list_modules()}
        async with listening(ari) as listener, _channel(ari) as channel:
            findings = [] if not configuration else [_unseen(settings)]
            # A function that is not there would put an error into Asterisk's log.
            if "func_dialplan.so" in modules:
                findings += await _contexts(ari, channel, settings)
            if configuration and "func_config.so" in modules:
                findings += await _configuration(ari, channel, settings)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(listener.timed.wait(), EVENT_SECONDS)
    except AriError as error:
        unseen = CALLS_IN if configuration else NOTHING
        problem = f"Neither it nor Asterisk's clock could be looked at: {error}. Try again."
        return [warning(DIALPLAN, problem, uses=unseen)]
    return [judge_clock(listener.clock_ahead_seconds), *findings]


def not_asked(*, configuration: bool = True) -> list[Finding]:
    """Say what `check_questions` would have looked at."""
    why = f"not looked at, because {AUDIO} has failed"
    findings = [note(_CLOCK, why), note(DIALPLAN, f"its contexts were {why}")]
    return findings + ([note(CONFIGURATION, why)] if configuration else [])


@asynccontextmanager
async def _channel(ari: Client) -> AsyncIterator[str]:
    name = f"{ari.app}-ask-{uuid.uuid4().hex}"
    await ari.channels.create(name, "Local/s@default", other_channel_id=f"{name}-2")
    try:
        yield name
    finally:
        await quietly(lambda: ari.channels.hangup(name))


async def _read(ari: Client, channel: str, function: str) -> str | None:
    """Return the value of a function; None where it has none."""
    try:
        return await ari.channels.get_channel_var(channel, function)
    except (AriNotFound, AriServerError):
        return None


def judge_clock(ahead_seconds: float | None) -> Finding:
    """Judge whether the logs of both sides can be laid side by side; None: it is not known."""
    if ahead_seconds is None:
        return warning(_CLOCK, "Asterisk's could not be read: no event came. Try again.")
    if abs(ahead_seconds) <= _CLOCK_SECONDS:
        return ok(_CLOCK, "Asterisk's and this machine's agree")
    word = "ahead of" if ahead_seconds > 0 else "behind"
    return warning(
        _CLOCK,
        f"Asterisk's is {abs(ahead_seconds):.1f} s {word} this machine's, so logs and call records "
        "do not fit each other. Run chrony or another NTP client on both.",
    )


def _unseen(settings: Settings) -> Finding:
    return warning(
        DIALPLAN,
        f"Whether it hands calls to Stasis({settings.ari_app}) is not to be seen over ARI. On "
        "Asterisk's machine, as a user who may read its files, `ari-app check --conf "
        "/etc/asterisk` looks.",
        uses=CALLS_IN,
    )


async def _contexts(ari: Client, channel: str, settings: Settings) -> list[Finding]:
    findings, found = [], []
    for needed in needed_contexts(settings):
        if await _read(ari, channel, f"DIALPLAN_EXISTS({needed.context},s,1)") == "1":
            found.append(needed.context)
        else:
            findings.append(needed.missing("The dialplan has"))
    there = [ok(DIALPLAN, f"has {' and '.join(found)}")] if found else []
    return there + findings


async def _configuration(ari: Client, channel: str, settings: Settings) -> list[Finding]:
    """Ask for single settings by AST_CONFIG(); never for a password."""

    async def said(demand: Demand) -> Said | None:
        place = f"{demand.file},{demand.section},{demand.key}"
        value = await _read(ari, channel, f"AST_CONFIG({place})")
        return None if value is None else Said(value, demand.file)

    findings = [
        finding
        for demand in demands(settings.ari_username, Needs.of(settings).media_sessions)
        if (finding := judge(demand, await said(demand))) is not None
    ]
    return findings or [ok(CONFIGURATION, "Asterisk's files say what they should, so far as asked")]
