from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import web

from ari_app.checks.finding import Finding, Verdict
from ari_app.checks.webhooks import check_reports, check_webhooks, judge_answer
from ari_app.errors import ConfigError
from ari_app.records.webhooks.outbox import open_spool
from ari_app.records.webhooks.spool import Spool
from lab.web import serving
from tests.unit.settings_maker import Make, settings_maker

LONG = 32 * "x"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Make:
    return settings_maker(
        monkeypatch, tmp_path, webhook_secret=LONG, database_url="sqlite+aiosqlite:///calls.db"
    )


def said(findings: list[Finding]) -> list[tuple[Verdict, str]]:
    return [(finding.verdict, finding.detail) for finding in findings]


async def test_receivers_that_answer_are_told_nothing(make: Make) -> None:
    methods = []

    async def answer(request: web.Request) -> web.Response:
        methods.append(request.method)
        return web.Response(status=404)

    app = web.Application()
    app.router.add_route("*", "/hook", answer)
    async with serving(app) as url:
        (finding,) = await check_webhooks(make(webhook_url=f"{url}/hook"))
    assert finding.verdict is Verdict.OK
    assert "/hook" not in finding.detail, "the path may be a secret"
    assert methods == ["HEAD"]


async def test_receivers_that_do_not_are_named(make: Make) -> None:
    findings = await check_webhooks(make(webhook_url="http://127.0.0.1:1/a,http://127.0.0.1:1/b"))
    assert [verdict for verdict, _ in said(findings)] == 2 * [Verdict.WARNING]
    assert "http://127.0.0.1:1 cannot be reached: connection refused" in findings[0].detail


async def test_a_short_secret_is_no_secret(make: Make) -> None:
    settings = make(webhook_url="http://127.0.0.1:1/", webhook_secret=f"{LONG},short")
    assert "WEBHOOK_SECRET has 5 characters" in (await check_webhooks(settings))[0].detail


@pytest.mark.parametrize("folder", ["file", "none"])
async def test_a_spool_needs_its_folder(make: Make, tmp_path: Path, folder: str) -> None:
    """`serve` makes no folder for it."""
    (tmp_path / "file").touch()
    findings = await check_webhooks(
        make(webhook_url="http://127.0.0.1:9/", webhook_spool=tmp_path / folder / "webhooks.db")
    )
    [finding] = [each for each in findings if each.verdict is Verdict.FAILED]
    assert "WEBHOOK_SPOOL" in finding.detail
    assert "cannot be written" in finding.detail


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("folder", "Is a directory"),
        ("text", "is no database of SQLite"),
        ("calls", "is a database of something else"),
        ("newer", "is of version 99"),
        ("ours", None),
        ("empty", None),
    ],
)
async def test_what_serve_could_not_take_for_its_spool_fails(
    make: Make, tmp_path: Path, kind: str, why: str | None
) -> None:
    path = tmp_path / "spool"
    match kind:
        case "folder":
            path.mkdir()
        case "text" | "empty":
            path.write_text("some text" if kind == "text" else "")
        case "ours":
            Spool(path).close()
        case _:
            with closing(sqlite3.connect(path)) as database:
                database.execute("CREATE TABLE calls (x)")
                database.execute(f"PRAGMA user_version = {99 if kind == 'newer' else 0}")
    before = sorted(os.listdir(tmp_path))
    findings = await check_webhooks(make(webhook_url="http://127.0.0.1:9/", webhook_spool=path))
    failed = [finding.detail for finding in findings if finding.verdict is Verdict.FAILED]
    assert sorted(os.listdir(tmp_path)) == before
    if why is None:
        assert not failed
    else:
        assert f"WEBHOOK_SPOOL {path} cannot be used: {why}" in failed[0]
        with pytest.raises(ConfigError) as caught:
            open_spool(path)
        assert str(caught.value) == failed[0], "as `serve` says it"


async def test_certificates_that_serve_cannot_read_fail(make: Make, tmp_path: Path) -> None:
    settings = make(webhook_url="http://127.0.0.1:9/", webhook_ca_file=tmp_path / "none")
    (finding,) = await check_webhooks(settings)
    assert finding.verdict is Verdict.FAILED
    assert "WEBHOOK_CA_FILE" in finding.detail


async def test_nobody_to_tell_is_nothing_to_say(make: Make) -> None:
    assert await check_webhooks(make()) == []


@pytest.mark.parametrize(
    ("ahead", "words"), [(0, None), (59, None), (-3600, "3600 s ahead of"), (90, "90 s behind")]
)
def test_clocks_are_compared(ahead: float, words: str | None) -> None:
    now = 1_700_000_000
    finding = judge_answer("https://crm.example.com/x", formatdate(now + ahead, usegmt=True), now)
    assert finding.verdict is (Verdict.OK if words is None else Verdict.WARNING)
    assert (words or "answers") in finding.detail
    assert judge_answer("https://crm.example.com/x", "yesterday", now).verdict is Verdict.OK


def test_reports_need_a_place_and_a_key(make: Make) -> None:
    assert check_reports(make()) == []
    nowhere = check_reports(make(elevenlabs_webhook_secret=LONG, database_url=""))
    assert "DATABASE_URL is empty" in nowhere[0].detail
    keyless = check_reports(make(elevenlabs_fetch_reports=True))
    assert "ELEVENLABS_API_KEY is not" in keyless[0].detail
    good = check_reports(
        make(elevenlabs_webhook_secret=LONG, api_public_url="https://calls.example.com")
    )
    assert said(good) == [
        (Verdict.NOTE, "ElevenLabs has to reach https://calls.example.com/webhook/elevenlabs")
    ]
    (local,) = check_reports(make(elevenlabs_webhook_secret=LONG))
    assert "http://127.0.0.1:8080/webhook/elevenlabs. Set API_PUBLIC_URL to" in local.detail
