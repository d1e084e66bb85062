"""Ids by their prefix: somebody has typed the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ari_app.errors import ConfigError

MOST_FOUND: Final = 6
"""So many ids are worth looking for: five are named, and a sixth says that there are more."""
_SHORTEST: Final = 4


def prefix_of(name: str) -> str:
    """Return what an id has to begin with to be meant; empty: this is too short for it."""
    start = name.removesuffix("…")
    return start if len(start) >= _SHORTEST else ""


def only_match(start: str, found: Sequence[str]) -> str | None:
    """Return the id that is meant; None: there is none.

    Args:
        start: What it begins with.
        found: Those that begin so, `MOST_FOUND` at most.

    Raises:
        ConfigError: It may be several.
    """
    if len(found) > 1:
        named = ", ".join(found[: MOST_FOUND - 1])
        more = ", and more" if len(found) == MOST_FOUND else ""
        raise ConfigError(f"Several begin with {start}: {named}{more}.")
    return found[0] if found else None
