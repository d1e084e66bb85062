"""The page's files, and the stream of all calls that it watches."""

from __future__ import annotations

import asyncio
import json
import re
import zlib
from importlib import resources
from unittest.mock import Mock

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from ari_app.call.course import CALL_ENDED
from ari_app.call.states import State
from ari_app.call.taking_over import GIVEN_UP
from ari_app.control.http import page
from ari_app.control.http.access import COOKIE
from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.keys import Keys
from ari_app.control.http.middleware import problems, request_ids
from ari_app.control.http.page import Watch
from ari_app.line.interface import Result, Status
from ari_app.records.findings import WHY
from ari_app.records.record import Listener, TakeOver
from tests.unit.call.test_reasons import documented
from tests.unit.control.http.conftest import KEY
from tests.unit.control.http.fake_service import FakeService, Http, end
from tests.waiting import PATIENCE_SECONDS

CALL = resources.files("ari_app.call")
FILES = {file.name: file for file in resources.files("ari_app.control.page").iterdir()}
SCRIPTS = {name: file.read_text("utf-8") for name, file in FILES.items() if name.endswith(".js")}
LANGUAGES = {
    name: json.loads(file.read_text("utf-8"))
    for name, file in FILES.items()
    if name.startswith("words.")
}


async def test_the_page_is_there_for_everybody_and_tells_nothing(stranger: Http) -> None:
    sent = 0
    for path in ("/", *(f"/page/{name}" for name in FILES if "__" not in name)):
        answer = await stranger.get(path, headers={"Accept-Encoding": "gzip"})
        assert answer.status == 200, path
        assert answer.headers["Content-Encoding"] == "gzip"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        sent += int(answer.headers["Content-Length"])
        again = await stranger.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status == 304
    assert sent < 100_000


@pytest.mark.parametrize("name", ["__init__.py", "%2e%2e%2fhttp%2fdocs.html", "none.js"])
async def test_nothing_else_is_served(stranger: Http, name: str) -> None:
    assert (await stranger.get(f"/page/{name}")).status in (401, 404)


async def test_names_of_strangers_are_not_kept_nor_looked_for_in_the_folder(
    stranger: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    page._file.cache_clear()
    assert (await stranger.get("/page/main.js")).status == 200
    kept = page._file.cache_info().currsize
    look = Mock(wraps=resources.files)
    monkeypatch.setattr(resources, "files", look)
    for number in range(20):
        assert (await stranger.get(f"/page/{number}.js")).status == 404
    assert (page._file.cache_info().currsize, look.call_count) == (kept, 0)


def test_there_is_nothing_that_the_policy_forbids() -> None:
    html = FILES["index.html"].read_text("utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|https?://", html)
    for name, script in SCRIPTS.items():
        assert "innerHTML" not in script, name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", script), name


def test_all_scripts_are_fetched_at_once() -> None:
    """And not one after the other, as each is found to be asked for by the one before it."""
    html = FILES["index.html"].read_text("utf-8")
    told = re.findall(r'(?:modulepreload" href|module" src)="page/([\w.]+)"', html)
    assert sorted(told) == sorted(SCRIPTS)


async def test_what_watching_tells_is_packed_piece_by_piece(service: FakeService) -> None:
    app = build_web_app(service, keys=Keys.of(KEY))
    service.add("s1")
    headers = {"X-API-Key": KEY, "Accept-Encoding": "gzip"}
    async with (
        TestClient(TestServer(app), headers=headers, auto_decompress=False) as client,
        client.get("/page/watch") as stream,
    ):
        assert stream.headers["Content-Encoding"] == "gzip"
        unpacked, text = zlib.decompressobj(31), b""
        for number in (1, 2):
            while text.count(b"\n\n") < number:
                text += unpacked.decompress(await stream.content.readany())
    assert [orjson.loads(line[6:])["running"] for line in text.split(b"\n\n")[:2]] == [1, 1]


def test_both_languages_have_every_word() -> None:
    english, german = LANGUAGES["words.en.json"], LANGUAGES["words.de.json"]
    assert english.keys() == german.keys()
    html = FILES["index.html"].read_text("utf-8")
    used = set(re.findall(r'data-t="(\w+)"', html))
    for script in SCRIPTS.values():
        used |= set(re.findall(r'\bt\("([\w.]+)"', script))
    assert used <= english.keys()
    for kind, values in (
        ("state", [state.value for state in State]),
        ("status", [status.value for status in Status]),
        ("result", [*(result.value for result in Result), GIVEN_UP, CALL_ENDED]),
        ("supervised", ["ringing", "talking"]),
        ("reason", [*WHY, "page", "quota"]),
    ):
        assert {f"{kind}.{value}" for value in values} <= english.keys()
    code = "".join(path.read_text("utf-8") for path in CALL.iterdir() if path.name.endswith(".py"))
    notes = [name.removeprefix("note.") for name in english if name.startswith("note.")]
    assert [note for note in notes if f'"{note}"' not in code] == []
    for reason in documented():
        # As `word` in kit.js finds it.
        assert {f"reason.{reason}", f"reason.{reason.removeprefix('agent_')}"} & english.keys()
    for name, text in english.items():
        placeholders = set(re.findall(r"\{\w+\}", text))
        assert placeholders == set(re.findall(r"\{\w+\}", german[name])), name


def test_one_day_is_no_days() -> None:
    assert LANGUAGES["words.en.json"]["day"] == "1 day"
    assert 'value === 1 ? t("day")' in SCRIPTS["numbers.js"]


async def test_watching_tells_what_changes_and_what_goes(service: FakeService) -> None:
    app = build_web_app(service, keys=Keys.of(KEY))
    service.add("s1")
    service.add("s2")
    async with (
        TestClient(TestServer(app), headers={"X-API-Key": KEY}) as client,
        client.get("/page/watch") as stream,
    ):

        async def news() -> dict[str, object]:
            line = await stream.content.readline()
            await stream.content.readline()
            told: dict[str, object] = orjson.loads(line.removeprefix(b"data: "))
            return told

        first = await news()
        assert [row["id"] for row in first["calls"]] == ["s1", "s2"]  # type: ignore[attr-defined]
        assert (first["limit"], first["running"], first["problems"]) == (10, 2, [])
        end(service.records["s1"])
        del service.records["s2"]
        second = await news()
        assert [(row["id"], row["status"]) for row in second["calls"]] == [("s1", "ended")]  # type: ignore[attr-defined]
        assert second["gone"] == ["s2"]
        assert (await news())["calls"] == []


async def test_watching_ends_with_the_sign_in(service: FakeService) -> None:
    app = build_web_app(service, keys=Keys.of(KEY), sign_in_seconds=1)
    async with TestClient(TestServer(app)) as browser:
        answer = await browser.post("/page/sign-in", headers={"X-API-Key": KEY})
        # A cookie jar of the tests' takes none from an address.
        cookie = {"Cookie": f"{COOKIE}={answer.cookies[COOKIE].value}"}
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with browser.get("/page/watch", headers=cookie) as stream:
                async for _ in stream.content:
                    pass
        assert (await browser.get("/page/watch", headers=cookie)).status == 401


async def test_a_row_tells_who_has_a_hand_in_the_call(service: FakeService) -> None:
    record = service.add("s1")
    watch = Watch(service)
    (row,) = (await watch._news({}))["calls"]
    assert (row["muted"], row["take_over"], row["listeners"]) == (False, None, [])
    record.muted = True
    record.take_overs.append(TakeOver("lea", "2001", asked=1.0))
    record.listeners += [Listener("tom", 1.0), Listener("lea", 1.0, until=2.0)]
    (row,) = (await Watch(service)._news({}))["calls"]
    assert (row["muted"], row["listeners"]) == (True, ["tom"])
    assert row["take_over"] == {"who": "lea", "endpoint": "2001", "state": "ringing"}
    record.take_overs[0].began = 3.0
    (row,) = (await Watch(service)._news({}))["calls"]
    assert row["take_over"]["state"] == "talking"
    record.take_overs[0].until = 4.0
    (row,) = (await Watch(service)._news({}))["calls"]
    assert row["take_over"] is None


async def test_many_who_watch_cost_no_more_looks_than_one(service: FakeService) -> None:
    """And none takes from another what is only there at the moment of a look: the levels."""
    looks: list[str] = []

    def look(session_id: str) -> None:
        looks.append(session_id)

    service.calls.call = look  # type: ignore[method-assign]
    service.add("s1")
    watch = Watch(service)
    first, second = await asyncio.gather(watch._news({}), watch._news({}))
    assert first == second
    assert looks == ["s1"]


async def test_a_look_at_many_calls_lets_the_calls_themselves_go_on(service: FakeService) -> None:
    """And asks none of them for what is measured all the time: no row tells that."""
    looks: list[str] = []
    turns = 0
    service.look = lambda session_id: looks.append(session_id)
    for number in range(100):
        service.add(f"s{number}")
    news = asyncio.create_task(Watch(service)._news({}))
    while not news.done():
        turns += 1
        await asyncio.sleep(0)
    assert len((await news)["calls"]) == 100
    assert turns > 5
    assert looks == []


async def test_no_more_watch_than_there_is_room_for(service: FakeService) -> None:
    app = web.Application(middlewares=[request_ids, problems])
    app.router.add_get("/watch", Watch(service, most=0).serve)
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/watch")
        assert (answer.status, (await answer.json())["code"]) == (503, "too_many_streams")
