"""The automatic caller: what it shows of a call, and what it tells Docker."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from lab.asterisk import LabError
from lab.compose import caller
from lab.compose.caller import Heart, Report, Round, follow, keep_calling, own_address, why_rest
from lab.compose.watch import Watcher
from lab.demo.voice import HigherVoice
from lab.web import serving
from tests.waiting import until

EVENTS: list[dict[str, Any]] = [
    {"type": "state", "state": "connecting"},
    {"type": "agent", "connect_seconds": 0.021},
    {"type": "transcript", "who": "agent", "text": "Good morning."},
    {"type": "transcript", "who": "caller", "text": "Hello."},
    {"type": "response_time", "seconds": 0.8},
    {"type": "interruption", "text": "after 100 ms"},
    {"type": "tool", "text": "hang_up"},
    {"type": "ended", "agent_status": "COMPLETED", "end_reason": "agent_hung_up"},
]


class Service:
    """The service's HTTP interface, with one call that comes after a while."""

    def __init__(self) -> None:
        self.asked = 0
        self.keys: set[str | None] = set()

    async def sessions(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.keys.add(request.headers.get("X-API-Key"))
        sessions = [{"session_id": "old", "caller_number": "caller"}]
        sessions.append({"session_id": "other", "caller_number": "phone"})
        if self.asked > 2:
            sessions.append({"session_id": "new", "caller_number": "caller"})
        return web.json_response({"sessions": sessions})

    async def events(self, request: web.Request) -> web.WebSocketResponse:
        assert request.match_info["id"] == "new"
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for event in EVENTS:
            await socket.send_json(event)
        await socket.close()
        return socket


@pytest.fixture
async def service() -> AsyncIterator[tuple[Service, str]]:
    fake = Service()
    app = web.Application()
    app.router.add_get("/sessions", fake.sessions)
    app.router.add_get("/sessions/{id}/events", fake.events)
    async with serving(app) as url:
        yield fake, url


async def test_shows_what_the_service_says_of_its_own_new_call(
    service: tuple[Service, str],
) -> None:
    fake, url = service
    shown: list[tuple[str, str]] = []
    report = Report()
    async with Watcher(url, "the-key") as watcher:
        known = await watcher.session_ids("caller")
        await follow(watcher, known, report, lambda kind, text: shown.append((kind, text)))
    assert known == {"old"}
    assert fake.keys == {"the-key"}
    assert shown == [
        ("call", "the agent is ready after 21 ms"),
        ("agent", "Good morning."),
        ("heard", "Hello."),
        ("interruption", "after 100 ms"),
        ("tool", "hang_up"),
    ]
    assert report == Report("COMPLETED", "agent_hung_up", True, [0.8])


async def follow_events(url: str, monkeypatch: pytest.MonkeyPatch, *kinds: str) -> Report:
    """Follow the new call of a service that tells only events of these kinds."""
    report = Report()
    monkeypatch.setattr(
        "tests.unit.compose.test_caller.EVENTS", [e for e in EVENTS if e["type"] in kinds]
    )
    async with Watcher(url, "the-key") as watcher:
        await follow(watcher, {"old"}, report, lambda kind, text: None)
    return report


async def test_a_call_counts_as_paid_unless_the_service_says_that_no_agent_was_there(
    service: tuple[Service, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, url = service
    refused = await follow_events(url, monkeypatch, "state", "ended")
    assert not refused.reached_agent
    # The service was lost before it could say how the call ended.
    assert (await follow_events(url, monkeypatch)).reached_agent


async def test_a_service_that_falls_silent_during_a_call_may_have_an_agent_in_it() -> None:
    report = Report()
    async with Watcher("http://127.0.0.1:9", "the-key") as watcher:
        with pytest.raises(LabError, match="does not answer"):
            await follow(watcher, set(), report, lambda kind, text: None)
    assert report.reached_agent


@pytest.mark.parametrize(
    ("costs_money", "reached_agent", "in_vain", "why"),
    [
        (False, True, 0, ""),
        (False, False, 99, ""),
        (True, False, 1, ""),
        (True, False, 2, ""),
        (True, False, 3, "3 calls have reached no agent"),
        (True, True, 0, "this was the only one"),
    ],
)
@pytest.mark.parametrize("status", ["COMPLETED", "FAILED", "TIMEOUT", ""])
def test_when_the_caller_rests(
    costs_money: bool, reached_agent: bool, in_vain: int, why: str, status: str
) -> None:
    """However the call has ended: what was paid for was paid for."""
    plan = Round("sip:100@asterisk", 20, costs_money, Path("heard"))
    said = why_rest(plan, Report(status, reached_agent=reached_agent), in_vain)
    assert bool(said) is bool(why)
    assert why in said


async def test_a_call_that_never_arrives_is_a_failure(service: tuple[Service, str]) -> None:
    _, url = service
    async with Watcher(url, "the-key") as watcher:
        with pytest.raises(LabError, match="has not reached the service"):
            await watcher.new_session("nobody", set(), timeout=0.05)


async def test_a_service_that_is_down_is_a_failure() -> None:
    async with Watcher("http://127.0.0.1:9", "the-key") as watcher:
        with pytest.raises(LabError, match="does not answer"):
            await watcher.session_ids("caller")


async def test_the_heartbeat_goes_with_the_calls(tmp_path: Path) -> None:
    file = tmp_path / "heard"
    heart = Heart(file)
    beating = asyncio.create_task(heart.beat())
    await asyncio.sleep(0)
    assert not file.exists()
    heart.set(True)
    assert file.exists()
    heart.set(False)
    heart.set(False)
    assert not file.exists()
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


def test_finds_its_own_address() -> None:
    assert own_address("sip:100@127.0.0.1:5060") == "127.0.0.1"


@pytest.mark.parametrize(
    ("reached", "calls"),
    [([True], 1), ([False, True], 2), ([False, False, False], 3)],
)
async def test_no_more_calls_than_may_be_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reached: list[bool], calls: int
) -> None:
    """Each of them ends badly, which is no reason to call again."""
    placed: list[bool] = []

    async def call(*arguments: Any) -> bool:
        placed.append(reached[len(placed)])
        arguments[-1].reached_agent = placed[-1]
        return False

    monkeypatch.setattr(caller, "_one_call", call)
    monkeypatch.setattr(caller, "caller_voice", HigherVoice)
    screen = io.StringIO()
    stop = asyncio.Event()
    async with Watcher("http://127.0.0.1:9", "the-key") as watcher:
        plan = Round("sip:100@asterisk", 0.001, True, tmp_path / "heard")
        calling = asyncio.create_task(
            keep_calling(plan, "secret", watcher, Console(file=screen), stop)
        )
        await until(lambda: "restart caller" in screen.getvalue())
        # Whoever called on would have done so by now.
        await asyncio.sleep(0.05)
        stop.set()
        await calling
    assert len(placed) == calls
