"""Keys with scopes, and the sign-in of a browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import WSServerHandshakeError
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from ari_app.control.http.access import COOKIE, PAGE_HEADER
from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.keys import ApiKey, Keys, Scope
from tests.unit.control.http.fake_service import FakeService, Http

WALL = ApiKey("wallboard", Scope.READ, b"a-key-that-only-reads")
DESK = ApiKey("desk", Scope.OPERATE, b"a-key-that-operates")
CHIEF = ApiKey("chief", Scope.ADMIN, b"a-key-that-may-delete")
KEYS = Keys([WALL, DESK, CHIEF])
FROM_PAGE = {PAGE_HEADER: "1"}


def bring(key: ApiKey) -> dict[str, str]:
    return {"X-API-Key": key.secret.decode()}


@pytest.fixture
async def browser(service: FakeService) -> AsyncIterator[Http]:
    """A client that keeps cookies, and has no key yet."""
    async with TestClient(TestServer(build_web_app(service, keys=KEYS))) as client:
        yield client


async def test_a_scope_allows_what_it_says_and_no_more(browser: Http, service: FakeService) -> None:
    service.add("s1")
    for key, reads, holds, deletes in (
        (WALL, 200, 403, 403),
        (DESK, 200, 200, 403),
        (CHIEF, 200, 200, 404),
    ):
        asked = [
            await browser.get("/sessions", headers=bring(key)),
            await browser.post("/sessions/s1/hold", headers=bring(key)),
            await browser.delete("/nothing-is-here", headers=bring(key)),
        ]
        assert [answer.status for answer in asked] == [reads, holds, deletes], key
    refused = await browser.post("/sessions/s1/hold", headers=bring(WALL))
    problem = await refused.json()
    assert (problem["code"], "operate" in problem["detail"]) == ("forbidden", True)


async def test_who_changes_something_is_in_the_log(browser: Http, service: FakeService) -> None:
    service.add("s1")
    with capture_logs() as logs:
        await browser.get("/sessions", headers=bring(DESK))
        await browser.post("/sessions/s1/mute", headers=bring(DESK), json={"muted": True})
        await browser.get("/page/page.css")
    changes = [line for line in logs if line["event"] == "http_change"]
    assert [(line["key"], line["operation"], line["session"]) for line in changes] == [
        ("desk", "POST /sessions/{session_id}/mute", "s1")
    ]
    assert DESK.secret.decode() not in str(logs)
    # Each is told once, and what a page is made of not at all.
    requests = [line for line in logs if line["event"] == "http_request"]
    told = [(line["method"], line["path"]) for line in requests if line["log_level"] == "info"]
    assert told == [("GET", "/sessions")]


async def test_a_browser_signs_in_works_and_signs_out(browser: Http, service: FakeService) -> None:
    service.add("s1")
    assert (await browser.get("/page/me")).status == 401
    answer = await browser.post("/page/sign-in", headers=bring(DESK))
    assert await answer.json() == {"name": "desk", "scope": "operate"}
    cookie = answer.cookies[COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["max-age"]) == (True, "Strict", "")
    assert DESK.secret.decode() not in cookie.value
    assert (await (await browser.get("/page/me")).json())["scope"] == "operate"
    assert (await browser.post("/sessions/s1/hold", headers=FROM_PAGE)).status == 200
    # Another site's page can send a cookie along, but not this header.
    assert (await browser.post("/sessions/s1/hold")).status == 401
    foreign = {"Sec-Fetch-Site": "cross-site", **FROM_PAGE}
    assert (await browser.get("/sessions", headers=foreign)).status == 401
    for elsewhere in ({}, foreign):
        answer = await browser.post("/page/sign-out", headers=elsewhere)
        assert (answer.status, COOKIE in answer.cookies) == (204, False)
    assert (await browser.post("/page/sign-out", headers=FROM_PAGE)).status == 204
    assert (await browser.get("/page/me")).status == 401


async def test_a_page_of_another_port_follows_no_call_with_the_cookie(
    browser: Http, service: FakeService
) -> None:
    """A browser sends it there, and lets any page read a WebSocket; over http it does not say whose
    page asks, but for `Origin`."""
    service.add("s1")
    await browser.post("/page/sign-in", headers=bring(DESK))
    here = f"http://{browser.host}:{browser.port}"

    async def status(**headers: str) -> int:
        try:
            async with browser.ws_connect("/sessions/s1/events", headers=headers):
                return 101
        except WSServerHandshakeError as refused:
            return refused.status

    assert await status(Origin=here) == 101
    assert await status(Origin=f"http://{browser.host}:3000") == 401
    assert await status(Origin="null") == 401
    # A proxy may give it another `Host`; browsers say so themselves over https.
    proxied = {"Origin": "https://calls.example"}
    assert await status(**proxied, **{"Sec-Fetch-Site": "same-origin"}) == 101
    assert await status(**proxied, **bring(DESK)) == 101


async def test_guessing_at_the_sign_in_is_slowed_down(browser: Http) -> None:
    statuses = [
        (await browser.post("/page/sign-in", headers={"X-API-Key": f"guess-{n}"})).status
        for n in range(12)
    ]
    assert statuses[0] == 401
    assert statuses[-1] == 429
