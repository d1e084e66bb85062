"""What the page costs a browser: the first view on a phone, and many calls that run.

The calls are made up: records that change as calls do, shown by the service's own HTTP interface.
Chromium measures itself (CDP): its main thread, its frames, the bytes that it gets.
"""

from __future__ import annotations

import asyncio
import math
import random
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp

from ari_app.control.control import CallControl
from ari_app.control.http.handlers import ServiceView, build_web_app
from ari_app.control.http.keys import Keys
from ari_app.control.http.models import Readiness
from ari_app.control.refusals import SessionNotFound
from ari_app.line.interface import Ability
from ari_app.records.events import CallEnded, CallEvent, Responded, Said, StateChanged
from ari_app.records.journal import Journal
from ari_app.records.metrics import Metrics
from ari_app.records.record import CallRecord
from benchmarks.processes import BenchmarkError
from lab import web

if TYPE_CHECKING:
    from playwright.async_api import Browser, CDPSession, Page, Request

CALLS: Final = (10, 50, 200)
QUICK_CALLS: Final = (200,)
_KEY: Final = "key-of-the-benchmark-0123456789"
_TURN_SECONDS: Final = 0.1

# A phone: four times slower than this machine, on what browsers' own tools call slow 4G.
_SLOWDOWN: Final = 4
_SLOW_NETWORK: Final = {
    "offline": False,
    "latency": 150,
    "downloadThroughput": 1_600_000 / 8,
    "uploadThroughput": 750_000 / 8,
}
_SETTLE_SECONDS: Final = 2.0
_VIEWS: Final = 3
_WORDS: Final = "I would like to move my appointment to Tuesday, if that is possible at all."
# When the page has something to type into, and when it shows calls.
_WATCHES: Final = """
window.seen = {};
new MutationObserver(() => {
  const now = performance.now();
  if (document.querySelector("main input")) window.seen.form ??= now;
  if (document.querySelector("tbody tr")) window.seen.rows ??= now;
}).observe(document, { childList: true, subtree: true });
"""
_COUNTS_FRAMES: Final = """
(seconds) => new Promise((done) => {
  const frames = [], tasks = [];
  const watching = new PerformanceObserver((list) => tasks.push(...list.getEntries()));
  watching.observe({ type: "longtask" });
  let last = performance.now();
  const end = last + seconds * 1000;
  const frame = (now) => {
    frames.push(now - last);
    last = now;
    if (now < end) { requestAnimationFrame(frame); return; }
    watching.disconnect();
    done({ frames, tasks: tasks.length });
  };
  requestAnimationFrame(frame);
})
"""


@dataclass(frozen=True, slots=True)
class FirstView:
    """How the page begins; times in ms since the address was entered, on the phone."""

    what: str
    kilobytes: float
    requests: int
    interactive_ms: float


@dataclass(frozen=True, slots=True)
class Watching:
    """The page while so many calls run.

    Attributes:
        slowdown: So many times slower than this machine.
        main_thread_percent: How much of its time the main thread works; of it, scripts, and style
            and layout.
        frame_p50_ms, frame_p95_ms, frame_max_ms: From one frame to the next.
        long_tasks: Of more than 50 ms, a minute.
        kilobytes_per_second: What the service sends.
    """

    calls: int
    slowdown: int
    main_thread_percent: float
    script_percent: float
    layout_percent: float
    frame_p50_ms: float
    frame_p95_ms: float
    frame_max_ms: float
    long_tasks: float
    kilobytes_per_second: float
    nodes: int
    heap_mb: float


class ManyCalls:
    """Calls that are made up, and the service that shows them.

    Args:
        calls: So many run at once.
    """

    def __init__(self, calls: int) -> None:
        self.journal = Journal()
        self.metrics = Metrics()
        self.call_log = self.recordings = None
        self._random = random.Random(7)
        self._names = count(1)
        self._records: dict[str, CallRecord] = {}
        self._most = calls
        self._never = asyncio.Event()
        self.control = cast(CallControl, SimpleNamespace(record=self._record))
        self.calls = SimpleNamespace(
            records=self._records,
            max_concurrent_calls=max(calls, 10),
            count=lambda: len(self._records),
            call=self._call,
        )
        for _ in range(calls):
            self._begin()

    async def deliveries(self, session_id: str) -> list[dict[str, Any]]:
        """Return nothing: nobody is told of these calls."""
        return []

    def readiness(self) -> Readiness:
        """Say that calls are taken."""
        return Readiness(
            status="ready",
            problems=[],
            active_sessions=len(self._records),
            asterisk_version="22.10.1",
        )

    async def run(self) -> None:
        """Let the calls go on: each says something every few seconds; now and then one ends and
        another begins."""
        while True:
            for record in self._random.sample(
                [*self._records.values()], max(1, round(self._most * _TURN_SECONDS / 4))
            ):
                self._goes_on(record)
            if self._random.random() < _TURN_SECONDS:
                self._ends(self._random.choice([*self._records.values()]))
                self._begin()
            await asyncio.sleep(_TURN_SECONDS)

    def _begin(self) -> None:
        number = next(self._names)
        name = f"{number:032x}"
        ago = self._random.uniform(0, 300)
        self._records[name] = CallRecord(
            name,
            f"1700000000.{number}",
            asyncio.get_running_loop().time() - ago,
            agent_id=f"agent_{number % 5}",
            caller_number=f"+4930231{25000 + number % 1000}",
            called_number="+493023125999",
            status="active",
            state="talking",
            started_at=datetime.now(UTC) - timedelta(seconds=ago),
        )

    def _goes_on(self, record: CallRecord) -> None:
        now = asyncio.get_running_loop().time()
        answer = round(self._random.uniform(0.4, 1.6), 3)
        for event in (Said("caller", _WORDS), Responded(answer), Said("agent", _WORDS)):
            self._note(record, event, now)

    def _ends(self, record: CallRecord) -> None:
        now = asyncio.get_running_loop().time()
        record.state = record.status = "ended"
        record.agent_status, record.end_reason = "COMPLETED", "agent_ended"
        record.has_ended(now)
        self._note(record, StateChanged("ended", "ended"), now)
        self._note(record, CallEnded("COMPLETED", "agent_ended", record.duration(now)), now)
        del self._records[record.session_id]

    def _note(self, record: CallRecord, event: CallEvent, now: float) -> None:
        record.fold(event, record.duration(now))
        self.journal.note(record, event)

    def _record(self, session_id: str) -> CallRecord:
        try:
            return self._records[session_id]
        except KeyError:
            raise SessionNotFound(session_id) from None

    def _call(self, session_id: str) -> Any:
        if session_id not in self._records:
            return None
        phase = asyncio.get_running_loop().time() + hash(session_id)
        levels = (round(-30 + 20 * math.sin(phase)), round(-30 + 20 * math.cos(phase)))
        return SimpleNamespace(
            counts=True,
            ended=self._never,
            line=SimpleNamespace(abilities=~Ability.NOTHING),
            sound=SimpleNamespace(levels=lambda: levels),
        )


@asynccontextmanager
async def serving(calls: int) -> AsyncIterator[str]:
    """Show so many calls; where."""
    service = ManyCalls(calls)
    app = build_web_app(cast(ServiceView, service), keys=Keys.of(_KEY))
    async with web.serving(app) as url:
        going_on = asyncio.create_task(service.run(), name="made-up calls")
        try:
            yield f"{url}/"
        finally:
            going_on.cancel()
            await asyncio.gather(going_on, return_exceptions=True)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start Chromium. Raises BenchmarkError where it is not here."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        program = None
    if program is None:
        raise BenchmarkError(
            "page needs Chromium (apt install chromium) and Playwright (make setup-dev)."
        )
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"]) as browser,
    ):
        yield browser


async def measure_page(
    calls: Sequence[int], seconds: float, say: Callable[[str], None]
) -> tuple[list[FirstView], list[Watching]]:
    """Measure first views, then each number of calls on this machine and on one that is slower."""
    async with chromium() as browser:
        async with serving(max(calls)) as address:
            say("first views")
            views = await _first_views(browser, address, max(calls))
        watching = []
        for many in calls:
            say(f"{many} calls")
            async with serving(many) as address:
                kilobytes = await _kilobytes_per_second(address, seconds)
                for slowdown in (1, _SLOWDOWN):
                    found = await _watch(browser, address, many, slowdown, seconds)
                    watching.append(replace(found, kilobytes_per_second=kilobytes))
    return views, watching


async def _first_views(browser: Browser, address: str, calls: int) -> list[FirstView]:
    context = await browser.new_context(viewport={"width": 360, "height": 740})
    await context.add_init_script(_WATCHES)
    page = await context.new_page()
    cdp = await context.new_cdp_session(page)
    await _slow_down(cdp, _SLOWDOWN, network=True)
    views = [await _quickest(page, cdp, address, "sign-in", "form", kept=False)]
    await page.goto(address)
    await _sign_in(page)
    views += [
        await _quickest(page, cdp, address, f"{calls} calls", "rows", kept=False),
        await _quickest(page, cdp, address, f"{calls} calls, again", "rows", kept=True),
    ]
    await context.close()
    return views


async def _quickest(
    page: Page, cdp: CDPSession, address: str, what: str, seen: str, *, kept: bool
) -> FirstView:
    """Look several times, and take the one that other programs have disturbed least."""
    views = []
    for _ in range(_VIEWS):
        if not kept:
            await cdp.send("Network.clearBrowserCache")
        views.append(await _view(page, cdp, address, what, seen))
    return min(views, key=lambda view: view.interactive_ms)


async def _view(page: Page, cdp: CDPSession, address: str, what: str, seen: str) -> FirstView:
    await page.goto("about:blank")
    sizes: list[float] = []
    asked: list[str] = []

    def received(told: dict[str, Any]) -> None:
        sizes.append(told["encodedDataLength"])

    def requested(request: Request) -> None:
        asked.append(request.url)

    cdp.on("Network.loadingFinished", received)
    page.on("request", requested)
    await page.goto(address, wait_until="commit")
    await page.wait_for_selector({"form": "main input", "rows": "tbody tr"}[seen], timeout=60_000)
    at = float(await page.evaluate(f"window.seen.{seen}"))
    cdp.remove_listener("Network.loadingFinished", received)
    page.remove_listener("request", requested)
    return FirstView(what, round(sum(sizes) / 1000, 1), len(asked), round(at))


async def _watch(
    browser: Browser, address: str, calls: int, slowdown: int, seconds: float
) -> Watching:
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    page = await context.new_page()
    cdp = await context.new_cdp_session(page)
    await page.goto(address)
    await _sign_in(page)
    await page.locator("tbody tr button").first.click()
    await page.wait_for_selector("[role=log] p")
    await _slow_down(cdp, slowdown)
    await asyncio.sleep(_SETTLE_SECONDS)
    # What its thread has done, not how long it was kept waiting by other programs.
    await cdp.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
    await cdp.send("Performance.enable")
    before = await _metrics(cdp)
    await asyncio.sleep(seconds)
    after = await _metrics(cdp)
    # Whoever counts frames makes the browser work for each of them, so the work is measured first.
    told = await page.evaluate(_COUNTS_FRAMES, seconds)
    await context.close()
    lasted = after["Timestamp"] - before["Timestamp"]

    def percent(*names: str) -> float:
        return round(100 * sum(after[name] - before[name] for name in names) / lasted, 1)

    frames = sorted(told["frames"][1:])
    return Watching(
        calls=calls,
        slowdown=slowdown,
        main_thread_percent=percent("TaskDuration"),
        script_percent=percent("ScriptDuration"),
        layout_percent=percent("LayoutDuration", "RecalcStyleDuration"),
        frame_p50_ms=round(frames[len(frames) // 2], 1),
        frame_p95_ms=round(frames[len(frames) * 95 // 100], 1),
        frame_max_ms=round(frames[-1], 1),
        long_tasks=round(60 * told["tasks"] / seconds, 1),
        kilobytes_per_second=0.0,
        nodes=int(after["Nodes"]),
        heap_mb=round(after["JSHeapUsedSize"] / 1e6, 1),
    )


async def _kilobytes_per_second(address: str, seconds: float) -> float:
    """Measure what the service sends to one page, on top of what it sends at first."""
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": _KEY}, auto_decompress=False) as http,
        http.get(f"{address}page/watch", headers={"Accept-Encoding": "gzip"}) as stream,
    ):
        await stream.content.readany()
        size, loop = 0, asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            size += len(await stream.content.readany())
    return round(size / 1000 / seconds, 1)


async def _metrics(cdp: CDPSession) -> dict[str, float]:
    told = await cdp.send("Performance.getMetrics")
    return {each["name"]: each["value"] for each in told["metrics"]}


async def _slow_down(cdp: CDPSession, rate: int, *, network: bool = False) -> None:
    await cdp.send("Network.enable")
    if network:
        await cdp.send("Network.emulateNetworkConditions", _SLOW_NETWORK)
    await cdp.send("Emulation.setCPUThrottlingRate", {"rate": rate})


async def _sign_in(page: Page) -> None:
    await page.fill("input[type=password]", _KEY)
    await page.click("main button")
    await page.wait_for_selector("tbody tr")
