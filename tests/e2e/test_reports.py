"""What ElevenLabs says of a conversation afterwards, kept with the call that it belongs to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ari_app.control import reports
from lab.asterisk import LabAsterisk
from tests.e2e.harness import Bench, bench
from tests.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.e2e

LOUD, SECRET = -35.0, "wsec_of_the_lab_0123"


async def one_call(b: Bench) -> dict[str, Any]:
    """Hold a call; what is kept of it, once there is a report."""
    call = await b.call()
    session = await b.session()
    await call.wait_for_sound(LOUD, since=0)
    await call.hang_up()
    call_log = b.bridge.call_log
    assert call_log is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            document = await call_log.find(session.record.session_id)
            if document is not None and "agent_report" in document:
                break
            await asyncio.sleep(0.1)
    assert document["agent_report"]["conversation_id"] == session.record.conversation_id
    return document


@pytest.mark.parametrize("form", ["json", "opentelemetry"])
async def test_the_webhook_finds_its_call(asterisk: LabAsterisk, tmp_path: Path, form: str) -> None:
    async with bench(
        asterisk,
        database_url=f"sqlite+aiosqlite:///{tmp_path}/calls.db",
        elevenlabs_webhook_secret=f"another_secret_of_before,{SECRET}",
    ) as b:
        host, port = b.bridge.api_address
        b.agent.config = b.agent.config.model_copy(
            update={
                "post_call_url": f"http://{host}:{port}/webhook/elevenlabs",
                "post_call_secret": SecretStr(SECRET),
                "post_call_form": form,
            }
        )
        report = (await one_call(b))["agent_report"]
        assert report["source"] == "webhook"
        assert report["transcript_summary"].startswith("A practice call with")
        assert report["evaluation_criteria_results"]["was_served"]["criteria_id"] == "was_served"
        kept = b.bridge.metrics.agent_webhooks_total.labels("kept")
        assert kept._value.get() == 1


async def test_where_there_is_no_webhook_it_is_asked_for(
    asterisk: LabAsterisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports, "PAUSES", (0.2, 0.2, 0.2))
    async with bench(
        asterisk,
        database_url=f"sqlite+aiosqlite:///{tmp_path}/calls.db",
        records_hide="words",
        elevenlabs_fetch_reports=True,
    ) as b:
        report = (await one_call(b))["agent_report"]
        assert report["source"] == "api"
        assert report["transcript_summary"] == "", "the words are hidden here, too"
