"""Loads modules while calls run, which others of them must not feel."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Sequence

from ari_app.process.limits import collecting_nothing

_turn = threading.Lock()
_kept = 0


def kept_for_good() -> int:
    """Return how many objects collections look away from because of `load_for_good`."""
    return _kept


def load_for_good(names: Sequence[str]) -> None:
    """Load modules, unless they are there; to be called in a thread of its own.

    They stay for good: no collection looks at them, neither while they grow nor afterwards. A full
    one would take some milliseconds longer, and frames would wait for it.
    """
    global _kept
    with _turn:
        if all(name in sys.modules for name in names):
            return
        before = gc.get_freeze_count()
        with collecting_nothing():
            for name in names:
                importlib.import_module(name)
        _kept += gc.get_freeze_count() - before
