from __future__ import annotations

from pathlib import Path

import pytest

from ari_app.records.store.address import read_address


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite+aiosqlite:///./calls.db", "calls.db"),
        ("sqlite:///calls.db", "calls.db"),
        ("SQLite:////var/lib/ari-app/calls.db", "/var/lib/ari-app/calls.db"),
        ("sqlite:////srv/100%25/a b.db", "/srv/100%25/a b.db"),
    ],
)
def test_files(url: str, path: str) -> None:
    address = read_address(url)
    assert (address.kind, address.path) == ("sqlite", Path(path))
    assert address.journal == Path(path).with_suffix(".journal")


@pytest.mark.parametrize(
    ("url", "dsn"),
    [
        ("postgresql+asyncpg://u:p@db/calls", "postgresql://u:p@db/calls"),
        ("postgres://u:p@db:5433/calls", "postgresql://u:p@db:5433/calls"),
        ("postgresql+psycopg2://u@db/calls", "postgresql://u@db/calls"),
        (
            "postgresql:///calls?host=/run/postgresql",
            "postgresql:///calls?host=%2Frun%2Fpostgresql",
        ),
        ("postgres://db/c?sslmode=verify-full", "postgresql://db/c?sslmode=verify-full"),
        ("postgresql+asyncpg://db/c?ssl=require", "postgresql://db/c?sslmode=require"),
        ("postgresql://db/c?ssl=true", "postgresql://db/c?sslmode=require"),
        (
            "postgres://db/c?sslmode=require&channel_binding=require&pgbouncer=true",
            "postgresql://db/c?sslmode=require",
        ),
        ("postgresql://u:p%40%23@db/c", "postgresql://u:p%40%23@db/c"),
        (
            "postgresql://one:5432,two:5432/c",
            "postgresql://one:5432,two:5432/c?target_session_attrs=read-write",
        ),
        (
            "postgresql:///c?host=one,two",
            "postgresql:///c?host=one%2Ctwo&target_session_attrs=read-write",
        ),
        (
            "postgresql://one,two/c?target_session_attrs=any",
            "postgresql://one,two/c?target_session_attrs=any",
        ),
    ],
)
def test_servers(url: str, dsn: str) -> None:
    address = read_address(url)
    assert (address.kind, address.dsn) == ("postgresql", dsn)
    assert "p%40" not in address.shown and ":p@" not in address.shown
    assert "u:p" not in repr(address)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("calls.db", "must be sqlite"),
        ("mysql://db/calls", "must be sqlite"),
        ("sqlite://calls.db", "three slashes"),
        ("sqlite://", "three slashes"),
        ("sqlite:///", "must name a file"),
        ("sqlite:///:memory:", "must name a file"),
        ("sqlite:///a.db?mode=ro", "must not carry options"),
        ("postgresql://u:p#q@db/c", "write @ as %40"),
        ("postgresql://u:p@q@db/c", "write @ as %40"),
        ("postgresql://u:p/q@db/c", "write @ as %40"),
        ("postgresql://db:port/c", "write @ as %40"),
        ("postgresql://db/c?sslmode=on", "sslmode must be one of"),
    ],
)
def test_what_is_no_address(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as raised:
        read_address(url)
    assert "p#q" not in str(raised.value)
