"""Time is the virtual loop's: nothing is waited for."""

from tests.unit.virtual_loop import virtual_loops as pytest_asyncio_loop_factories  # noqa: F401
