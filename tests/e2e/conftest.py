"""What all end-to-end tests share: one Asterisk for the whole session."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from ari_app.call.sound import CallSound
from lab.asterisk import Installation, LabAsterisk, LabError, ensure_asterisk

Logged = Callable[..., Awaitable[str]]

_AT_ONCE = 6
# What all tests of a file share is started once, for one worker.
_TOGETHER = ("test_check.py", "test_cluster.py", "test_demo.py", "test_production.py")


class OneByOne(LoadScopeScheduling):  # type: ignore[misc]
    """Gives workers the tests in their order, each to the first that is free."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file.endswith(_TOGETHER) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneByOne:
    return OneByOne(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what is long: where there are several workers, none ends long after the others.

    The other tests of a file come far from each other: they load the machine in the same way.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    first: list[pytest.Item] = []
    rest: list[pytest.Item] = []
    for item in items:
        is_first = item.get_closest_marker("long") or item.path.name in _TOGETHER
        (first if is_first else rest).append(item)
    first.sort(key=lambda item: item.get_closest_marker("long") is None)
    step = len(rest) // _AT_ONCE + 1
    items[:] = [*first, *(item for start in range(step) for item in rest[start::step])]


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Installation:
    """An Asterisk to run; the first time on a machine, it is fetched."""
    terminal = request.config.pluginmanager.getplugin("terminalreporter")
    try:
        return ensure_asterisk(terminal.write_line if terminal else lambda step: None)
    except LabError as error:
        pytest.fail(str(error), pytrace=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def asterisk(installation: Installation) -> AsyncIterator[LabAsterisk]:
    """The session's Asterisk. A test leaves it as it found it: without channels and bridges."""
    async with LabAsterisk(installation=installation) as running:
        yield running


@pytest.fixture(params=["audiosocket", "websocket"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test over each way that sound may take between Asterisk and us."""
    monkeypatch.setenv("MEDIA_TRANSPORT", request.param)
    return str(request.param)


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What agents said, as it came, in their own format."""
    pieces: list[bytes] = []
    play = CallSound.say

    def keep(self: CallSound, response_id: int, data: bytes, *, is_final: bool = False) -> None:
        pieces.append(data)
        play(self, response_id, data, is_final=is_final)

    monkeypatch.setattr(CallSound, "say", keep)
    return pieces


@pytest.fixture
def logged(asterisk: LabAsterisk) -> Logged:
    """Wait for words in Asterisk's log that come in this test: `await logged(words, timeout=5)`."""
    mark = asterisk.log_size()

    async def wait(words: str, timeout: float = 5.0) -> str:
        return await asterisk.wait_for_log(words, timeout, since=mark)

    return wait
