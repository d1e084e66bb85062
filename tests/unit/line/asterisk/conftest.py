"""Tests here may use the stage of a call."""

from __future__ import annotations

from tests.unit.call.conftest import stage

__all__ = ["stage"]
