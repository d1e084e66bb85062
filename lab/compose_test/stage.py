"""The lab in Docker as a project of its own beside any other: its ports, its names, its end."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.asterisk.ports import PortWindow
from lab.compose_test.engine import Engine
from lab.compose_test.errors import CheckFailed
from lab.compose_test.shell import run, succeeds

ROOT = Path(__file__).parents[2]
TAG = "test"
_RTP_PORTS = 40
_DOWN_SECONDS = 90.0
_LOG_LINES = 15
_OWN_NAMES = ("LAB_", "LOAD_", "CALLER_", "COMPOSE_", "ELEVENLABS_", "API_", "ARI_")


class Stage:
    """Runs `docker compose` for one project.

    `images` are the build arguments that name the base images.
    """

    def __init__(self, engine: Engine, images: dict[str, str], ports: PortWindow) -> None:
        self.api_key = secrets.token_urlsafe(16)
        self.project = f"ari-app-test-{secrets.token_hex(3)}"
        self._production = f"{self.project}-prod"
        self.api_url = f"http://127.0.0.1:{ports.http_port}"
        self._engine = engine
        # What a person has set for a lab of their own must not reach this one.
        cleared = {name: "" for name in os.environ if name.startswith(_OWN_NAMES)}
        self._env = {
            **cleared,
            **engine.env,
            **images,
            "ARI_APP_TAG": TAG,
            "API_KEY": self.api_key,
            "BUILD_CA_FILE": _certificates(),
            "BUILD_NETWORK": "host" if engine.is_own else "default",
            "CALLER_PAUSE_SECONDS": "600",
            "DRAIN_TIMEOUT_SECONDS": "3",
            "LAB_API_PORT": str(ports.http_port),
            "LAB_SIP_PORT": str(ports.sip_port),
            "LAB_RTP_FIRST": str(ports.rtp_first),
            "LAB_RTP_LAST": str(ports.rtp_first + _RTP_PORTS - 1),
            "LOAD_CALLS": "5",
            "LOAD_SECONDS": "8",
        }

    def compose(self, *arguments: str, timeout: float = 120.0) -> str:
        """Run `docker compose` and return what it prints. Raises CheckFailed."""
        return self._run("docker-compose.yml", self.project, *arguments, timeout=timeout)

    def production(self, *arguments: str, timeout: float = 120.0) -> str:
        """The same with the file for production, as a project of its own."""
        return self._run("docker-compose.prod.yml", self._production, *arguments, timeout=timeout)

    def _run(self, file: str, project: str, *arguments: str, timeout: float) -> str:
        command = ("docker", "compose", "--env-file", "/dev/null", "--progress", "plain")
        return run(
            [*command, "--file", file, "--project-name", project, *arguments],
            env=self._env,
            timeout=timeout,
            cwd=ROOT,
        )

    def fails(self, *arguments: str, timeout: float = 120.0) -> str:
        """Run `docker compose`, which must end with another code than 0; return its last lines.

        Raises CheckFailed when it ends well.
        """
        try:
            said = self.compose(*arguments, timeout=timeout)
        except CheckFailed as error:
            return str(error)
        raise CheckFailed(f"{' '.join(arguments)} should have failed, but said:\n{said}")

    def docker(self, *arguments: str) -> str:
        """Run `docker` and return what it prints. Raises CheckFailed."""
        return run(["docker", *arguments], env=self._env)

    def last_words(self) -> str:
        """The end of every service's log."""
        try:
            return self.compose("logs", "--no-color", "--tail", str(_LOG_LINES))
        except CheckFailed as error:
            return str(error)

    def services(self) -> dict[str, dict[str, Any]]:
        """What `docker compose ps` says of each service, by name."""
        said = self.compose("ps", "--all", "--format", "json").strip()
        # One list in old versions, one object a line in new ones.
        rows = json.loads(said) if said.startswith("[") else map(json.loads, said.splitlines())
        return {row["Service"]: row for row in rows}

    def remains(self) -> list[str]:
        """Containers, networks and volumes that the two projects have."""
        kinds: Sequence[Sequence[str]] = (
            ("container", "ls", "--all"),
            ("network", "ls"),
            ("volume", "ls"),
        )
        found = []
        for project in (self.project, self._production):
            label = f"label=com.docker.compose.project={project}"
            for kind in kinds:
                listed = self.docker(*kind, "--quiet", "--filter", label).split()
                found += [f"{kind[0]} {name}" for name in listed]
        return found

    def file_of(self, volume: str, name: str) -> bytes:
        """Return what a file in one of the project's volumes holds. Raises CheckFailed."""
        mount = f"{self.project}_{volume}:/volume:ro"
        container = f"{self.project}-reader"
        image = f"ari-app-phone:{TAG}"
        self.docker("create", "--name", container, "--network", "none", "--volume", mount, image)
        try:
            with tempfile.TemporaryDirectory() as folder:
                self.docker("cp", f"{container}:/volume/{name}", folder)
                return (Path(folder) / name).read_bytes()
        finally:
            self.docker("rm", container)

    def take_down(self) -> None:
        """Remove all that the projects have. Raises CheckFailed when something stays."""
        self.production("down", "--volumes", timeout=_DOWN_SECONDS)
        profiles = [word for name in ("load", "phone") for word in ("--profile", name)]
        self.compose(*profiles, "down", "--volumes", "--remove-orphans", timeout=_DOWN_SECONDS)
        if remains := self.remains():
            raise CheckFailed(f"Still there after `down`: {', '.join(remains)}.")

    def tidy(self) -> None:
        """On an engine of our own, keep what makes the next run quick, and no more."""
        if self._engine.is_own:
            for kind in ("container", "network", "volume", "image"):
                succeeds(["docker", kind, "prune", "--force"], env=self._env)
            keep = ["docker", "builder", "prune", "--force", "--keep-storage", "4GB"]
            succeeds(keep, env=self._env)


def _certificates() -> str:
    """The host's own certificates, where it was told to trust others than everybody does."""
    names = ("BUILD_CA_FILE", "PIP_CERT", "SSL_CERT_FILE")
    return next((os.environ[name] for name in names if os.environ.get(name)), "/dev/null")
