"""Imports structlog without rich; to be imported before it by who starts the service or a check.

structlog takes rich, and with it pygments, for tracebacks in colours, which our log does not have
(`ari_app.process.logs` writes them plainly): a tenth of a second and 3 MB of every process.
"""

from __future__ import annotations

import sys

if "structlog" not in sys.modules and "rich" not in sys.modules:
    # An import of what is None here fails, as that of a package that is not installed.
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
