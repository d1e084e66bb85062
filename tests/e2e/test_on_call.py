"""What can be done on a call: keys, hold, tools, time-outs, and what a service says before it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from ari_app.call.states import State
from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook, ConversationRecord
from lab.softphone.call import Call
from lab.softphone.sounds import babble, level_dbfs, tone, tone_dbfs
from lab.web import serving
from tests.e2e.harness import HUMAN_HZ, Bench, bench, book, profile
from tests.session_view import Session
from tests.waiting import until

pytestmark = pytest.mark.e2e

LOUD = -35.0
MUSIC_HZ = 440
QUIET = {"dialogue": {"first_message": "", "turns": []}}


def sent(record: ConversationRecord, kind: str) -> list[dict[str, Any]]:
    return [message for message in record.messages if message.get("type") == kind]


def heard(call: Call, hz: float) -> bool:
    return bool(tone_dbfs(call.heard_pcm()[-1600:], hz) > -40)


def tool(tool_name: str, /, **parameters: object) -> AgentBook:
    use = {"name": tool_name, "parameters": parameters, "say_on_error": "That did not work."}
    return book(
        dialogue={"first_message": "Hello.", "turns": [{"tool": use}, {"say": "I am back."}]}
    )


async def use_tool(b: Bench) -> tuple[Call, Session, ConversationRecord]:
    call, session = await b.talk()
    await call.wait_for_sound(LOUD, since=0)
    await call.wait_for_silence(500)
    await call.play(babble(1000, -20))
    record = await b.conversation()
    await until(lambda: bool(record.tools) and record.tools[0].is_error is not None)
    return call, session, record


# --- keys


@pytest.mark.parametrize(
    ("settings", "pressed", "messages"),
    [
        ({}, "1234#", ["1234"]),
        ({"dtmf_timeout_seconds": 0.6}, "42", ["42"]),
        ({"dtmf_mode": "each"}, "1#", ["1", "#"]),
        ({"dtmf_mode": "off"}, "12#", []),
        ({"dtmf_max_digits": 2, "dtmf_timeout_seconds": 0.6}, "123", ["12", "3"]),
    ],
    ids=str,
)
@pytest.mark.usefixtures("transport")
async def test_keys_reach_the_agent_once(
    asterisk: LabAsterisk, settings: dict[str, object], pressed: str, messages: list[str]
) -> None:
    async with bench(asterisk, book(**QUIET), **settings) as b:
        call, session = await b.talk()
        await call.send_digits(pressed)
        record = await b.conversation()
        await asyncio.sleep(1.2)
        said = sent(record, "user_message")
        assert [message["text"] for message in said] == messages
        assert {message["source_medium"] for message in said} <= {"dtmf"}
        assert [line.text for line in session.transcript if line.who == "dtmf"] == messages
        await call.hang_up()
        await b.all_gone()


@pytest.mark.usefixtures("transport")
async def test_keys_that_follow_each_other_quickly(asterisk: LabAsterisk) -> None:
    async with bench(asterisk, book(**QUIET)) as b:
        call, _ = await b.talk()
        await call.send_digits("4471123#", press_ms=40, gap_ms=40)
        record = await b.conversation()
        await until(lambda: sent(record, "user_message"))
        assert [message["text"] for message in sent(record, "user_message")] == ["4471123"]
        await call.hang_up()
        await b.all_gone()


@pytest.mark.usefixtures("transport")
async def test_the_agent_presses_keys(asterisk: LabAsterisk) -> None:
    async with bench(asterisk, tool("send_dtmf", digits="12#")) as b:
        call, _, record = await use_tool(b)
        assert record.tools[0].is_error is False
        await until(lambda: "".join(d.digit for d in call.ear.digits) == "12#")
        await call.hang_up()
        await b.all_gone()


# --- tools


async def test_the_agent_sets_a_variable_that_it_may(asterisk: LabAsterisk) -> None:
    agents = tool("set_variable", name="TOPIC", value="invoice 17, urgent")
    async with bench(asterisk, agents, agent_variables="TOPIC OTHER") as b:
        call, session, record = await use_tool(b)
        assert record.tools[0].is_error is False
        value = await b.bridge.ari.channels.get_channel_var(session.call_id, "TOPIC")
        assert value == "invoice 17, urgent"
        await call.hang_up()
        await b.all_gone()


@pytest.mark.usefixtures("transport")
async def test_the_agent_puts_the_caller_on_hold_until_it_speaks(asterisk: LabAsterisk) -> None:
    async with bench(asterisk, tool("hold")) as b:
        call, session, record = await use_tool(b)
        assert record.tools[0].is_error is False
        await until(lambda: session.state is State.HOLDING)
        await until(lambda: heard(call, MUSIC_HZ))
        await b.bridge.control.say_to_agent(session.session_id, "user", "Are you ready?")
        await until(lambda: session.state is State.TALKING)
        since = call.ear.arrivals[-1].at
        await call.wait_for_sound(LOUD, since=since)
        await call.wait_for_silence(700)
        assert not heard(call, MUSIC_HZ)
        await call.hang_up()
        await b.all_gone()


# --- hold


@pytest.mark.usefixtures("transport")
async def test_the_phone_holds_us(asterisk: LabAsterisk) -> None:
    async with bench(asterisk, book(**QUIET)) as b:
        call, session = await b.talk()
        record = await b.conversation()
        await call.hold()
        await until(lambda: len(sent(record, "contextual_update")) == 1)
        assert "on hold" in sent(record, "contextual_update")[0]["text"]
        began = len(record.user_audio)
        call.send(tone(1000, 600, -10))
        await asyncio.sleep(0.8)
        pcm = b"".join(arrival.payload for arrival in record.user_audio[began:])
        assert len(pcm) > 16000, "the agent's time goes on"
        assert level_dbfs(pcm) < -80, "the agent hears silence"
        await call.unhold()
        await until(lambda: len(sent(record, "contextual_update")) == 2)
        began = len(record.user_audio)
        await call.play(tone(1000, 600, -10))
        pcm = b"".join(arrival.payload for arrival in record.user_audio[began:])
        assert level_dbfs(pcm) > -30
        assert session.state is State.TALKING
        await call.hang_up()
        await b.all_gone()


# --- from outside


# --- time-outs


# --- before the call


@contextlib.asynccontextmanager
async def service(answer: object, delay: float = 0.0) -> AsyncIterator[tuple[str, list[Any]]]:
    asked: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append((await request.json(), request.headers.get("Authorization")))
        await asyncio.sleep(delay)
        return web.json_response(answer)

    app = web.Application()
    app.router.add_post("/before", handle)
    async with serving(app) as url:
        yield f"{url}/before", asked


async def test_a_service_chooses_the_agent(asterisk: LabAsterisk) -> None:
    answer = {
        "type": "conversation_initiation_client_data",
        "agent_id": "agent_vip",
        "dynamic_variables": {"customer_name": "Jane"},
        "conversation_config_override": {"agent": {"first_message": "Welcome back."}},
    }
    agents = AgentBook(default=None, agents={"agent_vip": profile()})
    async with (
        service(answer, delay=0.5) as (url, asked),
        bench(asterisk, agents, precall_url=url, precall_secret="word") as b,
    ):
        call = await b.dial("100")
        await call.rung()
        assert len(b.sessions()) == 0, "the caller hears ringing while the service thinks"
        await call.answered()
        session = await b.session()
        record = await b.conversation()
        assert asked[0][0]["caller_id"] == "phone"
        assert asked[0][0]["called_number"] == "100"
        assert asked[0][0]["call_sid"] == session.call_id
        assert asked[0][1] == "word"
        assert record.agent_id == "agent_vip"
        assert record.dynamic_variables["customer_name"] == "Jane"
        await until(lambda: bool(session.transcript))
        assert session.transcript[0].text == "Welcome back."
        await call.hang_up()
        await b.all_gone()


@pytest.mark.parametrize("on_failure", ["go_on", "fail"])
async def test_a_service_that_takes_too_long(asterisk: LabAsterisk, on_failure: str) -> None:
    async with (
        service({}, delay=1.0) as (url, _),
        bench(
            asterisk,
            precall_url=url,
            precall_timeout_seconds=0.3,
            precall_on_failure=on_failure,
        ) as b,
    ):
        call = await b.call()
        if on_failure == "go_on":
            await call.wait_for_sound(LOUD, since=0)
        else:
            session = await b.session()
            line = await asterisk.wait_for_log(f"session={session.session_id}")
            assert "agent=FAILED reason=precall_timeout" in line
            await until(lambda: heard(call, HUMAN_HZ))
        await call.hang_up()
        await b.all_gone()
