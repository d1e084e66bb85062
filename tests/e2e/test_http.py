"""A dialer drives calls over HTTP: a phone is called, talks, and the call is ended from outside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest

from ari_app.call.states import State
from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook
from lab.softphone import Answer, Phone
from lab.softphone.policy import Policy
from lab.softphone.sounds import babble, level_dbfs, tone
from tests.e2e.harness import Bench, bench, book
from tests.waiting import PATIENCE_SECONDS, PROMPT_SECONDS, until

pytestmark = pytest.mark.e2e

KEY = "key-of-the-dialer"
NUMBER = "+493023125001"
LOUD = -35.0


@dataclass(slots=True)
class Dialer:
    """A program that knows of the service only its address and the key."""

    http: aiohttp.ClientSession
    bench: Bench
    callee: Phone

    async def post(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        sent = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": "application/json", **headers} if sent else headers
        async with self.http.post(path, data=sent, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.http.get(path) as response:
            return response.status, await response.json(content_type=None)


@contextlib.asynccontextmanager
async def dialer(
    asterisk: LabAsterisk, policy: Policy, agents: AgentBook | None = None, **changes: object
) -> AsyncIterator[Dialer]:
    async with Phone(on_incoming=policy) as callee:
        endpoint = f"PJSIP/lab/sip:{{number}}@127.0.0.1:{callee.address.port}"
        async with bench(asterisk, agents, outbound_endpoint=endpoint, api_key=KEY, **changes) as b:
            host, port = b.bridge.api_address
            async with aiohttp.ClientSession(
                f"http://{host}:{port}", headers={"X-API-Key": KEY}
            ) as http:
                yield Dialer(http, b, callee)


async def read_events(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    """All events until the stream ends."""
    lines = (await response.text()).splitlines()
    return [orjson.loads(line[6:]) for line in lines if line.startswith("data: ")]


async def test_a_call_from_beginning_to_end(asterisk: LabAsterisk) -> None:
    talk = {
        "first_message": "Hello {{customer_name}}.",
        "turns": [{"say": "Thank you, I have written that down."}],
    }
    async with dialer(asterisk, Answer(after_s=0.3), book(dialogue=talk)) as d:
        status, begun = await d.post(
            "/webhook/initiate-call",
            {
                "agent_id": "agent_7",
                "session_id": "lead-1",
                "called_number": NUMBER,
                "caller_number": "+4989111",
                "metadata": {
                    "call_id": "crm-9",
                    "campaign": "spring",
                    "dynamic_variables": {"customer_name": "Jane"},
                },
            },
        )
        assert status == 200, begun
        assert (begun["success"], begun["session_id"], begun["call_id"]) == (
            True,
            "lead-1",
            "crm-9",
        )
        async with (
            d.http.ws_connect(begun["websocket_url"]) as socket,
            d.http.get(
                "/sessions/lead-1/events", headers={"Accept": "text/event-stream"}
            ) as stream,
        ):
            call = await d.callee.incoming(5)
            await call.answered()
            await call.wait_for_sound(LOUD, since=0)
            greeting = await until_event(socket, "transcript")
            assert (greeting["who"], greeting["text"]) == ("agent", "Hello Jane.")

            session = d.bench.sessions()[0]
            await until(lambda: session.sound.playout.idle)
            await call.play(babble(1000))
            answer = await until_event(socket, "transcript", who="agent")
            assert answer["text"].startswith("Thank you")
            assert (await until_event(socket, "response_time"))["seconds"] > 0

            status, shown = await d.get("/sessions/lead-1")
            assert status == 200
            assert (shown["status"], shown["state"], shown["result"]) == (
                "active",
                "talking",
                "answered",
            )
            assert (shown["call_id"], shown["metadata"]["campaign"]) == ("crm-9", "spring")
            assert shown["channel_id"] == session.call_id

            status, over = await d.post(
                "/webhook/end-call", {"session_id": "lead-1", "reason": "customer_paid"}
            )
            assert (status, over["success"], over["call_id"]) == (200, True, "crm-9")
            assert over["duration"] > 1
            ended = await until_event(socket, "ended")
            assert (ended["agent_status"], ended["end_reason"]) == ("COMPLETED", "customer_paid")
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            events = await read_events(stream)
        await asyncio.wait_for(call.ended, PROMPT_SECONDS)
        assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
        kinds = {event["type"] for event in events}
        assert {"state", "agent", "transcript", "response_time", "ended"} <= kinds
        said = [event["who"] for event in events if event["type"] == "transcript"]
        assert {"agent", "caller"} <= set(said)

        # The stream is taken up again, and tells who asks too late that nothing more comes.
        seen = events[-2]["seq"]
        async with d.http.get(
            "/sessions/lead-1/events", headers={"Last-Event-ID": str(seen)}
        ) as again:
            assert await read_events(again) == events[-1:]
        async with d.http.get(
            "/sessions/lead-1/events", headers={"Last-Event-ID": str(seen + 1)}
        ) as again:
            assert again.status == 204
        assert (await d.get("/sessions"))[1]["active_sessions"] == 0
        await d.bench.all_gone()


async def until_event(
    socket: aiohttp.ClientWebSocketResponse, kind: str, **fields: str
) -> dict[str, Any]:
    """The next event of that kind."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            event: dict[str, Any] = await socket.receive_json(loads=orjson.loads)
            if event["type"] == kind and fields.items() <= event.items():
                return event


async def test_actions_reach_the_call(asterisk: LabAsterisk) -> None:
    async with dialer(asterisk, Answer()) as d:
        await d.post("/webhook/initiate-call", {"called_number": NUMBER, "session_id": "s"})
        call = await d.callee.incoming(5)
        session = d.bench.sessions()[0]
        await until(lambda: session.state is State.TALKING)

        assert (await d.post("/sessions/s/dtmf", {"digits": "42#"}))[0] == 200
        await until(lambda: "".join(heard.digit for heard in call.ear.digits) == "42#")
        assert (await d.post("/sessions/s/say-to-agent", {"text": "He has paid."}))[0] == 200
        record = await d.bench.conversation()
        await until(lambda: "He has paid." in str(list(record.messages)))
        assert (await d.post("/sessions/s/hold"))[0] == 200
        await until(lambda: session.state is State.HOLDING)
        assert (await d.post("/sessions/s/unhold"))[0] == 200
        await until(lambda: session.state is State.TALKING)
        assert (await d.post("/sessions/s/mute", {"muted": True}))[0] == 200
        assert (await d.post("/sessions/s/mute", {"muted": False}))[0] == 200
        await call.hang_up()
        await d.bench.all_gone()
        status, problem = await d.post("/sessions/s/hold")
        assert (status, problem["code"]) == (409, "not_talking")


async def heard(socket: aiohttp.ClientWebSocketResponse, blocks: int, side: int) -> bytes:
    """What comes next on one side: caller 0, agent 1."""
    stereo = b"".join([(await socket.receive()).data for _ in range(blocks)])
    return np.frombuffer(stereo, "<i2").reshape(-1, 2)[:, side].tobytes()


async def test_a_listener_hears_both_sides(asterisk: LabAsterisk) -> None:
    async with bench(asterisk) as b, aiohttp.ClientSession() as client:
        call, session = await b.talk()
        url = "ws://{}:{}".format(*b.bridge.api_address) + f"/sessions/{session.session_id}/listen"
        async with client.ws_connect(url) as socket:
            head = await socket.receive_json()
            assert head["channels"] == ["caller", "agent"]
            assert level_dbfs(await heard(socket, 15, side=1)) > -35
            call.send(tone(440, 3000))
            assert level_dbfs(await heard(socket, 30, side=0)) > -30
        await until(lambda: "listens no more" in str(list(session.record.transcript)))
        await call.hang_up()
        await b.all_gone()
