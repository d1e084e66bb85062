"""Keys with scopes, and the sign-in of a browser."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from structlog.testing import capture_logs

from ari_app.control.http.access import COOKIE, PAGE_HEADER
from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.keys import ApiKey, Keys, Scope, read_token, sign
from ari_app.errors import ConfigError
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
    changes = [line for line in logs if line["event"] == "http_change"]
    assert [(line["key"], line["operation"], line["session"]) for line in changes] == [
        ("desk", "POST /sessions/{session_id}/mute", "s1")
    ]
    assert DESK.secret.decode() not in str(logs)


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


async def test_guessing_at_the_sign_in_is_slowed_down(browser: Http) -> None:
    statuses = [
        (await browser.post("/page/sign-in", headers={"X-API-Key": f"guess-{n}"})).status
        for n in range(12)
    ]
    assert statuses[0] == 401
    assert statuses[-1] == 429


def test_a_token_is_good_until_its_end_and_for_its_key() -> None:
    token = sign(DESK, 1000)
    assert read_token(token, KEYS, 999) is DESK
    assert read_token(token, KEYS, 1000) is None
    assert read_token(token, Keys([WALL]), 999) is None
    renewed = Keys([ApiKey("desk", Scope.OPERATE, b"another-secret-of-it")])
    assert read_token(token, renewed, 999) is None
    longer = token.replace(":1000:", ":2000:")
    as_chief = token.replace("desk:", "chief:")
    for forged in ("", ":", "desk", "desk:1000", "desk:x:y", longer, as_chief, token + "A"):
        assert read_token(forged, KEYS, 999) is None, forged


def keys_file(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    file.chmod(mode)
    return file


GOOD = "- {name: wallboard, scope: read, key: a-key-of-16-or-more}\n"


def test_keys_of_a_file_stand_beside_the_one_of_the_settings(tmp_path: Path) -> None:
    keys = Keys.of("key-of-the-settings", keys_file(tmp_path, GOOD))
    wallboard = keys.owner(b"a-key-of-16-or-more")
    assert wallboard is not None
    assert (wallboard.name, wallboard.scope) == ("wallboard", Scope.READ)
    admin = keys.owner(b"key-of-the-settings")
    assert admin is not None
    assert admin.scope is Scope.ADMIN
    assert keys.owner(b"something-else") is None
    assert not Keys.of(None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x", "must be a list"),
        ("- [", "is not YAML at line 1"),
        (GOOD.replace("}", ", scope: admin}"), "has a name twice, at line 1"),
        (GOOD.replace("wallboard", "2026-02-30"), "is not YAML"),
        ("- {name: x, scope: read}", "entry 1 must have name, scope and key"),
        (GOOD.replace("read", "write"), "read, operate or admin"),
        (GOOD.replace("a-key-of-16-or-more", "short"), "at least 16 characters"),
        (GOOD.replace("wallboard", "API_KEY"), "a name is"),
        (GOOD + GOOD.replace("a-key", "other-key"), "the same name"),
        (GOOD + GOOD.replace("wallboard", "other"), "the same key"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Keys.of(None, keys_file(tmp_path, text))
    assert said in str(caught.value)
    assert "a-key-of-16-or-more" not in str(caught.value)


def test_nobody_is_told_to_keep_a_device_to_himself() -> None:
    with pytest.raises(ConfigError, match="must be a list"):
        Keys.of(None, Path(os.devnull))


def test_a_file_that_everybody_can_read_or_nobody(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chmod"):
        Keys.of(None, keys_file(tmp_path, GOOD, 0o644))
    with pytest.raises(ConfigError, match=r"none cannot be read: No such file or directory\.$"):
        Keys.of(None, tmp_path / "none")
