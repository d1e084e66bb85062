"""The page, opened in a real Chromium, of a service whose calls are made by hand."""

from __future__ import annotations

import asyncio
import re
import wave
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
import pytest_asyncio

from ari_app.control.http.handlers import build_web_app
from ari_app.control.http.keys import Keys
from ari_app.control.http.page import Watch
from ari_app.control.http.problems import Problem
from ari_app.records.events import CallEnded, Said
from ari_app.records.record import CallRecord
from lab.web import serving
from tests.browser import KEY, Browser, a_chromium, a_page, needs_chromium
from tests.unit.control.http.fake_service import FakeService, end
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.async_api import Browser as Chromium
    from playwright.async_api import Page, Route, WebSocketRoute

# One Chromium for all of them, which belongs to a loop.
pytestmark = [needs_chromium, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Chromium]:
    async with a_chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def alone(chromium: Chromium) -> AsyncIterator[tuple[FakeService, Browser]]:
    """The page of a service without Asterisk, whose calls a test makes by hand."""
    service = FakeService()
    async with (
        serving(build_web_app(service, keys=Keys.of(KEY))) as url,
        a_page(chromium, f"{url}/") as browser,
    ):
        yield service, browser


OLD_CALL = {
    **{"session_id": "old", "started_at": "2025-01-01T00:00:00Z", "seconds": 10.0, "turns": []},
    **{"caller_number": "+493023125002", "called_number": "+493023125001", "direction": "in"},
    **{"status": "COMPLETED", "score": {"value": None, "reasons": []}},
    "sound": {"barge_in_ms": [], "underruns": 0, "gaps": 0},
}


async def go(page: Page, view: str) -> None:
    await page.evaluate("view => { location.hash = view; }", view)


async def test_what_comes_late_for_a_view_that_was_left_is_not_seen(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    service.add("one")
    came, sent = asyncio.Event(), asyncio.Event()

    async def late(route: Route) -> None:
        await came.wait()
        await route.fulfill(json=OLD_CALL)
        sent.set()

    await page.route("**/calls/old", late)
    await browser.sign_in()
    async with page.expect_request("**/calls/old"):
        await go(page, "#calls/old")
    await go(page, "#now")
    await page.locator("tbody tr").wait_for()
    came.set()
    await sent.wait()
    # What it would do with the answer is done before this.
    await page.evaluate("fetch('page/me').then(one => one.text())")
    assert await page.locator("h1").all_inner_texts() == ["Now"]
    # And the list is still what is left when somebody leaves.
    async with page.expect_event("requestfailed", lambda one: one.url.endswith("/page/watch")):
        await go(page, "#call")


async def test_who_goes_by_ear_is_told_the_view_and_skips_to_its_content(
    alone: tuple[FakeService, Browser],
) -> None:
    _, browser = alone
    page = browser.page
    await browser.sign_in()
    await page.click("#nav-call")
    await page.get_by_label("Number to call").fill("+493023125001")
    current = page.locator("#nav a[aria-current=page]")
    assert await current.all_inner_texts() == ["Place a call"]
    await page.locator(".skip").focus()
    await page.keyboard.press("Enter")
    await page.locator("main:focus").wait_for()
    assert await page.get_by_label("Number to call").input_value() == "+493023125001"


async def test_whoever_is_signed_in_no_more_is_told_so_and_comes_back_to_the_same_call(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    service.add("one")
    await browser.sign_in()
    await page.locator("tbody tr button").click()
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Hang up").click()
    await page.locator("#says").get_by_text("You are not signed in any more").wait_for()
    assert not service.control.done
    await page.locator("input[type=password]:focus").wait_for()
    await page.keyboard.type(KEY)
    await page.keyboard.press("Enter")
    await page.get_by_role("button", name="Hang up").click()
    await until(lambda: service.control.done == [("end", "one", "page")])


async def test_a_page_that_is_loaded_anew_shows_all_calls_and_the_one_that_was_open(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    for name in ("one", "two", "three"):
        service.add(name)
    await browser.sign_in()
    await page.locator("tbody tr[data-id=one] button").click()
    await page.reload()
    await page.get_by_role("button", name="Hang up").wait_for()
    assert await page.locator("tbody tr").count() == 3
    assert await page.locator("tbody tr.chosen").get_attribute("data-id") == "one"


async def test_durations_go_by_the_services_clock(alone: tuple[FakeService, Browser]) -> None:
    service, browser = alone
    page = browser.page
    record = service.add("one")
    record.started_at, record.seconds = datetime.now(UTC), None
    await page.add_init_script("const was = Date.now; Date.now = () => was() + 600_000;")
    await browser.sign_in()
    duration = page.locator("tbody tr td").nth(4)
    await duration.get_by_text(":").wait_for()
    assert re.fullmatch(r"0:[0-5]\d", await duration.inner_text())


def say(service: FakeService, record: CallRecord, text: str) -> None:
    """Let the agent of a call say something."""
    service.journal.note(record, Said("agent", text))


async def test_what_is_said_goes_on_after_a_proxy_has_refused(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    record = service.add("one")
    say(service, record, "First.")
    asked: list[str] = []

    # A stream that breaks off, then a proxy whose service is away.
    first = b'retry: 10\nid: 1\nevent: transcript\ndata: {"who":"agent","text":"First."}\n\n'

    async def answer(route: Route) -> None:
        asked.append(route.request.url.rpartition("/")[2])
        if len(asked) == 1:
            await route.fulfill(body=first, content_type="text/event-stream")
        elif len(asked) == 2:
            await route.fulfill(status=502)
        else:
            await route.continue_()

    await page.route("**/sessions/one/events*", answer)
    await browser.sign_in()
    await page.locator("tbody tr button").click()
    said = page.get_by_role("log")
    await said.get_by_text("First.").wait_for()
    say(service, record, "Second.")
    await said.get_by_text("Second.").wait_for()
    assert asked == ["events", "events", "events?last_event_id=1"]
    assert await said.get_by_text("First.").count() == 1


async def test_what_is_said_from_right_to_left_ends_at_the_left(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    say(service, service.add("one"), "\u05e9\u05dc\u05d5\u05dd.")
    await browser.sign_in()
    await page.locator("tbody tr button").click()
    await page.get_by_role("log").get_by_text(".").wait_for()
    left = """at => {
        const letters = document.querySelector("[role=log] p").lastChild;
        const text = letters.nodeType === 3 ? letters : letters.firstChild;
        const range = document.createRange();
        range.setStart(text, at);
        range.setEnd(text, at + 1);
        return range.getBoundingClientRect().left;
    }"""
    assert await page.evaluate(left, 4) < await page.evaluate(left, 3)


async def test_a_call_that_nobody_knows_any_more_is_over(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    service.add("one")
    await browser.sign_in()
    refused = {"status": 503, "body": "{}"}
    await page.route("**/sessions/one/events*", lambda route: route.fulfill(**refused))
    await page.locator("tbody tr button").click()
    await page.get_by_role("button", name="Hang up").wait_for()
    del service.records["one"]
    await page.get_by_role("button", name="Hang up").wait_for(state="hidden")


async def test_a_connection_that_is_lost_without_a_word_is_made_anew(
    alone: tuple[FakeService, Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, browser = alone
    page = browser.page
    await page.clock.install()
    service.add("one")
    await browser.sign_in()
    await page.locator("tbody tr button").click()
    with monkeypatch.context() as silent:
        silent.setattr(Watch, "_news", lambda watch, seen: asyncio.Event().wait())
        # The stream is silent once what it was about to tell is told.
        await asyncio.sleep(1.0)
        service.add("two")
    async with (
        page.expect_request("**/sessions/one/events"),
        page.expect_request("**/page/watch"),
    ):
        await page.clock.fast_forward(20_000)
    await page.locator("tbody tr").nth(1).wait_for()
    await page.get_by_text("Ready: new calls are taken.").wait_for()


async def test_a_tab_that_nobody_sees_holds_no_connection_and_goes_on_where_it_was(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    record = service.add("one")
    say(service, record, "First.")
    await browser.sign_in()
    await page.locator("tbody tr button").click()
    said = page.get_by_role("log")
    await said.get_by_text("First.").wait_for()

    async def become(hidden: bool) -> None:
        await page.evaluate(
            """hidden => {
                Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )

    def ends(of: str) -> Any:
        return page.expect_event("requestfailed", lambda one: one.url.endswith(of))

    async with ends("/page/watch"), ends("/sessions/one/events"):
        await become(hidden=True)
    say(service, record, "Second.")
    service.add("two")
    async with page.expect_request("**/sessions/one/events?last_event_id=1"):
        await become(hidden=False)
    await page.locator("tbody tr").nth(1).wait_for()
    await said.get_by_text("Second.").wait_for()
    assert await said.get_by_text("First.").count() == 1


async def test_names_of_any_length_fit_on_any_screen(alone: tuple[FakeService, Browser]) -> None:
    service, browser = alone
    page = browser.page
    record = service.add("one")
    record.caller_number, record.called_number = "<b>" + "W" * 200, "9" * 200
    record.agent_id, record.end_reason = "agent_" + "x" * 100, "z" * 64
    tool = {"name": "t" * 80, "at": 1, "seconds": 1.0, "result": "r" * 200}
    old = {**OLD_CALL, "agent_id": record.agent_id, "reason": record.end_reason, "tools": [tool]}
    old |= {"caller_number": record.caller_number, "called_number": record.called_number}
    await page.route("**/calls/old", lambda route: route.fulfill(json=old))
    listed = {"calls": [{**old, "score": None}], "cursor": None}
    await page.route("**/calls?*", lambda route: route.fulfill(json=listed))
    await browser.sign_in()
    for view, there in (("#now/one", ".chosen"), ("#calls", "td"), ("#calls/old", "dl")):
        await go(page, view)
        await page.locator(there).first.wait_for()
        for width in (1280, 900, 360):
            await page.set_viewport_size({"width": width, "height": 740})
            await browser.fits()


async def test_numbers_are_of_the_period_that_is_chosen(
    alone: tuple[FakeService, Browser],
) -> None:
    _, browser = alone
    page = browser.page
    came = asyncio.Event()
    one = {**OLD_CALL, "score": None, "reason": "", "agent_id": "agent_7", "trunk": "t", "way": "a"}
    asked: list[str] = []

    async def answer(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 2:
            await came.wait()
        if len(asked) == 4:
            await route.fulfill(status=503, json={"detail": "The database is away."})
        else:
            await route.fulfill(json={"calls": [one] * len(asked), "cursor": None})

    await page.route("**/calls?*", answer)
    await browser.sign_in()
    await go(page, "#numbers")
    await page.get_by_text("Calls: 1.").wait_for()
    period = page.get_by_label("Period")
    async with page.expect_request("**/calls?*"):
        await period.select_option("30")
    assert await page.get_by_text("Calls: 1.").count() == 0
    await period.select_option("1")
    await page.get_by_text("Calls: 3.").wait_for()
    async with page.expect_response("**/calls?*"):
        came.set()
    await page.evaluate("fetch('page/me').then(one => one.text())")
    assert await page.get_by_text("Calls: 3.").count() == 1
    await period.select_option("7")
    await page.locator("#says").get_by_text("The database is away.").wait_for()
    assert await page.get_by_text("Calls:").count() == 0


async def test_whoever_may_not_listen_is_told_so(
    alone: tuple[FakeService, Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, browser = alone
    page = browser.page
    service.add("one")
    full = Mock(side_effect=Problem("too_many_streams", "All listen already."))
    monkeypatch.setattr(service.control, "listen", full)
    await browser.sign_in()
    await page.locator("tbody tr button").click()
    await page.get_by_role("button", name="Listen", exact=True).click()
    await page.locator("#says").get_by_text("Listening was refused, or broke off.").wait_for()
    await page.get_by_role("button", name="Listen", exact=True).wait_for()


async def test_a_page_of_which_a_part_does_not_come_is_loaded_again(
    alone: tuple[FakeService, Browser],
) -> None:
    _, browser = alone
    page = browser.page
    # As from another machine, which has been upgraded already.
    other = {"body": "export const nothing = 0;", "content_type": "text/javascript"}
    await page.route("**/page/kit.js", lambda route: route.fulfill(**other), times=1)
    await page.goto(browser.address)
    await page.get_by_text("The page did not load; trying again.").wait_for()
    await page.get_by_role("button", name="Sign in").wait_for()


async def test_a_page_whose_words_do_not_come_asks_for_them_again(
    alone: tuple[FakeService, Browser],
) -> None:
    _, browser = alone
    page = browser.page
    await page.clock.install()
    await page.route("**/page/words.*", lambda route: route.abort(), times=1)
    await page.goto(browser.address)
    await page.locator("#says").get_by_text("The service does not answer; trying again.").wait_for()
    await page.clock.fast_forward(3000)
    await page.get_by_role("button", name="Sign in").wait_for()
    await page.route("**/page/words.*", lambda route: route.abort(), times=1)
    language = page.get_by_label("Language")
    await language.select_option("de")
    await page.locator("#says").get_by_text("The service does not answer: try again.").wait_for()
    assert await language.input_value() == "en"
    await language.select_option("de")
    await page.get_by_role("button", name="Anmelden").wait_for()


async def test_whoever_asks_for_a_call_again_calls_nobody_twice(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page

    async def lose(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await page.route("**/webhook/initiate-call", lose, times=1)
    await browser.sign_in()
    await page.click("#nav-call")
    number = page.get_by_label("Number to call")
    place = page.get_by_role("button", name="Place call")
    opened = page.locator("section.card")
    await number.fill("+493023125001")
    await place.click()
    await page.locator("#says").get_by_text("The service does not answer: try again.").wait_for()
    assert len(service.control.wishes) == 1
    await place.click()
    await opened.get_by_text("session-1").wait_for()
    assert len(service.control.wishes) == 1
    await place.click()
    await opened.get_by_text("session-2").wait_for()


async def test_a_name_from_right_to_left_does_not_turn_who_calls_whom_round(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    name = "\u05d3\u05d5\u05d3"
    service.add("one").caller_number = name
    await page.route(
        "**/calls/old", lambda route: route.fulfill(json={**OLD_CALL, "caller_number": name})
    )
    await browser.sign_in()
    left = """([of, text]) => {
        const all = document.createTreeWalker(document.querySelector(of), NodeFilter.SHOW_TEXT);
        let node = all.nextNode();
        while (!node.data.includes(text)) node = all.nextNode();
        const range = document.createRange();
        range.setStart(node, node.data.indexOf(text));
        range.setEnd(node, node.data.indexOf(text) + 1);
        return range.getBoundingClientRect().left;
    }"""
    for view, heading in (("#now/one", "section h2"), ("#calls/old", "h1")):
        await go(page, view)
        await page.locator(heading).get_by_text(name).wait_for()
        places = [await page.evaluate(left, [heading, text]) for text in (name[0], "\u2192", "+")]
        assert places == sorted(places)


async def test_what_was_not_heard_of_an_answer_is_told(alone: tuple[FakeService, Browser]) -> None:
    _, browser = alone
    turn = {"who": "agent", "at": 0.0, "until": 1.0, "interrupted": False, "heard": None}
    turns = [
        turn | {"text": "A"},
        turn | {"text": "B b", "interrupted": True, "heard": "B"},
        turn | {"text": "C c", "interrupted": True},
        turn | {"text": "D d", "heard": ""},
    ]
    await browser.page.route(
        "**/calls/old", lambda route: route.fulfill(json={**OLD_CALL, "turns": turns})
    )
    await browser.sign_in()
    await go(browser.page, "#calls/old")
    lines = browser.page.locator(".said p")
    await lines.first.wait_for()
    told = [line.partition("Agent: ")[2] for line in await lines.all_inner_texts()]
    assert told == ["A", "B b (interrupted, heard: B)", "C c (interrupted)", "D d (heard: nothing)"]


async def test_a_recording_that_is_not_there_says_why(alone: tuple[FakeService, Browser]) -> None:
    _, browser = alone
    page = browser.page
    await browser.sign_in()
    me = {"name": "x", "scope": "read", "features": {"log": True, "recordings": True}}
    await page.route("**/page/me", lambda route: route.fulfill(json={**me, "version": "1"}))
    old = {**OLD_CALL, "recordings": [{"path": "a.wav", "from": 0.0}]}
    await page.route("**/calls/old", lambda route: route.fulfill(json=old))
    await go(page, "#calls/old")
    await page.reload()
    await page.get_by_text("RECORDINGS_DIR is not set, so there are no recordings.").wait_for()


async def test_a_call_that_is_open_is_closed_and_the_keyboard_is_where_it_was(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    for number in range(40):
        service.add(f"call-{number}").agent_id = "agent_7401k9x2v3n8e5zbq6hr0mtw4a2b"
    await browser.sign_in()
    row = page.locator("tr[data-id=call-3]")
    await row.locator("button").click()
    agent = await row.locator("td").nth(2).bounding_box()
    assert agent is not None
    assert agent["height"] < 40, "its name is in one line, beside the open call too"
    # Its worker is lost, and the next one goes on with it.
    record = service.records.pop("call-3")
    await row.wait_for(state="detached")
    service.records["call-3"] = record
    await page.locator("tr.chosen[data-id=call-3]").wait_for()
    await page.get_by_role("button", name="Close").press("Enter")
    await page.locator("section").wait_for(state="hidden")
    await row.locator("button:focus").wait_for()
    assert page.url.endswith("#now")
    assert await page.locator(".chosen").count() == 0
    await page.set_viewport_size({"width": 360, "height": 740})
    await row.locator("button").press("Enter")
    await page.get_by_role("button", name="Close").click()
    await row.locator("button:focus").wait_for()


async def test_a_recording_in_parts_is_heard_from_its_first_to_its_last(
    alone: tuple[FakeService, Browser], tmp_path: Path
) -> None:
    _, browser = alone
    page = browser.page
    await browser.sign_in()
    me = {"name": "x", "scope": "read", "features": {"log": True, "recordings": True}}
    await page.route("**/page/me", lambda route: route.fulfill(json={**me, "version": "1"}))
    turns = [
        {"who": "agent", "at": at, "until": at + 1, "text": text}
        for at, text in ((0.0, "First."), (6.0, "Second."))
    ]
    parts = [{"path": "a.wav", "from": 0.0}, {"path": "a.2.wav", "from": 5.0}]
    old = {**OLD_CALL, "turns": turns, "recordings": parts}
    await page.route("**/calls/old", lambda route: route.fulfill(json=old))
    sound = tmp_path / "a.wav"
    with wave.open(str(sound), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 16000))
    asked: list[str] = []

    async def part(route: Route) -> None:
        asked.append(route.request.url.rpartition("=")[2])
        await route.fulfill(path=sound, content_type="audio/wav")

    await page.route("**/calls/old/recording?part=*", part)
    await go(page, "#calls/old")
    await page.reload()
    await page.get_by_text("Second.", exact=True).wait_for()
    links = await page.get_by_role("link", name="Download recording").all_inner_texts()
    assert links == ["Download recording 1", "Download recording 2"]
    await page.get_by_text("Second.", exact=True).click()
    await page.locator(".said .at").get_by_text("Second.").wait_for()
    choice = page.get_by_label("Part")
    assert await choice.locator("option:checked").inner_text() == "2 of 2, from 0:05"
    await choice.select_option("0")
    await page.locator(".said .at").get_by_text("First.").wait_for()
    # It goes on with the second part.
    await page.locator(".said .at").get_by_text("Second.").wait_for()
    assert set(asked) == {"1", "2"}


async def test_whoever_has_looked_at_a_call_comes_back_to_what_was_looked_for(
    alone: tuple[FakeService, Browser],
) -> None:
    _, browser = alone
    page = browser.page
    await browser.sign_in()
    me = {"name": "x", "scope": "read", "features": {"log": True, "recordings": False}}
    await page.route("**/page/me", lambda route: route.fulfill(json={**me, "version": "1"}))
    await page.route("**/calls/old", lambda route: route.fulfill(json=OLD_CALL))
    one = {**OLD_CALL, "score": None, "reason": "", "agent_id": "agent_7"}
    asked: list[str] = []

    async def answer(route: Route) -> None:
        asked.append(route.request.url.partition("?")[2])
        await route.fulfill(json={"calls": [one], "cursor": "next"})

    await page.route("**/calls?*", answer)
    await go(page, "#calls")
    await page.reload()
    await page.locator("tbody a").wait_for()
    asked.clear()
    words, clear = page.get_by_label("Words"), page.get_by_role("button", name="Clear")
    await words.fill("invoice")
    assert await clear.is_hidden()
    await page.get_by_role("button", name="Search").click()
    await clear.wait_for()
    await page.get_by_label("Trunk").fill("not looked for yet")
    await page.get_by_role("button", name="More").click()
    await page.locator("tbody tr").nth(1).wait_for()
    await page.locator("tbody a").first.click()
    await page.get_by_role("link", name="Back to the list").click()
    await clear.wait_for()
    assert await words.input_value() == "invoice"
    await clear.click()
    await clear.wait_for(state="hidden")
    words_asked = "limit=50&text=invoice"
    assert asked == [words_asked, f"{words_asked}&cursor=next", words_asked, "limit=50"]


async def test_whoever_is_one_too_many_is_not_told_that_the_service_is_away(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    service.add("one")
    await page.route("**/page/watch", lambda route: route.fulfill(status=503))
    await browser.sign_in()
    await page.get_by_text("Too many watch the calls already").wait_for()
    await page.unroute("**/page/watch")
    await page.locator("tbody tr").wait_for()


async def test_what_is_wrong_beside_the_calls_is_told(alone: tuple[FakeService, Browser]) -> None:
    service, browser = alone
    service.warnings = ["The call log's database cannot be opened."]
    await browser.sign_in()
    told = browser.page.get_by_role("status")
    await told.get_by_text("Ready: new calls are taken.").wait_for()
    await told.get_by_text("To look into: The call log's database cannot be opened.").wait_for()


async def test_why_a_number_was_not_dialled_is_told_where_it_was_asked_for(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    await browser.sign_in()
    await go(page, "#call")
    await page.get_by_label("Number to call").fill("+493023125001")
    await page.get_by_label("Agent (empty").fill("a b")
    await page.get_by_role("button", name="Place call").click()
    wrong = page.locator("#says").get_by_text("agent_id: must be")
    await wrong.wait_for()
    # It is there until something else is done.
    await page.clock.install()
    await page.clock.run_for(60_000)
    assert await wrong.is_visible()
    answer = {"session_id": "s1", "timestamp": "2025-01-01T00:00:00Z"}
    service.add("s1", detail="Nobody is registered at the trunk.")
    end(service.records["s1"], "FAILED", "unreachable")
    ended = CallEnded("FAILED", "unreachable", 0.0)
    service.journal.note(service.records["s1"], ended)
    await page.route("**/webhook/initiate-call", lambda route: route.fulfill(json=answer))
    await page.get_by_role("button", name="Place call").click()
    await page.get_by_role("log").get_by_text("Nobody is registered at the trunk.").wait_for()
    assert await page.locator("#says").inner_text() == ""


async def test_words_of_any_language_have_room_on_the_page(
    alone: tuple[FakeService, Browser],
) -> None:
    _, browser = alone
    page = browser.page
    one = {**OLD_CALL, "score": None, "reason": "", "agent_id": "a", "trunk": "t", "way": "a"}
    listed = {"calls": [one, {**one, "agent_id": "agent_7401kammwm"}], "cursor": None}
    sound = {"barge_in_ms": [], "underruns": 0, "gaps": 4, "longest_gap_ms": 420}
    await page.route("**/calls?*", lambda route: route.fulfill(json=listed))
    await page.route("**/calls/old", lambda route: route.fulfill(json={**OLD_CALL, "sound": sound}))
    await browser.sign_in()
    await page.select_option("#language", "de")
    await go(page, "#numbers")
    await page.get_by_label("Je").select_option("agent")
    await page.locator("svg.bars text").get_by_text("abgeschlossen").wait_for()
    overlaps = """() => [...document.querySelectorAll("svg.bars rect")].filter(bar =>
        bar.previousSibling.getBoundingClientRect().right > bar.getBoundingClientRect().left
    ).map(bar => bar.previousSibling.textContent)"""
    assert await page.evaluate(overlaps) == []
    await page.set_viewport_size({"width": 360, "height": 740})
    await go(page, "#calls/old")
    gaps = page.locator("dd").get_by_text("420 ms")
    lines = await gaps.evaluate("text => text.getClientRects().length")
    assert lines <= 2


async def test_what_the_network_has_held_back_is_not_heard_over_one_another(
    alone: tuple[FakeService, Browser],
) -> None:
    service, browser = alone
    page = browser.page
    service.add("one")
    listeners: list[WebSocketRoute] = []
    await page.route_web_socket("**/sessions/one/listen", lambda socket: listeners.append(socket))
    await page.add_init_script(
        """{
            window.heard = [];
            const { start } = AudioBufferSourceNode.prototype;
            AudioBufferSourceNode.prototype.start = function (at) {
                window.context = this.context;
                window.heard.push([at, at + this.buffer.duration]);
                start.call(this, at);
            };
        }"""
    )
    await browser.sign_in()
    await page.locator("tbody tr button").click()
    await page.get_by_role("button", name="Listen", exact=True).click()
    await until(lambda: bool(listeners))
    listeners[0].send('{"rate_hz": 8000}')

    async def tell(blocks: int) -> list[tuple[float, float]]:
        """Tell so many blocks of 60 ms at once; return when each is heard, and until when."""
        for _ in range(blocks):
            listeners[0].send(bytes(480 * 4))
        await page.evaluate("new Promise(go => setTimeout(go, 200))")
        return [(begin, end) for begin, end in await page.evaluate("heard.splice(0)")]

    while not await tell(1):
        """Its loudspeaker is not open yet."""
    heard = await tell(50)
    assert all(ends <= begins + 1e-6 for (_, ends), (begins, _) in pairwise(heard))
    assert len(await tell(1)) == 1
    # As by a telephone call on the same device.
    await page.evaluate("context.suspend()")
    assert len(await tell(50)) < 25, "it goes on with what comes then, not with what came meanwhile"
    while not await tell(1):
        """It is being opened again."""


async def test_a_wrong_key_is_told_and_opens_nothing(alone: tuple[FakeService, Browser]) -> None:
    _, browser = alone
    page = browser.page
    await page.goto(browser.address)
    await page.fill("input[type=password]", "wrong")
    await page.keyboard.press("Enter")
    await page.locator("#says").get_by_text("This key is not known here.").wait_for()
    assert await page.locator("#nav").is_hidden()
    await browser.has_no_barriers()
