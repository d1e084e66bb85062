from __future__ import annotations

import base64
import hashlib
import re

from tests.unit.control.http.conftest import KEY
from tests.unit.control.http.fake_service import Http

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_the_page_needs_nothing_from_elsewhere(http: Http) -> None:
    response = await http.get("/docs")
    text = await response.text()
    assert (response.status, response.content_type) == (200, "text/html")
    assert not re.search(r"""(https?:)?//[a-z]|src=|@import|: url\(""", text)
    assert " style=" not in text, "the policy allows no such thing"
    assert "innerHTML" not in text, "what callers say must never become markup"


async def test_what_changes_something_is_asked_about_first(http: Http) -> None:
    script = (await (await http.get("/docs")).text()).split("<script>")[1]
    uses = re.findall(r"onclick: (.*?\bsend\b.*?) }, (\".*?\")", script)
    assert uses == [
        ("() => { forget(); send(); }", '"Yes, send it"'),
        ('method === "GET" ? send : ask', '"Send"'),
    ]
    assert len(re.findall(r"\bsend\b", script)) == 4, "these, its definition, and the label"


async def test_the_policy_allows_this_script_only(http: Http) -> None:
    response = await http.get("/docs")
    policy = response.headers["Content-Security-Policy"]
    for name in ("script", "style"):
        inside = (await response.text()).split(f"<{name}>")[1].split(f"</{name}>")[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")


async def test_a_browser_without_the_key_is_asked_for_it_by_the_page(stranger: Http) -> None:
    response = await stranger.get("/docs", headers=BROWSER)
    assert (response.status, response.content_type) == (401, "text/html")
    assert KEY not in await response.text()
    assert (await stranger.get("/docs")).content_type == "application/problem+json"
    other = await stranger.get("/sessions", headers=BROWSER)
    assert (other.status, other.content_type) == (401, "application/problem+json")


async def test_without_a_key_nothing_is_asked(keyless: Http) -> None:
    assert (await keyless.get("/docs", headers=BROWSER)).status == 200
    assert "security" not in await (await keyless.get("/openapi.json")).json()
