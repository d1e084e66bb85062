"""Calls of all kinds at once: through Asterisk, and of dialers of both kinds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from ari_app.call.states import State
from lab.asterisk import LabAsterisk
from lab.dialer import FORMAT, DialerCall
from lab.practice_agent import ConversationRecord
from lab.softphone import CallFailed
from lab.softphone.sounds import babble
from tests.e2e.harness import Bench, bench, book, loud_seconds
from tests.unit.dialer.fake_dialer import FakeDialer
from tests.waiting import PATIENCE_SECONDS, PROMPT_SECONDS, until

pytestmark = pytest.mark.e2e

LOUD = -35.0
GREETS = book(
    dialogue={
        "first_message": "Hello, how can I help you today?",
        "turns": [{"say": "Good bye, and thank you for calling us today.", "end_call": True}],
    }
)


@contextlib.asynccontextmanager
async def dialers(b: Bench) -> AsyncIterator[aiohttp.ClientSession]:
    url = "http://{}:{}".format(*b.bridge.api_address)
    async with aiohttp.ClientSession(url) as session:
        yield session


def wish(call_id: str, **audio: str) -> dict[str, object]:
    return {"call_id": call_id, "audio": audio}


async def test_calls_of_all_kinds_share_one_limit_and_none_disturbs_another(
    asterisk: LabAsterisk,
) -> None:
    async with (
        FakeDialer() as dialer,
        bench(
            asterisk,
            GREETS,
            dialer_type="asterisk,custom",
            dialer_api_url=dialer.url,
            max_concurrent_calls=3,
        ) as b,
        dialers(b) as session,
    ):
        dialer.found = {"format": FORMAT}
        comes, gone_to, refused = DialerCall(), DialerCall(), DialerCall()
        phone = await b.call()
        comes.ask(session, wish("crm-1", format=FORMAT))
        async with session.post("/webhook/initiate-call", json=wish("crm-2")) as answer:
            assert answer.status == 200
        gone_to.take(await dialer.socket("crm-2"))
        for each in (comes, gone_to):
            await each.answered()
        calls = (phone, comes, gone_to)
        await asyncio.gather(*(call.wait_for_sound(LOUD, since=0) for call in calls))
        assert b.bridge.readiness().active_sessions == 3

        # The fourth, of whatever kind, finds no place.
        refused.ask(session, wish("crm-3", format=FORMAT))
        with pytest.raises(CallFailed) as failure:
            await refused.answered()
        assert failure.value.status == 503
        async with session.post("/webhook/initiate-call", json=wish("crm-4")) as answer:
            assert (answer.status, (await answer.json())["code"]) == (503, "capacity")
        stranger = await b.dial()
        await until(lambda: "at_capacity" in [each.end_reason for each in b.sessions()])
        await stranger.hang_up()

        await asyncio.gather(*(call.wait_for_silence(600) for call in calls))
        await asyncio.gather(*(call.play(babble(1500, -20)) for call in calls))
        endings = await asyncio.wait_for(
            asyncio.gather(*(call.ended for call in calls)), PATIENCE_SECONDS
        )
        assert [ending.by for ending in endings] == ["far"] * 3
        await b.all_gone()
        held = [each for each in b.sessions() if each.end_reason == "agent_ended"]
        assert sorted(each.record.line_format for each in held) == ["slin", FORMAT, FORMAT]
        conversations: list[ConversationRecord] = list(b.agent.conversations)
        assert len(conversations) == 3
        for conversation in conversations:
            assert loud_seconds(conversation) == pytest.approx(1.5, abs=0.3)
        for call in calls:
            assert call.stats().lost == 0
        ((name, told),) = dialer.hung_up
        assert (name, told["status"], told["reason"]) == ("crm-2", "COMPLETED", "agent_ended")


async def test_a_dialer_transfers_attended(asterisk: LabAsterisk) -> None:
    """The target is briefed by the agent on the same WebSocket, and then the two are alone."""
    tool = {
        "name": "transfer_call",
        "parameters": {"to": "+4930200", "mode": "attended"},
        "say_on_success": "Here is a caller with a question about an invoice.",
        "say_on_error": "Nobody is there at the moment.",
        "timeout_seconds": 30,
    }
    agents = book(
        dialogue={
            "first_message": "Hello.",
            "turns": [{"say": "I will ask.", "tool": tool}, {"say": "Certainly."}],
        }
    )
    async with (
        bench(asterisk, agents, dialer_type="asterisk,custom") as b,
        dialers(b) as session,
    ):
        call = DialerCall()
        body = {
            "call_id": "crm-1",
            "audio": {"format": FORMAT, "abilities": ["attended_transfer"]},
        }

        def told(kind: str) -> bool:
            return call.told[-1]["type"] == kind

        for result in ("busy", ""):
            call = DialerCall()
            call.ask(session, body)
            await call.answered()
            await call.wait_for_sound(LOUD, since=0)
            await call.wait_for_silence(500)
            await call.play(babble(1000, -20))
            await until(lambda: told("transfer"))
            transfer = call.told[-1]
            assert (transfer["to"], transfer["mode"]) == ("+4930200", "attended")
            assert call.told[-2]["type"] == "hold"
            if result:
                await call.say("target", id=transfer["id"], state="lost", result=result)
                await until(lambda: told("unhold"))
                await call.wait_for_sound(LOUD)
                await call.hang_up()
                continue
            await call.say("target", id=transfer["id"], state="answered")
            await call.wait_for_sound(LOUD)
            await until(lambda: told("hand_over"))
            await until(lambda: b.sessions()[-1].state is State.HANDED_OVER)
            assert b.bridge.calls.count() == 0
            await call.say("target", id=transfer["id"], state="lost", result="hung_up")
            ending = await asyncio.wait_for(call.ended, PROMPT_SECONDS)
            assert (ending.by, ending.reason) == ("far", "transferred")
        await b.all_gone()
