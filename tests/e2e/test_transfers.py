"""Transfers in which the target is asked first."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ari_app.call.states import State
from ari_app.control.refusals import NotPossible
from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook
from lab.softphone import Answer, CallOver, Phone, Reject, Ring
from lab.softphone.call import Call
from lab.softphone.policy import Policy
from lab.softphone.sounds import babble, level_dbfs, tone, tone_dbfs
from tests.e2e.harness import Bench, bench, book
from tests.waiting import PROMPT_SECONDS, until

pytestmark = pytest.mark.e2e

LOUD = -35.0
MUSIC_HZ = 440
TOOLS_PAGE = Path(__file__).parents[2] / "docs/agent-tools.md"


def attended(to: str = "+4930200") -> AgentBook:
    tool = {
        "name": "transfer_call",
        "parameters": {"to": to, "mode": "attended"},
        "say_on_success": "Here is a caller with a question about an invoice.",
        "say_on_error": "Nobody is there at the moment.",
        "timeout_seconds": 30,
    }
    return book(
        dialogue={
            "first_message": "Hello.",
            "turns": [{"say": "I will ask.", "tool": tool}, {"say": "Certainly."}],
        }
    )


@contextlib.asynccontextmanager
async def target_and_bench(
    asterisk: LabAsterisk, policy: Policy, agents: AgentBook | None = None, **changes: object
) -> AsyncIterator[tuple[Phone, Bench]]:
    async with Phone(on_incoming=policy) as target:
        endpoint = f"PJSIP/lab/sip:{{number}}@127.0.0.1:{target.address.port}"
        async with bench(
            asterisk, agents or attended(), transfer_endpoint=endpoint, **changes
        ) as b:
            yield target, b


async def ask_for_a_person(b: Bench) -> Call:
    call = await b.call()
    await call.wait_for_sound(LOUD, since=0)
    await call.wait_for_silence(500)
    await call.play(babble(1000, -20))
    return call


def heard(call: Call, hz: float) -> bool:
    return bool(tone_dbfs(call.heard_pcm()[-1600:], hz) > -40)


@pytest.mark.usefixtures("transport")
async def test_the_target_is_briefed_and_joined(asterisk: LabAsterisk) -> None:
    async with target_and_bench(asterisk, Answer(after_s=1.0)) as (phone, b):
        call = await ask_for_a_person(b)
        session = await b.session()
        target = await phone.incoming(10)
        await until(lambda: heard(call, MUSIC_HZ))
        await target.answered()
        await target.wait_for_sound(LOUD, since=0)
        assert heard(call, MUSIC_HZ), "the caller does not hear the briefing"
        await until(lambda: session.state is State.HANDED_OVER)
        assert b.bridge.calls.count() == 0, "the agent is free"
        record = await b.conversation()
        assert record.tools[0].is_error is False
        await until(lambda: record.closing is not None)
        await asyncio.sleep(0.3)
        target.send(tone(1000, 800, -15))
        await until(lambda: heard(call, 1000))
        call.send(tone(600, 800, -15))
        await until(lambda: heard(target, 600))
        assert b.lines == 0
        await target.hang_up()
        line = await asterisk.wait_for_log(f"session={session.session_id}")
        assert "landed=bye reason=transferred" in line
        await asyncio.wait_for(call.ended, PROMPT_SECONDS)
        await b.all_gone()


@pytest.mark.parametrize(
    ("policy", "words"),
    [(Reject(486), "busy"), (Reject(603, after_s=0.5), "rejected"), (Ring(), "no answer")],
    ids=str,
)
async def test_the_target_does_not_take_the_call(
    asterisk: LabAsterisk, policy: Policy, words: str
) -> None:
    async with target_and_bench(asterisk, policy, transfer_ring_seconds=1.5) as (_, b):
        call = await ask_for_a_person(b)
        record = await b.conversation()
        await until(lambda: bool(record.tools) and record.tools[0].is_error is not None)
        assert record.tools[0].is_error is True
        assert words in str(record.tools[0].result)
        session = await b.session()
        await until(lambda: session.state is State.TALKING)
        await until(lambda: "Nobody is there" in session.transcript[-1].text)
        await call.wait_for_sound(LOUD)
        await call.wait_for_silence(800)
        await call.play(babble(1000, -20))
        await until(lambda: session.transcript[-1].text == "Certainly.")
        await call.wait_for_sound(LOUD)
        await call.hang_up()
        await b.all_gone()


@contextlib.asynccontextmanager
async def asking(policy: Policy) -> AsyncIterator[tuple[LabAsterisk, Phone, Bench]]:
    """The dialplan of the page, which asks whoever has answered for a key."""
    [dialplan] = re.findall(
        r"^```asterisk\n(.*?)^```$", TOOLS_PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    async with Phone(on_incoming=policy) as target:
        phone = f"PJSIP/lab/sip:${{EXTEN}}@127.0.0.1:{target.address.port}"
        of_lab = {"PJSIP/+${FILTER(0-9,${EXTEN})}@trunk,30": f"{phone},3", ",,1,,1,8": ",,1,,1,3"}
        for there, here in of_lab.items():
            assert there in dialplan
            dialplan = dialplan.replace(there, here)
        async with (
            LabAsterisk(dialplan=dialplan) as asterisk,
            bench(asterisk, attended(), transfer_endpoint="Local/{number}@voice-agent-ask/n") as b,
        ):
            yield asterisk, target, b


async def test_a_target_that_has_to_press_a_key_does() -> None:
    async with asking(Answer(after_s=0.3)) as (asterisk, phone, b):
        call = await ask_for_a_person(b)
        session = await b.session()
        target = await phone.incoming(10)
        await target.answered()
        await asyncio.sleep(1)
        assert session.state is State.CONSULTING, "whoever has answered may be a machine"
        log = await asterisk.wait_for_log("PJSIP_HEADER(add,X-Session)=")
        assert f"X-Session)={session.session_id}" in log
        await target.send_digits("1")
        await target.wait_for_sound(LOUD)
        await until(lambda: session.state is State.HANDED_OVER)
        await asyncio.sleep(0.3)
        target.send(tone(1000, 800, -15))
        await until(lambda: heard(call, 1000))
        await call.hang_up()
        await asyncio.wait_for(target.ended, PROMPT_SECONDS)
        await b.all_gone()


@pytest.mark.parametrize(
    ("policy", "words"),
    [(Answer(), "busy"), (Reject(486), "busy"), (Ring(), "no answer")],
    ids=["answers_and_presses_nothing", "busy", "does_not_answer"],
)
async def test_a_target_that_has_to_press_a_key_does_not(policy: Policy, words: str) -> None:
    async with asking(policy) as (_, _, b):
        call = await ask_for_a_person(b)
        session, record = await b.session(), await b.conversation()
        await until(lambda: bool(record.tools) and record.tools[0].is_error is not None)
        assert words in str(record.tools[0].result)
        await until(lambda: session.state is State.TALKING)
        await call.hang_up()
        await b.all_gone()


async def test_a_caller_who_hangs_up_ends_the_call_that_asks_for_a_key() -> None:
    async with asking(Answer()) as (_, phone, b):
        call = await ask_for_a_person(b)
        target = await phone.incoming(10)
        await target.answered()
        await call.hang_up()
        await asyncio.wait_for(target.ended, PROMPT_SECONDS)
        await b.all_gone()


async def test_the_caller_hangs_up_while_the_target_rings(asterisk: LabAsterisk) -> None:
    async with target_and_bench(asterisk, Ring()) as (phone, b):
        call = await ask_for_a_person(b)
        target = await phone.incoming(10)
        await call.hang_up()
        await asyncio.wait_for(target.ended, PROMPT_SECONDS)
        await b.all_gone()


async def test_the_target_hangs_up_in_the_briefing(asterisk: LabAsterisk) -> None:
    async with target_and_bench(asterisk, Answer()) as (phone, b):
        call = await ask_for_a_person(b)
        target = await phone.incoming(10)
        session = await b.session()
        await until(lambda: session.state is State.BRIEFING)
        await target.wait_for_sound(LOUD, since=0)
        await target.hang_up()
        await until(lambda: session.state is State.TALKING)
        await until(lambda: level_dbfs(call.heard_pcm()[-1600:]) < -45)
        record = await b.conversation()
        asked = [m["text"] for m in record.messages if m.get("type") == "user_message"]
        assert any("came to nothing" in text for text in asked), "the agent is to say so"
        assert call.is_up
        await call.hang_up()
        await b.all_gone()


@pytest.mark.usefixtures("transport")
async def test_the_target_declines_with_a_key(asterisk: LabAsterisk) -> None:
    async with target_and_bench(asterisk, Answer(), transfer_decline_key="9") as (phone, b):
        call = await ask_for_a_person(b)
        target = await phone.incoming(10)
        session = await b.session()
        await until(lambda: session.state is State.BRIEFING)
        await target.wait_for_sound(LOUD, since=0)
        with contextlib.suppress(CallOver):
            await target.send_digits("9")
        await until(lambda: session.state is State.TALKING)
        await asyncio.wait_for(target.ended, PROMPT_SECONDS)
        record = await b.conversation()
        asked = [m["text"] for m in record.messages if m.get("type") == "user_message"]
        assert any("does not want the call" in text for text in asked)
        await call.wait_for_sound(LOUD)
        await call.hang_up()
        await b.all_gone()


async def test_the_agent_is_lost_while_the_target_rings(asterisk: LabAsterisk) -> None:
    agents = AgentBook(
        default=attended().default.model_copy(  # type: ignore[union-attr]
            update={
                "faults": book(faults={"close": {"code": 1006, "after_ms": 8000}}).default.faults  # type: ignore[union-attr]
            }
        )
    )
    async with target_and_bench(asterisk, Ring(), agents) as (phone, b):
        call = await ask_for_a_person(b)
        target = await phone.incoming(10)
        session = await b.session()
        line = await asterisk.wait_for_log(f"session={session.session_id}", 15)
        assert "landed=human stasis=SUCCESS agent=FAILED reason=lost" in line
        await asyncio.wait_for(target.ended, PROMPT_SECONDS)
        await call.hang_up()
        await b.all_gone()


async def test_a_transfer_from_outside(asterisk: LabAsterisk) -> None:
    async with target_and_bench(asterisk, Answer()) as (phone, b):
        call, session = await b.talk()
        with pytest.raises(NotPossible) as refused:
            await b.bridge.control.transfer(session.session_id, "x&y", "attended")
        assert refused.value.code == "bad_target"
        await b.bridge.control.transfer(session.session_id, "+4930200", "attended")
        target = await phone.incoming(10)
        await until(lambda: session.state is State.HANDED_OVER)
        await target.hang_up()
        await asyncio.wait_for(call.ended, PROMPT_SECONDS)
        await b.all_gone()
