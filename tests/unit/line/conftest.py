"""Async tests here run in virtual time."""

from tests.unit.virtual_loop import virtual_loops as pytest_asyncio_loop_factories  # noqa: F401
