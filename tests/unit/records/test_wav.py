from __future__ import annotations

import errno
import os
import stat
import wave
from pathlib import Path

import pytest

from ari_app.records.recording import wav
from ari_app.records.recording.wav import GrowingWav

PCM = b"\x01\x02\x03\x04" * 100


def held(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        frames: bytes = file.readframes(file.getnframes())
    return frames


def test_it_can_be_played_after_every_write_and_gets_its_name_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    file = GrowingWav(path, 2, 8000)
    assert held(file.part) == b""
    for count in (1, 2, 3):
        file.append(PCM)
        assert held(tmp_path / "call.wav.part") == PCM * count
        assert file.frames == 100 * count
    assert not path.exists()
    file.finish()
    assert held(path) == PCM * 3
    assert os.listdir(tmp_path) == ["call.wav"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "call.wav"
    path.write_bytes(b"precious")
    files = [GrowingWav(path, 2, 8000) for _ in range(3)]
    for file in files:
        file.append(PCM)
        file.finish()
    assert path.read_bytes() == b"precious"
    assert [file.path.name for file in files] == ["call.2.wav", "call.3.wav", "call.4.wav"]
    assert sorted(os.listdir(tmp_path)) == ["call.2.wav", "call.3.wav", "call.4.wav", "call.wav"]


def test_a_full_disk_leaves_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = GrowingWav(tmp_path / "call.wav", 2, 8000)
    file.append(PCM)
    really_write, room = os.pwrite, 1000

    def write(descriptor: int, data: bytes, offset: int) -> int:
        if offset >= room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really_write(descriptor, bytes(data)[: room - offset], offset)

    monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(OSError, match="No space left"):
        file.append(PCM * 5)
    file.close()
    file.close()
    assert held(file.part) == (PCM * 3)[: 1000 - 44]
    assert file.frames == (1000 - 44) // 4


def test_one_that_cannot_begin_leaves_nothing_on_the_disk_and_no_file_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(descriptor: int, data: bytes, offset: int) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", write)
        for _ in range(3):
            with pytest.raises(OSError, match="quota"):
                GrowingWav(tmp_path / "call.wav", 2, 8000)
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_holds_nothing_goes(tmp_path: Path) -> None:
    file = GrowingWav(tmp_path / "call.wav", 2, 8000)
    file.finish()
    assert os.listdir(tmp_path) == []


def test_it_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[list[str]] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: named.append(os.listdir(tmp_path)))
    for name in ("one", "other"):
        file = GrowingWav(tmp_path / f"{name}.wav", 2, 8000)
        file.append(PCM)
        file.finish(through=name == "one")
    assert named == [["one.wav.part"]]


def test_it_ends_before_its_header_cannot_say_how_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wav, "_MAX_DATA_BYTES", len(PCM))
    file = GrowingWav(tmp_path / "call.wav", 2, 8000)
    file.append(PCM)
    with pytest.raises(OSError, match="4 GiB"):
        file.append(PCM)
    file.finish()
    assert held(file.path) == PCM


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    with pytest.raises(FileNotFoundError):
        GrowingWav(folder / "call.wav", 2, 8000)
    folder.mkdir()
    file = GrowingWav(folder / "call.wav", 2, 8000)
    file.part.unlink()
    folder.rmdir()
    file.append(PCM)
    with pytest.raises(FileNotFoundError):
        file.finish()
