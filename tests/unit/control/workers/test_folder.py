from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from ari_app.control.workers import hub as hub_module
from ari_app.control.workers.folder import Folder
from ari_app.control.workers.hub import Hub
from ari_app.control.workers.roster import Roster
from ari_app.errors import ConfigError
from tests.waiting import until


def test_it_is_for_us_alone_and_goes_with_us(monkeypatch: pytest.MonkeyPatch) -> None:
    # pytest's own folders have paths that are too long for sockets.
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("RUNTIME_DIRECTORY", short)
        folder = Folder.make()
        assert str(folder.path.parent) == short
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert len({folder.front, folder.http(1), folder.http(2), folder.passed(1)}) == 4
        folder.front.touch()
        folder.remove()
        assert list(Path(short).iterdir()) == []


def test_a_path_that_no_socket_can_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(deep))
    with pytest.raises(ConfigError, match="too long"):
        Folder.make()
    assert list(deep.iterdir()) == []
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="cannot be made"):
        Folder.make()


def test_that_of_lost_processes_is_removed_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setenv("RUNTIME_DIRECTORY", short)
        strange = Path(short, "ari-app-0")
        strange.mkdir()
        lost, lives = Folder.make(), Folder.make()
        lost.front.touch()
        assert lost.path.exists()
        os.close(lost.lock)
        last = Folder.make()
        assert set(Path(short).iterdir()) == {strange, lives.path, last.path}
        for each in (lives, last):
            each.remove()
        assert list(Path(short).iterdir()) == [strange]


async def test_the_place_of_the_front_never_looks_old(monkeypatch: pytest.MonkeyPatch) -> None:
    # What clears temporary files away takes it for a socket that nobody listens at.
    monkeypatch.setattr(hub_module, "_TOUCH_SECONDS", 0.01)
    folder = Folder.make()
    hub = Hub(Roster(1), max_calls=1, per_second=0, max_waiting=1)
    try:
        await hub.start(folder.front)
        for _ in range(2):
            os.utime(folder.front, (0, 0))
            await until(lambda: folder.front.stat().st_mtime > 0)
    finally:
        await hub.close()
        folder.remove()
