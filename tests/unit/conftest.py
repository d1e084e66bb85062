from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

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
