"""How long steps report what they are doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str], None]
"""Takes one short line for each step: "Fetching Asterisk from Debian forky"."""


def silent(step: str) -> None:
    """Report nothing."""
