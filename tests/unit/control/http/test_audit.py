"""Each change that somebody asks for is written down, with what became of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.keys import Keys
from ari_app.control.refusals import ControlRefused, NotPossible
from ari_app.records.audit import AuditFile
from tests.unit.control.http.fake_service import FakeService, Http
from tests.unit.control.http.test_access import CHIEF, DESK, FROM_PAGE, KEYS, WALL, bring

NUMBER = "+493023125001"


class Written(list[dict[str, Any]]):
    """What the audit file is given."""

    def write(self, entry: Mapping[str, Any]) -> None:
        self.append(dict(entry))


@pytest.fixture
def written() -> Written:
    return Written()


@asynccontextmanager
async def serving(
    service: FakeService, written: Written, *, keys: Keys = KEYS, hidden: tuple[str, ...] = ()
) -> AsyncIterator[Http]:
    app = build_web_app(service, keys=keys, audit_file=written, hidden=hidden)
    async with TestClient(TestServer(app)) as client:
        yield client


@pytest.fixture
async def http(service: FakeService, written: Written) -> AsyncIterator[Http]:
    async with serving(service, written) as client:
        yield client


async def test_who_when_what_which_call_and_from_where(
    http: Http, service: FakeService, written: Written
) -> None:
    service.add("s1")
    headers = {**bring(DESK), "X-Request-ID": "request-1"}
    body = {"to": "2000", "mode": "attended"}
    await http.post("/sessions/s1/transfer", headers=headers, json=body)
    (entry,) = written
    assert entry.pop("seconds") >= 0
    assert entry == {
        "key": "desk",
        "address": "127.0.0.1",
        "action": "transfer",
        "session_id": "s1",
        "asked": {"to": "2000", "mode": "attended"},
        "result": "ok",
        "status": 200,
        "operation": "POST /sessions/{session_id}/transfer",
        "request_id": "request-1",
    }


async def test_who_only_reads_is_not_written_down(
    http: Http, service: FakeService, written: Written
) -> None:
    service.add("s1")
    for path in ("/sessions", "/sessions/s1", "/calls", "/health/ready", "/page/me", "/"):
        await http.get(path, headers=bring(CHIEF))
    assert written == []


async def test_what_was_refused_is_written_down_with_the_reason(
    http: Http, service: FakeService, written: Written
) -> None:
    service.add("s1")
    await http.post("/sessions/s1/hold", headers=bring(WALL))
    await http.post("/sessions/none/hold", headers=bring(DESK))
    service.control.not_possible = NotPossible("not_talking", "It is over.")
    await http.post("/sessions/s1/hold", headers=bring(DESK))
    await http.delete("/calls/s1", headers=bring(CHIEF))
    service.control.refusal = ControlRefused("quota", "Enough for today.", 60)
    refused = await http.post(
        "/webhook/initiate-call", headers=bring(DESK), json={"called_number": NUMBER}
    )
    problem = await refused.json()
    assert (refused.status, problem["code"], refused.headers["Retry-After"]) == (429, "quota", "60")
    await http.post("/webhook/initiate-call", headers=bring(DESK), data="no json")
    # Whoever has no key could fill a disk with what nobody asked for; the metrics count it.
    await http.post("/sessions/s1/hold")
    await http.post("/sessions/s1/hold", headers={"X-API-Key": "wrong"})
    assert [(each["key"], each["action"], each["result"]) for each in written] == [
        ("wallboard", "hold", "forbidden"),
        ("desk", "hold", "session_not_found"),
        ("desk", "hold", "not_talking"),
        ("chief", "delete_call", "no_call_log"),
        ("desk", "initiate_call", "quota"),
        ("desk", "initiate_call", "unsupported_media_type"),
    ]
    assert written[4]["asked"]["called_number"] == NUMBER


async def test_a_call_that_was_begun_is_named(
    http: Http, service: FakeService, written: Written
) -> None:
    body = {"called_number": NUMBER}
    for key in (None, "again", "again"):
        headers = bring(DESK) | ({} if key is None else {"Idempotency-Key": key})
        await http.post("/webhook/initiate-call", headers=headers, json=body)
    await http.post("/webhook/end-call", headers=bring(DESK), json={"session_id": "session-1"})
    assert [each["session_id"] for each in written] == [
        "session-1",
        "session-2",
        "session-2",
        "session-1",
    ]


async def test_nothing_that_may_be_secret_is_written_down(
    http: Http, service: FakeService, written: Written
) -> None:
    service.add("s1")
    secret = "hush-4711"
    for path, body in (
        ("/sessions/s1/say-to-agent", {"text": secret, "kind": "user"}),
        ("/sessions/s1/dtmf", {"digits": "4711"}),
        (
            "/webhook/initiate-call",
            {
                "called_number": NUMBER,
                "dynamic_variables": {"pin": secret},
                "metadata": {"pin": secret},
                "conversation_config_override": {"pin": secret},
            },
        ),
    ):
        answer = await http.post(path, headers=bring(DESK), json=body)
        assert answer.status == 200
    assert len(written) == 3
    assert "4711" not in str(written)
    assert DESK.secret.decode() not in str(written)


async def test_numbers_are_hidden_where_they_must_not_be_kept(
    service: FakeService, written: Written
) -> None:
    service.add("s1")
    async with serving(service, written, hidden=("numbers",)) as http:
        for path, body in (
            ("/webhook/initiate-call", {"called_number": NUMBER, "caller_number": NUMBER}),
            ("/sessions/s1/transfer", {"to": NUMBER}),
            ("/webhook/end-call", {"session_id": "s1", "reason": "sent_to_03023125001"}),
        ):
            await http.post(path, headers=bring(DESK), json=body)
    assert len(written) == 3
    assert "23125" not in str(written)
    assert written[1]["asked"]["to"] == "*001"


async def test_somebody_signs_in_and_out_and_listens(
    http: Http, service: FakeService, written: Written
) -> None:
    await http.post("/page/sign-in", headers={"X-API-Key": "wrong"})
    await http.post("/page/sign-in", headers=bring(DESK))
    await http.get("/sessions/none/listen")
    await http.post("/page/sign-out", headers=FROM_PAGE)
    await http.post("/page/sign-out", headers=FROM_PAGE)
    assert [(each["key"], each["action"], each["result"]) for each in written] == [
        ("desk", "sign_in", "ok"),
        ("desk", "listen", "bad_request"),
        ("desk", "sign_out", "ok"),
    ]


async def test_where_no_key_is_asked_for_it_is_this_machine(
    service: FakeService, written: Written
) -> None:
    service.add("s1")
    async with serving(service, written, keys=Keys()) as http:
        await http.post("/sessions/s1/mute", json={"muted": True})
    assert [(each["key"], each["asked"]) for each in written] == [("local", {"muted": True})]


@pytest.mark.parametrize("name", ["%ff", "%ed%a0%80", "%00", "a%0ab", "%F0%9F%98%80", "x" * 3000])
async def test_whatever_stands_in_a_path_can_be_written_down(
    service: FakeService, name: str, tmp_path: Path
) -> None:
    file = AuditFile(tmp_path / "audit.jsonl")
    file.open()
    app = build_web_app(service, keys=KEYS, audit_file=file)
    async with TestClient(TestServer(app)) as http:
        url = URL(f"/sessions/{name}/hold", encoded=True)
        answer = await http.post(url, headers=bring(DESK))
        assert answer.status == 404
    file.close()
    assert (file.lost, file.written) == (0, 1)
