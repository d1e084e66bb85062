"""The configuration for production boxes, whole and as it is, with calls through every branch."""

from __future__ import annotations

import asyncio
import contextlib
import csv
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ari_app.call.states import State
from ari_app.control.planner import Wish
from lab.asterisk import Installation, LabAsterisk
from lab.softphone import Answer, CallFailed, Phone
from lab.softphone.call import Call
from lab.softphone.sounds import babble
from tests.e2e.harness import Bench, bench, book
from tests.e2e.production import (
    CARRIER_USER,
    CUSTOMER,
    NEWER_MODULE,
    OTHER_CARRIER,
    PHONE,
    PHONE_PASSWORD,
    production_asterisk,
    production_files,
)
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.e2e

LOUD = -35.0
NUMBER = "+493023125001"

# What an agent asks for is never dialled as it is, whatever it is.
CRAFTED = """
[crafted]
exten => 1,1,Set(AGENT_STATUS=TRANSFER)
 same => n,Set(AGENT_TRANSFER_TO=s@voice-agent-inbound&PJSIP/1001)
 same => n,Goto(voice-agent-after,s,1)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def carrier(installation: Installation) -> AsyncIterator[LabAsterisk]:
    """A carrier who wants a registration with a password."""
    async with LabAsterisk(installation=installation, pjsip=CUSTOMER) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def box(installation: Installation, carrier: LabAsterisk) -> AsyncIterator[LabAsterisk]:
    """A production box. A phone on 127.0.0.1 reaches it as a call from the carrier."""
    files = production_files(installation, carrier.sip_port)
    files["extensions.conf"] += CRAFTED
    async with production_asterisk(installation, files) as running:
        yield running


@contextlib.asynccontextmanager
async def person(box: LabAsterisk) -> AsyncIterator[Phone]:
    """Who takes the calls of the queue."""
    async with Phone(
        PHONE, username="1001", password=PHONE_PASSWORD, on_incoming=Answer()
    ) as phone:
        await phone.register(f"sip:{box.sip_host}:{box.sip_port}")
        # The queue hears of it a moment later.
        await says(box, "queue show support", "Not in use")
        yield phone


async def says(box: LabAsterisk, command: str, words: str) -> None:
    """Wait until its console says so."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if words in await box.cli(command):
                return
            await asyncio.sleep(0.02)


async def taken(phone: Phone) -> None:
    """A person has the caller on the line, and the two hear each other."""
    call = await phone.incoming(10)
    await call.answered()
    await call.wait_for_sound(LOUD, since=0, timeout=PATIENCE_SECONDS)


async def record(box: LabAsterisk, uniqueid: str) -> str:
    """What the last call record of a channel says of the agent's part, once there is a word."""
    path = box.run_dir / "log/cdr-csv/Master.csv"

    def said() -> list[str]:
        rows = csv.reader(path.read_text().splitlines()) if path.exists() else ()
        return [row[-1] for row in rows if uniqueid in row and row[-1]]

    await until(lambda: bool(said()))
    (userfield,) = said()
    return userfield


@contextlib.asynccontextmanager
async def speaking(call: Call) -> AsyncIterator[None]:
    """The caller speaks all the while."""
    task = asyncio.create_task(_speak(call))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _speak(call: Call) -> None:
    while True:
        await call.play(babble(1000, -20))


async def handed_on(b: Bench, phone: Phone, call: Call, status: str) -> None:
    """The caller ends up with a person, and the call record says why."""
    session = await b.session()
    async with speaking(call):
        await taken(phone)
    await call.hang_up()
    await b.asterisk.wait_until_empty()
    userfield = await record(b.asterisk, session.call_id)
    agents_part = f"|{session.session_id}|{session.conversation_id or ''}"
    assert userfield.startswith(f"{status}|")
    assert userfield.endswith(agents_part)


async def test_it_starts_without_a_complaint(box: LabAsterisk) -> None:
    # pjproject says this where SIP began before all of its modules were there, as it may.
    lines = box.log_path.read_text().splitlines()
    log = "\n".join(line for line in lines if "registered during operation" not in line)
    assert " NOTICE[" in log
    assert " WARNING[" not in log
    assert " ERROR[" not in log
    modules = {each["name"]: each["status"] for each in await box.ari("GET", "asterisk/modules")}
    asked_for = (box.run_dir / "etc/modules.conf").read_text().splitlines()
    loads = [line.removeprefix("load = ") for line in asked_for if line.startswith("load = ")]
    assert len(loads) >= 70
    assert {modules.get(name) for name in loads} == {"Running"}
    newer = (box.installation.module_dir / NEWER_MODULE).exists()
    assert (NEWER_MODULE in loads) is newer


async def test_the_application_is_down(box: LabAsterisk) -> None:
    async with person(box) as phone, Phone() as caller:
        call = await caller.call(
            f"sip:4930555@{box.sip_host}:{box.sip_port}", timeout=PATIENCE_SECONDS
        )
        async with speaking(call):
            await taken(phone)
        await call.hang_up()
    await box.wait_until_empty()


@pytest.mark.parametrize("name", ["trunk", "trunk-by-address", "nobody"])
async def test_the_name_of_a_trunk_lets_nobody_in(box: LabAsterisk, name: str) -> None:
    """From an address that the ACL lets through, and that is no carrier's."""
    async with Phone("127.0.0.4", username=name) as stranger:
        with pytest.raises(CallFailed, match="401"):
            await stranger.call(
                f"sip:4930555@{box.sip_host}:{box.sip_port}", timeout=PATIENCE_SECONDS
            )
    assert await box.ari("GET", "channels") == []


async def test_only_digits_reach_the_application(box: LabAsterisk) -> None:
    async with bench(box) as b:
        call = await b.call("+4930,555,2")
        assert (await b.session()).record.called_number == "49305552"
        await call.hang_up()
        await b.all_gone()


async def test_nobody_is_there_either(box: LabAsterisk) -> None:
    mark = box.log_size()
    async with Phone() as caller:
        with pytest.raises(CallFailed, match="503"):
            await caller.call(
                f"sip:4930555@{box.sip_host}:{box.sip_port}", timeout=PATIENCE_SECONDS
            )
    await box.wait_for_log("nobody took it: JOINEMPTY", since=mark)
    await box.wait_until_empty()


async def test_the_agent_ends_the_call(box: LabAsterisk) -> None:
    talk = {"first_message": "", "turns": [{"say": "Good bye.", "end_call": True}]}
    async with bench(box, book(dialogue=talk)) as b:
        call = await b.call("+4930555")
        session = await b.session()
        told = (await b.conversation()).dynamic_variables
        assert (told["called_number"], told["customer_tier"]) == ("4930555", "standard")
        await call.play(babble(1000, -20))
        await asyncio.wait_for(call.ended, PATIENCE_SECONDS)
        await b.all_gone()
        userfield = await record(box, session.call_id)
        assert userfield == (
            f"COMPLETED|agent_ended|{session.session_id}|{session.conversation_id}"
        )


async def test_the_caller_hangs_up_on_the_agent(box: LabAsterisk) -> None:
    async with bench(box) as b:
        call = await b.call("4930555")
        session = await b.session()
        await call.wait_for_sound(LOUD, since=0)
        await call.hang_up()
        await b.all_gone()
        assert await record(box, session.call_id) == f"||{session.session_id}|"


@pytest.mark.parametrize("to", ["1001", "support", "00490900"])
async def test_the_agent_transfers_the_caller(box: LabAsterisk, to: str) -> None:
    async with person(box) as phone, bench(box) as b:
        call, session = await b.talk("4930555")
        await b.bridge.control.transfer(session.session_id, to)
        await handed_on(b, phone, call, "TRANSFER")


async def test_a_target_that_was_crafted_is_not_dialled(box: LabAsterisk) -> None:
    mark = box.log_size()
    async with person(box) as phone:
        await box.ari(
            "POST", "channels", endpoint="Local/1@crafted", context="internal", extension="none"
        )
        call = await phone.incoming(10)
        await call.ended
    await box.wait_until_empty()
    log = box.log_path.read_bytes()[mark:].decode()
    assert "[s@voice-agent-person:1] Queue" in log
    assert "Dial(" not in log


async def test_the_call_lasts_too_long(box: LabAsterisk) -> None:
    async with person(box) as phone, bench(box, call_timeout_seconds=1) as b:
        await handed_on(b, phone, await b.call("4930555"), "TIMEOUT")


async def test_one_call_too_many(box: LabAsterisk) -> None:
    async with person(box) as phone, bench(box, max_concurrent_calls=1) as b:
        first = await b.call("4930555")
        mark = box.log_size()
        async with Phone() as caller:
            call = await caller.call(
                f"sip:4930556@{box.sip_host}:{box.sip_port}", timeout=PATIENCE_SECONDS
            )
            async with speaking(call):
                await taken(phone)
            await call.hang_up()
        await box.wait_for_log("REJECTED|at_capacity|", since=mark)
        await first.hang_up()
        await b.all_gone()


async def test_the_agent_cannot_be_reached(box: LabAsterisk) -> None:
    agents = book(faults={"signed_url_status": 500})
    async with person(box) as phone, bench(box, agents) as b:
        await handed_on(b, phone, await b.call("4930555"), "FAILED")


async def test_a_phone_that_vanishes_does_not_stay(box: LabAsterisk) -> None:
    async with bench(box) as b:
        call = await b.call("4930555")
        session = await b.session()
        await call.wait_for_sound(LOUD, since=0)
        call.mute_rtp(True)
        await asyncio.wait_for(session.ended.wait(), PATIENCE_SECONDS)
        assert session.outcome is not None
        assert session.outcome.reason == "caller_hung_up"
        await b.all_gone()


async def test_a_call_of_ours_with_answering_machine_detection(box: LabAsterisk) -> None:
    async with Phone(OTHER_CARRIER, on_incoming=Answer(after_s=0.2)) as callee:
        endpoint = f"PJSIP/trunk-by-address/sip:{{number}}@{OTHER_CARRIER}:{callee.address.port}"
        async with bench(box, outbound_endpoint=endpoint) as b:
            session = await b.initiate(Wish(called_number=NUMBER, amd=True))
            call = await callee.incoming(5)
            await call.answered()
            await until(lambda: session.state is State.SCREENING)
            await call.play(babble(500, -20))
            await until(lambda: session.state is State.TALKING)
            assert session.metadata["amd_status"] == "HUMAN"
            await b.bridge.control.transfer(session.session_id, "1001")
            async with person(box) as phone:
                await asyncio.wait_for(session.ended.wait(), PATIENCE_SECONDS)
                assert session.outcome is not None
                assert session.outcome.status.value == "TRANSFER"
                await phone.close()
            await call.hang_up()
            await b.all_gone()


async def test_a_carrier_that_wants_a_registration(box: LabAsterisk, carrier: LabAsterisk) -> None:
    await says(box, "pjsip show registrations", "Registered")
    assert CARRIER_USER in await carrier.cli("pjsip show contacts")
    mark = carrier.log_size()
    await box.ari(
        "POST", "channels", endpoint="PJSIP/answer@trunk", context="internal", extension="none"
    )
    await carrier.wait_for_log("Executing [answer@callees:1] Answer", since=mark)
    await box.wait_until_empty()
    await carrier.wait_until_empty()
