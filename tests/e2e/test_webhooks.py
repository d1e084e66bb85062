"""What others are told of real calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from ari_app.records.document import call_document
from lab.asterisk import LabAsterisk
from tests.e2e.harness import bench
from tests.unit.records.webhooks.receiver import SECRET, receiving
from tests.waiting import until

pytestmark = pytest.mark.e2e

LOUD = -35.0


async def test_a_call_is_told_as_it_was(asterisk: LabAsterisk, tmp_path: Path) -> None:
    """Beginning and end arrive, signed, and say what the record says."""
    async with (
        receiving() as receiver,
        bench(
            asterisk,
            webhook_url=f"{receiver.url}/hook",
            webhook_secret=SECRET,
            webhook_spool=tmp_path / "webhooks.db",
        ) as b,
    ):
        call = await b.call()
        session = await b.session()
        await call.wait_for_sound(LOUD, since=0)
        await until(lambda: receiver.got)
        (began,) = receiver.got
        assert began.kind == "call.started"
        assert began.body["call"]["line_id"] == session.record.line_id
        await call.hang_up()
        await until(lambda: len(receiver.got) == 2)
        ended = receiver.got[1]
        record = session.record
        assert ended.kind == "call.ended"
        assert ended.body["call"] == call_document(record)
        assert ended.body["call"]["status"] == "COMPLETED"
        assert ended.body["call"]["turns"][0]["text"] == "Hello, how can I help you today?"
        conversation = await b.conversation()
        assert ended.body["call"]["conversation_id"] == conversation.conversation_id
        outbox = b.bridge.outbox
        assert outbox is not None
        # The receiver has it before it is known here that it has.
        await until(lambda: outbox.stats.delivered == 2)
        deliveries = await outbox.of_call(record.session_id)
        assert [each["state"] for each in deliveries] == ["delivered", "delivered"]
        assert b"ari_app_webhooks_delivered_total 2.0" in b.bridge.metrics.render()
        await b.all_gone()


async def test_a_receiver_that_is_away_disturbs_no_call(
    asterisk: LabAsterisk, tmp_path: Path
) -> None:
    async with bench(
        asterisk,
        webhook_url="http://127.0.0.1:1/hook",
        webhook_secret=SECRET,
        webhook_spool=tmp_path / "webhooks.db",
    ) as b:
        call = await b.call()
        await b.session()
        await call.wait_for_sound(LOUD, since=0)
        await call.hang_up()
        await b.all_gone()
        outbox = b.bridge.outbox
        assert outbox is not None
        await until(lambda: outbox.stats.failed)
        assert b.bridge.readiness().problems == [], "what can be kept is no reason to take no calls"


async def test_a_recording_is_told_when_it_is_ready(asterisk: LabAsterisk, tmp_path: Path) -> None:
    async with (
        receiving() as receiver,
        bench(
            asterisk,
            webhook_url=f"{receiver.url}/hook",
            webhook_secret=SECRET,
            webhook_spool=tmp_path / "webhooks.db",
            recordings_dir=tmp_path / "recordings",
        ) as b,
    ):
        (tmp_path / "recordings").mkdir(exist_ok=True)
        call = await b.call()
        session = await b.session()
        await call.wait_for_sound(LOUD, since=0)
        await call.hang_up()
        await until(lambda: "recording.ready" in receiver.kinds(session.record.session_id))
        (ready,) = [each for each in receiver.got if each.kind == "recording.ready"]
        assert ready.body["call"]["conversation_id"] == session.record.conversation_id
        assert (tmp_path / "recordings" / ready.body["recording"]["path"]).is_file()
        await b.all_gone()
