"""Callers who wait in the application until somebody names an agent."""

from __future__ import annotations

import asyncio

import pytest

from ari_app.call.states import State
from ari_app.control.planner import Wish
from lab.asterisk import LabAsterisk
from lab.softphone.sounds import tone_dbfs
from tests.e2e.harness import Bench, bench, book
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
