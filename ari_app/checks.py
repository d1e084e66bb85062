"""Finds out what is wrong with a set-up, and says how to mend it.

``serve`` asks :func:`check_asterisk` and :func:`check_agent_key` before it takes calls; ``ari-app
check`` runs all of them.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from ari_app.ari import (
    AriError,
    AriNotFound,
    AriUnauthorized,
    AriUnavailable,
    AriUntrusted,
    Client,
    EventSocket,
    assess,
)
from ari_app.call.release import media_channel_id, quietly
from ari_app.descriptors import available, needed
from ari_app.elevenlabs import AgentClient
from ari_app.errors import AgentError, ConfigError
from ari_app.settings import Settings, split_host_port
from audiosocket import SLIN, AudioSocketServer, FrameClock, Kind, Line

_REQUIRED_MODULES = {
    "chan_audiosocket.so": "it opens the audio connection",
    "res_audiosocket.so": "chan_audiosocket needs it",
    "app_stasis.so": "the dialplan hands calls over with it",
    "res_ari_channels.so": "channels are controlled through it",
    "res_ari_bridges.so": "calls are joined through it",
    "res_ari_events.so": "events come through it",
}
_DIAL_BACK_SECONDS = 4.0
_OFFICIAL_HOST = "elevenlabs.io"


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        what: What was looked at.
        verdict: Whether it will work.
        detail: What was found; with anything but OK also what to do.
    """

    what: str
    verdict: Verdict
    detail: str


async def check_asterisk(ari: Client, settings: Settings) -> list[Finding]:
    """Whether Asterisk answers, knows us, and has what a call needs."""
    url = settings.ari_url
    try:
        info = await ari.asterisk.get_info()
    except AriUnauthorized:
        return [
            Finding(
                "Asterisk",
                Verdict.FAILED,
                f"Asterisk at {url} refuses the user {settings.ari_username!r}. Compare "
                f"ARI_USERNAME and "
                "ARI_PASSWORD with its ari.conf; `asterisk -rx 'ari show users'` lists the users.",
            )
        ]
    except AriNotFound:
        return [
            Finding(
                "Asterisk",
                Verdict.FAILED,
                f"What answers at {url} has no /ari. Check ARI_URL, and that Asterisk has "
                f"res_ari.so "
                "loaded and enabled=yes in ari.conf.",
            )
        ]
    except AriUntrusted as error:
        return [
            Finding(
                "Asterisk",
                Verdict.FAILED,
                f"Asterisk at {url}: {error.reason}. Set ARI_CA_FILE to the certificate of "
                "whoever issued it, and ARI_URL to a name that is in it.",
            )
        ]
    except AriError as error:
        why = "does not answer" if isinstance(error, AriUnavailable) else f"fails ({error})"
        return [
            Finding(
                "Asterisk",
                Verdict.FAILED,
                f"Asterisk at {url} {why}. Is it running, with enabled=yes and this address in its "
                "http.conf? `asterisk -rx 'http show status'` tells.",
            )
        ]
    return [_version(info.version), *await _modules(ari)]


def _version(text: str) -> Finding:
    what = "Asterisk"
    found = assess(text)
    if not found.capabilities.audiosocket:
        return Finding(what, Verdict.FAILED, f"{found.message} Install 22.10.1 or later.")
    if found.problem is not None:
        return Finding(what, Verdict.WARNING, found.message)
    notes = []
    if not found.capabilities.slin_wide:
        notes.append("8 kHz only on the line")
    if not found.capabilities.advisories_fixed:
        return Finding(
            what,
            Verdict.WARNING,
            f"Asterisk {text} has known holes in ARI (GHSA-vrfp-mg3q-3959, GHSA-wcvv-g26m-wx5c). "
            f"Update to "
            "20.20.1, 22.10.1 or 23.4.1.",
        )
    return Finding(what, Verdict.OK, "; ".join([f"Asterisk {text}", *notes]))


async def _modules(ari: Client) -> list[Finding]:
    findings = []
    for name, why in _REQUIRED_MODULES.items():
        try:
            module = await ari.asterisk.get_module(name)
        except AriNotFound:
            running = False
        except AriError as error:
            return [Finding("Modules", Verdict.WARNING, f"Could not be looked at: {error}.")]
        else:
            running = module.status == "Running"
        if not running:
            findings.append(
                Finding(
                    "Modules",
                    Verdict.FAILED,
                    f"Asterisk has not loaded {name} ({why}). Try `asterisk -rx 'module load "
                    f"{name}'`; if it "
                    "is not installed, Debian has it in asterisk-modules. Then add it to "
                    "modules.conf.",
                )
            )
    return findings or [Finding("Modules", Verdict.OK, "all that a call needs are running")]


def check_descriptors(settings: Settings) -> Finding:
    """Whether this process may open as many files and connections as the settings let it."""
    may, might = available(), needed(settings)
    if may < might:
        return Finding(
            "Descriptors",
            Verdict.WARNING,
            f"This process may have {may} files and connections open, and may need {might}. Raise "
            "its limit (LimitNOFILE= in a systemd unit, `ulimit -Hn` in a shell), or lower "
            "MAX_CONCURRENT_CALLS.",
        )
    return Finding("Descriptors", Verdict.OK, f"{may} may be open, at most {might} are needed")


async def check_agent_key(agents: AgentClient, settings: Settings) -> Finding:
    """Whether ElevenLabs accepts the key, asked with the default agent."""
    host = urlsplit(settings.elevenlabs_base_url).hostname or ""
    official = host == _OFFICIAL_HOST or host.endswith("." + _OFFICIAL_HOST)
    if settings.elevenlabs_api_key is None:
        if official:
            return Finding(
                "Agent",
                Verdict.FAILED,
                "ELEVENLABS_API_KEY is not set. Make a key in ElevenLabs' settings and put it "
                "into .env; "
                "or talk to the practice agent: `ari-app agent`, "
                "ELEVENLABS_BASE_URL=http://127.0.0.1:8765.",
            )
        return Finding("Agent", Verdict.OK, f"no key; {host} is asked for public agents only")
    if settings.elevenlabs_agent_id is None:
        return Finding(
            "Agent",
            Verdict.WARNING,
            "ELEVENLABS_AGENT_ID is not set, so the key could not be tried. Calls must name their "
            "agent: "
            "Stasis(...,agent_id=...).",
        )
    try:
        await agents.check(settings.elevenlabs_agent_id)
    except AgentError as error:
        return _agent_failure(error, settings, host)
    return Finding("Agent", Verdict.OK, f"{host} accepts the key and knows the agent")


def _agent_failure(error: AgentError, settings: Settings, host: str) -> Finding:
    match error.code:
        case "agent_unauthorized":
            detail = (
                f"{host} refuses ELEVENLABS_API_KEY. Compare it with the keys in ElevenLabs' "
                f"settings; it "
                "needs the permission for Agents."
            )
        case "agent_not_found":
            detail = (
                f"{host} knows no agent {settings.elevenlabs_agent_id!r}. Compare "
                f"ELEVENLABS_AGENT_ID with the "
                "agent's page."
            )
        case "agent_untrusted":
            detail = (
                f"{host}: {error}. If that is not a stranger between us, set ELEVENLABS_CA_FILE to "
                "the certificate of whoever issued it."
            )
        case _:
            # It may be over in a minute: no reason not to start.
            return Finding("Agent", Verdict.WARNING, f"{host} could not be asked: {error}.")
    return Finding("Agent", Verdict.FAILED, detail)


async def check_dial_back(ari: Client, settings: Settings) -> Finding:
    """Whether Asterisk reaches our AudioSocket port: it is made to dial it, and we wait for the
    UUID."""
    what = "Audio"
    host, port = split_host_port(settings.audiosocket_bind)
    clock = FrameClock()
    server = AudioSocketServer(clock)
    try:
        bound = await server.start(host, port)
    except OSError:
        return Finding(
            what,
            Verdict.WARNING,
            f"Port {settings.audiosocket_bind} is taken, so Asterisk was not asked to dial it. If "
            f"that is "
            "not `ari-app serve`, choose another AUDIOSOCKET_BIND.",
        )
    dialled = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    target = settings.audiosocket_advertise or f"{dialled}:{bound[1]}"
    called = _Called()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.close)
        clock.start()
        stack.callback(clock.stop)
        try:
            await _register(ari, stack)
        except TimeoutError:
            return Finding(
                what,
                Verdict.FAILED,
                f"Asterisk at {settings.ari_url} opens no event socket. Has it loaded "
                "res_http_websocket.so, and does a proxy before it pass WebSockets on?",
            )
        server.expect(called.uuid, called, SLIN, ttl=_DIAL_BACK_SECONDS)
        channel = media_channel_id(ari.app, called.uuid.hex)
        stack.push_async_callback(quietly, lambda: ari.channels.hangup(channel))
        try:
            async with asyncio.timeout(_DIAL_BACK_SECONDS):
                await ari.channels.external_media(
                    channel, target, format=SLIN.name, data=str(called.uuid)
                )
                await called.connected.wait()
        except AriUnauthorized:
            return Finding(
                what,
                Verdict.FAILED,
                f"Asterisk lets the user {settings.ari_username!r} read only. Set read_only=no in "
                "its ari.conf.",
            )
        except (AriError, TimeoutError):
            return Finding(
                what,
                Verdict.FAILED,
                f"Asterisk cannot reach {target}. Set AUDIOSOCKET_ADVERTISE to an address of this "
                f"machine "
                "that Asterisk's machine reaches, and let that port through the firewall.",
            )
    return Finding(what, Verdict.OK, f"Asterisk reaches {target}")


async def _register(ari: Client, stack: AsyncExitStack) -> None:
    """Be an application of Asterisk's, which is what it makes a channel for."""
    connected = asyncio.Event()
    socket = EventSocket(ari, lambda event: None, lambda state: connected.set())
    task = asyncio.create_task(socket.run())

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)
    async with asyncio.timeout(_DIAL_BACK_SECONDS):
        await connected.wait()


async def check_all(settings: Settings) -> AsyncIterator[Finding]:
    """All checks, each reported when it is done."""
    try:
        settings.require_serving()
    except ConfigError as error:
        yield Finding("Settings", Verdict.FAILED, str(error))
        return
    key = "with a key" if settings.api_key else "without a key: this machine only"
    yield Finding("Settings", Verdict.OK, f"complete; HTTP at {settings.api_bind}, {key}")
    yield check_descriptors(settings)
    async with AsyncExitStack() as stack:
        agents = await stack.enter_async_context(
            AgentClient(
                settings.elevenlabs_base_url,
                settings.elevenlabs_api_key,
                connect_timeout=settings.agent_connect_timeout_seconds,
                ca_file=settings.elevenlabs_ca_file,
            )
        )
        yield await check_agent_key(agents, settings)
        ari = await stack.enter_async_context(
            Client(
                settings.ari_url,
                settings.ari_username,
                settings.ari_password.get_secret_value(),
                f"{settings.ari_app}-check",
                ca_file=settings.ari_ca_file,
            )
        )
        findings = await check_asterisk(ari, settings)
        for finding in findings:
            yield finding
        if all(finding.verdict is not Verdict.FAILED for finding in findings):
            yield await check_dial_back(ari, settings)


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
