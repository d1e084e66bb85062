"""Callers who wait in the application until somebody names an agent."""

from __future__ import annotations

import asyncio

import pytest

from ari_app.call.states import State
from ari_app.control.control import ControlRefused
from ari_app.control.planner import Wish
from lab.asterisk import LabAsterisk
from lab.softphone.sounds import tone_dbfs
from tests.e2e.harness import HUMAN_HZ, Bench, bench, book
from tests.session_view import Session
from tests.waiting import until

pytestmark = pytest.mark.e2e

LOUD = -35.0
MUSIC_HZ = 440


async def waiting(b: Bench) -> Session:
    session = await b.session()
    await until(lambda: session.state == "waiting")
    return session


async def test_a_caller_rings_until_an_agent_is_named(asterisk: LabAsterisk) -> None:
    async with bench(asterisk) as b:
        call = await b.dial("103")
        await call.rung()
        session = await waiting(b)
        assert session.record.status == "initializing"
        assert b.bridge.calls.count() == 0, "no agent is held yet"
        await asyncio.sleep(0.3)
        assert len(b.agent.conversations) == 0
        given = await b.initiate(
            Wish(
                reference=session.call_id,
                session_id="crm-17",
                agent_id="agent_7",
                variables={"customer_name": "Jane"},
            )
        )
        assert given == session
        assert session.session_id == "crm-17"
        assert b.named("crm-17") == session
        await call.answered()
        await call.wait_for_sound(LOUD, since=0)
        record = await b.conversation()
        assert record.agent_id == "agent_7"
        assert record.dynamic_variables == {
            "caller_id": "phone",
            "called_number": "103",
            "call_sid": session.call_id,
            "customer_name": "Jane",
        }
        await call.hang_up()
        await b.all_gone()


async def test_a_caller_who_is_answered_hears_music(asterisk: LabAsterisk) -> None:
    # An agent's voice has tones of its own.
    quiet = book(dialogue={"first_message": "", "turns": []})
    async with bench(asterisk, quiet) as b:
        call = await b.call("104")
        session = await waiting(b)
        await until(lambda: tone_dbfs(call.heard_pcm()[-1600:], MUSIC_HZ) > -40)
        await b.initiate(Wish(reference=session.call_id))
        await until(lambda: session.state is State.TALKING)
        await asyncio.sleep(0.5)
        assert tone_dbfs(call.heard_pcm()[-1600:], MUSIC_HZ) < -45, "the music has ended"
        await call.hang_up()
        await b.all_gone()


async def test_nobody_names_an_agent(asterisk: LabAsterisk) -> None:
    async with bench(asterisk) as b:
        call = await b.call("106")
        session = await b.session()
        line = await asterisk.wait_for_log(f"session={session.session_id}")
        assert "landed=human stasis=SUCCESS agent=FAILED reason=wait_timeout" in line
        await until(lambda: tone_dbfs(call.heard_pcm()[-1600:], HUMAN_HZ) > -40)
        with pytest.raises(ControlRefused) as refused:
            await b.initiate(Wish(reference=session.call_id))
        assert refused.value.code == "no_such_channel"
        await call.hang_up()
        await b.all_gone()


async def test_a_waiting_caller_hangs_up(asterisk: LabAsterisk) -> None:
    async with bench(asterisk) as b:
        call = await b.dial("103")
        session = await waiting(b)
        await call.rung()
        await call.hang_up()
        await b.all_gone()
        assert session.end_reason == "caller_hung_up"


async def test_a_channel_that_does_not_wait(asterisk: LabAsterisk) -> None:
    async with bench(asterisk) as b:
        call = await b.call("100")
        session = await b.session()
        for name in (session.call_id, "nothing", None):
            with pytest.raises(ControlRefused) as refused:
                await b.initiate(Wish(reference=name))
            assert refused.value.code == "no_such_channel"
        await call.hang_up()
        await b.all_gone()


async def test_a_waiting_caller_at_the_limit(asterisk: LabAsterisk) -> None:
    async with bench(asterisk, max_concurrent_calls=1) as b:
        first = await b.call("100")
        await until(lambda: b.sessions()[0].state is State.TALKING)
        second = await b.dial("103")
        await until(lambda: len(b.sessions()) == 2)
        session = await waiting(b)
        with pytest.raises(ControlRefused) as refused:
            await b.initiate(Wish(reference=session.call_id))
        assert refused.value.code == "capacity"
        queued = asyncio.create_task(b.initiate(Wish(reference=session.call_id, wait_seconds=10)))
        await asyncio.sleep(0.1)
        await first.hang_up()
        assert await queued == session
        await second.answered()
        await second.hang_up()
        await b.all_gone()


async def test_a_waiting_caller_when_the_service_stops(asterisk: LabAsterisk) -> None:
    async with bench(asterisk) as b:
        call = await b.call("104")
        session = await waiting(b)
        b.bridge.stop()
        line = await asterisk.wait_for_log(f"session={session.session_id}")
        assert "agent=REJECTED reason=draining" in line
        await call.hang_up()
        await b.all_gone()
