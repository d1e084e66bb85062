"""A recording over HTTP: whole, in ranges, and not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from ari_app.control.http.recording import usable_conditions
from ari_app.errors import AppError
from ari_app.records.recording.archive import RecordingArchive
from ari_app.records.store.log import CallLog
from tests.unit.control.http.fake_service import FakeService, Http, end

NAME = "153012-+493023125001-s1"
CONTENT = bytes(range(256)) * 4
SIZE = len(CONTENT)
URL = "/calls/s1/recording"


@pytest.fixture
async def kept(service: FakeService, tmp_path: Path) -> Path:
    """The folder of a service that has two files of one call."""
    folder = tmp_path / "recordings"
    day = folder / "2026-11-28"
    day.mkdir(parents=True)
    (day / f"{NAME}.wav").write_bytes(CONTENT)
    (day / f"{NAME}.2.opus").write_bytes(b"OggS")
    service.recordings = RecordingArchive(folder)
    paths = [f"2026-11-28/{NAME}.wav", f"2026-11-28/{NAME}.2.opus", "gone.wav", "../secret.wav"]
    documents = {"s1": {"recordings": [{"path": path} for path in paths]}}

    async def find(session_id: str) -> Mapping[str, Any] | None:
        return documents.get(session_id)

    service.call_log = cast(CallLog, SimpleNamespace(find=find))
    (tmp_path / "secret.wav").write_bytes(b"secret")
    return folder


async def test_all_of_it(http: Http, kept: Path) -> None:
    for _ in range(2):
        response = await http.get(URL, headers={"Accept-Encoding": "gzip"})
        assert (response.status, await response.read()) == (200, CONTENT)
    head = response.headers
    assert head["Content-Type"] == "audio/wav"
    assert head["Accept-Ranges"] == "bytes"
    assert head["Content-Disposition"] == f'inline; filename="{NAME}.wav"'
    assert head["Content-Length"] == str(SIZE)
    same = await http.get(URL, headers={"If-None-Match": head["ETag"]})
    assert (same.status, await same.read()) == (304, b"")


async def test_the_head_alone(http: Http, kept: Path) -> None:
    response = await http.head(URL, headers={"Range": "bytes=0-1"})
    assert (response.status, response.headers["Content-Length"]) == (200, str(SIZE))
    assert await response.read() == b""


async def test_another_part(http: Http, kept: Path) -> None:
    response = await http.get(URL, params={"part": "2"})
    assert (response.status, await response.read()) == (200, b"OggS")
    assert response.headers["Content-Type"] == "audio/ogg"
    assert response.headers["Content-Disposition"] == f'inline; filename="{NAME}.2.opus"'


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, SIZE),
        ("bytes=-50", SIZE - 50, SIZE),
        ("bytes=-5000", 0, SIZE),
        ("bytes=1000-99999", 1000, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
    ],
)
async def test_a_range(http: Http, kept: Path, wanted: str, start: int, stop: int) -> None:
    response = await http.get(URL, headers={"Range": wanted})
    assert (response.status, await response.read()) == (206, CONTENT[start:stop])
    assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"


@pytest.mark.parametrize("wanted", [f"bytes={SIZE}-", "bytes=99999-100000", "bytes=-0"])
async def test_a_range_that_is_not_there(http: Http, kept: Path, wanted: str) -> None:
    response = await http.get(URL, headers={"Range": wanted})
    assert (response.status, response.headers["Content-Range"]) == (416, f"bytes */{SIZE}")


@pytest.mark.parametrize(
    "wanted", ["bytes=5-3", "bytes=-", "bytes=a-b", "bytes=0-1,5-6", "seconds=0-1", "", "bytes=٣-"]
)
async def test_what_is_no_range_is_not_obeyed(wanted: str) -> None:
    headers = CIMultiDictProxy(CIMultiDict({"Range": wanted, "X-Other": "1"}))
    assert dict(usable_conditions("GET", headers, "tag", SIZE)) == {"X-Other": "1"}


async def test_a_range_of_the_same_file_only(http: Http, kept: Path) -> None:
    etag = (await http.get(URL)).headers["ETag"]
    date = (await http.get(URL)).headers["Last-Modified"]
    for condition, status in (
        (etag, 206),
        (date, 206),
        ('"other"', 200),
        (f"W/{etag}", 200),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 200),
    ):
        headers = {"Range": "bytes=0-9", "If-Range": condition}
        response = await http.get(URL, headers=headers)
        assert (condition, response.status) == (condition, status)
        assert await response.read() == (CONTENT[:10] if status == 206 else CONTENT)


async def test_one_that_has_been_encoded_since(http: Http, kept: Path) -> None:
    os.rename(kept / f"2026-11-28/{NAME}.wav", kept / f"2026-11-28/{NAME}.flac")
    response = await http.get(URL)
    assert (response.status, response.headers["Content-Type"]) == (200, "audio/flac")


async def test_one_that_could_not_be_given_its_name(http: Http, kept: Path) -> None:
    os.rename(kept / f"2026-11-28/{NAME}.wav", kept / f"2026-11-28/{NAME}.wav.part")
    response = await http.get(URL)
    assert (response.status, response.headers["Content-Type"]) == (200, "audio/wav")
    assert response.headers["Content-Disposition"] == f'inline; filename="{NAME}.wav"'


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("/calls/nobody/recording", 404, "no_recording"),
        (f"{URL}?part=3", 404, "no_recording"),
        (f"{URL}?part=4", 404, "no_recording"),
        (f"{URL}?part=5", 404, "no_recording"),
        (f"{URL}?part=0", 400, "bad_request"),
        (f"{URL}?part=two", 400, "bad_request"),
    ],
)
async def test_there_is_none(http: Http, kept: Path, url: str, status: int, code: str) -> None:
    response = await http.get(url)
    assert (response.status, (await response.json())["code"]) == (status, code)


async def test_a_call_that_goes_on(http: Http, service: FakeService, kept: Path) -> None:
    record = service.add("s1")
    response = await http.get(URL)
    assert (response.status, (await response.json())["code"]) == (409, "not_finished")
    end(record)
    assert (await http.get(URL)).status == 200


async def test_one_that_is_being_finished(http: Http, service: FakeService, kept: Path) -> None:
    assert service.recordings is not None
    record = service.add("s2")
    recorder = service.recordings.start(record, 8000, 0.0)
    assert recorder is not None
    end(record)
    response = await http.get("/calls/s2/recording")
    assert (response.status, (await response.json())["code"]) == (409, "not_finished")
    assert response.headers["Retry-After"] == "1"
    recorder.finish(1.0)
    await service.recordings.close()
    assert (await http.get("/calls/s2/recording")).status == 200


async def test_without_recordings_or_a_call_log(
    http: Http,
    stranger: Http,
    service: FakeService,
    tmp_path: Path,
) -> None:
    response = await http.get(URL)
    assert (response.status, (await response.json())["code"]) == (404, "no_recording")
    assert (await stranger.get(URL)).status == 401

    async def find(session_id: str) -> None:
        raise AppError("The database is away.", code="call_log_unavailable", retryable=True)

    service.recordings = RecordingArchive(tmp_path)
    service.call_log = cast(CallLog, SimpleNamespace(find=find))
    response = await http.get(URL)
    assert (response.status, (await response.json())["code"]) == (503, "call_log_unavailable")
