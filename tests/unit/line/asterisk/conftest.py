"""Async tests here run in virtual time, on the stage of a call."""

from __future__ import annotations

from tests.unit.call.conftest import pytest_asyncio_loop_factories, stage

__all__ = ["pytest_asyncio_loop_factories", "stage"]
