"""Telephones that transfer a call on by themselves (REFER), around a real Asterisk."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from ari_app.call.states import State
from ari_app.line.interface import Outcome, Status
from lab.asterisk import LabAsterisk
from lab.softphone import Answer, Phone
from lab.softphone.call import Call
from lab.softphone.sounds import babble, tone
from tests.e2e.harness import bench
from tests.e2e.test_transfers import LOUD, ask_for_a_person, heard, target_and_bench
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.e2e

# Both are heard until they hang up, however long the machine takes.
TALK_MS = round(1000 * PATIENCE_SECONDS)
DIALPLAN = """
[from-phones](+)
exten => 710,1,Stasis(${{APP}},agent_id=agent_7)
exten => 720,1,Dial(PJSIP/lab/sip:9@127.0.0.1:{port},60)
exten => 721,1,Answer()
 same => n,Dial(PJSIP/lab/sip:9@127.0.0.1:{port},60)
"""


@pytest.fixture
async def third(asterisk: LabAsterisk) -> AsyncIterator[Phone]:
    """A telephone that 720 and 721 ring."""
    async with Phone(on_incoming=Answer()) as phone:
        await asterisk.add_dialplan("third", DIALPLAN.format(port=phone.address.port))
        yield phone
        await asterisk.add_dialplan("third", "")


def refer(asterisk: LabAsterisk, call: Call, to: str, consulted: Call | None = None) -> None:
    """Transfer a call to an extension, or to whom another call is with."""
    dialog, host = call.leg.dialog, call.leg._host
    assert dialog is not None
    header = ""
    if consulted is not None:
        other = consulted.leg.dialog
        assert other is not None
        tags = f"to-tag={other.remote.tag};from-tag={other.local.tag}"
        header = "?Replaces=" + quote(f"{other.call_id};{tags}", safe="")
    uri = f"<sip:{to}@{asterisk.sip_host}:{asterisk.sip_port}{header}>"
    fields = (("Refer-To", uri), ("Referred-By", str(host.contact)))
    request = dialog.request("REFER", via=host.via(), contact=host.contact, extra=fields)
    host.transact(request, dialog.destination, time.monotonic(), lambda *answer: None)
    call._pump()


@pytest.mark.parametrize("asked_first", [True, False], ids=["attended", "blind"])
async def test_a_colleague_passes_the_caller_on(
    asterisk: LabAsterisk, third: Phone, asked_first: bool
) -> None:
    async with target_and_bench(asterisk, Answer(after_s=0.3)) as (phone, b):
        caller = await ask_for_a_person(b)
        session = await b.session()
        colleague = await phone.incoming(10)
        await until(lambda: session.state is State.HANDED_OVER)
        caller.send(tone(600, TALK_MS, -15))
        await until(lambda: heard(colleague, 600))
        if asked_first:
            uri = f"sip:721@{asterisk.sip_host}:{asterisk.sip_port}"
            refer(asterisk, colleague, "721", await phone.call(uri, timeout=5))
        else:
            refer(asterisk, colleague, "720")
        last = await third.incoming(10)
        await last.answered()
        last.send(tone(1000, TALK_MS, -15))
        await until(lambda: heard(last, 600) and heard(caller, 1000))
        assert len(b.agent.conversations) == len(b.sessions()) == 1
        await last.hang_up()
        await until(session.ended.is_set)
        assert session.outcome == Outcome(Status.COMPLETED, "transferred")
        if not colleague.leg.is_over:
            await colleague.hang_up()
        await b.all_gone(5)


async def test_a_customer_is_put_through_to_the_agent_that_was_asked(
    asterisk: LabAsterisk, third: Phone
) -> None:
    async with bench(asterisk) as b:
        towards = await b.call("721")
        customer = await third.incoming(10)
        asked = await b.call("710")
        session = await b.session()
        await asked.wait_for_sound(LOUD, since=0)
        refer(asterisk, towards, "710", asked)
        await customer.wait_for_sound(LOUD)
        await customer.wait_for_silence(800)
        await customer.play(babble(1000, -20))
        await until(lambda: any(line.who == "caller" for line in session.transcript))
        assert session.record.agent_id == "agent_7"
        assert len(b.agent.conversations) == len(b.sessions()) == 1
        await customer.hang_up()
        await until(session.ended.is_set)
        assert session.outcome == Outcome(Status.COMPLETED, "caller_hung_up")
        for call in (towards, asked):
            if not call.leg.is_over:
                await call.hang_up()
        await b.all_gone(5)
