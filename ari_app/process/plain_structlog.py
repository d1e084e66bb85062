"""Imports structlog without rich and greenlet; to be imported before it by who starts the service
or a check.

structlog takes rich, and with it pygments, for tracebacks in colours, which our log does not have
(`ari_app.process.logs` writes them plainly): a tenth of a second and 3 MB of every process. For
what it keeps by greenlet it takes that where it finds it; we keep nothing so.
"""

from __future__ import annotations

import sys

_LEFT_OUT = ("greenlet", "rich")

if sys.modules.keys().isdisjoint(("structlog", *_LEFT_OUT)):
    # An import of what is None here fails, as that of a package that is not installed.
    sys.modules.update(dict.fromkeys(_LEFT_OUT))  # type: ignore[arg-type]
    try:
        import structlog  # noqa: F401
    finally:
        for name in _LEFT_OUT:
            del sys.modules[name]
