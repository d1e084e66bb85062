"""Loads modules while calls run, which others of them must not feel."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
from collections.abc import Sequence

_turn = threading.Lock()


def load_for_good(names: Sequence[str]) -> None:
    """Load modules, unless they are there; to be called in a thread of its own.

    They stay for good: no collection looks at them, neither while they grow nor afterwards. A full
    one would take some milliseconds longer, and frames would wait for it.
    """
    with _turn:
        if all(name in sys.modules for name in names):
            return
        collects = gc.isenabled()
        gc.disable()
        try:
            for name in names:
                importlib.import_module(name)
        finally:
            if collects:
                gc.enable()
        gc.freeze()
