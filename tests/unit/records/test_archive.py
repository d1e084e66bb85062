from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import wave
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from ari_app.records.document import call_document
from ari_app.records.record import CallRecord
from ari_app.records.recording import archive as archive_module
from ari_app.records.recording.archive import RecordingArchive, merge_parts
from ari_app.records.recording.encoder import Encoded
from ari_app.records.recording.wav import GrowingWav
from ari_app.records.recording.writer import StereoRecorder
from tests.waiting import until

BEGAN = datetime(2026, 11, 28, 15, 30, 12, tzinfo=UTC)
LOCAL = BEGAN.astimezone()
DAY = f"{LOCAL:%Y-%m-%d}"
NAME = f"{DAY}/{LOCAL:%H%M%S}-+493023125001-s1"
START = 100.0


class Log:
    """What was told of recordings."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[dict[str, Any]], list[dict[str, Any]]]] = []

    def __call__(
        self, session_id: str, parts: list[dict[str, Any]], ready: list[dict[str, Any]]
    ) -> None:
        self.told.append((session_id, parts, ready))

    async def ready(self, session_id: str = "s1") -> list[dict[str, Any]]:
        """Wait until its recordings stay as they are."""
        await until(lambda: any(told[0] == session_id and told[2] for told in self.told))
        return next(parts for name, parts, ready in self.told if name == session_id and ready)


def call(session_id: str = "s1", **details: Any) -> CallRecord:
    return CallRecord(
        session_id,
        "sip-1",
        START - 2,
        **{"caller_number": "+493023125001", "called_number": "100", **details},
        started_at=BEGAN,
    )


def begin(archive: RecordingArchive, record: CallRecord | None = None) -> StereoRecorder:
    recorder = archive.start(record or call(), 8000, START)
    assert recorder is not None
    return recorder


def talk(recorder: StereoRecorder, seconds: int = 2) -> None:
    voice = np.random.default_rng(1)
    for index in range(seconds * 50):
        pcm = voice.normal(0, 3000, 160).astype("<i2").tobytes()
        recorder.add_agent(pcm, START + index * 0.02)
        recorder.add_caller(pcm, START + (index + 1) * 0.02)


def say(archive: RecordingArchive, record: CallRecord | None = None, seconds: int = 2) -> None:
    recorder = begin(archive, record)
    talk(recorder, seconds)
    recorder.finish(START + seconds)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def left_behind(folder: Path, name: str, seconds: float = 3, *, cut: int = 0) -> None:
    """What a process that was killed has left; the last bytes of it never reached the disk."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    file = GrowingWav(path, 2, 8000)
    file.append(bytes(int(seconds * 8000) * 4))
    file.append(b"\x01\x02" * 8000)
    file.close()
    if cut:
        os.truncate(file.part, file.part.stat().st_size - cut)


async def test_what_a_call_leaves(tmp_path: Path) -> None:
    log = Log()
    archive = RecordingArchive(tmp_path, on_change=log)
    recorder = begin(archive)
    talk(recorder)
    assert archive.is_busy("s1")
    recorder.pause(START + 2)
    recorder.resume(START + 3)
    recorder.finish(START + 3)
    (part,) = await log.ready()
    await archive.close()
    assert part == {
        "path": f"{NAME}.wav",
        "format": "wav",
        "seconds": 3.0,
        "bytes": (tmp_path / part["path"]).stat().st_size,
        "complete": True,
        "from": 2.0,
        "pauses": [[2.0, 3.0]],
    }
    assert files(tmp_path) == [f"{NAME}.wav"]
    assert stat.S_IMODE((tmp_path / DAY).stat().st_mode) == 0o700
    assert (archive.is_busy("s1"), archive.parts("s1"), log.told[-1][2]) == (False, [part], [part])


async def test_recordings_that_were_put_back_are_taken_from_others(tmp_path: Path) -> None:
    for name in (DAY, "shared"):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(0o755)
    archive = RecordingArchive(tmp_path)
    assert await archive._recover()
    assert stat.S_IMODE((tmp_path / DAY).stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o755
    await archive.close()


async def test_two_recordings_of_a_call_and_another_call_of_its_name(tmp_path: Path) -> None:
    archive = RecordingArchive(tmp_path)
    say(archive)
    say(archive)
    await until(lambda: not archive.is_busy("s1"))
    assert [part["path"] for part in archive.parts("s1")] == [f"{NAME}.wav", f"{NAME}.2.wav"]
    other = call()
    other.began += 50
    say(archive, other)
    await until(lambda: not archive.is_busy("s1"))
    assert [part["path"] for part in archive.parts("s1")] == [f"{NAME}.3.wav"]
    await archive.close()


@pytest.mark.parametrize(
    ("details", "hides", "number"),
    [
        ({"placed": True, "called_number": "+15550100"}, False, "+15550100"),
        ({}, True, "x001"),
        ({"caller_number": ""}, False, "unknown"),
    ],
)
async def test_whose_number_a_file_has(
    tmp_path: Path, details: dict[str, Any], hides: bool, number: str
) -> None:
    archive = RecordingArchive(tmp_path, hides_numbers=hides)
    say(archive, call(**details))
    await archive.close()
    assert files(tmp_path) == [f"{DAY}/{LOCAL:%H%M%S}-{number}-s1.wav"]


async def test_a_call_that_lasts_for_a_day_does_not_have_all_others_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "_KEPT_CALLS", 3)
    log = Log()
    archive = RecordingArchive(tmp_path, on_change=log)
    lasting = begin(archive, call("day"))
    for number in range(6):
        say(archive, call(f"s{number}"), seconds=1)
        await log.ready(f"s{number}")
    known = [name for name in ("day", *(f"s{n}" for n in range(6))) if name in archive._calls]
    assert known == ["day", "s4", "s5"]
    assert archive.is_busy("day")
    talk(lasting)
    lasting.finish(START + 2)
    assert len(await log.ready("day")) == 1
    await archive.close()


async def test_a_call_without_a_sound_has_no_recording(tmp_path: Path) -> None:
    log = Log()
    archive = RecordingArchive(tmp_path, on_change=log)
    begin(archive).finish(START)
    await archive.close()
    assert (log.told, archive.parts("s1"), archive.is_busy("s1")) == ([], [], False)


@pytest.mark.parametrize("kind", ["flac", "opus"])
async def test_it_is_encoded_afterwards(tmp_path: Path, kind: str) -> None:
    log = Log()
    archive = RecordingArchive(tmp_path, kind=kind, on_change=log)
    with capture_logs() as logs:
        say(archive)
        (part,) = await log.ready()
        await archive.close()
    assert [entry["event"] for entry in logs] == ["recording_saved", "recording_encoded"]
    assert "493023125001" not in str(logs)
    assert [(told[1][0]["format"], told[2]) for told in log.told] == [("wav", []), (kind, [part])]
    assert files(tmp_path) == [part["path"]] == [f"{NAME}.{kind}"]
    assert part["bytes"] == (tmp_path / part["path"]).stat().st_size
    found = archive.find(f"{NAME}.wav")
    assert found is not None, "under its old name, too"
    assert found[0].suffix == f".{kind}"


# --- what a lost process has left


async def recovered(archive: RecordingArchive, done: Callable[[], object]) -> None:
    running = asyncio.create_task(archive.run())
    try:
        await until(done)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await archive.close()


async def test_what_a_lost_process_has_left_is_finished(tmp_path: Path) -> None:
    left_behind(tmp_path, f"{NAME}.wav", cut=7001)
    left_behind(tmp_path, "old-style.wav")
    log = Log()
    archive = RecordingArchive(tmp_path, on_change=log)
    await recovered(archive, lambda: len(log.told) == 2)
    (part,) = await log.ready()
    assert part["path"] == f"{NAME}.wav"
    assert (part["complete"], part["from"]) == (False, None)
    with wave.open(str(tmp_path / part["path"])) as wav:
        assert wav.getnframes() == 3 * 8000 + (16000 - 7001) // 4
        assert part["seconds"] == round(wav.getnframes() / 8000, 3)
    assert (await log.ready("old-style"))[0]["path"] == "old-style.wav"
    assert files(tmp_path) == [f"{NAME}.wav", "old-style.wav"]


async def test_a_call_that_goes_on_has_the_recordings_of_lost_processes_too(
    tmp_path: Path,
) -> None:
    log = Log()
    first = RecordingArchive(tmp_path, kind="flac", on_change=log)
    say(first)
    await log.ready()
    await first.close()
    left_behind(tmp_path, f"{NAME}.2.wav")
    archive = RecordingArchive(tmp_path, on_change=log)
    log.told.clear()
    archive.goes_on(call(), [2.0, 10.0])
    running = asyncio.create_task(archive.run())
    await until(lambda: len(archive.parts("s1")) == 2, 60)
    before = [*log.told]
    log.told.clear()
    again = archive.start(call(), 8000, START + 18)
    assert again is not None
    talk(again)
    again.finish(START + 20)
    parts = await log.ready()
    running.cancel()
    await archive.close()
    told = [(Path(each["path"]).name, each["from"], each["complete"]) for each in parts]
    stem = Path(NAME).name
    as_ready = {each["path"] for _, _, ready in (*before, *log.told) for each in ready}
    assert as_ready == {each["path"] for each in parts}, "the first may not have told of its own"
    assert told == [
        (f"{stem}.flac", 2.0, True),
        (f"{stem}.2.wav", 10.0, False),
        (f"{stem}.3.wav", 20.0, True),
    ]


async def test_a_call_that_goes_on_has_them_however_many_calls_come_before_it_is_recorded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "_KEPT_CALLS", 3)
    log = Log()
    first = RecordingArchive(tmp_path, on_change=log)
    say(first)
    await log.ready()
    await first.close()
    archive = RecordingArchive(tmp_path, on_change=log)
    log.told.clear()
    archive.goes_on(call(), [2.0])
    await until(lambda: archive.parts("s1"))
    for number in range(6):
        await archive.delete(f"other{number}")
    say(archive)
    parts = await log.ready()
    assert [Path(each["path"]).name for each in parts] == [
        Path(f"{NAME}.wav").name,
        Path(f"{NAME}.2.wav").name,
    ]
    await archive.close()


async def test_a_recording_that_another_process_has_mended_is_its_calls(tmp_path: Path) -> None:
    log = Log()
    left_behind(tmp_path, f"{NAME}.wav")
    archive = RecordingArchive(tmp_path, on_change=log)
    archive.goes_on(call(), [2.0])
    await until(lambda: not archive._tasks)
    assert archive.parts("s1") == []
    # Of two workers that were lost at once, the other one's successor is sooner.
    other = RecordingArchive(tmp_path)
    running = asyncio.create_task(other.run())
    await until(lambda: other.parts("s1"))
    running.cancel()
    again = archive.start(call(), 8000, START + 18)
    assert again is not None
    talk(again)
    again.finish(START + 20)
    parts = await log.ready()
    stem = Path(NAME).name
    assert [(Path(each["path"]).name, each["from"], each["complete"]) for each in parts] == [
        (f"{stem}.wav", 2.0, False),
        (f"{stem}.2.wav", 20.0, True),
    ]
    await archive.close()
    await other.close()


async def test_what_waits_for_the_encoder_of_a_call_that_goes_on_is_there_once(
    tmp_path: Path,
) -> None:
    first = RecordingArchive(tmp_path)
    say(first)
    await until(lambda: not first.is_busy("s1"))
    await first.close()
    log = Log()
    archive = RecordingArchive(tmp_path, kind="flac", on_change=log)
    archive.goes_on(call(), [2.0])
    running = asyncio.create_task(archive.run())
    (part,) = await log.ready()
    running.cancel()
    assert (part["path"], part["from"]) == (f"{NAME}.flac", 2.0)
    await archive.close()


async def test_one_that_cannot_be_given_its_name_is_found_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    archive = RecordingArchive(tmp_path, on_change=log)

    def read_only(path: Path, target: Path) -> Path:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", read_only)
        say(archive)
        (part,) = await log.ready()
    assert (part["path"], part["format"], part["complete"]) == (f"{NAME}.wav", "wav", False)
    assert files(tmp_path) == [f"{NAME}.wav.part"]
    for told in (part["path"], f"{NAME}.wav.part"):
        found = archive.find(told)
        assert found is not None
        assert found[0] == tmp_path / f"{NAME}.wav.part"
    await archive.close()

    again = RecordingArchive(tmp_path, on_change=log)
    running = asyncio.create_task(again.run())
    await until(lambda: len(log.told) == 2)
    (mended,) = merge_parts([part], log.told[-1][1])
    assert (mended["path"], mended["complete"]) == (f"{NAME}.wav", False)
    assert again.find(f"{NAME}.wav.part") is not None, "as a record of before has it"
    running.cancel()
    os.rename(tmp_path / f"{NAME}.wav", tmp_path / f"{NAME}.wav.part")
    await again.delete("s1", {"recordings": [part]})
    assert files(tmp_path) == []
    await again.close()


async def test_one_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    log = Log()
    archive = RecordingArchive(tmp_path, on_change=log)
    left_behind(tmp_path, f"{DAY}/other.wav")
    recorder = begin(archive)
    talk(recorder)
    await until(lambda: f"{NAME}.wav.part" in files(tmp_path))
    another = RecordingArchive(tmp_path, on_change=log)
    await recovered(another, lambda: log.told)
    assert files(tmp_path) == [f"{NAME}.wav.part", f"{DAY}/other.wav"]
    recorder.finish(START + 2)
    await archive.close()
    assert files(tmp_path) == [f"{NAME}.wav", f"{DAY}/other.wav"]


async def test_what_is_no_recording_of_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "notes.wav.part").write_bytes(b"not a sound" * 9)
    (tmp_path / "empty.wav.part").touch()
    (tmp_path / "short.wav.part").write_bytes(b"not a sound")
    (tmp_path / "a b.wav.part").touch()
    (tmp_path / "link.wav.part").symlink_to(tmp_path / "notes.wav.part")
    left_behind(tmp_path, "mine.wav")
    log = Log()
    await recovered(RecordingArchive(tmp_path, on_change=log), lambda: log.told)
    assert files(tmp_path) == [
        "a b.wav.part",
        "link.wav.part",
        "mine.wav",
        "notes.wav.part",
        "short.wav.part",
    ]


async def test_what_was_not_encoded_is(tmp_path: Path) -> None:
    left_behind(tmp_path, "2026-11-01/s0.wav")
    for day in ("2026-11-01", DAY):
        left_behind(tmp_path, f"{day}/010203-1-waited.wav")
        (tmp_path / day / "010203-1-waited.wav.part").rename(tmp_path / day / "010203-1-waited.wav")
    (tmp_path / "2026-11-27").mkdir()
    for other in ("zoo/010203-1-a.wav", f"{DAY}/song.wav"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_bytes(b"somebody's")
    left_behind(tmp_path, f"{NAME}.wav")
    left_behind(tmp_path, f"{DAY}/s2.wav")
    (tmp_path / DAY / "s2.wav.part").rename(tmp_path / DAY / "s2.wav")
    (tmp_path / DAY / "s2.flac.part").write_bytes(b"half")
    log = Log()
    archive = RecordingArchive(tmp_path, kind="flac", on_change=log)
    encoded = {
        "2026-11-01/010203-1-waited.wav",
        "2026-11-01/s0.flac",
        f"{DAY}/010203-1-waited.flac",
        f"{DAY}/s2.flac",
        f"{DAY}/song.wav",
        f"{NAME}.flac",
        "zoo/010203-1-a.wav",
    }
    await recovered(archive, lambda: set(files(tmp_path)) == encoded)
    (waited,) = await log.ready("waited")
    assert (waited["path"], waited["seconds"]) == (f"{DAY}/010203-1-waited.flac", 3.5)
    assert waited["bytes"] == (tmp_path / waited["path"]).stat().st_size


@pytest.fixture
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_LOOK_SECONDS", 0.02)


@pytest.mark.usefixtures("_looks_often")
async def test_a_disk_that_was_away_at_the_start_is_looked_into_when_it_is_back(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "disk"
    left_behind(folder, f"{NAME}.wav")
    folder.rename(tmp_path / "away")
    log = Log()
    archive = RecordingArchive(folder, on_change=log)
    running = asyncio.create_task(archive.run())
    with capture_logs() as logs:
        await until(lambda: archive.stats.away)
        told = len(logs)
        archive.stats.away = None
        await until(lambda: archive.stats.away)
    assert told == len(logs) == 1, "once for each time that it is away"
    (tmp_path / "away").rename(folder)
    (part,) = await log.ready()
    assert (part["path"], files(folder)) == (f"{NAME}.wav", [f"{NAME}.wav"])
    running.cancel()
    await archive.close()


@pytest.mark.usefixtures("_looks_often")
async def test_a_disk_that_is_mounted_only_later_is_looked_into(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    left_behind(tmp_path / "disk", f"{NAME}.wav")
    log = Log()
    archive = RecordingArchive(folder, on_change=log)
    running = asyncio.create_task(archive.run())
    await until(lambda: archive.stats.place)
    with capture_logs() as logs:
        folder.rename(tmp_path / "below")
        (tmp_path / "disk").rename(folder)
        assert len(await log.ready()) == 1
        running.cancel()
        await archive.close()
    assert "recordings_folder_is_another" in [each["event"] for each in logs]


@pytest.mark.usefixtures("_looks_often")
async def test_what_could_not_be_given_its_name_is_when_the_disk_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    archive = RecordingArchive(tmp_path, kind="flac", on_change=log)
    running = asyncio.create_task(archive.run())
    await until(lambda: archive.stats.place)

    def read_only(path: Path, target: Path) -> Path:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", read_only)
        with capture_logs() as logs:
            say(archive)
            await until(lambda: "recording_not_mended" in [each["event"] for each in logs])
    await until(lambda: files(tmp_path) == [f"{NAME}.flac"])
    await until(lambda: [part["path"] for part in archive.parts("s1")] == [f"{NAME}.flac"])
    running.cancel()
    await archive.close()


async def test_nothing_that_is_being_written_here_is_mended_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    archive = RecordingArchive(tmp_path)
    recorder = begin(archive)
    talk(recorder)
    await until(lambda: f"{NAME}.wav.part" in files(tmp_path))
    left_behind(tmp_path, f"{DAY}/other.wav")
    assert await archive._recover()
    assert files(tmp_path) == [f"{NAME}.wav.part", f"{DAY}/other.wav"]
    recorder.finish(START + 2)
    await archive.close()
    assert files(tmp_path) == [f"{NAME}.wav", f"{DAY}/other.wav"]


# --- found and removed


@pytest.mark.parametrize(
    "path",
    [
        "../secret.wav",
        "/etc/passwd",
        f"{DAY}/../../secret.wav",
        "inside.wav",
        "folder.wav",
        "gone.wav",
        "notes.txt",
        f"{DAY}/link/secret.wav",
        "",
        "a\0.wav",
    ],
)
async def test_nothing_else_is_found(tmp_path: Path, path: str) -> None:
    folder = tmp_path / "recordings"
    (folder / DAY).mkdir(parents=True)
    (tmp_path / "secret.wav").write_bytes(b"RIFF")
    (folder / "notes.txt").write_bytes(b"notes")
    (folder / "folder.wav").mkdir()
    (folder / "inside.wav").symlink_to(tmp_path / "secret.wav")
    (folder / DAY / "link").symlink_to(tmp_path)
    assert RecordingArchive(folder).find(path) is None


async def test_a_call_that_is_deleted_takes_its_recordings_along(tmp_path: Path) -> None:
    archive = RecordingArchive(tmp_path)
    say(archive)
    say(archive)
    say(archive, call("s2"))
    await until(lambda: not archive.is_busy("s1") and not archive.is_busy("s2"))
    await archive.delete("s1", {"recordings": [{"path": f"{NAME}.wav"}]})
    assert files(tmp_path) == [f"{DAY}/{LOCAL:%H%M%S}-+493023125001-s2.wav"]
    assert archive.parts("s1") == []
    await archive.delete("s2")
    assert os.listdir(tmp_path) == [], "the day is empty"
    await archive.delete("s2")
    await archive.close()


async def test_what_is_removed_is_not_back_after_a_loss_of_power(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = RecordingArchive(tmp_path)
    for session_id in ("s1", "s2"):
        say(archive, call(session_id))
    await until(lambda: not archive.is_busy("s1") and not archive.is_busy("s2"))
    synced: list[tuple[Path, list[str]]] = []
    monkeypatch.setattr(
        archive_module, "sync_folder", lambda folder: synced.append((folder, files(tmp_path)))
    )
    for session_id in ("s1", "s1", "s2"):
        await archive.delete(session_id, call_document(call(session_id)))
    other = f"{DAY}/{LOCAL:%H%M%S}-+493023125001-s2.wav"
    assert synced == [(tmp_path / DAY, [other]), (tmp_path, [])]
    await archive.close()


@pytest.mark.parametrize("hides", [False, True])
@pytest.mark.parametrize("placed", [False, True])
async def test_what_a_lost_process_has_left_goes_with_its_call_though_no_record_has_it(
    tmp_path: Path, hides: bool, placed: bool
) -> None:
    record = call(placed=placed, called_number="+15550100")
    before = RecordingArchive(tmp_path, hides_numbers=hides)
    name = before._name(record).with_suffix("")
    await before.close()
    for ended in ("wav.part", "flac.part", "2.opus", "2.opus.part"):
        path = tmp_path / f"{name}.{ended}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"both sides")
    (tmp_path / f"{name}x.wav").write_bytes(b"another call's")
    archive = RecordingArchive(tmp_path)
    await archive.delete("s1", call_document(record, {"numbers"} if hides else ()))
    assert files(tmp_path) == [f"{name}x.wav"]
    await archive.close()


async def test_a_call_of_which_nothing_is_known_stays_while_the_disk_is_away(
    tmp_path: Path,
) -> None:
    archive = RecordingArchive(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        await archive.delete("s1", call_document(call()))
    await archive.close()


async def test_one_that_is_being_written_is_left_to_whoever_writes_it(tmp_path: Path) -> None:
    writing = RecordingArchive(tmp_path)
    recorder = begin(writing)
    talk(recorder)
    await until(lambda: f"{NAME}.wav.part" in files(tmp_path))
    another = RecordingArchive(tmp_path)
    with capture_logs() as logs:
        await another.delete("s1", call_document(call()))
        await writing.delete("s1", call_document(call()))
        recorder.finish(START + 2)
        await until(lambda: not writing.is_busy("s1"))
        await writing.close()
    assert [each["event"] for each in logs] == ["recording_saved"]
    assert files(tmp_path) == []
    await another.close()


@pytest.mark.usefixtures("_looks_often")
async def test_what_comes_after_its_call_was_deleted_goes_when_the_disk_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = RecordingArchive(tmp_path)
    recorder = begin(archive)
    talk(recorder)
    await archive.delete("s1")

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with capture_logs() as logs:
            recorder.finish(START + 2)
            await until(lambda: "recording_not_deleted" in [each["event"] for each in logs])
    await until(lambda: not files(tmp_path))
    await archive.close()


async def test_a_recording_that_cannot_be_removed_is_known_at_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = RecordingArchive(tmp_path)
    say(archive)
    await until(lambda: not archive.is_busy("s1"))

    def unlink(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(OSError):
            await archive.delete("s1")
    await archive.delete("s1")
    assert (os.listdir(tmp_path), archive.parts("s1")) == ([], [])
    await archive.close()


async def test_a_disk_that_is_away_has_nothing_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "disk" / "recordings"
    folder.mkdir(parents=True)
    archive = RecordingArchive(folder)
    say(archive)
    await until(lambda: not archive.is_busy("s1"))
    document = {"recordings": archive.parts("s1")}
    again = RecordingArchive(folder)

    (tmp_path / "disk").rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError):
        await again.delete("s1", document)
    (tmp_path / "away").rename(tmp_path / "disk")

    def lstat(path: Path) -> os.stat_result:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "lstat", lstat)
        assert again.find(document["recordings"][0]["path"]) is None
        with pytest.raises(OSError, match="Stale"):
            await again.delete("s1", document)
    await again.delete("s1", document)
    assert os.listdir(folder) == []
    await archive.close()
    await again.close()


async def test_a_call_that_is_deleted_while_it_is_written(tmp_path: Path) -> None:
    log = Log()
    archive = RecordingArchive(tmp_path, on_change=log)
    recorder = begin(archive)
    talk(recorder)
    await archive.delete("s1")
    recorder.finish(START + 2)
    await archive.close()
    assert (files(tmp_path), log.told) == ([], [])


async def test_a_call_that_is_deleted_while_it_is_encoded(tmp_path: Path) -> None:
    """Also where the encoder had just made its file as the one that it was made of went."""
    log = Log()
    archive = RecordingArchive(tmp_path, kind="flac", on_change=log)
    waiting: list[Path] = []

    def put(wav: Path) -> bool:
        waiting.append(wav)
        return True

    assert archive.encoder is not None
    archive.encoder.put = put  # type: ignore[method-assign]
    say(archive)
    await until(lambda: waiting)
    told = len(log.told)
    await archive.delete("s1")
    assert files(tmp_path) == []
    (wav,) = waiting
    wav.parent.mkdir()
    wav.with_suffix(".flac").write_bytes(b"both sides")
    archive._encoded(Encoded(wav))
    await archive.close()
    assert (files(tmp_path), len(log.told)) == ([], told)


# --- room


async def test_a_disk_that_fills_up_ends_recordings_before_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 10_000_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    monkeypatch.setattr("ari_app.records.recording.writer._LOOK_SECONDS", 0.0)
    log = Log()
    archive = RecordingArchive(
        tmp_path, on_change=log, warn_below_bytes=5_000_000_000, floor_bytes=1_000_000_000
    )
    recorder = begin(archive)
    talk(recorder)
    await until(lambda: archive.stats.free_bytes == free)
    assert archive.warnings() == []
    free = 4_000_000_000
    archive.writer.look()
    await until(lambda: archive.stats.free_bytes == free)
    assert archive.warnings() == ["recordings will end soon: 4.0 GB are left in RECORDINGS_DIR"]
    free = 900_000_000
    talk(recorder)
    await until(lambda: not recorder.lives)
    assert archive.warnings() == ["calls are not recorded: 0.9 GB are left in RECORDINGS_DIR"]
    assert archive.start(call("s2"), 8000, START) is None
    recorder.finish(START + 4)
    (part,) = await log.ready()
    assert not part["complete"]
    assert archive.stats.incomplete == 2
    await archive.close()
    with wave.open(str(tmp_path / part["path"])) as wav:
        assert wav.getnframes() > 0


async def test_a_folder_that_goes_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    os.mkdir(folder)
    archive = RecordingArchive(folder)
    shutil.rmtree(folder)
    archive.writer.look()
    sentence = "calls are not recorded: RECORDINGS_DIR cannot be used: No such file or directory"
    await until(lambda: archive.warnings() == [sentence])
    os.mkdir(folder)
    archive.writer.look()
    await until(lambda: archive.warnings() == [])
    await archive.close()
