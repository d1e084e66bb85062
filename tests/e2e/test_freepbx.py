"""The dialplan of docs/freepbx.md, with stand-ins for FreePBX's own contexts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook
from lab.softphone.sounds import babble
from tests.e2e.harness import bench, book
from tests.waiting import until

pytestmark = pytest.mark.e2e

TEXT = (Path(__file__).parents[2] / "docs" / "freepbx.md").read_text(encoding="utf-8")
(DIALPLAN,) = re.findall(r"^```asterisk\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)

FREEPBX = """
[from-phones](+)
exten => 777,1,Set(FROM_DID=+493023125001)
 same => n,Goto(custom-voice-agent,s,1)

[ext-queues]
exten => 600,1,Log(NOTICE,queue ${EXTEN} after ${AGENT_STATUS})
 same => n,Hangup()

[from-did-direct]
exten => _2XX,1,Log(NOTICE,extension ${EXTEN} after ${AGENT_STATUS})
 same => n,Hangup()
"""


def transferring(to: str) -> AgentBook:
    tool = {"name": "transfer_call", "parameters": {"to": to}, "say_on_success": "One moment."}
    return book(dialogue={"first_message": "Hello.", "turns": [{"tool": tool}]})


@pytest.mark.parametrize(
    ("to", "end"),
    [
        ("201", "extension 201 after TRANSFER"),
        ("600", "queue 600 after TRANSFER"),
        ("+493023125001", "queue 600 after TRANSFER"),
        (None, "queue 600 after FAILED"),
    ],
    ids=["to an extension", "to a queue", "to nobody", "no agent"],
)
async def test_where_a_call_goes_on(asterisk: LabAsterisk, to: str | None, end: str) -> None:
    await asterisk.add_dialplan("freepbx", DIALPLAN + FREEPBX)
    mark = asterisk.log_size()
    agents = AgentBook(default=None, agents={}) if to is None else transferring(to)
    async with bench(asterisk, agents) as b:
        call = await b.dial("777")
        if to is not None:
            await call.answered()
            await call.wait_for_sound(-35, since=0)
            await call.wait_for_silence(500)
            record = (await b.session()).record
            assert record.called_number == "+493023125001"
            told = (await b.conversation()).dynamic_variables
            assert told["called_number"] == "+493023125001"
            await call.play(babble(1000, -20))
        await asterisk.wait_for_log(end, 15, since=mark)
        await b.all_gone()
    assert not re.search(r"(WARNING|ERROR).*pbx", asterisk.log_path.read_bytes()[mark:].decode())


async def test_a_queue_that_fails_over_to_the_agent_does_not_lead_round_for_ever(
    asterisk: LabAsterisk,
) -> None:
    queue = "exten => 600,1,Log(NOTICE,queue ${EXTEN} after ${AGENT_STATUS})\n same => n,"
    assert f"{queue}Hangup()" in FREEPBX
    fails_over = FREEPBX.replace(f"{queue}Hangup()", f"{queue}Goto(custom-voice-agent,s,1)")
    await asterisk.add_dialplan("freepbx", DIALPLAN + fails_over)
    mark = asterisk.log_size()
    async with bench(asterisk, AgentBook(default=None, agents={})) as b:
        call = await b.dial("777")
        await asterisk.wait_for_log("queue 600 after FAILED", 15, since=mark)
        await until(lambda: not call.is_up)
        await b.all_gone()
    log = asterisk.log_path.read_bytes()[mark:].decode()
    assert len(re.findall(r"NOTICE\[.*: queue 600 after", log)) == 3
