"""What all tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import hypothesis
import pytest

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")


@pytest.fixture(autouse=True)
def _memory_as_it_was() -> Iterator[None]:
    """A service that runs puts all that there is out of the collector's sight."""
    yield
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give what went wrong on a busy machine another chance; the summary names each.

    A call through a real Asterisk gets two of them: much of it goes by the clock.
    """
    for item in items:
        is_call = item.get_closest_marker("e2e") is not None
        item.add_marker(pytest.mark.flaky(reruns=2 if is_call else 1))
