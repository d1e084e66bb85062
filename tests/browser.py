"""The page in a real Chromium."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Browser as Chromium
    from playwright.async_api import Page

KEY = "key-of-the-page-0123456789"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = Path(os.environ.get("ARI_APP_SCREENSHOTS", ".cache/screenshots"))

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium here: apt install chromium"
)


class Browser:
    """A page of the browser, and what went wrong in it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._requested)

    def _requested(self, request: Any) -> None:
        if not request.url.startswith((self.address, "data:", f"blob:{self.address}")):
            self.errors.append(f"asked for {request.url}")

    async def sign_in(self) -> None:
        await self.page.goto(self.address)
        await self.page.fill("input[type=password]", KEY)
        await self.page.click("main button")
        await self.page.wait_for_selector("#nav:not([hidden])")

    async def picture(self, name: str) -> None:
        os.makedirs(PICTURES, exist_ok=True)
        await self.page.screenshot(path=PICTURES / f"{name}.png")

    async def has_no_barriers(self) -> None:
        """Nothing that WCAG 2.2 AA forbids is found."""
        from axe_core_python.async_playwright import Axe  # type: ignore[import-untyped]

        found = await Axe().run(
            self.page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]}
        )
        told = [
            (each["id"], [node["html"] for node in each["nodes"]][:3])
            for each in found["violations"]
        ]
        assert told == []

    async def fits(self) -> None:
        """Nothing has to be scrolled to sideways."""
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not await self.page.evaluate(wide)


@contextlib.asynccontextmanager
async def a_chromium() -> AsyncIterator[Chromium]:
    """Start Chromium, for any number of pages."""
    # Not for whoever only collects the tests: it takes a sixth of a second to read.
    from playwright.async_api import async_playwright

    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        ) as chromium,
    ):
        yield chromium


@contextlib.asynccontextmanager
async def a_page(chromium: Chromium, address: str) -> AsyncIterator[Browser]:
    """A page in which nothing goes wrong, and which knows nothing of any other."""
    page = await chromium.new_page(viewport={"width": 1280, "height": 800})
    async with page.context:
        browser = Browser(page, address)
        yield browser
        assert browser.errors == []


@contextlib.asynccontextmanager
async def a_browser(address: str) -> AsyncIterator[Browser]:
    """The same in a Chromium of its own."""
    async with a_chromium() as chromium, a_page(chromium, address) as browser:
        yield browser
