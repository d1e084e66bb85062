from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from ari_app.checks import asterisk
from ari_app.checks.asterisk import (
    check_asterisk_side,
    endpoint_of,
    judge_limits,
    judge_transport,
)
from ari_app.checks.finding import Finding, Verdict
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.models import AsteriskInfo
from ari_app.settings import Settings, load_settings
from lab.web import serving
from tests.unit.line.asterisk.ari.fake_ari import PASSWORD, USERNAME, Answer, FakeAri, json_answer
from tests.unit.line.asterisk.ari.samples import ASTERISK_INFO

APPLICATION = {"name": "voice-agent", "channel_ids": [], "bridge_ids": []}


@pytest.fixture
async def ari() -> AsyncIterator[FakeAri]:
    """An Asterisk that has a trunk and nobody else's application."""
    async with FakeAri() as ari:
        ari.answer("GET", "/asterisk/info", json_answer(ASTERISK_INFO))
        ari.answer("GET", "/applications/voice-agent", Answer(404))
        ari.answer("GET", "/endpoints/PJSIP/trunk", endpoint("online"))
        yield ari


def endpoint(state: str) -> Answer:
    return json_answer({"technology": "PJSIP", "resource": "trunk", "state": state})


def settings_for(ari: FakeAri, **changes: Any) -> Settings:
    return load_settings(None, **({"ari_url": ari.url, "api_bind": "127.0.0.1:0"} | changes))


async def findings(ari: FakeAri, **changes: Any) -> list[Finding]:
    async with Client(ari.url, USERNAME, PASSWORD, "voice-agent-check") as client:
        return await check_asterisk_side(client, settings_for(ari, **changes))


def details(found: list[Finding], verdict: Verdict) -> str:
    return " / ".join(finding.detail for finding in found if finding.verdict is verdict)


async def test_all_is_well(ari: FakeAri) -> None:
    found = await findings(ari)
    assert [(finding.what, finding.verdict) for finding in found] == [
        ("Connection", Verdict.OK),
        ("Limits", Verdict.OK),
        ("Calls out", Verdict.OK),
    ]
    assert found[0].detail.startswith("a request to Asterisk takes ")


async def test_requests_that_take_long(ari: FakeAri, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asterisk, "_SLOW_MS", 0.0)
    assert "a call needs ten of them" in details(await findings(ari), Verdict.WARNING)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:8088", False),
        ("http://localhost:8088", False),
        ("https://asterisk.example:8089", False),
        ("http://10.0.0.5:8088", True),
        ("http://asterisk.example:8088", True),
    ],
)
def test_a_password_in_the_clear(url: str, told: bool) -> None:
    found = judge_transport(url)
    assert bool(found) is told
    if told:
        assert "crosses the network in the clear" in found[0].detail
        assert "tlsenable" in found[0].detail


def test_limits_of_asterisk() -> None:
    def judged(**config: Any) -> str:
        return details(judge_limits(AsteriskInfo.model_validate({"config": config}), 10), WARNING)

    WARNING = Verdict.WARNING
    assert judged(max_channels=10, max_open_files=1024, max_load=2.0) == ""
    assert "maxcalls is 9" in judged(max_channels=9)
    assert "Write maxcalls = 20" in judged(max_channels=9)
    assert "maxfiles is 200 in asterisk.conf; 10 calls need about 220" in judged(max_open_files=200)
    assert judge_limits(AsteriskInfo(), 10) == []


async def test_somebody_else_has_the_application(ari: FakeAri) -> None:
    ari.answer("GET", "/applications/voice-agent", json_answer(APPLICATION))
    told = details(await findings(ari), Verdict.WARNING)
    assert "Another program has registered 'voice-agent'" in told


@pytest.mark.parametrize(("status", "serves"), [(200, True), (404, False)])
async def test_the_service_itself_has_the_application(
    ari: FakeAri, status: int, serves: bool
) -> None:
    ari.answer("GET", "/applications/voice-agent", json_answer(APPLICATION))
    async with serve_health(status) as bind:
        found = await findings(ari, api_bind=bind)
    assert ("registered by `ari-app serve` here" in details(found, Verdict.OK)) is serves
    assert ("Another program" in details(found, Verdict.WARNING)) is not serves


@asynccontextmanager
async def serve_health(status: int) -> AsyncIterator[str]:
    """What `ari-app serve` has at /health/live; where."""

    async def live(request: web.Request) -> web.Response:
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/health/live", live)
    async with serving(app) as url:
        yield url.removeprefix("http://")


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("PJSIP/{number}@trunk", ("PJSIP", "trunk")),
        ("PJSIP/trunk/sip:{number}@sip.example", ("PJSIP", "trunk")),
        ("SIP/trunk/{number}", ("SIP", "trunk")),
        ("PJSIP/{number}", None),
        ("Local/{number}@outbound/n", None),
        ("Local/{number}@outbound", None),
    ],
)
def test_the_trunk_in_a_dial_string(template: str, named: tuple[str, str] | None) -> None:
    assert endpoint_of(template) == named


async def test_a_trunk_that_is_unavailable(ari: FakeAri) -> None:
    ari.answer("GET", "/endpoints/PJSIP/trunk", endpoint("offline"))
    assert "PJSIP/trunk is unavailable" in details(await findings(ari), Verdict.WARNING)


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, Verdict.NOTE, "no endpoint PJSIP/trunk, so no calls can be placed"),
        (
            {"outbound_endpoint": "PJSIP/{number}@mine"},
            Verdict.FAILED,
            "no endpoint PJSIP/mine, which OUTBOUND_ENDPOINT names",
        ),
        (
            {"transfer_endpoint": "PJSIP/{number}@mine"},
            Verdict.FAILED,
            "no endpoint PJSIP/mine, which TRANSFER_ENDPOINT names",
        ),
    ],
)
async def test_a_trunk_that_is_not_there(
    ari: FakeAri, changes: dict[str, str], verdict: Verdict, words: str
) -> None:
    for name in ("trunk", "mine"):
        ari.answer("GET", f"/endpoints/PJSIP/{name}", Answer(404))
    assert words in details(await findings(ari, **changes), verdict)


async def test_a_trunk_that_cannot_be_looked_at(ari: FakeAri) -> None:
    ari.answer("GET", "/endpoints/PJSIP/trunk", Answer(500))
    assert "could not be looked at" in details(await findings(ari), Verdict.WARNING)


async def test_calls_by_way_of_the_dialplan_have_no_trunk(ari: FakeAri) -> None:
    found = await findings(ari, outbound_endpoint="Local/{number}@out")
    assert [finding.what for finding in found] == ["Connection", "Limits"]
