"""Modules that are loaded while calls run."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from ari_app.process.later import load_for_good


def test_no_collection_comes_while_they_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "comes_later.py").write_text("import gc\ncollects = gc.isenabled()\n")
    try:
        load_for_good(["comes_later"])
        assert sys.modules["comes_later"].collects is False
        assert gc.isenabled()
        frozen = gc.get_freeze_count()
        assert frozen
        load_for_good(["comes_later"])
        assert gc.get_freeze_count() == frozen
    finally:
        sys.modules.pop("comes_later", None)
        gc.unfreeze()


def test_one_that_cannot_be_loaded_leaves_collections_as_they_were() -> None:
    with pytest.raises(ModuleNotFoundError):
        load_for_good(["there_is_no_such_module"])
    assert gc.isenabled()
