"""What all end-to-end tests share: one Asterisk for the whole session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from lab.asterisk import Installation, LabAsterisk, LabError, ensure_asterisk

Logged = Callable[..., Awaitable[str]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what is long, and leave to one worker what shares what its module starts."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        if isinstance(item, pytest.Function) and _is_shared(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _is_shared(item: pytest.Function) -> bool:
    definitions = item._fixtureinfo.name2fixturedefs.values()
    return any(each.scope == "module" for found in definitions for each in found)


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
def logged(asterisk: LabAsterisk) -> Logged:
    """Wait for words in Asterisk's log that come in this test: `await logged(words, timeout=5)`."""
    mark = asterisk.log_size()

    async def wait(words: str, timeout: float = 5.0) -> str:
        return await asterisk.wait_for_log(words, timeout, since=mark)

    return wait
