"""Tests against what is compiled (`ARI_APP_COMPILED=1`)."""

from __future__ import annotations

import os

import pytest

from ari_app.process.compiled import SWITCH

replaces_code = pytest.mark.skipif(
    os.environ.get(SWITCH) == "1", reason="a part of a compiled module cannot be replaced"
)
