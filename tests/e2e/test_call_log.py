"""What is kept of real calls, beside what was really said and heard, and when."""

from __future__ import annotations

import asyncio
import csv
import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest

from ari_app.call.states import State
from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook
from lab.practice_agent.voice import BuiltInVoice
from lab.softphone import Answer, Phone
from lab.softphone.call import Call
from lab.softphone.mouth import Utterance
from lab.softphone.sounds import babble, level_dbfs
from tests.e2e.harness import Bench, bench, book
from tests.waiting import PATIENCE_SECONDS, PROMPT_SECONDS, until

pytestmark = pytest.mark.e2e

LOUD = -35.0
QUIET_BETWEEN = 0.6
NUMBER = "493023125009"
STORY = "Once upon a time there was a telephone that rang and rang, and nobody ever picked it up."


def database(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder}/calls.db"


async def kept(b: Bench, session_id: str) -> dict[str, Any]:
    """The document of a call that has ended."""
    call_log = b.bridge.call_log
    assert call_log is not None
    await call_log.settle()
    document = await call_log.find(session_id)
    assert document is not None
    return document


def heard_by(call: Call) -> list[tuple[float, float]]:
    """When the phone has heard something, on the loop's clock."""
    loud = [each.at for each in call.ear.arrivals if level_dbfs(each.pcm) > LOUD]
    ends = [at for at, following in pairwise(loud) if following - at > QUIET_BETWEEN]
    begins = [following for at, following in pairwise(loud) if following - at > QUIET_BETWEEN]
    return list(zip([loud[0], *begins], [*ends, loud[-1]], strict=True))


def pause_after(text: str) -> float:
    """How long the practice agent's voice says nothing at the end of what it says."""
    samples = BuiltInVoice().speak(text, 8000)
    return float(len(samples) - np.flatnonzero(samples)[-1]) / 8000


def close(seconds: float) -> Any:
    return pytest.approx(seconds, abs=0.1)


def everything() -> AgentBook:
    topic = {"name": "set_variable", "parameters": {"name": "TOPIC", "value": "billing"}}
    person = {
        "name": "transfer_call",
        "parameters": {"to": "+4930200", "mode": "attended"},
        "say_on_success": "Here is a caller.",
        "timeout_seconds": 30,
    }
    return book(
        dialogue={
            "first_message": "Hello, how can I help you today?",
            "turns": [
                {"say": STORY},
                {"say": "I make a note.", "tool": {**topic, "say_on_success": "It is noted."}},
                {"say": "Thank you for the number."},
                {"say": "One moment.", "tool": person},
            ],
        }
    )


async def test_a_call_is_kept_as_it_was(asterisk: LabAsterisk, tmp_path: Path) -> None:
    """Greeting, interruption, tool, keys, attended transfer: each when it was."""
    said: list[tuple[float, float]] = []

    async def speak(call: Call, ms: float) -> Utterance:
        utterance = await call.play(babble(ms, -15))
        assert utterance.started_at is not None
        assert utterance.finished_at is not None
        said.append((utterance.started_at, utterance.finished_at))
        return utterance

    async with Phone(on_incoming=Answer(after_s=0.5)) as target_phone:
        endpoint = f"PJSIP/lab/sip:{{number}}@127.0.0.1:{target_phone.address.port}"
        async with bench(
            asterisk,
            everything(),
            database_url=database(tmp_path),
            transfer_endpoint=endpoint,
            agent_variables="TOPIC",
        ) as b:
            call = await b.call()
            session = await b.session()
            record = session.record
            await call.wait_for_sound(LOUD, since=0)
            await call.wait_for_silence(1000)
            await speak(call, 1000)
            await call.wait_for_sound(LOUD)
            await asyncio.sleep(1.5)
            await speak(call, 1200)
            conversation = await b.conversation()
            await until(lambda: bool(conversation.tools))
            await until(lambda: "It is noted." in session.transcript[-1].text)
            await call.wait_for_silence(1000)
            keyed_at = asyncio.get_running_loop().time()
            await call.send_digits("42#")
            await until(lambda: "Thank you" in session.transcript[-1].text)
            await call.wait_for_silence(1000)
            await speak(call, 1000)
            target = await target_phone.incoming(15)
            await until(lambda: session.state is State.HANDED_OVER)
            handed_over_at = asyncio.get_running_loop().time()
            await asyncio.sleep(0.5)
            await target.hang_up()
            await asyncio.wait_for(call.ended, PROMPT_SECONDS)
            await b.all_gone()
            document = await kept(b, session.session_id)
    began = record.began
    turns = document["turns"]
    agent = [turn for turn in turns if turn["who"] == "agent"]
    caller = [turn for turn in turns if turn["who"] == "caller"]

    assert document["status"] == "COMPLETED"
    assert document["reason"] == "transferred"
    assert document["transfer_to"] == "+4930200"
    assert document["way"] == "asterisk"
    assert document["conversation_ids"] == [conversation.conversation_id]

    assert [turn["text"] for turn in agent][:3] == [
        "Hello, how can I help you today?",
        STORY,
        "I make a note.",
    ]
    heard = [(begins - began, ends - began) for begins, ends in heard_by(call)]
    greeted = heard[0][1] + pause_after(agent[0]["text"])
    assert (agent[0]["at"], agent[0]["until"]) == (close(heard[0][0]), close(greeted))
    assert (agent[1]["at"], agent[1]["until"]) == (close(heard[1][0]), close(heard[1][1]))
    assert agent[2]["at"] == close(heard[2][0])
    assert agent[1]["interrupted"]
    assert agent[1]["heard"] == conversation.interruptions[0].heard
    assert 0 < len(agent[1]["heard"]) < len(STORY)
    assert [turn["interrupted"] for turn in agent] == [turn is agent[1] for turn in agent]

    assert len(caller) == len(said) == 3
    for turn, (begins, ends) in zip(caller, said, strict=True):
        assert (turn["at"], turn["until"]) == (close(begins - began), close(ends - began))

    noted, transfer = document["tools"]
    assert (noted["name"], noted["is_error"]) == ("set_variable", False)
    assert noted["arguments"] == {"name": "TOPIC", "value": "billing"}
    assert noted["result"] == "The variable is set."
    asked, answered = conversation.tools[0].asked_at, conversation.tools[0].answered_at
    assert answered is not None
    assert noted["at"] == close(asked - began)
    assert noted["seconds"] == close(answered - asked)
    assert transfer["name"] == "transfer_call"

    (keys,) = document["keys"]
    assert keys["digits"] == "42"
    assert 0 < keys["at"] - (keyed_at - began) < 1.0

    phone, other = document["legs"]
    assert (phone["kind"], phone["number"]) == ("caller", record.caller_number)
    assert phone["answered"] is not None
    assert phone["ended"] is not None
    assert (other["kind"], other["number"], other["result"]) == ("target", "+4930200", "answered")
    assert other["began"] < other["answered"] < handed_over_at - began < other["ended"]

    sound = document["sound"]
    assert sound["interruptions"] == len(sound["barge_in_ms"]) == 1
    assert sound["barge_in_ms"][0] < 60
    assert document["response_times"] == record.response_times
    assert document["score"]["value"] >= 80, document["score"]


@pytest.mark.parametrize("who", ["caller", "us"])
async def test_what_the_telephones_rtp_has_counted(
    asterisk: LabAsterisk, tmp_path: Path, who: str
) -> None:
    async with bench(asterisk, database_url=database(tmp_path)) as b:
        call = await b.call()
        session = await b.session()
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(500)
        if who == "caller":
            await until(lambda: session.line.rtp is not None)
            await call.hang_up()
        else:
            began = asyncio.get_running_loop().time()
            await b.bridge.control.end(session.session_id)
            await asyncio.wait_for(call.ended, PROMPT_SECONDS)
            assert asyncio.get_running_loop().time() - began < 1.0, "a hang-up waits for nothing"
        await b.all_gone()
        rtp = (await kept(b, session.session_id))["sound"]["rtp"]
    assert rtp is not None
    assert rtp["final"] is (who == "us")
    assert rtp["received"] > 50
    assert rtp["sent"] > 50
    assert rtp["rtcp"] is False, f"the phone of the tests reports nothing: {rtp}"
    assert rtp["sent_lost"] is None
    assert rtp["round_trip_ms"] is None


def saying(**turn: Any) -> dict[str, Any]:
    return {"dialogue": {"first_message": "Hello.", "turns": [turn]}}


TRANSFER = {"name": "transfer_call", "parameters": {"to": "2000"}}
ENDINGS = [
    pytest.param(saying(say="Bye.", end_call=True), {}, "COMPLETED", "agent_ended", id="agent"),
    pytest.param({}, {}, "COMPLETED", "caller_hung_up", id="caller"),
    pytest.param({}, {"call_timeout_seconds": 3}, "TIMEOUT", "call_timeout", id="time"),
    pytest.param(saying(say="Bye.", tool=TRANSFER), {}, "TRANSFER", "agent_transfer", id="passed"),
]


@pytest.mark.parametrize(("agent", "changes", "status", "reason"), ENDINGS)
async def test_how_a_call_ended(
    asterisk: LabAsterisk,
    tmp_path: Path,
    agent: dict[str, Any],
    changes: dict[str, Any],
    status: str,
    reason: str,
) -> None:
    async with bench(asterisk, book(**agent), database_url=database(tmp_path), **changes) as b:
        call = await b.call()
        session = await b.session()
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(500)
        if reason == "caller_hung_up":
            await call.hang_up()
        elif status != "TIMEOUT":
            await call.play(babble(1000, -15))
        await until(lambda: session.ended.is_set())
        document = await kept(b, session.session_id)
        assert (document["status"], document["reason"]) == (status, reason)
        assert document["transfer_to"] == ("2000" if status == "TRANSFER" else None)
        assert document["seconds"] == pytest.approx(session.record.seconds, abs=0.001)


async def test_the_call_log_over_http(asterisk: LabAsterisk, tmp_path: Path) -> None:
    hidden = {"records_hide": "numbers", "dtmf_sensitive": True, "spend_calls_per_day": 1}
    async with (
        Phone(username=NUMBER) as phone,
        bench(asterisk, database_url=database(tmp_path), **hidden) as b,
    ):
        uri = f"sip:100@{asterisk.sip_host}:{asterisk.sip_port}"
        call = await phone.call(uri, timeout=PATIENCE_SECONDS)
        session = await b.session()
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(800)
        await call.send_digits("1234#")
        await until(lambda: any(line.who == "dtmf" for line in session.transcript))
        await call.wait_for_silence(800)
        await call.hang_up()
        await b.all_gone()
        name = session.session_id
        assert session.record.caller_number == NUMBER
        host, port = b.bridge.api_address
        async with aiohttp.ClientSession(f"http://{host}:{port}") as http:
            document = await (await http.get(f"/calls/{name}")).json()
            assert document["hidden"] == ["numbers"]
            assert document["keys"][0]["digits"] == "[digits]"
            everything_told = orjson.dumps(document).decode()
            assert "1234" not in everything_told
            assert NUMBER not in everything_told
            assert document["caller_number"] == document["legs"][0]["number"] == "*009"
            assert re.fullmatch(r"PJSIP/[a-z-]+", document["trunk"])
            assert 0 < document["agent_seconds"] < document["seconds"]

            # That was the one call of this day: the next one goes on without an answer.
            stranger = await b.dial()
            await until(lambda: "quota" in [each.end_reason for each in b.sessions()])
            assert len(b.agent.conversations) == 1
            await stranger.hang_up()
            ready = await (await http.get("/health/ready")).json()
            assert "used 100 % of today's 1 calls" in ready["warnings"][0]
            await b.all_gone()
            # A wish, too.
            wish = {"called_number": "+15550100001"}
            async with http.post("/webhook/initiate-call", json=wish) as answer:
                assert (answer.status, (await answer.json())["code"]) == (429, "quota")
                assert 0 < int(answer.headers["Retry-After"]) <= 25 * 3600

            listed = await (await http.get("/calls?text=help")).json()
            assert [row["session_id"] for row in listed["calls"]] == [name]
            text = await (await http.get(f"/calls/{name}/transcript?format=txt")).text()
            assert "Agent:  Hello, how can I help you today?" in text
            vtt = await (await http.get(f"/calls/{name}/transcript?format=vtt")).text()
            assert vtt.startswith("WEBVTT\n\n00:00:0")
            told = await (await http.get(f"/calls/{name}/transcript")).json()
            assert told["turns"] == document["turns"]
            table = await (await http.get("/calls/export?status=COMPLETED")).text()
            (row,) = csv.DictReader(io.StringIO(table, newline=""))
            assert (row["session_id"], row["reason"]) == (name, "caller_hung_up")
            lines = await (await http.get("/calls/export?format=jsonl&status=COMPLETED")).read()
            assert {**orjson.loads(lines), "webhooks": []} == document

            assert (await http.delete(f"/calls/{name}")).status == 200
            assert (await http.get(f"/calls/{name}")).status == 404
