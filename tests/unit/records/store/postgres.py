"""A PostgreSQL of the tests' own: a cluster in a temporary folder, run by an ordinary user."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_START_SECONDS = 60


class NoPostgres(Exception):
    """There is none on this machine; the text says how to get it."""


@dataclass(slots=True)
class Cluster:
    """A running cluster, reached by its socket alone, or by an address too.

    Attributes:
        host: That address.
        as_user: The command that what runs follows.
    """

    binaries: Path
    folder: Path
    as_user: list[str]
    host: str = ""
    _databases: int = field(default=0)

    def url(self, database: str = "postgres") -> str:
        if self.host:
            return f"postgresql+asyncpg://ari_app@{self.host}/{database}"
        return f"postgresql+asyncpg://ari_app@/{database}?host={self.folder}"

    def new_database(self, encoding: str = "UTF8") -> str:
        """Make an empty database; its URL."""
        self._databases += 1
        name = f"calls_{self._databases}"
        self.sql(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}'"
            " LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        return self.url(name)

    def sql(self, statement: str, database: str = "postgres") -> str:
        """Run a statement; what it returns, as psql shows it."""
        command = [self.binaries / "psql", "-h", self.folder, "-U", "ari_app", "-d", database]
        done = subprocess.run(
            [*self.as_user, *map(str, command), "-XqAt", "-v", "ON_ERROR_STOP=1", "-c", statement],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def start(self) -> None:
        where = f"-c listen_addresses='{self.host}' -c unix_socket_directories='{self.folder}'"
        options = f"{where} -c fsync=off"
        self._ctl("start", "-w", "-t", str(_START_SECONDS), "-o", options)

    def stop(self) -> None:
        self._ctl("stop", "-w", "-m", "immediate")

    def _ctl(self, *what: str) -> None:
        log = str(self.folder / "log")
        command = [str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), "-l", log, *what]
        # It leaves its server behind, which must not hold a pipe of ours.
        subprocess.run([*self.as_user, *command], check=True, stdout=subprocess.DEVNULL)


def postgres_binaries() -> Path:
    """Return the folder of PostgreSQL's programs.

    Raises:
        NoPostgres: It is not installed, or there is no ordinary user to run it.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise NoPostgres("PostgreSQL is not installed here: apt-get install postgresql")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        raise NoPostgres("PostgreSQL refuses root, and there is no setpriv to be somebody else")
    return found[-1].parent


@contextlib.contextmanager
def cluster(host: str = "", within: Sequence[str] = ()) -> Iterator[Cluster]:
    """Make a cluster and run it; behind the command `within`, in another network namespace with
    the address `host`.

    Raises:
        NoPostgres: It is not installed, or there is no ordinary user to run it.
    """
    binaries = postgres_binaries()
    # Short, for the path of a socket is limited; /tmp, for the user must reach it.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    as_user = [*within]
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        ids = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        as_user += ["setpriv", *ids, "--"]
    try:
        initdb = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "ari_app"]
        options = ["-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run([*as_user, *initdb, *options], check=True, capture_output=True, cwd=folder)
        if host:
            with (folder / "data/pg_hba.conf").open("a") as access:
                access.write("host all all samenet trust\n")
        made = Cluster(binaries, folder, as_user, host)
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
