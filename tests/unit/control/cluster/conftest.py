"""A server of the tests' own; without it, tests run in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest

from tests.unit.control.cluster.valkey import NoValkey, Valkey, valkey_server
from tests.unit.virtual_loop import VirtualLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    # A real server answers in real time.
    real = "valkey" in getattr(item, "fixturenames", ())
    return {"real": asyncio.new_event_loop} if real else {"virtual": VirtualLoop}


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    try:
        with valkey_server() as server:
            yield server
    except NoValkey as missing:
        pytest.skip(str(missing))
