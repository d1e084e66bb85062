"""A supervisor takes a call over and gives it back, with two phones around a real Asterisk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp
import pytest

from ari_app.call.states import State
from lab.asterisk import LabAsterisk
from lab.softphone import Answer, Phone, Reject
from lab.softphone.sounds import babble, level_dbfs
from tests.e2e.harness import Bench, bench, hears, loud_seconds, tone_seconds
from tests.recordings import sides_of
from tests.waiting import PROMPT_SECONDS, until

pytestmark = pytest.mark.e2e

KEY = "key-of-the-supervisor-0123456789"
LOUD = -35.0


async def ask(b: Bench, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    """Ask over HTTP, as a page or a program of a supervisor's does."""
    url = "http://{}:{}".format(*b.bridge.api_address) + path
    headers = {"X-API-Key": KEY}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(url, json=body) if body is not None else http.post(url) as answer,
    ):
        return answer.status, await answer.json()


@pytest.mark.usefixtures("transport")
async def test_a_call_is_taken_over_and_given_back(asterisk: LabAsterisk, tmp_path: Path) -> None:
    async with Phone(on_incoming=Answer(after_s=0.5)) as desk:
        endpoint = f"PJSIP/lab/sip:{{number}}@127.0.0.1:{desk.address.port}"
        settings = {
            "take_over_endpoint": endpoint,
            "take_over_pattern": "[0-9]{4}",
            "recordings_dir": tmp_path,
        }
        async with bench(asterisk, api_key=KEY, **settings) as b:
            call = await b.call()
            session = await b.session()
            await call.wait_for_sound(LOUD, since=0)
            name = session.session_id
            assert (await ask(b, f"/sessions/{name}/take-over", {"endpoint": "1&2"}))[0] == 422
            status, _ = await ask(b, f"/sessions/{name}/take-over", {"endpoint": "2001"})
            assert status == 200
            supervisor = await desk.incoming(10)
            assert session.state is State.TALKING, "the agent goes on while it rings"
            await until(lambda: session.state is State.TAKEN_OVER)
            await supervisor.answered()
            agent = await b.conversation()
            heard = loud_seconds(agent)
            assert (await ask(b, f"/sessions/{name}/take-over", {"endpoint": "2001"}))[0] == 409
            assert await hears(call, supervisor, 600)
            assert await hears(supervisor, call, 1000)
            assert level_dbfs(call.heard_pcm()[-1600:]) < -50, "of the agent nothing is heard"
            assert loud_seconds(agent) == heard, "and it hears nothing"
            assert (await ask(b, f"/sessions/{name}/give-back"))[0] == 200
            await asyncio.wait_for(supervisor.ended, PROMPT_SECONDS)
            assert call.is_up
            await until(lambda: session.state is State.TALKING)
            asked = [m["text"] for m in agent.messages if m.get("type") == "user_message"]
            assert "A colleague has spoken with the caller" in str(asked[-1])
            await call.wait_for_sound(LOUD)
            await call.wait_for_silence(800)
            await call.play(babble(1000, -20))
            await until(lambda: loud_seconds(agent) > heard + 0.5)
            await call.hang_up()
            await b.all_gone()
            (over,) = session.record.take_overs
            assert (over.who, over.number, over.failed) == ("API_KEY", "2001", None)
            archive = b.bridge.recordings
            assert archive is not None
            # It gets its name in another thread.
            await until(lambda: not archive.is_busy(name))
            (file,) = tmp_path.rglob("*.wav")  # noqa: ASYNC240
    left = sides_of(file)[:, 0].tobytes()
    assert tone_seconds(left, 600) > 0.7, "the recording has the supervisor"
    assert tone_seconds(left, 1000) > 0.7, "and the caller, in one voice"


async def test_a_supervisor_who_refuses_and_a_caller_who_leaves(asterisk: LabAsterisk) -> None:
    async with Phone(on_incoming=Reject(486)) as desk:
        endpoint = f"PJSIP/lab/sip:{{number}}@127.0.0.1:{desk.address.port}"
        async with bench(
            asterisk, api_key=KEY, take_over_endpoint=endpoint, take_over_pattern="[0-9]{4}"
        ) as b:
            call, session = await b.talk()
            path = f"/sessions/{session.session_id}/take-over"
            await ask(b, path, {"endpoint": "2001"})
            await until(lambda: bool(session.record.take_overs[-1].failed))
            assert session.record.take_overs[-1].failed == "busy"
            assert session.state is State.TALKING
            desk.on_incoming = Answer()
            await ask(b, path, {"endpoint": "2001"})
            await until(lambda: session.state is State.TAKEN_OVER)
            supervisor = await desk.incoming(10)
            await call.hang_up()
            await asyncio.wait_for(supervisor.ended, PROMPT_SECONDS)
            await b.all_gone()
