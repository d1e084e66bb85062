"""What the service does with its call log and its webhooks, without a call."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import ClientSession

from ari_app.bridge import VoiceBridge
from ari_app.records.document import call_document
from ari_app.records.record import CallRecord
from ari_app.records.store import CallLog
from tests.unit.records.webhooks.receiver import SECRET, BadReceiver, receiving
from tests.unit.settings_maker import Make, settings_maker
from tests.waiting import until

KEY = "key-of-the-tests"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    return settings_maker(
        monkeypatch,
        tmp_path,
        dialer_type="custom",
        api_bind="127.0.0.1:0",
        api_key=KEY,
        elevenlabs_agent_id="agent_7",
        database_url="sqlite+aiosqlite:///calls.db",
        webhook_secret=SECRET,
    )


def bridge(make: Make, receiver: BadReceiver) -> VoiceBridge:
    return VoiceBridge(make(webhook_url=f"{receiver.url}/hook"))


async def test_the_end_of_a_call_whose_process_was_lost_is_told(make: Make) -> None:
    lost = call_document(CallRecord("lost", "line", 0.0))
    async with receiving() as receiver:
        # A process that tells of a beginning and of no end.
        async with CallLog(make().database_url) as log:
            log.began(lost)
        async with bridge(make, receiver):
            await until(lambda: receiver.got)
    (ended,) = receiver.got
    assert ended.kind == "call.ended"
    assert ended.body["call"]["session_id"] == "lost"
    assert ended.body["call"]["status"] == "FAILED"
    assert ended.body["call"]["reason"] == "worker_lost"


async def test_a_call_shows_its_webhooks_and_takes_them_along(make: Make) -> None:
    document = call_document(CallRecord("s1", "line", 0.0))
    async with receiving() as receiver, bridge(make, receiver) as service, ClientSession() as http:
        assert service.outbox is not None
        assert service.call_log is not None
        service.call_log.keep(document)
        service.outbox.ended(document)
        await until(lambda: service.outbox is not None and service.outbox.stats.delivered)
        await service.call_log.settle()
        host, port = service.api_address
        url, headers = f"http://{host}:{port}/calls/s1", {"X-API-Key": KEY}
        async with http.get(url, headers=headers) as answer:
            (delivery,) = (await answer.json())["webhooks"]
        assert delivery["type"] == "call.ended"
        assert delivery["state"] == "delivered"
        assert delivery["http_status"] == 200
        async with http.delete(url, headers=headers) as answer:
            assert answer.status == 200
        assert await service.outbox.of_call("s1") == []
