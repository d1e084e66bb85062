"""Imports structlog without rich and greenlet. Import this before structlog.

structlog imports rich, and with it pygments, for coloured tracebacks, which our log does not have
(`ari_app.process.logs` writes them plainly): a tenth of a second, and 3 MB of every process.
greenlet it imports for a thread-local context, which we do not use.
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
