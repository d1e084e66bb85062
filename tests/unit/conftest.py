from __future__ import annotations

import os

from ari_app.process.compiled import SWITCH

# The sources are tried, whether they have been compiled or not; see tests/conftest.py.
os.environ.setdefault(SWITCH, "0")

import tests.any_machine  # noqa: F401
