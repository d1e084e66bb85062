"""HTTP tools in a real call: the agent asks, somebody's service answers, sound goes on."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook
from lab.softphone.sounds import babble
from lab.web import serving
from tests.e2e.harness import bench, book
from tests.waiting import until

pytestmark = pytest.mark.e2e

TEXT = (Path(__file__).parents[2] / "docs" / "agent-tools.md").read_text(encoding="utf-8")
LOUD = -35.0


@contextlib.asynccontextmanager
async def crm(seconds: float = 0.0) -> AsyncIterator[tuple[str, list[dict[str, object]]]]:
    """A CRM that knows one order, and takes its time; its address, and what it was asked."""
    asked: list[dict[str, object]] = []

    async def order(request: web.Request) -> web.Response:
        asked.append({"path": request.path, "token": request.headers["Authorization"]})
        await asyncio.sleep(seconds)
        return web.json_response({"state": "on its way"})

    async def call_back(request: web.Request) -> web.Response:
        asked.append(await request.json())
        raise web.HTTPConflict(text="The line is closed on Sundays.")

    app = web.Application()
    app.router.add_get("/orders/{id}", order)
    app.router.add_post("/callbacks", call_back)
    async with serving(app) as url:
        yield url, asked


@pytest.fixture
def tools_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRM_TOKEN", "s3cret")
    return tmp_path / "tools.yaml"


def describe(url: str, tools_file: Path) -> None:
    """Write the documentation's example, with another host."""
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    tools_file.write_text(example.replace("https://crm.example", url))


def asking(name: str, **parameters: str) -> AgentBook:
    tool = {
        "name": name,
        "parameters": parameters,
        "say_on_success": "I have it: {{tool_result}}",
        "say_on_error": "That did not work.",
    }
    return book(dialogue={"first_message": "Hello.", "turns": [{"tool": tool}]})


async def test_the_agent_looks_something_up_while_sound_goes_on(
    asterisk: LabAsterisk, tools_file: Path
) -> None:
    async with crm(seconds=1.5) as (url, asked):
        describe(url, tools_file)
        agents = asking("look_up_order", order_id="A-1234")
        async with bench(asterisk, agents, tools_file=tools_file) as b:
            call = await b.call()
            await call.wait_for_sound(LOUD, since=0)
            await call.wait_for_silence(500)
            await call.play(babble(1000, -20))
            await until(lambda: bool(asked))
            record = await b.conversation()
            began, heard = time.monotonic(), record.user_audio_seconds
            await until(lambda: record.tools[0].answered_at is not None)
            lasted = time.monotonic() - began
            assert lasted > 1
            assert record.user_audio_seconds - heard == pytest.approx(lasted, abs=0.2)
            assert record.tools[0].is_error is False
            assert record.tools[0].result == '{"state": "on its way"}'
            assert asked == [{"path": "/orders/A-1234", "token": "Bearer s3cret"}]
            await call.wait_for_sound(LOUD)
            await call.hang_up()
            await b.all_gone()


async def test_a_tool_that_fails_is_spoken_about(asterisk: LabAsterisk, tools_file: Path) -> None:
    async with crm() as (url, asked):
        describe(url, tools_file)
        agents = asking("call_back", when="on Sunday")
        async with bench(asterisk, agents, tools_file=tools_file) as b:
            call = await b.call()
            await call.wait_for_sound(LOUD, since=0)
            await call.wait_for_silence(500)
            await call.play(babble(1000, -20))
            record = await b.conversation()
            await until(lambda: bool(record.tools) and record.tools[0].answered_at is not None)
            assert record.tools[0].is_error is True
            assert (
                record.tools[0].result == "call_back answered 409: The line is closed on Sundays."
            )
            session = await b.session()
            assert asked == [{"when": "on Sunday", "phone": "phone", "session": session.session_id}]
            await call.wait_for_sound(LOUD)
            assert call.is_up
            await call.hang_up()
            await b.all_gone()
