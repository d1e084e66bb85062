"""What the service does with its call log and its webhooks, without a call."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from ari_app.bridge import VoiceBridge
from ari_app.call import adoption as adoption_module
from ari_app.call.checkpoint import CheckpointWriter, PartsState, facts_of
from ari_app.call.course import Course
from ari_app.call.signals import EndRequested, Event
from ari_app.call.states import State
from ari_app.errors import ConfigError
from ari_app.records import checkpoints as checkpoints_module
from ari_app.records.checkpoints import Checkpoints
from ari_app.records.document import call_document
from ari_app.records.events import Said
from ari_app.records.record import CallRecord, Leg
from ari_app.records.store.log import CallLog
from tests.unit.call.test_machine import DONE, TO_TALKING, WAYS_TO, run
from tests.unit.call.test_take_up import kept
from tests.unit.records.test_checkpoints import die
from tests.unit.records.webhooks.receiver import SECRET, BadReceiver, receiving
from tests.unit.settings_maker import Make, settings_maker, unhurried
from tests.waiting import PATIENCE_SECONDS, until

KEY = "key-of-the-tests"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    unhurried(monkeypatch)
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


HEARD = "My bicycle was stolen."


async def lost_in(folder: Path, course: Course) -> CallRecord:
    """A process that is killed in the third second of a call; its record as it was."""
    now = asyncio.get_running_loop().time()
    record = CallRecord(
        "lost", "line", now - 3, way="asterisk", legs=[Leg("caller", "1", answered=0.5)]
    )
    record.answered_at = record.started_at
    record.converses("conv_1", 1.0)
    running = Checkpoints(folder)
    running.open()
    parts = PartsState(audio_began=True)
    state = kept(run()[0], course=course, facts=facts_of(record), parts=parts)
    keeper = CheckpointWriter(running.begin(), lambda: state, lambda: None)
    keeper.event(Said("caller", HEARD, began=1.0, until=2.0), 2.5)
    keeper._look()
    keeper._write_state()
    await until(lambda: keeper.path.exists() and b"slin" in keeper.path.read_bytes())
    keeper._timer.cancel()
    await asyncio.to_thread(die, running)
    return record


async def document_of(service: VoiceBridge) -> dict[str, Any]:
    assert service.call_log is not None
    await service.mend(expected=True)
    async with asyncio.timeout(10):
        while (found := await service.call_log.find("lost")) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


@pytest.mark.parametrize("reason", ["line", "stale", "poison"])
async def test_what_was_said_with_a_process_that_was_lost_is_kept(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    record = await lost_in(tmp_path / "app", run(*TO_TALKING)[0].course)
    match reason:
        case "stale":
            # However long a worker may stand still: nothing is fresh.
            monkeypatch.setattr(checkpoints_module, "_FRESH_SECONDS", -3600.0)
        case "poison":
            monkeypatch.setattr(adoption_module, "is_poison", lambda taken: True)
        case _:
            pass  # of these there is no way in here
    async with CallLog(make().database_url) as log:
        log.began(call_document(record))
    async with receiving() as receiver:
        settings = make(webhook_url=f"{receiver.url}/hook")
        async with VoiceBridge(settings, checkpoints=tmp_path / "app") as service:
            document = await document_of(service)
            await until(lambda: any(got.kind == "call.ended" for got in receiver.got))
            shown = f'ari_app_calls_not_adopted_total{{reason="{reason}"}} 1.0'
            assert shown in service.metrics.render().decode()
    (ended,) = [got.body["call"] for got in receiver.got if got.kind == "call.ended"]
    assert ended["seconds"] == document["seconds"] == pytest.approx(3, abs=0.4)
    assert (document["status"], document["reason"]) == ("FAILED", "worker_lost")
    assert document["answered_at"] is not None
    assert document["agent_seconds"] == pytest.approx(2, abs=0.4)
    assert [turn["text"] for turn in document["turns"]] == [HEARD]
    assert document["legs"][0]["ended"] == document["seconds"]
    assert document["score"]["value"] is not None
    assert not list((tmp_path / "app").iterdir())


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        (WAYS_TO[State.HANDED_OVER], "transferred"),
        ((*TO_TALKING, EndRequested(DONE)), DONE.reason),
    ],
)
async def test_what_had_been_decided_of_a_call_is_kept(
    make: Make, tmp_path: Path, way: tuple[Event, ...], reason: str
) -> None:
    await lost_in(tmp_path / "app", run(*way)[0].course)
    async with VoiceBridge(make(), checkpoints=tmp_path / "app") as service:
        document = await document_of(service)
    assert (document["status"], document["reason"]) == ("COMPLETED", reason)


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


def talked(session_id: str, seconds: float) -> CallRecord:
    """The record of a call that began just now, and in which an agent was for so long."""
    record = CallRecord(session_id, "line", 0.0, agent_id="agent_7")
    record.converses(f"conv_{session_id}")
    record.leaves_agent(seconds)
    return record


async def test_webhooks_of_before_nobody_was_told_any_more_go_with_their_call(
    make: Make, tmp_path: Path
) -> None:
    spool = tmp_path / "webhooks.db"
    async with receiving() as receiver:
        receiver.behave = lambda request, got: web.Response(status=503)
        async with bridge(make, receiver) as telling:
            assert telling.call_log is not None
            assert telling.outbox is not None
            for name in ("s1", "s2"):
                ended = call_document(CallRecord(name, "line", 0.0, caller_number=f"+4930{name}"))
                telling.call_log.keep(ended)
                telling.outbox.ended(ended)
            assert await telling.outbox.of_call("s2")
    async with VoiceBridge(make(webhook_url="")) as silent:
        assert silent.call_log is not None
        assert await silent.call_log.delete("s1")
        assert b"+4930s1" not in spool.read_bytes()
        assert b"+4930s2" in spool.read_bytes()
        spool.unlink()
        assert await silent.call_log.delete("s2")
    assert not spool.exists()


async def test_what_a_day_has_cost_outlives_processes_and_those_that_are_killed(
    make: Make, tmp_path: Path
) -> None:
    (tmp_path / "limits.yaml").write_text("agent_7: {calls: 2}")
    async with CallLog(make().database_url) as log:
        log.keep(call_document(talked("before", 60)))
        # Its end never comes. It lasts for longer than a file's time may be behind: that is of the
        # kernel's last tick.
        lost = talked("lost", 0)
        await asyncio.sleep(0.02)
        log.began(call_document(lost))
    async with receiving() as receiver:
        settings = make(spend_limits_file="limits.yaml", webhook_url=f"{receiver.url}/hook")
        async with VoiceBridge(settings) as service:
            guard = service.spend
            assert guard is not None

            async def both_count() -> bool:
                await guard.ask()
                return guard.quota("agent_7") is not None

            assert service.readiness().problems == []
            async with asyncio.timeout(PATIENCE_SECONDS):
                # The lost one is found by and by.
                while not await both_count():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            guard.look()
            assert guard.quota("agent_8") is None
            assert "agent_7 has used 100 %" in service.readiness().warnings[0]
            assert 'used_ratio{of="calls",scope="agent"} 1.0' in service.metrics.render().decode()
            await until(lambda: any(got.kind == "spend.limit_reached" for got in receiver.got))
    (told,) = [got.body for got in receiver.got if got.kind == "spend.limit_reached"]
    assert (told["call"], told["spend"]["agent_id"], told["spend"]["of"]) == (
        None,
        "agent_7",
        "calls",
    )
    assert (told["spend"]["used"], told["spend"]["limit"]) == (2, 2)


async def test_a_change_is_in_the_audit_file_when_the_service_has_stopped(
    make: Make, tmp_path: Path
) -> None:
    settings = make(audit_file="audit.jsonl", records_hide="numbers")
    async with VoiceBridge(settings) as service, ClientSession() as http:
        host, port = service.api_address
        body = {"called_number": "+493023125001"}
        url = f"http://{host}:{port}/webhook/initiate-call"
        async with http.post(url, json=body, headers={"X-API-Key": KEY}) as answer:
            code = (await answer.json())["code"]
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert (code, json.loads(line)["result"]) == ("no_such_way", "no_such_way")
    assert json.loads(line)["asked"]["called_number"] == "*001"
    with pytest.raises(ConfigError, match=r"AUDIT_FILE .* cannot be written"):
        async with VoiceBridge(make(audit_file="none/audit.jsonl")):
            pass
