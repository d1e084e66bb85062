"""Loads modules while calls run, which others of them must not feel."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Sequence

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
        collects, before = gc.isenabled(), gc.get_freeze_count()
        gc.disable()
        try:
            for name in names:
                importlib.import_module(name)
        finally:
            if collects:
                gc.enable()
        gc.freeze()
        _kept += gc.get_freeze_count() - before
