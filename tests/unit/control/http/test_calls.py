"""The call log over HTTP, with a real one behind it."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from aiohttp import ClientPayloadError

from ari_app.records.document import call_document
from ari_app.records.events import Said
from ari_app.records.store.log import CallLog, CallLogUnavailable
from ari_app.records.store.query import CallFilter
from tests.unit.control.http.fake_service import FakeService, Http, end, talking
from tests.unit.control.http.test_openapi import validator


def call(number: int, **changes: Any) -> dict[str, Any]:
    """A call that has ended."""
    record = talking(f"s{number}", line_id=f"1700000000.{number}", way="asterisk")
    end(record)
    record.answered_at = record.started_at
    record.chronicle.sound_began(0.0)
    record.fold(Said("agent", "Hello & <welcome> --> here,\nplease.", event_id=1), 0.5)
    record.chronicle.hears(1, 0.5, 62.5)
    record.chronicle.interrupted(31.5, 1)
    record.fold(Said("caller", f"This is number {number}.", began=31.0, until=33.0), 33.5)
    moment = f"2025-01-01T00:00:{number:02}.000000Z"
    return {**call_document(record), "started_at": moment, **changes}


@pytest.fixture
async def call_log(service: FakeService, tmp_path: Path) -> AsyncIterator[CallLog]:
    """A log with five calls in it."""
    async with CallLog(f"sqlite+aiosqlite:///{tmp_path}/calls.db") as call_log:
        service.call_log = call_log
        for number in range(5):
            changes: dict[str, Any] = {"direction": "out"} if number == 3 else {}
            call_log.keep(call(number, **changes))
        await call_log.settle()
        yield call_log


async def problem(http: Http, path: str, method: str = "GET", **more: Any) -> tuple[int, str]:
    response = await http.request(method, path, **more)
    return response.status, (await response.json())["code"]


async def listed(http: Http, **query: str | int) -> list[str]:
    answer = await (await http.get("/calls", params=query)).json()
    return [row["session_id"] for row in answer["calls"]]


async def test_a_page_leads_to_the_next(http: Http, call_log: CallLog) -> None:
    answer = await (await http.get("/calls", params={"limit": 2})).json()
    validator({"$ref": "#/components/schemas/CallList"}).validate(answer)
    assert [row["session_id"] for row in answer["calls"]] == ["s4", "s3"]
    call_log.keep(call(5))
    await call_log.settle()
    assert await listed(http, limit=2, cursor=answer["cursor"]) == ["s2", "s1"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"from": "2025-01-01T00:00:03Z"}, ["s4", "s3"]),
        ({"from": "2025-01-01T01:00:03+01:00"}, ["s4", "s3"]),
        ({"from": "2025-01-01 01:00:03 01:00"}, ["s4", "s3"]),
        ({"to": "2025-01-01"}, []),
        ({"direction": "out"}, ["s3"]),
        ({"text": '"number 2"'}, ["s2"]),
        ({"number": "+49 30 23125001", "limit": 1}, ["s4"]),
        ({"status": "FAILED"}, []),
        ({"result": "", "agent_id": "agent_7", "limit": 1}, ["s4"]),
        ({"campaign_id": "spring"}, []),
    ],
)
async def test_what_is_looked_for(
    http: Http, call_log: CallLog, query: dict[str, str | int], found: list[str]
) -> None:
    assert await listed(http, **query) == found


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("from=yesterday", "from: must be a date or a time, such as 2026-11-28"),
        ("status=ended", "status: Input should be 'COMPLETED', 'TRANSFER'"),
        ("result=maybe", "result: Input should be 'answered', 'busy'"),
        ("direction=up", "direction: Input should be 'in' or 'out'"),
        ("limit=0", "limit: Input should be greater than or equal to 1"),
        ("limit=many", "limit: Input should be a valid integer"),
        ("phone=1", "There is no field phone."),
        ("status=FAILED&status=TIMEOUT", "status is there twice."),
    ],
)
async def test_a_filter_that_cannot_be_meant(
    http: Http, call_log: CallLog, query: str, told: str
) -> None:
    response = await http.get(f"/calls?{query}")
    answer = await response.json()
    assert (response.status, answer["code"]) == (422, "invalid_request")
    assert told in answer["detail"]


async def test_a_cursor_that_nobody_has_given(http: Http, call_log: CallLog) -> None:
    assert await problem(http, "/calls?cursor=abc") == (400, "invalid_cursor")


async def test_one_call(http: Http, call_log: CallLog, service: FakeService) -> None:
    service.told = [{"type": "call.ended", "state": "delivered"}]
    call_log.amend("s1", "agent_report", {"cost": 3})
    await call_log.settle()
    answer = await (await http.get("/calls/s1")).json()
    validator({"$ref": "#/components/schemas/CallDocument"}).validate(answer)
    assert answer == {**call(1), "agent_report": {"cost": 3}, "webhooks": service.told}


async def test_a_call_that_is_not_there(
    http: Http, call_log: CallLog, service: FakeService
) -> None:
    assert await problem(http, "/calls/s9") == (404, "call_not_found")
    assert await problem(http, "/calls/s9/transcript") == (404, "call_not_found")
    assert await problem(http, "/calls/s9", "DELETE") == (404, "call_not_found")
    service.add("s9")
    assert await problem(http, "/calls/s9") == (409, "call_running")
    assert await problem(http, "/calls/s9", "DELETE") == (409, "call_running")


async def test_a_call_that_has_just_ended_is_waited_for(
    http: Http, call_log: CallLog, service: FakeService
) -> None:
    record = service.add("s9")
    end(record)
    call_log.keep(call_document(record))
    assert (await http.get("/calls/s9")).status == 200


TEXT = """\
Call s1, 2025-01-01T00:00:01.000000Z
  0:00.5  Agent:  Hello & <welcome> --> here, please. [interrupted; heard: Hello & <welcome> …]
  0:31.0  Caller: This is number 1.
"""
VTT = """\
WEBVTT

00:00:00.500 --> 00:00:31.500
<v Agent>Hello &amp; &lt;welcome&gt; …

00:00:31.000 --> 00:00:33.000
<v Caller>This is number 1.
"""


@pytest.mark.parametrize(
    ("query", "accept", "kind", "told"),
    [
        ("?format=txt", "*/*", "text/plain", TEXT),
        ("?format=vtt", "application/json", "text/vtt", VTT),
        ("", "text/vtt", "text/vtt", VTT),
        ("", "text/vtt;q=0.1, text/plain;q=0.5, image/png", "text/plain", TEXT),
    ],
)
async def test_a_transcript_to_read(
    http: Http, call_log: CallLog, query: str, accept: str, kind: str, told: str
) -> None:
    response = await http.get(f"/calls/s1/transcript{query}", headers={"Accept": accept})
    assert response.headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert await response.text() == told


async def test_subtitles_fit_the_recording(http: Http, call_log: CallLog) -> None:
    call_log.amend("s1", "recordings", [{"path": "1.wav", "from": 0.25}])
    await call_log.settle()
    told = await (await http.get("/calls/s1/transcript?format=vtt")).text()
    assert "00:00:00.250 --> 00:00:31.250\n" in told


async def test_a_transcript_for_programs(http: Http, call_log: CallLog) -> None:
    response = await http.get("/calls/s1/transcript")
    answer = await response.json()
    validator({"$ref": "#/components/schemas/Transcript"}).validate(answer)
    assert answer["turns"] == call(1)["turns"]
    wanted = await problem(http, "/calls/s1/transcript", headers={"Accept": "audio/wav"})
    assert wanted == (406, "not_acceptable")
    assert await problem(http, "/calls/s1/transcript?format=pdf") == (422, "invalid_request")


DANGEROUS = ["=1+1", "@SUM(A1)", "+49-cmd", "-2+3", "\t=1", " =1", "a;=1", "a\r\n=1", "\uff1d1"]


async def test_a_table_that_no_spreadsheet_carries_out(http: Http, call_log: CallLog) -> None:
    for number, text in enumerate(DANGEROUS):
        call_log.keep(call(10 + number, reference=text, metadata={"=1": 'a"b'}))
    await call_log.settle()
    response = await http.get("/calls/export", params={"from": "2025-01-01T00:00:10Z"})
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="calls.csv"'
    text = await response.text()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["session_id"] for row in rows] == [f"s{18 - number}" for number in range(9)]
    assert {row["caller_number"] for row in rows} == {"+493023125002"}, "a number is no formula"
    assert {row["metadata"] for row in rows} == {'{"=1": "a\\"b"}'}
    told = [row["reference"] for row in reversed(rows)]
    assert [each.replace("'", "") for each in told] == DANGEROUS
    assert told[:6] == ["'=1+1", "'@SUM(A1)", "'+49-cmd", "'-2+3", "\t'=1", " '=1"]
    assert told[6:] == ["a;'=1", "a\r\n'=1", "'\uff1d1"]


async def test_everything_line_by_line(http: Http, call_log: CallLog) -> None:
    response = await http.get("/calls/export", headers={"Accept": "application/x-ndjson"})
    assert response.headers["Content-Type"] == "application/x-ndjson; charset=utf-8"
    lines = [orjson.loads(line) for line in (await response.read()).splitlines()]
    assert lines == [
        call(number, **({"direction": "out"} if number == 3 else {}))
        for number in reversed(range(5))
    ]
    empty = await http.get("/calls/export?format=jsonl&status=FAILED")
    assert await empty.read() == b""


async def test_a_call_is_deleted(http: Http, call_log: CallLog) -> None:
    answer = await (await http.delete("/calls/s1")).json()
    assert (answer["success"], answer["session_id"]) == (True, "s1")
    assert await problem(http, "/calls/s1") == (404, "call_not_found")
    assert await listed(http) == ["s4", "s3", "s2", "s0"]


PATHS = ["/calls", "/calls/export", "/calls/s1", "/calls/s1/transcript"]


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_call_log(http: Http, path: str) -> None:
    assert await problem(http, path) == (409, "no_call_log")


@pytest.mark.parametrize("path", PATHS)
async def test_a_call_log_that_cannot_be_read(
    http: Http, call_log: CallLog, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    async def unavailable(*_: object, **__: object) -> None:
        raise CallLogUnavailable("The database is away.")

    monkeypatch.setattr(call_log, "_ask", unavailable)
    response = await http.get(path)
    answer = await response.json()
    assert (response.status, answer["code"]) == (503, "call_log_unavailable")
    assert answer["detail"] == "The database is away."
    assert response.headers["Retry-After"] == "5"


async def test_a_stranger_learns_nothing(stranger: Http, call_log: CallLog) -> None:
    for path in PATHS:
        assert await problem(stranger, path) == (401, "unauthorized")


class SlowLog:
    """Gives calls until `gone` is set, and then cannot be read any more."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def export(self, wanted: CallFilter) -> AsyncIterator[dict[str, Any]]:
        for number in range(100):
            yield call(number % 60)
        await self.gone.wait()
        raise CallLogUnavailable("The database is away.")


async def test_an_export_that_breaks_off_is_not_taken_for_a_whole_one(
    http: Http, service: FakeService
) -> None:
    slow = SlowLog()
    service.call_log = cast(CallLog, slow)
    response = await http.get("/calls/export?format=jsonl")
    assert response.status == 200
    assert (await response.content.readline()).startswith(b'{"version":1')
    slow.gone.set()
    with pytest.raises(ClientPayloadError):
        await response.read()


async def test_only_so_many_exports_run_at_once(http: Http, service: FakeService) -> None:
    slow = SlowLog()
    service.call_log = cast(CallLog, slow)
    running = [await http.get("/calls/export") for _ in range(4)]
    assert await problem(http, "/calls/export") == (503, "too_many_exports")
    for response in running:
        response.close()
    slow.gone.set()
    statuses = [(await http.get("/calls/export")).status for _ in range(20)]
    assert statuses[-1] == 200, "whoever has gone makes room"
