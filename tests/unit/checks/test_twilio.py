"""What `ari-app check` says of Twilio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ari_app.checks.all import check_all
from ari_app.checks.finding import Finding, Verdict
from ari_app.checks.twilio import check_twilio, check_twilio_account
from ari_app.settings import Settings
from lab.web import serving
from tests.unit.line.fake_twilio import ACCOUNT, PUBLIC_URL
from tests.unit.settings_maker import Make, settings_maker

NUMBER = "+15550100002"
HERE = {
    "voice_url": f"{PUBLIC_URL}/twilio/voice?agent_id=a#rt=9000",
    "voice_method": "POST",
    "status_callback": f"{PUBLIC_URL}/twilio/status",
}


class Rest:
    """Twilio's REST interface: a status, and the numbers of the account."""

    def __init__(self) -> None:
        self.status = 200
        self.numbers: list[dict[str, Any]] = [HERE]
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"sid": ACCOUNT, "incoming_phone_numbers": self.numbers}, status=self.status
        )


@pytest.fixture
async def rest() -> AsyncIterator[Rest]:
    rest, app = Rest(), web.Application()
    app.router.add_get("/{path:.*}", rest.answer)
    async with serving(app) as rest.url:
        yield rest


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rest: Rest) -> Make:
    return settings_maker(
        monkeypatch,
        tmp_path,
        dialer_type="twilio",
        twilio_account_sid=ACCOUNT,
        twilio_auth_token="token",
        twilio_phone_number=NUMBER,
        twilio_api_base_url=rest.url,
        api_public_url=PUBLIC_URL,
        api_bind="127.0.0.1:0",
    )


async def found(settings: Settings, what: str) -> Finding:
    (finding,) = [each for each in await check_twilio(settings) if each.what == what]
    return finding


async def test_an_account_that_is_accepted_and_one_that_is_not(make: Make, rest: Rest) -> None:
    assert (await check_twilio_account(make())).verdict is Verdict.OK
    rest.status = 401
    refused = await check_twilio_account(make())
    assert (refused.verdict, refused.may_pass) == (Verdict.FAILED, False)
    assert "TWILIO_AUTH_TOKEN" in refused.detail
    assert len(await check_twilio(make())) == 2, "nothing else can be asked"


async def test_a_twilio_that_is_away_may_be_back(make: Make, rest: Rest) -> None:
    rest.status = 503
    away = await check_twilio_account(make())
    assert (away.verdict, away.may_pass) == (Verdict.FAILED, True)


@pytest.mark.parametrize(
    ("numbers", "verdict", "words"),
    [
        ([HERE], Verdict.OK, "come here"),
        ([], Verdict.WARNING, "has no number"),
        ([HERE | {"voice_url": ""}], Verdict.FAILED, f"{PUBLIC_URL}/twilio/voice"),
        ([HERE | {"voice_url": "https://demo.example/welcome"}], Verdict.FAILED, "do not come"),
        ([HERE | {"voice_method": "GET"}], Verdict.FAILED, "HTTP POST"),
        ([HERE | {"status_callback": None}], Verdict.NOTE, "/twilio/status"),
    ],
)
async def test_where_the_numbers_calls_go(
    make: Make, rest: Rest, numbers: list[dict[str, Any]], verdict: Verdict, words: str
) -> None:
    rest.numbers = numbers
    finding = await found(make(), "Twilio number")
    assert finding.verdict is verdict
    assert words in finding.detail


@pytest.mark.parametrize(
    ("public_url", "words"),
    [
        ("http://127.0.0.1:8080", "TLS only"),
        ("https://127.0.0.1:1", "cannot be reached"),
        ("https://my_bridge.example", "underscore"),
    ],
)
async def test_an_address_that_twilio_does_not_reach(
    make: Make, public_url: str, words: str
) -> None:
    finding = await found(make(api_public_url=public_url), "Twilio's way here")
    assert finding.verdict is Verdict.FAILED
    assert words in finding.detail


async def test_what_comes_after_the_agent(make: Make) -> None:
    far = {"api_public_url": "https://127.0.0.1:1"}
    assert (await found(make(**far), "After the agent")).verdict is Verdict.NOTE
    limited = {"twilio_fallback_number": "+15550100009", "transfer_pattern": r"\+1555\d+"}
    assert (await found(make(**far, **limited), "After the agent")).verdict is Verdict.OK


async def test_all_checks_have_them(make: Make) -> None:
    settings = make(api_public_url="https://127.0.0.1:1", elevenlabs_agent_id="a")
    whats = [finding.what async for finding in check_all(settings)]
    assert {"Twilio's way here", "Twilio account", "Twilio number"} <= set(whats)
