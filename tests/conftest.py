"""What all tests share."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys

import pytest
import structlog

from ari_app.process.compiled import SWITCH, use_compiled

# Before anything else is imported: `ARI_APP_COMPILED=1` tries what is compiled.
if os.environ.get(SWITCH) == "1":
    assert use_compiled(), "nothing is compiled; python -m scripts.compiled does it"


# An exception in colours, with the values of all variables, takes longer than most tests.
_PLAIN = structlog.dev.ConsoleRenderer(
    colors=False, exception_formatter=structlog.dev.plain_traceback
)
structlog.configure(processors=[*structlog.get_config()["processors"][:-1], _PLAIN])

# Below nohup it is ignored, and would be by what tests start.
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# All that is read before the first test stays: to look through it took a quarter of that time. What
# tests leave behind is looked through a third as often as usual, all of it a fifteenth.
gc.disable()
_COLLECTED_AFTER = 2_000, 10, 50


@pytest.fixture(autouse=True)
def _memory_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no bridge settle for good, as a service does: it takes a quarter of a second here."""
    if (bridge := sys.modules.get("ari_app.bridge")) is not None:
        monkeypatch.setattr(bridge, "settle_memory", lambda: True)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let a worker ask pytest-rerunfailures' server without waiting 40 ms before each test.

    It writes twice, then reads: Nagle's algorithm holds the second back until the first, which
    nobody answers, is acknowledged.
    """
    database = getattr(config, "failures_db", None)
    if (connection := getattr(database, "sock", None)) is not None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def pytest_collection_finish() -> None:
    """Put what all tests have loaded out of the collector's sight: it would hold up calls."""
    gc.freeze()
    gc.set_threshold(*_COLLECTED_AFTER)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give what went wrong on a busy machine another chance; the summary names each."""
    for item in items:
        item.add_marker(pytest.mark.flaky(reruns=1))
