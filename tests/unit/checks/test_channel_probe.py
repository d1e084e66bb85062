from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ari_app.checks import channel_probe
from ari_app.checks.channel_probe import Listener, check_questions, judge_clock
from ari_app.checks.conf_rules import Said, demands, judge
from ari_app.checks.finding import Finding, Verdict
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.events import parse_event
from ari_app.settings import load_settings
from tests.unit.line.asterisk.ari.fake_ari import PASSWORD, USERNAME, Answer, FakeAri, json_answer
from tests.waiting import PATIENCE_SECONDS, until

CHANNEL = {"id": "ask", "name": "Local/s@default-1;1", "state": "Down"}
BOTH = ("func_dialplan.so", "func_config.so")


class Answers(dict[tuple[str, str], Answer]):
    """No function has a value on any channel."""

    def get(self, key: tuple[str, str], default: Any = None) -> Any:
        return Answer(500) if key[1].endswith("/variable") else super().get(key, default)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that never comes is waited for a moment only."""
    monkeypatch.setattr(channel_probe, "EVENT_SECONDS", 0.01)


@pytest.fixture
async def ari() -> AsyncIterator[FakeAri]:
    async with FakeAri() as ari:
        ari.answers = Answers()
        ari.answer("POST", "/channels/create", json_answer(CHANNEL))
        has(ari, *BOTH)
        yield ari


def has(ari: FakeAri, *modules: str) -> None:
    listed = [{"name": name, "status": "Running"} for name in modules]
    ari.answer("GET", "/asterisk/modules", json_answer(listed))


async def asked(ari: FakeAri, *, configuration: bool = True) -> list[Finding]:
    settings = load_settings(None, ari_username=USERNAME)
    async with Client(ari.url, USERNAME, PASSWORD, "voice-agent-check") as client:
        return await check_questions(client, settings, configuration=configuration)


def functions(ari: FakeAri) -> set[str]:
    names = (seen.query.get("variable", "") for seen in ari.seen)
    return {name.partition("(")[0] for name in names if name}


async def test_no_function_is_asked_for_that_is_not_there(ari: FakeAri) -> None:
    has(ari)
    _, finding = await asked(ari)
    assert "hands calls to Stasis(voice-agent)" in finding.detail
    assert "--conf" in finding.detail
    assert functions(ari) == set()
    has(ari, *BOTH)
    await asked(ari, configuration=False)
    assert functions(ari) == {"DIALPLAN_EXISTS"}


async def test_the_channel_is_taken_away(ari: FakeAri) -> None:
    await asked(ari)
    (made,) = (seen for seen in ari.seen if seen.method == "POST")
    (gone,) = (seen for seen in ari.seen if seen.method == "DELETE")
    assert gone.raw_path.endswith(made.body["channelId"])
    assert made.body["endpoint"].startswith("Local/")


async def test_no_password_is_asked_for(ari: FakeAri) -> None:
    await asked(ari)
    places = [seen.query.get("variable", "") for seen in ari.seen]
    keys = [place.rstrip(")").split(",")[2] for place in places if place.startswith("AST_CONFIG")]
    assert len(keys) == len(demands(USERNAME))
    assert "password" not in keys


async def test_what_no_file_says_is_taken_as_asterisk_does(ari: FakeAri) -> None:
    told = [finding.detail for finding in await asked(ari) if finding.what == "Configuration"]
    assert len(told) == 2
    assert "ari.conf has no password_format in [voice]" in told[0]
    assert "ari.conf has no websocket_write_timeout in [general]" in told[1]


async def test_contexts_that_are_not_there(ari: FakeAri) -> None:
    found = await asked(ari, configuration=False)
    told = [finding.detail for finding in found if finding.what == "Dialplan"]
    verdicts = {finding.verdict for finding in found if finding.what == "Dialplan"}
    assert verdicts == {Verdict.NOTE}, "nobody asked for them"
    assert len(told) == 2
    assert "no extension s in a context voice-agent-amd (AMD_CONTEXT)" in told[0]
    assert "no extension s in a context voice-agent-after (TRANSFER_CONTEXT)" in told[1]


async def test_no_channel_can_be_made(ari: FakeAri) -> None:
    ari.answer("POST", "/channels/create", Answer(500))
    (finding,) = await asked(ari)
    assert (finding.what, finding.verdict) == ("Dialplan", Verdict.WARNING)
    assert "Neither it nor Asterisk's clock could be looked at" in finding.detail


async def test_the_clock_waits_for_an_event(ari: FakeAri, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, *_ = await asked(ari)
    assert (clock.what, clock.verdict) == ("Clock", Verdict.WARNING)
    assert "no event came" in clock.detail

    async def speak_late() -> None:
        await ari.sockets.get()
        socket = await ari.sockets.get()
        await until(lambda: len([seen for seen in ari.seen if seen.method == "POST"]) == 2)
        await asyncio.sleep(0.05)
        stamp = datetime.now(UTC).isoformat()
        await socket.send_str(f'{{"type":"X","timestamp":"{stamp}"}}')

    monkeypatch.setattr(channel_probe, "EVENT_SECONDS", PATIENCE_SECONDS)
    speaking = asyncio.create_task(speak_late())
    clock, *_ = await asked(ari)
    assert (clock.what, clock.verdict) == ("Clock", Verdict.OK)
    await speaking


@pytest.mark.parametrize(
    ("ahead", "words"),
    [(0.4, ""), (-0.9, ""), (3.21, "3.2 s ahead of this"), (-90.0, "90.0 s behind this")],
)
def test_the_clock(ahead: float, words: str) -> None:
    finding = judge_clock(ahead)
    assert finding.verdict is (Verdict.WARNING if words else Verdict.OK)
    assert words in finding.detail


def test_the_first_event_with_a_time_gives_the_clock() -> None:
    listener = Listener()
    listener.heard(parse_event(b'{"type":"StasisStart2"}'))
    assert listener.clock_ahead_seconds is None
    for hours in (1, 2):
        stamp = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
        listener.heard(parse_event(f'{{"type":"X","timestamp":"{stamp}"}}'.encode()))
    assert listener.clock_ahead_seconds == pytest.approx(3600, abs=60)


def test_each_demand_is_met_by_what_it_says_to_write() -> None:
    for demand in demands("user"):
        key, _, value = demand.write.partition("=")
        assert key.strip() == demand.key
        assert demand.fits(value.strip()), demand


def test_a_number_that_is_none_does_not_fit() -> None:
    for demand in demands("user"):
        if demand.write.rpartition("=")[2].strip().isdigit():
            assert judge(demand, Said("many", "x.conf:1")) is not None
