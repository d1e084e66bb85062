"""What is compiled: it is used where it fits, and by nobody else."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scripts.compiled
from ari_app.process import compiled
from ari_app.process.compiled import MODULES, SHARED, SWITCH, folder_for, library_of, source_of


@pytest.fixture
def compiled_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Let something be compiled, as far as can be seen from outside."""
    others = [each for each in sys.meta_path if not isinstance(each, compiled._Finder)]
    monkeypatch.setattr(sys, "meta_path", others)
    monkeypatch.setattr(compiled, "COMPILED", tmp_path)
    folder_for.cache_clear()
    library = library_of(folder_for(), SHARED)
    library.parent.mkdir(parents=True)
    library.touch()
    yield library.parent
    folder_for.cache_clear()


def test_what_was_compiled_from_these_sources_is_found(compiled_here: Path) -> None:
    library_of(compiled_here, "linekit.clock").parent.mkdir()
    library_of(compiled_here, "linekit.clock").touch()
    assert compiled.use_compiled({})
    assert compiled.in_use()
    finder = sys.meta_path[0]
    spec = finder.find_spec("linekit.clock", None, None)
    assert spec is not None
    assert spec.origin == str(library_of(compiled_here, "linekit.clock"))
    # One that is not there, and one that is never compiled, are as they are.
    assert finder.find_spec("linekit.playout", None, None) is None
    assert finder.find_spec("ari_app.bridge", None, None) is None


def test_ctrl_c_while_it_is_compiled_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(command: list[str], **options: object) -> None:
        Path(command[-1], "half.c").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["compiled"])
    monkeypatch.setattr(scripts.compiled, "COMPILED", tmp_path)
    monkeypatch.setattr(scripts.compiled, "is_compiled", lambda: False)
    monkeypatch.setattr(scripts.compiled, "_missing", lambda: None)
    monkeypatch.setattr(subprocess, "run", interrupted)
    assert scripts.compiled.main() == 130
    assert list(tmp_path.iterdir()) == []


def test_it_can_be_turned_off(compiled_here: Path) -> None:
    assert not compiled.use_compiled({SWITCH: "0"})
    assert compiled_here.exists()


def test_what_was_compiled_from_other_sources_is_not_used(
    compiled_here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.py"
    changed.write_bytes(source_of("linekit.clock").read_bytes() + b"\n")
    real = source_of
    monkeypatch.setattr(
        compiled, "source_of", lambda name: changed if name == "linekit.clock" else real(name)
    )
    folder_for.cache_clear()
    assert folder_for() != compiled_here
    assert not compiled.use_compiled({})


def test_a_compiled_class_stands_on_nothing_interpreted() -> None:
    """mypyc puts its own fields where those of an interpreted class lie, and such a class's weak
    references outlive it."""
    allowed = {"builtins", "typing", "enum"}
    for name in MODULES:
        module = importlib.import_module(name)
        for made in vars(module).values():
            if inspect.isclass(made) and made.__module__ == name:
                bases = {base.__module__ for base in made.__mro__}
                assert bases <= {*allowed, *MODULES}, made
