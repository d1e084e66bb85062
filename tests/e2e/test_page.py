"""The page, opened in a real Chromium while a real call runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.asterisk import LabAsterisk
from lab.softphone import Answer, Phone
from tests.browser import KEY, Browser, a_browser, needs_chromium
from tests.e2e.harness import Bench, bench
from tests.waiting import until

pytestmark = [pytest.mark.e2e, needs_chromium]


@pytest.fixture
async def stage(asterisk: LabAsterisk) -> AsyncIterator[tuple[Bench, Browser]]:
    async with (
        bench(asterisk, api_key=KEY) as b,
        a_browser("http://{}:{}/".format(*b.bridge.api_address)) as browser,
    ):
        yield b, browser


async def test_a_call_is_seen_heard_of_and_ended(stage: tuple[Bench, Browser]) -> None:
    b, browser = stage
    page = browser.page
    await browser.sign_in()
    await page.get_by_text("No call is running.").wait_for()
    await browser.has_no_barriers()
    call = await b.call()
    await page.locator("tbody tr").wait_for()
    await page.locator("tbody tr button").click()
    said = page.get_by_role("log")
    await said.get_by_text("Hello, how can I help you today?").wait_for()
    await page.get_by_role("button", name="Listen", exact=True).click()
    await said.get_by_text("API_KEY listens").wait_for()
    levels = page.locator("tbody .meter.agent i")
    await until(lambda: bool(b.sessions()[0].call.sound.levels()))
    await levels.wait_for(state="attached")
    await browser.has_no_barriers()
    await browser.picture("now")
    await page.set_viewport_size({"width": 360, "height": 740})
    await browser.fits()
    await browser.picture("now-phone")
    await page.select_option("#language", "de")
    await page.get_by_role("button", name="Auflegen").click()
    await call.ended
    assert b.sessions()[0].record.end_reason == "page"


async def test_a_call_is_taken_over_from_the_page(asterisk: LabAsterisk) -> None:
    async with Phone(on_incoming=Answer(after_s=1)) as desk:
        settings = {
            "take_over_endpoint": f"PJSIP/lab/sip:{{number}}@127.0.0.1:{desk.address.port}",
            "take_over_pattern": "[0-9]{4}",
            "transfer_endpoint": f"PJSIP/lab/sip:{{number}}@127.0.0.1:{desk.address.port}",
        }
        async with (
            bench(asterisk, api_key=KEY, **settings) as b,
            a_browser("http://{}:{}/".format(*b.bridge.api_address)) as browser,
        ):
            page = browser.page
            await browser.sign_in()
            call = await b.call()
            await page.locator("tbody tr button").click()
            said = page.get_by_role("log")
            await said.get_by_text("Hello, how can I help you today?").wait_for()
            await page.get_by_label("Whisper to the agent").fill("He has paid.")
            await page.get_by_role("button", name="Tell").click()
            await page.get_by_role("button", name="Mute caller").click()
            await page.get_by_role("button", name="Unmute caller").click()
            phone = page.get_by_label("Your phone, to speak with the caller")
            await phone.fill("2001")
            await phone.press("Enter")
            await page.get_by_role("button", name="Stop ringing").wait_for()
            opened = page.locator("section.card")
            await opened.get_by_text("API_KEY is being called (2001)").wait_for()
            await (await desk.incoming(10)).answered()
            await page.locator("tbody").get_by_text("API_KEY speaks with the caller").wait_for()
            await opened.get_by_text("supervisor speaks").wait_for()
            await browser.has_no_barriers()
            await browser.picture("taken-over")
            await page.set_viewport_size({"width": 360, "height": 740})
            await browser.fits()
            await browser.picture("taken-over-phone")
            await page.get_by_role("button", name="Give back to the agent").click()
            await said.get_by_text("API_KEY gives the call back to the agent").wait_for()
            await phone.wait_for()
            assert await phone.input_value() == "2001", "it is kept for the next time"
            agent = await b.conversation()
            told = [m["text"] for m in agent.messages if m.get("type") == "contextual_update"]
            assert told[0] == "He has paid."
            assert "A colleague of yours" in str(told[1])
            await page.get_by_label("Transfer to").fill("+4930200")
            await page.get_by_label("How").select_option("attended")
            await page.get_by_role("button", name="Transfer", exact=True).click()
            await page.get_by_role("button", name="Call the transfer off").click()
            await said.get_by_text("somebody else has called it off").wait_for()
            await call.hang_up()


async def test_a_call_is_held_and_ended_by_keyboard(stage: tuple[Bench, Browser]) -> None:
    b, browser = stage
    page = browser.page

    async def press(name: str) -> None:
        for _ in range(20):
            focused = await page.evaluate("document.activeElement.textContent")
            if focused == name:
                return await page.keyboard.press("Enter")
            await page.keyboard.press("Tab")
        pytest.fail(f"{name} is not reached")

    call = await b.call()
    await page.goto(browser.address)
    await page.locator("input[type=password]:focus").wait_for()
    await page.keyboard.type(KEY)
    await page.keyboard.press("Enter")
    await page.locator("tbody tr").wait_for()
    await press(await page.locator("tbody tr button").inner_text())
    await press("Hold")
    await page.get_by_role("button", name="Take back").wait_for()
    await press("Take back")
    await page.get_by_role("button", name="Hold").wait_for()
    await press("Hang up")
    await call.ended


async def test_a_call_is_placed_from_the_page(stage: tuple[Bench, Browser]) -> None:
    b, browser = stage
    page = browser.page
    await browser.sign_in()
    await page.click("#nav-call")
    await page.get_by_label("Number to call").fill("not a number")
    await page.get_by_role("button", name="Place call").click()
    await page.locator("#says").get_by_text("called_number").wait_for()
    await browser.has_no_barriers()
    await browser.picture("call")
    assert not b.sessions()


async def test_a_call_that_is_over_is_found_read_and_heard(
    asterisk: LabAsterisk, tmp_path: Path
) -> None:
    log = f"sqlite+aiosqlite:///{tmp_path / 'calls.db'}"
    kept = {"database_url": log, "recordings_dir": tmp_path / "recordings"}
    async with (
        bench(asterisk, api_key=KEY, **kept) as b,
        a_browser("http://{}:{}/".format(*b.bridge.api_address)) as browser,
    ):
        call = await b.call()
        await call.wait_for_sound(-35, since=0)
        await asyncio.sleep(1.5)
        await call.hang_up()
        await b.all_gone()
        page = browser.page
        await browser.sign_in()
        await page.click("#nav-calls")
        await page.get_by_label("Words").fill("help you today")
        await page.get_by_role("button", name="Search").click()
        await page.locator("tbody a").click()
        await page.locator(".said").get_by_text("Hello, how can I help you today?").wait_for()
        await page.locator("svg.picture rect.agent").first.wait_for(state="attached")
        await page.wait_for_function("document.querySelector('audio').duration > 1")
        await browser.has_no_barriers()
        await browser.picture("one-call")
        await page.set_viewport_size({"width": 360, "height": 740})
        await browser.fits()
        await page.set_viewport_size({"width": 1280, "height": 800})
        await page.click("#nav-numbers")
        await page.get_by_text("Calls: 1.").wait_for()
        await page.locator("main select").nth(1).select_option("trunk")
        async with page.expect_download() as download:
            await page.get_by_role("button", name="Download as CSV").click()
        head, row = (await (await download.value).path()).read_text().splitlines()
        assert head.startswith('"trunk","calls","COMPLETED","minutes",')
        assert re.match(r'"PJSIP/[\w-]+",1,1,[0-9.]+,', row), row
        await browser.has_no_barriers()
        await browser.picture("numbers")
        await page.click("#nav-calls")
        await page.locator("tbody a").click()
        page.on("dialog", lambda dialog: dialog.accept())
        await page.get_by_role("button", name="Delete call").click()
        await page.get_by_text("Nothing was found.").wait_for()
    assert not list((tmp_path / "recordings").rglob("*.wav"))
