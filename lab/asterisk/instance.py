"""An Asterisk that runs: its addresses, its console, its channels."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp

from lab.asterisk.config import write_config
from lab.asterisk.errors import LabError
from lab.asterisk.folder import RunFolder
from lab.asterisk.installation import Installation
from lab.asterisk.music import write_music
from lab.asterisk.ports import LOOPBACK, PortWindow, claim_ports
from lab.asterisk.process import end, spawn
from lab.asterisk.progress import Progress, silent
from lab.asterisk.setup import ensure_asterisk

T = TypeVar("T")

_POLL_SECONDS = 0.02
_LONGEST_SOCKET_PATH = 107
_REQUEST_SECONDS = 10


class LabAsterisk:
    """A real Asterisk on loopback, with ports, folders and a password of its own.

    `async with LabAsterisk() as asterisk:` finds or fetches one, starts it and waits until it takes
    calls; at the end nothing of it is left. Several may run at once. Should this process die,
    the kernel ends Asterisk too.

    `app` is the Stasis application that the dialplan calls. `dialplan` and `pjsip` are added to
    extensions.conf and pjsip.conf. `trunk_contact` is the SIP URI that stands for the carrier of
    `PJSIP/NUMBER@trunk`; without it, whoever registers as `trunk`. `files` are configuration files,
    by name, to be used instead of the lab's; their places between at-signs are filled in as well.
    With `within`, a command that others follow, it runs in another network namespace, where `host`
    is its address.
    """

    def __init__(
        self,
        *,
        installation: Installation | None = None,
        app: str = "voice-agent",
        dialplan: str = "",
        pjsip: str = "",
        trunk_contact: str | None = None,
        websocket_write_timeout_ms: int = 1000,
        files: Mapping[str, str] | None = None,
        host: str = LOOPBACK,
        within: Sequence[str] = (),
        boot_timeout: float = 30.0,
        progress: Progress = silent,
    ) -> None:
        self.app = app
        self.ari_username = "lab"
        self.ari_password = secrets.token_urlsafe(18)
        self._installation = installation
        self._dialplan = dialplan
        self._pjsip = pjsip
        self._trunk_contact = trunk_contact
        self._websocket_write_timeout_ms = websocket_write_timeout_ms
        self._files = dict(files or {})
        self._host = host
        self._within = tuple(within)
        self._boot_timeout = boot_timeout
        self._progress = progress
        self._ports: PortWindow | None = None
        self._folder: RunFolder | None = None
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    @property
    def installation(self) -> Installation:
        """Which Asterisk it is; known once it has started."""
        return _started(self._installation)

    @property
    def version(self) -> str:
        """As Asterisk says it: `22.10.1+dfsg+~cs6.17.60671434-1`."""
        return self.installation.version

    @property
    def pid(self) -> int:
        """Asterisk's own process."""
        return _started(self._process).pid

    @property
    def run_dir(self) -> Path:
        """Holds its configuration, log, database and control socket; removed at the end."""
        return _started(self._folder).path

    @property
    def log_path(self) -> Path:
        """Notices, warnings, errors, digits and every step of the dialplan."""
        return self.run_dir / "log/full"

    @property
    def ari_url(self) -> str:
        """For `ARI_URL`: scheme, host and port."""
        return f"http://{self._host}:{_started(self._ports).http_port}"

    @property
    def settings(self) -> dict[str, str]:
        """What a service must be told to reach it, for its environment."""
        return {
            "ARI_URL": self.ari_url,
            "ARI_USERNAME": self.ari_username,
            "ARI_PASSWORD": self.ari_password,
        }

    @property
    def sip_host(self) -> str:
        """The address of its SIP transport."""
        return self._host

    @property
    def sip_port(self) -> int:
        """The UDP port of its SIP transport."""
        return _started(self._ports).sip_port

    async def start(self) -> None:
        """Start it and wait until it takes calls. Raises LabError with what Asterisk complained of.

        After an error `stop` removes what there is already; `async with` does so by itself.
        """
        if self._process is not None:
            raise LabError("This Asterisk runs already.")
        if self._installation is None:
            self._installation = await asyncio.to_thread(ensure_asterisk, self._progress)
        self._progress(f"Starting Asterisk {self.version.partition('+')[0]}")
        self._ports = claim_ports()
        self._folder = RunFolder()
        if len(os.fsencode(self._control)) > _LONGEST_SOCKET_PATH:
            raise LabError(f"The path of {self.run_dir} is too long: set TMPDIR to a shorter one.")
        self._write_files()
        await self._run()
        self._progress("Asterisk is ready")

    async def _run(self) -> None:
        self._process = spawn(
            [*self._within, *self._command("-f")], self.installation.env(), self.run_dir / "console"
        )
        await self._booted()

    async def stop(self) -> None:
        """End it and remove its folder. May be called again, and after a start that failed."""
        try:
            if self._process is not None:
                await end(self._process)
        finally:
            self._process = None
            if self._folder is not None:
                self._folder.remove()
                self._folder = None
            if self._ports is not None:
                self._ports.release()
                self._ports = None

    def kill(self) -> None:
        """End it at once, as a crash does: all of its calls are gone, its folder and ports are not.

        May be called again. `revive` starts it again.
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def revive(self) -> None:
        """Start it again after `kill`: same ports, same password, same log. Raises LabError."""
        _started(self._folder)
        if self._process is not None:
            raise LabError("This Asterisk runs already.")
        await self._run()

    async def restart(self) -> None:
        """Let it end its calls and stop, and start it again, as `core restart now` does.

        Asterisk's own command looks for a program on the PATH, which the lab's is not.
        """
        process = _started(self._process)
        with contextlib.suppress(LabError):  # the console may go before it has answered
            await self.cli("core stop now")
        await end(process)
        self._process = None
        await self.revive()

    def freeze(self) -> None:
        """Stop its process where it is. Sockets stay open, and the kernel takes what arrives."""
        _started(self._process).send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        _started(self._process).send_signal(signal.SIGCONT)

    async def cli(self, command: str) -> str:
        """Return what Asterisk's console answers to `command`. Raises LabError where it cannot."""
        process = await asyncio.create_subprocess_exec(
            *self._command("-r", "-x", command),
            env=self.installation.env(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(self._boot_timeout):
                output, _ = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise LabError(f"Asterisk's console does not answer to {command!r}.") from None
        text = output.decode(errors="replace").strip()
        if process.returncode != 0:
            raise LabError(f"Asterisk's console refused {command!r}: {text}")
        return text

    async def ari(self, method: str, path: str, **parameters: str) -> Any:
        """Send one ARI request, `ari("GET", "channels")`; return the JSON, None for an empty body.

        Raises aiohttp.ClientResponseError for a status of 400 and above.
        """
        # A session for each request: one instance may serve tests on many event loops.
        headers = {"Authorization": aiohttp.encode_basic_auth(self.ari_username, self.ari_password)}
        timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout) as session,
            session.request(
                method, f"{self.ari_url}/ari/{path}", params=parameters, raise_for_status=True
            ) as response,
        ):
            return await response.json(content_type=None) if await response.read() else None

    async def channels(self) -> list[dict[str, Any]]:
        """Return the live channels, as ARI's Channel objects."""
        found: list[dict[str, Any]] = await self.ari("GET", "channels")
        return found

    async def bridges(self) -> list[dict[str, Any]]:
        """Return the live bridges, as ARI's Bridge objects."""
        found: list[dict[str, Any]] = await self.ari("GET", "bridges")
        return found

    async def wait_until_empty(self, timeout: float = 5.0) -> None:
        """Wait until it has no channel and no bridge. Raises LabError that names what stays."""
        deadline = time.monotonic() + timeout
        while True:
            channels, bridges = await self.channels(), await self.bridges()
            if not channels and not bridges:
                return
            if time.monotonic() > deadline:
                names = [channel["name"] for channel in channels]
                names += [f"bridge {bridge['id']}" for bridge in bridges]
                raise LabError(f"Still there after {timeout:g} s: {', '.join(names)}.")
            await asyncio.sleep(_POLL_SECONDS)

    def log_size(self) -> int:
        """Return how long the log is now, in bytes: a mark for `wait_for_log`."""
        return self.log_path.stat().st_size

    async def wait_for_log(self, words: str, timeout: float = 5.0, *, since: int = 0) -> str:
        """Return the first line of the log after `since` that holds `words`.

        Raises LabError where none has come within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            text = self.log_path.read_bytes()[since:].decode(errors="replace")
            for line in text.splitlines():
                if words in line:
                    return line
            if time.monotonic() > deadline:
                raise LabError(f"Asterisk's log has no {words!r} after {timeout:g} s.")
            await asyncio.sleep(_POLL_SECONDS)

    async def add_dialplan(self, name: str, text: str) -> None:
        """Add contexts to the running dialplan. The same `name` again replaces what it held."""
        (self.run_dir / f"etc/extensions.d/{name}.conf").write_text(text)
        await self.cli("dialplan reload")

    def _write_files(self) -> None:
        etc = self.run_dir / "etc"
        folders = (
            *("etc/extensions.d", "etc/pjsip.d"),
            *("lib/moh", "cache", "spool", "log/cdr-csv", "run"),
        )
        for folder in folders:
            (self.run_dir / folder).mkdir(parents=True)
        modules = {path.name for path in self.installation.module_dir.glob("*.so")}
        write_config(etc, self._values(), modules, self._files)
        (etc / "extensions.d/given.conf").write_text(self._dialplan + "\n")
        (etc / "pjsip.d/given.conf").write_text(self._pjsip + "\n")
        write_music(self.run_dir / "lib/moh/tone.wav")

    def _values(self) -> dict[str, str]:
        ports = _started(self._ports)
        contact = self._trunk_contact
        return {
            "CONF_DIR": str(self.run_dir / "etc"),
            "RUN_DIR": str(self.run_dir),
            "MODULE_DIR": str(self.installation.module_dir),
            "DATA_DIR": str(self.installation.data_dir),
            "ENTITY_ID": ":".join(["02", *(f"{byte:02x}" for byte in secrets.token_bytes(5))]),
            "BIND": self._host,
            "HTTP_PORT": str(ports.http_port),
            "SIP_PORT": str(ports.sip_port),
            "RTP_FIRST": str(ports.rtp_first),
            "RTP_LAST": str(ports.rtp_last),
            "ARI_USERNAME": self.ari_username,
            "ARI_PASSWORD": self.ari_password,
            "WEBSOCKET_WRITE_TIMEOUT_MS": str(self._websocket_write_timeout_ms),
            "TRUNK_CONTACT": "" if contact is None else f"contact = {contact}",
            "APP": self.app,
        }

    def _command(self, *options: str) -> list[str]:
        config = str(self.run_dir / "etc/asterisk.conf")
        return [*self.installation.command, "-C", config, *options]

    @property
    def _control(self) -> Path:
        return self.run_dir / "run/asterisk.ctl"

    async def _booted(self) -> None:
        """Return when the console says so; ARI answers 503 until then."""
        process = _started(self._process)
        control = self._control
        deadline = time.monotonic() + self._boot_timeout
        while process.poll() is None and time.monotonic() < deadline:
            if control.exists():
                with contextlib.suppress(LabError):
                    if "fully booted" in await self.cli("core waitfullybooted"):
                        return
            await asyncio.sleep(_POLL_SECONDS)
        raise LabError(f"Asterisk did not start: {self._complaint()}")

    def _complaint(self) -> str:
        text = (self.run_dir / "console").read_text(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line]
        return " / ".join(errors[-3:] or lines[-1:] or ["it said nothing"])


def _started(value: T | None) -> T:
    if value is None:
        raise LabError("This Asterisk has not been started.")
    return value
