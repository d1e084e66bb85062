"""`ari-app webhooks`, beside a service that has told things."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from aiohttp import web
from rich.console import Console

from ari_app.commands import webhooks
from ari_app.errors import ConfigError
from ari_app.records.document import call_document
from ari_app.records.record import CallRecord
from ari_app.records.webhooks import events
from ari_app.records.webhooks.schedule import Answer, Fate, Next
from ari_app.records.webhooks.spool import Spool
from ari_app.settings import Settings
from lab.web import serving
from tests.unit.settings_maker import settings_maker

AT = "2026-11-28T15:30:00.000000Z"
URL = "https://crm.example.com/hooks/a-secret-path"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    return settings_maker(monkeypatch, tmp_path)(webhook_url=URL, webhook_secret=32 * "x")


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def told(settings: Settings) -> list[str]:
    """Three calls: one is delivered, one waits after a failure, one was given up."""
    spool = Spool(settings.webhook_spool)
    kept = [
        events.call_ended(call_document(CallRecord(name, "[line]", 0.0)), AT)
        for name in ("delivered", "waits", "dead")
    ]
    spool.put(kept, 1, 0.0)
    for name, then in (
        ("delivered", (Answer(200), Next(Fate.DELIVERED))),
        ("waits", (Answer(error="no answer within 15 s"), Next(Fate.AGAIN, 60.0))),
        ("dead", (Answer(410), Next(Fate.DEAD))),
    ):
        first = spool.of(name)[0]
        spool.settle(first.seq, first.event_id, *then, 1_700_000_000.0)
    spool.close()
    return [event.id for event in kept]


def test_what_is_not_delivered_is_listed(
    settings: Settings, console: Console, told: list[str]
) -> None:
    webhooks.list_undelivered(settings, 50, console)
    text = printed(console)
    assert "1 waiting, 1 given up." in text
    assert "no answer within 15 s" in text
    assert "HTTP 410" in text
    assert "2023-11-14T22:14:20" in text
    assert "secret-path" not in text
    assert "delivered" not in text


def test_a_call_and_an_event_are_shown(
    settings: Settings, console: Console, told: list[str]
) -> None:
    webhooks.show(settings, "dead", console)
    webhooks.show(settings, told[0], console)
    text = printed(console)
    assert '"line_id":"[line]"' in text, "what is still to be sent"
    assert text.count("call.ended") == 3
    assert "state      delivered" in text
    with pytest.raises(ConfigError, match="nothing of nobody"):
        webhooks.show(settings, "nobody", console)


def test_they_are_sent_again(settings: Settings, console: Console, told: list[str]) -> None:
    webhooks.retry(settings, "dead", console)
    assert "1 to be sent" in printed(console)
    webhooks.retry(settings, None, console)
    assert "2 to be sent" in printed(console)
    with pytest.raises(ConfigError, match="Nothing of delivered"):
        webhooks.retry(settings, "delivered", console)
    spool = Spool(settings.webhook_spool)
    assert [each.session_id for each in spool.take(1, 0.0, 10)] == ["waits", "dead"]
    spool.close()


def test_the_beginning_of_an_id(settings: Settings, console: Console, told: list[str]) -> None:
    webhooks.show(settings, "deli", console)
    webhooks.show(settings, f"{told[0][:12]}…", console)
    assert printed(console).count(f"{told[0]}  call.ended  call delivered") == 2
    webhooks.retry(settings, "wait", console)
    assert "1 to be sent" in printed(console)
    with pytest.raises(ConfigError, match=f"Several begin with evt_: .*{min(told)}, "):
        webhooks.retry(settings, "evt_", console)
    with pytest.raises(ConfigError, match="nothing of wai"):
        webhooks.show(settings, "wai", console)
    with pytest.raises(ConfigError, match="Nothing of nobody"):
        webhooks.retry(settings, "nobody", console)


async def test_a_test_event_is_sent(settings: Settings, console: Console, tmp_path: Path) -> None:
    kinds = []

    async def answer(request: web.Request) -> web.Response:
        kinds.append((await request.json())["type"])
        return web.Response(status=int(request.path[1:]))

    app = web.Application()
    app.router.add_post("/{status}", answer)
    async with serving(app) as url:
        both = settings.model_copy(update={"webhook_url": f"{url}/200,{url}/401"})
        assert not await webhooks.test(both, console)
        assert await webhooks.test(
            settings.model_copy(update={"webhook_url": f"{url}/204"}), console
        )
    assert kinds == 3 * ["webhook.test"]
    assert "HTTP 401" in printed(console)
    assert not settings.webhook_spool.exists()


def test_where_nobody_is_told_that_is_said(settings: Settings, console: Console) -> None:
    with pytest.raises(ConfigError, match=f"no WEBHOOK_SPOOL {Path.cwd()}/"):
        webhooks.list_undelivered(settings, 50, console)
    unseen = settings.model_copy(update={"webhook_spool": Path("x" * 300)})
    with pytest.raises(ConfigError, match="cannot be used: "):
        webhooks.list_undelivered(unseen, 50, console)
    for change in ({"webhook_url": None}, {"webhook_secret": None}):
        (name,) = change
        with pytest.raises(ConfigError, match=f"{name.upper()} is not set"):
            webhooks.list_undelivered(settings.model_copy(update=change), 50, console)
