"""Calls that the service places: a phone is called through a real Asterisk."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ari_app.call.states import State
from ari_app.control.planner import Wish
from ari_app.control.refusals import ControlRefused
from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook
from lab.softphone import Answer, Phone, Reject, Ring
from lab.softphone.incoming import IncomingLeg
from lab.softphone.policy import Policy
from lab.softphone.sounds import babble, level_dbfs, silence, tone_dbfs
from tests.e2e.harness import TRANSFER_HZ, Bench, bench, book
from tests.session_view import Session
from tests.waiting import PATIENCE_SECONDS, PROMPT_SECONDS, until

pytestmark = pytest.mark.e2e

NUMBER = "+493023125001"
LOUD = -35.0
PAGE = (Path(__file__).parents[2] / "docs" / "dialers.md").read_text(encoding="utf-8")


@contextlib.asynccontextmanager
async def callee_and_bench(
    asterisk: LabAsterisk,
    policy: Policy,
    agents: AgentBook | None = None,
    **changes: object,
) -> AsyncIterator[tuple[Phone, Bench]]:
    """A phone that is called under any number, and a service that calls it."""
    async with Phone(on_incoming=policy) as callee:
        endpoint = f"PJSIP/lab/sip:{{number}}@127.0.0.1:{callee.address.port}"
        async with bench(asterisk, agents, outbound_endpoint=endpoint, **changes) as b:
            yield callee, b


def result_of(session: Session) -> str | None:
    """The result now; the type checker would hold on to what it was."""
    return session.record.result


async def ended(session: Session, within: float = 15.0) -> Session:
    await asyncio.wait_for(session.ended.wait(), within)
    return session


async def test_the_agent_speaks_as_soon_as_the_call_is_answered(asterisk: LabAsterisk) -> None:
    async with callee_and_bench(asterisk, Answer(after_s=1.5)) as (callee, b):
        session = await b.initiate(
            Wish(
                called_number=NUMBER,
                caller_number="+4989111",
                reference="lead-7",
                variables={"customer_name": "Jane"},
                metadata={"campaign": "spring"},
            )
        )
        assert session.record.status == "initializing"
        assert session.record.reference == "lead-7"
        assert session.metadata == {"campaign": "spring"}
        call = await callee.incoming(5)
        await until(lambda: session.state is State.RINGING)
        await until(lambda: session.record.has_conversed)
        assert result_of(session) is None
        await call.answered()
        answered = time.monotonic()
        await call.wait_for_sound(LOUD, since=0)
        at = call.ear.sound_at(LOUD)
        assert at is not None
        assert at - answered < 0.6, "the agent was dialled while it rang"
        record = await b.conversation()
        assert record.dynamic_variables == {
            "caller_id": "+4989111",
            "called_number": NUMBER,
            "call_sid": session.call_id,
            "customer_name": "Jane",
        }
        assert session.record.result == "answered"
        await call.hang_up()
        await b.all_gone()
    assert session.record.result == "answered"
    assert session.end_reason == "caller_hung_up"
    assert session.record.hangup_cause == 16


async def test_the_callee_sees_the_caller_id(asterisk: LabAsterisk) -> None:
    async with callee_and_bench(asterisk, Ring()) as (callee, b):
        session = await b.initiate(Wish(called_number=NUMBER, caller_number="+4989111"))
        call = await callee.incoming(5)
        channel = await asterisk.ari("GET", f"channels/{session.call_id}")
        assert isinstance(channel, dict)
        assert channel["connected"]["number"] == "+4989111"
        assert call.is_incoming
        await b.bridge.control.end(session.session_id, "changed_my_mind")
        assert session.end_reason == "changed_my_mind"
        assert session.record.result == "failed"
        await b.all_gone()


async def test_a_call_of_ours_is_hung_up_when_the_agent_ends_it(asterisk: LabAsterisk) -> None:
    talk = {"first_message": "Hello.", "turns": [{"say": "Good bye.", "end_call": True}]}
    async with callee_and_bench(asterisk, Answer(), book(dialogue=talk)) as (callee, b):
        session = await b.initiate(Wish(called_number=NUMBER))
        call = await callee.incoming(5)
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(500)
        await call.play(babble(1000, -20))
        ending = await asyncio.wait_for(call.ended, PATIENCE_SECONDS)
        assert ending.by == "far"
        await b.all_gone()
    assert session.end_reason == "agent_ended"
    assert session.record.result == "answered"


async def test_early_media_is_not_an_answer(asterisk: LabAsterisk) -> None:
    policy = Answer(after_s=1.0, early_media=True)
    async with callee_and_bench(asterisk, policy) as (callee, b):
        session = await b.initiate(Wish(called_number=NUMBER))
        call = await callee.incoming(5)
        await until(lambda: session.state is State.RINGING)
        await asyncio.sleep(0.5)
        assert session.record.answered_at is None
        await call.answered()
        await call.wait_for_sound(LOUD, since=0)
        await call.hang_up()
        await b.all_gone()


async def test_a_callee_who_forwards_does_not_send_the_call_back_to_us(
    asterisk: LabAsterisk,
) -> None:
    forwards = Reject(302, contact="sip:100@carrier.example")
    async with callee_and_bench(asterisk, forwards) as (_, b):
        session = await b.initiate(Wish(called_number=NUMBER))
        await ended(session)
        assert session.record.result == "failed"
        await b.all_gone()
        assert b.sessions() == [session], "100 is an extension of the endpoint's context"


@pytest.mark.parametrize(
    ("policy", "result", "sip_code"),
    [
        (Reject(486), "busy", 486),
        (Reject(486, after_s=0.3), "busy", 486),
        (Reject(600), "busy", 600),
        (Reject(603, after_s=0.3), "rejected", 603),
        (Reject(403), "rejected", 403),
        (Reject(404), "invalid_number", 404),
        (Reject(484), "invalid_number", 484),
        (Reject(480, after_s=0.3), "no_answer", 480),
        (Reject(480), "unreachable", 480),
        (Reject(503), "unreachable", 503),
        (Reject(500), "unreachable", 500),
    ],
    ids=str,
)
async def test_a_callee_who_does_not_take_the_call(
    asterisk: LabAsterisk, policy: Policy, result: str, sip_code: int
) -> None:
    async with callee_and_bench(asterisk, policy) as (_, b):
        session = await b.initiate(Wish(called_number=NUMBER))
        await ended(session)
        assert session.record.result == result
        assert session.end_reason == result
        assert session.record.sip_code in (sip_code, None), "older versions do not tell it"
        assert session.record.hangup_cause
        await b.all_gone()


async def test_nobody_answers(asterisk: LabAsterisk) -> None:
    async with callee_and_bench(asterisk, Ring()) as (callee, b):
        began = time.monotonic()
        session = await b.initiate(Wish(called_number=NUMBER, ring_timeout_seconds=1.5))
        call = await callee.incoming(5)
        ending = await asyncio.wait_for(call.ended, PROMPT_SECONDS)
        assert ending.by == "far"
        await ended(session)
        assert 1.4 < time.monotonic() - began < 3
        assert session.record.result == "no_answer"
        await b.all_gone()


async def test_nothing_is_there(asterisk: LabAsterisk) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        endpoint = f"PJSIP/lab/sip:{{number}}@127.0.0.1:{silent.getsockname()[1]}"
        async with bench(asterisk, outbound_endpoint=endpoint) as b:
            session = await b.initiate(Wish(called_number=NUMBER, ring_timeout_seconds=2))
            await ended(session)
            assert session.record.result == "unreachable"
            await b.all_gone(20)


async def test_a_trunk_that_nobody_has_registered(asterisk: LabAsterisk) -> None:
    async with bench(asterisk) as b:
        session = await b.initiate(Wish(called_number=NUMBER))
        await ended(session)
        assert session.record.result == "unreachable"
        await b.all_gone()


@pytest.mark.parametrize("endpoint", ["Local/{number}@callees"])
async def test_a_local_channel_in_the_trunks_place(asterisk: LabAsterisk, endpoint: str) -> None:
    async with bench(asterisk, outbound_endpoint=endpoint, number_pattern="[a-z]+") as b:
        session = await b.initiate(Wish(called_number="busy"))
        await ended(session)
        assert session.record.result == "busy"
        assert session.record.hangup_cause == 17
        session = await b.initiate(Wish(called_number="echo"))
        await until(lambda: session.state is State.TALKING)
        # After somebody has come it is looked what is left behind, twice.
        await asyncio.sleep(5)
        assert session.state is State.TALKING
        await b.bridge.control.end(session.session_id)
        assert session.record.result == "answered"
        await b.all_gone()


ROUTES = """
[from-internal]
exten => _+X.,1,Dial(PJSIP/lab/sip:${EXTEN}@127.0.0.1:@PORT@,2)
 same => n,%s
"""


@pytest.mark.parametrize(
    ("policy", "then", "result"),
    [
        (Reject(486, after_s=0.3), "Busy(5)", "busy"),
        (Reject(486, after_s=0.3), "Congestion(5)", "busy"),
        (Reject(486, after_s=0.3), "Hangup()", "busy"),
        (Ring(), "Busy(5)", "no_answer"),
        (Ring(), "Hangup()", "no_answer"),
        (Reject(503, after_s=0.3), "Congestion(5)", "unreachable"),
        (Reject(404, after_s=0.3), "Congestion(5)", "invalid_number"),
        (Reject(603, after_s=0.3), "Busy(5)", "rejected"),
    ],
    ids=str,
)
async def test_a_callee_behind_the_dialplan_of_a_pbx(
    asterisk: LabAsterisk, policy: Policy, then: str, result: str
) -> None:
    async with Phone(on_incoming=policy) as callee:
        dialplan = (ROUTES % then).replace("@PORT@", str(callee.address.port))
        await asterisk.add_dialplan("routes.conf", dialplan)
        async with bench(asterisk, outbound_endpoint="Local/{number}@from-internal") as b:
            session = await b.initiate(Wish(called_number=NUMBER))
            await ended(session)
            assert session.record.result == result
            await b.all_gone(10)


async def test_the_trunk_is_told_what_the_request_says(asterisk: LabAsterisk) -> None:
    async with callee_and_bench(
        asterisk, Ring(), outbound_headers="X-Campaign", outbound_variables="TRUNK"
    ) as (callee, b):
        wish = Wish(
            called_number=NUMBER,
            channel_variables={"TRUNK": "b, 2"},
            sip_headers={"X-Campaign": "spring, Müller/7"},
        )
        session = await b.initiate(wish)
        call = await callee.incoming(5)
        assert isinstance(call.leg, IncomingLeg)
        assert call.leg.headers.all("X-Campaign") == ["spring, Müller/7"]
        channel = f"channels/{session.call_id}/variable?variable=TRUNK"
        assert await asterisk.ari("GET", channel) == {"value": "b, 2"}
        await b.bridge.control.end(session.session_id)
        await b.all_gone()


async def test_the_route_behind_a_local_channel_knows_what_the_request_says(
    asterisk: LabAsterisk,
) -> None:
    """The headers of docs/dialers.md; the trunk is the phone."""
    (page,) = re.findall(r"(\[voice-agent-route-headers\].*?)\n```", PAGE, re.S)
    async with Phone(on_incoming=Ring()) as callee:
        route = (
            "[route]\nexten => _+X.,1,Dial(PJSIP/lab/sip:${TRUNK}@127.0.0.1:"
            f"{callee.address.port},9,b(voice-agent-route-headers^s^1))\n"
        )
        await asterisk.add_dialplan("told", f"{page}\n{route}")
        async with bench(
            asterisk,
            outbound_endpoint="Local/{number}@route",
            outbound_variables="TRUNK, CAMPAIGN",
        ) as b:
            told = {"TRUNK": "carrier-b", "CAMPAIGN": "spring"}
            session = await b.initiate(Wish(called_number=NUMBER, channel_variables=told))
            call = await callee.incoming(5)
            assert isinstance(call.leg, IncomingLeg)
            assert "sip:carrier-b@" in call.leg.called
            assert call.leg.headers.all("X-Campaign") == ["spring"]
            await b.bridge.control.end(session.session_id)
            await b.all_gone(10)


async def test_a_call_of_ours_is_transferred_into_the_dialplan(asterisk: LabAsterisk) -> None:
    async with callee_and_bench(asterisk, Answer()) as (callee, b):
        session = await b.initiate(Wish(called_number=NUMBER))
        call = await callee.incoming(5)
        await call.wait_for_sound(LOUD, since=0)
        await until(lambda: session.state is State.TALKING)
        await b.bridge.control.transfer(session.session_id, "support")
        line = await asterisk.wait_for_log("landed=transfer to=support reason=transfer_requested")
        assert f"session={session.session_id}" in line
        await until(lambda: tone_dbfs(call.heard_pcm()[-1600:], TRANSFER_HZ) > -40)
        await call.hang_up()
        await b.all_gone()


async def test_a_person_is_told_from_a_machine(asterisk: LabAsterisk) -> None:
    async with callee_and_bench(asterisk, Answer(after_s=0.3)) as (callee, b):
        session = await b.initiate(Wish(called_number=NUMBER, amd=True))
        call = await callee.incoming(5)
        await call.answered()
        await until(lambda: session.state is State.SCREENING)
        await call.play(babble(500, -20))
        await until(lambda: session.state is State.TALKING)
        assert session.metadata["amd_status"] == "HUMAN"
        record = await b.conversation()
        assert record.dynamic_variables["amd_status"] == "HUMAN"
        await call.wait_for_sound(LOUD, since=0)
        await call.hang_up()
        await b.all_gone()


@pytest.mark.parametrize("on_machine", ["talk", "hang_up", "leave_message"])
async def test_a_machine_answers(asterisk: LabAsterisk, on_machine: str) -> None:
    async with callee_and_bench(asterisk, Answer(after_s=0.3), amd_on_machine=on_machine) as (
        callee,
        b,
    ):
        session = await b.initiate(Wish(called_number=NUMBER, amd=True))
        call = await callee.incoming(5)
        await call.answered()
        greeting = asyncio.create_task(call.play(babble(6500, -15)))
        await until(lambda: "amd_status" in session.metadata)
        assert session.metadata["amd_status"] == "MACHINE"
        if on_machine == "hang_up":
            await ended(session)
            assert session.end_reason == "machine_detected"
        elif on_machine == "leave_message":
            await until(lambda: session.state is State.GREETING)
            await greeting
            assert session.state is State.GREETING, "the agent waits for the end of the greeting"
            assert max(level_dbfs(a.pcm) for a in call.ear.arrivals) < -60
            await until(lambda: session.state is State.TALKING)
            await call.wait_for_sound(LOUD, since=0)
            await call.hang_up()
        else:
            await call.wait_for_sound(LOUD, since=0)
            await call.hang_up()
        assert session.record.result == "answered"
        await b.all_gone()


@pytest.mark.parametrize(
    ("says", "status", "cause"),
    [
        (b"", "MACHINE", "INITIALSILENCE-"),
        (babble(400, -20) + silence(200) + babble(400, -20), "HUMAN", "HUMAN-"),
        ((babble(200, -20) + silence(100)) * 3, "HUMAN", "HUMAN-"),
        ((babble(200, -20) + silence(100)) * 8, "MACHINE", "MAXWORDS-"),
        (None, "NOTSURE", "TOOLONG-"),
    ],
    ids=["silent", "two words", "three words", "many words", "no sound"],
)
async def test_no_person_is_hung_up_on_though_machines_are(
    asterisk: LabAsterisk, says: bytes | None, status: str, cause: str
) -> None:
    async with callee_and_bench(asterisk, Answer(after_s=0.3), amd_on_machine="hang_up") as (
        callee,
        b,
    ):
        session = await b.initiate(Wish(called_number=NUMBER, amd=True))
        call = await callee.incoming(5)
        call.mute_rtp(says is None)
        await call.answered()
        if says:
            call.send(says)
        await until(lambda: "amd_status" in session.metadata)
        assert session.metadata["amd_status"] == status
        assert session.metadata["amd_cause"].startswith(cause)
        if cause == "MAXWORDS-":
            await ended(session)
            assert session.end_reason == "machine_detected"
        else:
            call.mute_rtp(False)
            await call.wait_for_sound(LOUD, since=0)
            await call.hang_up()
        await b.all_gone()


async def test_the_callee_hangs_up_while_the_dialplan_listens(asterisk: LabAsterisk) -> None:
    async with callee_and_bench(asterisk, Answer()) as (callee, b):
        session = await b.initiate(Wish(called_number=NUMBER, amd=True))
        call = await callee.incoming(5)
        await call.answered()
        await until(lambda: session.state is State.SCREENING)
        await asyncio.sleep(0.3)
        await call.hang_up()
        await ended(session)
        assert session.end_reason == "caller_hung_up"
        await b.all_gone()


async def test_calls_a_second_are_limited(asterisk: LabAsterisk) -> None:
    async with callee_and_bench(asterisk, Reject(486), outbound_calls_per_second=2) as (_, b):
        await b.initiate(Wish(called_number=NUMBER))
        with pytest.raises(ControlRefused) as refused:
            await b.initiate(Wish(called_number=NUMBER))
        assert refused.value.code == "rate_limited"
        assert refused.value.retry_after is not None
        assert 0 < refused.value.retry_after <= 0.5
        began = time.monotonic()
        await asyncio.gather(
            *(b.initiate(Wish(called_number=NUMBER, wait_seconds=10)) for _ in range(3))
        )
        assert 1.3 < time.monotonic() - began < 2.5
        await b.all_gone()


async def test_a_call_is_taken_back_while_the_dialplan_listens(asterisk: LabAsterisk) -> None:
    async with callee_and_bench(asterisk, Answer()) as (callee, b):
        session = await b.initiate(Wish(called_number=NUMBER, amd=True))
        call = await callee.incoming(5)
        await until(lambda: session.state is State.SCREENING)
        await asyncio.sleep(0.3)
        await b.bridge.control.end(session.session_id)
        await asyncio.wait_for(call.ended, PROMPT_SECONDS)
        await b.all_gone()


async def test_a_dialer_that_has_found_a_machine_itself(asterisk: LabAsterisk) -> None:
    async with bench(asterisk, amd_on_machine="hang_up") as b:
        call = await b.call("105")
        call.send(babble(6500, -15))
        session = await b.session()
        assert session.metadata["amd_status"] == "MACHINE"
        line = await asterisk.wait_for_log(f"session={session.session_id}")
        assert "landed=bye reason=machine_detected" in line
        await asyncio.wait_for(call.ended, PROMPT_SECONDS)
        await b.all_gone()
