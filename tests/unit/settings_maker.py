"""Settings that come from a test alone: neither from the environment nor from a file nearby."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ari_app.settings import Settings, load_settings

Make = Callable[..., Settings]


def settings_maker(monkeypatch: pytest.MonkeyPatch, folder: Path, **complete: Any) -> Make:
    """Make a maker of settings, `complete` with the changes that it is called with; no call is
    kept unless they say where."""
    monkeypatch.chdir(folder)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def make(**changes: Any) -> Settings:
        return load_settings(None, **({"database_url": ""} | complete | changes))

    return make
