from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from ari_app.process.compiled import SWITCH

# The sources are tried, whether they have been compiled or not; see tests/conftest.py.
os.environ.setdefault(SWITCH, "0")

import tests.any_machine  # noqa: F401


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken and refuses every connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who vouches for servers; `ca_file` makes it known."""
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(path))
    return path
