"""Where the call log's database is, in the forms in which people write it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from ari_app.process.files import written_out

_SQLITE: Final = ("sqlite", "sqlite+aiosqlite", "sqlite+pysqlite")
_POSTGRESQL: Final = (
    "postgres",
    "postgresql",
    "postgresql+asyncpg",
    "postgresql+psycopg",
    "postgresql+psycopg2",
)
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_OTHERS_OPTIONS: Final = frozenset(
    {
        "async_fallback",
        "channel_binding",
        "connect_timeout",
        "connection_limit",
        "gssencmode",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "pgbouncer",
        "pool_timeout",
        "prepared_statement_cache_size",
        "schema",
        "statement_cache_size",
    }
)
"""What other programs read in such a URL; to a server they are settings that it does not know."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a database.

    Attributes:
        kind: Whose it is.
        path: SQLite's file.
        dsn: What PostgreSQL's driver is told; it holds the password.
        shown: What may be shown to people.
    """

    kind: Literal["sqlite", "postgresql"]
    path: Path = Path()
    dsn: str = field(default="", repr=False)
    shown: str = ""

    @property
    def journal(self) -> Path:
        """The folder of the journal where no other is named."""
        if self.kind == "sqlite":
            return self.path.with_name(f"{self.path.stem}.journal")
        return Path("calls.journal")


def read_address(url: str) -> Address:
    """Read what `DATABASE_URL` says.

    Raises:
        ValueError: It is no address of a database that we can use; the text follows its name.
    """
    scheme, colon, rest = url.partition("://")
    scheme = scheme.lower()
    if colon and scheme in _SQLITE:
        return _sqlite(rest)
    if colon and scheme in _POSTGRESQL:
        return _postgresql(rest)
    raise ValueError(
        "must be sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE, or "
        "empty"
    )


def _sqlite(rest: str) -> Address:
    if not rest.startswith("/"):
        raise ValueError("needs three slashes before a file of this folder, four before a path")
    name = rest[1:]
    if not name or name == ":memory:" or name.endswith("/"):
        raise ValueError("must name a file: sqlite+aiosqlite:///./calls.db")
    if "?" in name:
        raise ValueError("must not carry options after a question mark")
    return Address("sqlite", path=written_out(Path(name)), shown=name)


def _postgresql(rest: str) -> Address:
    try:
        parts = urlsplit(f"postgresql://{rest}")
        _ = parts.port
        broken = bool(parts.fragment)
    except ValueError:
        # Several hosts with a port each cannot be read so, and asyncpg takes them.
        parts, broken = urlsplit("postgresql://"), "," not in rest
    if broken or rest.partition("?")[0].count("@") > 1 or "#" in rest:
        raise ValueError(
            "cannot be taken apart; in a password, write @ as %40, : as %3A, / as %2F and # as %23"
        )
    place, _, query = rest.partition("?")
    options = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "ssl":
            name, value = "sslmode", {"true": "require", "false": "disable"}.get(value, value)
        if name == "sslmode" and value not in _SSL_MODES:
            raise ValueError(f"sslmode must be one of {', '.join(_SSL_MODES)}")
        if name not in _OTHERS_OPTIONS:
            options.append((name, value))
    hosts = dict(options).get("host", place.rpartition("@")[2].partition("/")[0])
    if "," in hosts and "target_session_attrs" not in dict(options):
        # Of several, which is the primary changes; a standby takes no call.
        options.append(("target_session_attrs", "read-write"))
    dsn = f"postgresql://{place}" + (f"?{urlencode(options)}" if options else "")
    shown = place.rpartition("@")[2]
    if not shown or shown.startswith("/"):
        shown = dict(options).get("host", "this machine") + shown
    return Address("postgresql", dsn=dsn, shown=f"PostgreSQL at {shown}")
