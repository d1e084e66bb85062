"""The dialplans of docs/dialers.md and docs/vicidial.md, with a Local channel as the dialer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import textwrap
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from ari_app.control.http.requests import EndCallRequest, InitiateCallRequest
from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook
from lab.softphone import Answer, Call, Phone
from lab.softphone.sounds import babble
from lab.web import serving
from tests.e2e.harness import Bench, bench, book
from tests.waiting import until

pytestmark = pytest.mark.e2e

DOCS = Path(__file__).parents[2] / "docs"
TEXT = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("dialers.md", "vicidial.md"))
LOUD = -35.0

# What a dialer has: a way out, and a context for DIDs.
DIALER = """
[outbound]
exten => _X.,1,Dial(PJSIP/lab/sip:${EXTEN}@127.0.0.1:@PORT@,20)
 same => n,Hangup()

[trunkinbound]
exten => _X.,1,Log(NOTICE,did ${EXTEN} for lead ${LEAD_ID})
 same => n,Wait(60)
"""

# Callees for answering machine detection: a short hello, then silence; and one who goes on.
CALLEES = """
[amd-callees]
exten => human,1,Answer()
 same => n,PlayTones(440)
 same => n,Wait(0.6)
 same => n,StopPlayTones()
 same => n,Wait(60)
exten => machine,1,Answer()
 same => n,Milliwatt()
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def saying(tool: dict[str, object]) -> AgentBook:
    """An agent that uses a tool when the callee has said something."""
    turn = {"tool": {"say_on_success": "One moment.", **tool}}
    return book(dialogue={"first_message": "Hello.", "turns": [turn]})


@dataclass(slots=True)
class Dialer:
    """A dialer in front of the bench: it originates and hands over."""

    asterisk: LabAsterisk
    callee: Phone
    bench: Bench
    mark: int
    handed_over: int = 0

    async def place(
        self,
        extension: str,
        *,
        context: str = "voice-agent-handover",
        to: str = "493023125001@outbound",
        caller: str = "4711 <493023125002>",
    ) -> None:
        """Originate as AMI's action of that name does."""
        a = self.asterisk
        query = {
            "endpoint": f"Local/{to}/n",
            "context": context,
            "extension": extension,
            "priority": "1",
            "callerId": caller,
        }
        auth = aiohttp.encode_basic_auth(a.ari_username, a.ari_password)
        async with (
            aiohttp.ClientSession(headers={"Authorization": auth}) as http,
            http.post(
                f"{a.ari_url}/ari/channels",
                params=query,
                json={"variables": {"__LEAD_ID": "4711"}},
                raise_for_status=True,
            ),
        ):
            self.handed_over += context != "voice-agent-remote"

    async def answered(self) -> Call:
        """The callee's side, once the agent has greeted it."""
        call = await self.callee.incoming(10)
        await call.answered()
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(500)
        return call

    async def log(self, words: str, within: float = 15.0) -> str:
        return await self.asterisk.wait_for_log(words, within, since=self.mark)


@contextlib.asynccontextmanager
async def dialer(
    asterisk: LabAsterisk, agents: AgentBook | None = None, **changes: object
) -> AsyncIterator[Dialer]:
    """The documented dialplans, a callee, and the service."""
    async with (
        Phone(on_incoming=Answer()) as callee,
        bench(asterisk, agents, **changes) as b,
    ):
        port = str(callee.address.port)
        dialplan = "\n".join([*blocks("asterisk"), DIALER.replace("@PORT@", port), CALLEES])
        await asterisk.add_dialplan("dialers", dialplan)
        placed = Dialer(asterisk, callee, b, asterisk.log_size())
        yield placed
        await asterisk.wait_until_empty()
        log = asterisk.log_path.read_bytes()[placed.mark :].decode(errors="replace")
        assert "No application" not in log
        assert "not registered" not in log.replace("app 'voice-agent' not registered", "")
        reports = re.findall(r"NOTICE\[.*: voice agent: lead=4711 ", log)
        assert len(reports) == placed.handed_over, "each call is reported once"


async def test_the_documented_dialplan_is_loaded_without_a_complaint(
    asterisk: LabAsterisk,
) -> None:
    mark = asterisk.log_size()
    await asterisk.add_dialplan("dialers", "\n".join(blocks("asterisk")))
    for context in re.findall(r"^\[(.+)\]$", "\n".join(blocks("asterisk")), re.MULTILINE):
        assert f"Context '{context}'" in await asterisk.cli(f"dialplan show {context}")
    log = asterisk.log_path.read_bytes()[mark:].decode()
    assert not re.search(r"(WARNING|ERROR).*pbx", log)


async def test_a_call_handed_over_that_the_callee_ends(asterisk: LabAsterisk) -> None:
    async with dialer(asterisk) as d:
        await d.place("8500")
        call = await d.answered()
        record = await d.bench.conversation()
        assert record.dynamic_variables["lead_id"] == "4711"
        await call.hang_up()
        # Also of a caller who has gone it is known which call it was.
        session = (await d.bench.session()).session_id
        await d.log(f"lead=4711 result=CALLER_HUNG_UP reason= session={session} conversation=")
        await d.bench.all_gone()


async def test_the_agent_ends_the_call(asterisk: LabAsterisk) -> None:
    async with dialer(asterisk, saying({"name": "hang_up"})) as d:
        await d.place("8500")
        call = await d.answered()
        await call.play(babble(1000, -20))
        line = await d.log("result=COMPLETED reason=agent_hung_up")
        session = await d.bench.session()
        assert f"session={session.session_id}" in line
        assert f"conversation={session.conversation_id}" in line
        await d.bench.all_gone(5)


@pytest.mark.parametrize(
    ("to", "result", "did"),
    [
        ("billing", "result=TRANSFER reason=agent_transfer", "did 5550101"),
        ("900123456", "result=TRANSFER reason=agent_transfer", "did 5550100"),
        ("+", "result=TRANSFER reason=agent_transfer", "did 5550100"),
    ],
    ids=["known", "unknown goes to a person", "nothing left of it"],
)
async def test_a_transfer_goes_to_an_in_group(
    asterisk: LabAsterisk, to: str, result: str, did: str
) -> None:
    async with dialer(asterisk, saying({"name": "transfer_call", "parameters": {"to": to}})) as d:
        await d.place("8500")
        call = await d.answered()
        await call.play(babble(1000, -20))
        await d.log(result)
        await d.log(did)
        assert call.is_up
        await call.hang_up()
        await d.bench.all_gone()


async def test_a_person_takes_over_when_the_service_has_no_room(asterisk: LabAsterisk) -> None:
    async with dialer(asterisk, max_concurrent_calls=1) as d:
        await d.place("8500")
        first = await d.answered()
        await d.place("8500")
        second = await d.callee.incoming(10)
        await d.log("result=REJECTED reason=at_capacity")
        await d.log("did 5550100 for lead 4711")
        assert second.is_up
        await second.hang_up()
        await first.hang_up()
        await d.bench.all_gone()


async def test_a_person_takes_over_when_the_service_does_not_run(asterisk: LabAsterisk) -> None:
    async with dialer(asterisk) as d:
        d.bench.bridge.stop()
        await until(lambda: d.bench.bridge.calls.draining)
        await without_application(asterisk)
        await d.place("8500")
        call = await d.callee.incoming(10)
        await d.log("result=DOWN")
        await d.log("did 5550100 for lead 4711")
        await call.hang_up()


async def without_application(asterisk: LabAsterisk) -> None:
    for _ in range(100):
        if not await asterisk.ari("GET", "applications"):
            return
        await asyncio.sleep(0.05)
    pytest.fail("the application is still registered")


async def test_amd_lets_a_human_through(asterisk: LabAsterisk) -> None:
    async with dialer(asterisk) as d:
        await d.place("8501", to="human@amd-callees")
        record = await d.bench.conversation()
        await until(lambda: bool(record.dynamic_variables))
        assert record.dynamic_variables["amd_status"] == "HUMAN"
        session = await d.bench.session()
        await asterisk.ari("DELETE", f"channels/{session.call_id}")
        await d.log("result=CALLER_HUNG_UP")
        await d.bench.all_gone(5)


async def test_amd_keeps_a_machine_from_the_agent(asterisk: LabAsterisk) -> None:
    async with dialer(asterisk) as d:
        await d.place("8501", to="machine@amd-callees")
        await d.log("result=MACHINE reason=")
        assert not d.bench.agent.conversations
        await d.bench.all_gone(5)


async def test_a_call_waits_until_it_is_named(asterisk: LabAsterisk) -> None:
    agents = AgentBook(default=None, agents={"agent_7": saying({"name": "hang_up"}).default})
    async with dialer(asterisk, agents) as d:
        await d.place("8502", context="voice-agent-wait")
        call = await d.callee.incoming(10)
        await call.answered()
        await until(lambda: bool(d.bench.sessions()))
        body = json.loads(blocks("json")[0])
        body["call_id"] = d.bench.sessions()[0].call_id
        host, port = d.bench.bridge.api_address
        url = f"http://{host}:{port}/webhook/initiate-call"
        async with aiohttp.ClientSession() as http, http.post(url, json=body) as answer:
            assert answer.status in (200, 201, 202), await answer.text()
        record = await d.bench.conversation()
        assert record.agent_id == "agent_7"
        await until(lambda: bool(record.dynamic_variables))
        assert record.dynamic_variables["customer_name"] == "Jane"
        await call.wait_for_sound(LOUD)
        await call.hang_up()
        await d.log("result=CALLER_HUNG_UP")
        await d.bench.all_gone()


async def test_a_call_that_nobody_names_goes_to_a_person(asterisk: LabAsterisk) -> None:
    async with dialer(asterisk) as d:
        waiting = "\n".join(blocks("asterisk")).replace("wait=30", "wait=1")
        port = str(d.callee.address.port)
        await asterisk.add_dialplan("dialers", waiting + DIALER.replace("@PORT@", port))
        await d.place("8502", context="voice-agent-wait")
        call = await d.callee.incoming(10)
        await d.log("result=FAILED reason=wait_timeout")
        await d.log("did 5550100 for lead 4711")
        await call.hang_up()
        await d.bench.all_gone()


@contextlib.asynccontextmanager
async def vicidial_api() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """In the place of VICIdial's agent API: its address, and what it is asked."""
    asked: list[dict[str, str]] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append({name: str(value) for name, value in (await request.post()).items()})
        return web.Response(text="SUCCESS: ra_call_control - 7001, done")

    app = web.Application()
    app.router.add_post("/agc/api.php", handle)
    async with serving(app) as url:
        yield f"{url}/agc/api.php", asked


@pytest.mark.parametrize(
    ("tool", "stage", "status", "ingroup"),
    [
        ({"name": "hang_up"}, "HANGUP", "AIDONE", None),
        (
            {"name": "transfer_call", "parameters": {"to": "BILLING_1"}},
            "INGROUPTRANSFER",
            "AIXFER",
            "BILLING_1",
        ),
        (None, "INGROUPTRANSFER", "AIFAIL", "SUPPORT"),
    ],
    ids=["ended", "transferred", "no agent"],
)
async def test_a_remote_agent_of_vicidial(
    asterisk: LabAsterisk,
    tool: dict[str, object] | None,
    stage: str,
    status: str,
    ingroup: str | None,
) -> None:
    for module in ("res_curl.so", "func_curl.so"):
        await asterisk.cli(f"module load {module}")
    agents = saying(tool) if tool else AgentBook(default=None, agents={})
    async with dialer(asterisk, agents) as d, vicidial_api() as (url, asked):
        port = str(d.callee.address.port)
        dialplan = "\n".join(blocks("asterisk")).replace("https://dialer.example/agc/api.php", url)
        assert url in dialplan
        await asterisk.add_dialplan("dialers", dialplan + DIALER.replace("@PORT@", port))
        await d.place(
            "867001", context="voice-agent-remote", caller="Y0315201639000402027 <493023125002>"
        )
        call = await (d.answered() if tool else d.callee.incoming(10))
        if tool:
            await call.play(babble(1000, -20))
        await d.log("dialer said: SUCCESS: ra_call_control - 7001, done")
        assert [{k: v for k, v in ask.items() if k not in ("source", "pass")} for ask in asked] == [
            {
                "user": "apiuser",
                "function": "ra_call_control",
                "value": "Y0315201639000402027",
                "agent_user": "7001",
                "stage": stage,
                "status": status,
                **({"ingroup_choices": ingroup} if ingroup else {}),
            }
        ]
        if ingroup:
            assert call.is_up, "until the dialer has moved the callee"
            await call.hang_up()
        await d.bench.all_gone(5)


# VICIdial's own: what it writes into extensions-vicidial.conf, and its [default].
VICIDIAL = """
[vicidial-auto]
exten => 8500,1,Log(NOTICE,voicemail of vicidial)
exten => 8501,1,Log(NOTICE,voicemail of vicidial)

[default]
include => vicidial-auto
include => voice-agent-routing
exten => h,1,Log(NOTICE,vicidial call_log--HVcauses of ${LEAD_ID})
exten => i,1,Log(NOTICE,vicidial does not know ${INVALID_EXTEN})
; Its way from the prefix that it puts before each routing extension, to the extension itself.
exten => _1383XX,1,Goto(default,${EXTEN:2},1)
"""


def plain_block(first_line: str) -> str:
    """What the pages show in a block without a language that begins with this line, unindented."""
    (found,) = re.findall(
        rf"^( *)```\n(\1{re.escape(first_line)}\n.*?)^\1```$", TEXT, re.DOTALL | re.MULTILINE
    )
    return textwrap.dedent(found[1])


def of_vicidial() -> str:
    """The dialplan of docs/vicidial.md with what it has changed in that of docs/dialers.md, and
    without VICIdial's AGI."""
    hang_up = plain_block("[voice-agent-hangup]")
    own = "".join(hang_up.splitlines(keepends=True)[:2])
    dialplan = "\n".join(blocks("asterisk"))
    assert own in dialplan
    dialplan = dialplan.replace(own, hang_up) + plain_block("[vicidial-hangup]")
    return re.sub(
        r"AGI\(agi://127\.0\.0\.1:4577/(call_log(?:--HVcauses)?).*\)$",
        r"Log(NOTICE,vicidial \1 of ${LEAD_ID})",
        dialplan,
        flags=re.MULTILINE,
    )


@pytest.mark.parametrize("ends", ["callee", "agent"])
async def test_a_call_that_vicidial_routes(asterisk: LabAsterisk, ends: str) -> None:
    async with dialer(asterisk, saying({"name": "hang_up"})) as d:
        port = str(d.callee.address.port)
        await asterisk.add_dialplan(
            "dialers", of_vicidial() + DIALER.replace("@PORT@", port) + VICIDIAL
        )
        await d.place("138390", context="default")
        call = await d.answered()
        record = await d.bench.conversation()
        assert record.dynamic_variables["lead_id"] == "4711"
        await d.log("vicidial call_log of")
        if ends == "callee":
            await call.hang_up()
            await d.log("result=CALLER_HUNG_UP")
        else:
            await call.play(babble(1000, -20))
            await d.log("result=COMPLETED reason=agent_hung_up")
        await d.log("vicidial call_log--HVcauses of 4711")
        await d.bench.all_gone(5)


@pytest.mark.parametrize("context", ["voice-agent-targets", "voice-agent-vicidial"])
async def test_vicidial_hears_of_a_callee_who_hangs_up_in_a_context_of_ours(
    asterisk: LabAsterisk, context: str
) -> None:
    """Nothing runs the `h` of the context that sent the call there."""
    async with dialer(asterisk) as d:
        port = str(d.callee.address.port)
        long = f"\n[{context}]\nexten => long,1,Wait(30)\n"
        way = f"\n[default]\nexten => 8399,1,Gosub({context},long,1)\n"
        await asterisk.add_dialplan(
            "dialers", of_vicidial() + DIALER.replace("@PORT@", port) + VICIDIAL + long + way
        )
        await d.place("8399", context="default")
        d.handed_over = 0  # without the agent
        call = await d.callee.incoming(10)
        await call.answered()
        await call.hang_up()
        await d.log("vicidial call_log--HVcauses of 4711")


def test_the_requests_on_the_page_are_ones_that_the_service_takes() -> None:
    waiting, placed, told, end = blocks("json")
    assert InitiateCallRequest.model_validate_json(waiting).called_number is None
    assert InitiateCallRequest.model_validate_json(placed).amd is True
    assert InitiateCallRequest.model_validate_json(told).sip_headers == {"X-Campaign": "spring"}
    assert EndCallRequest.model_validate_json(end).reason == "customer_paid"
