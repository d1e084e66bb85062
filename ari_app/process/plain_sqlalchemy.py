"""Imports SQLAlchemy's asyncio without its ORM. Import this before `sqlalchemy.ext.asyncio`.

That package imports the whole ORM for its sessions, of which the call log uses none: 7 MB of every
process. The names of the sessions are imported when they are first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final

_PACKAGE: Final = "sqlalchemy.ext.asyncio"
_SESSIONS: Final = (f"{_PACKAGE}.session", f"{_PACKAGE}.scoping")


class _Later(ModuleType):
    """Stands for a module while the package is read, and has any name."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


def _import_without_sessions() -> None:
    standing_in = [_Later(name) for name in _SESSIONS]
    sys.modules.update((module.__name__, module) for module in standing_in)
    try:
        package = importlib.import_module(_PACKAGE)
    finally:
        for name in _SESSIONS:
            del sys.modules[name]
    names = [name for name, value in vars(package).items() if value in standing_in]
    for name in names:
        delattr(package, name)

    def read(name: str) -> Any:
        if name in names:
            for module in map(importlib.import_module, _SESSIONS):
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {_PACKAGE!r} has no attribute {name!r}")

    vars(package)["__getattr__"] = read


if not any(name in sys.modules for name in (_PACKAGE, "sqlalchemy.orm")):
    _import_without_sessions()
