"""A caller and an agent who try to say more to the dialplan than they may, on a real Asterisk."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from lab.asterisk import LabAsterisk
from lab.practice_agent import AgentBook, AgentProfile
from lab.softphone import Phone
from lab.softphone.sounds import babble
from tests.e2e.conftest import Logged
from tests.e2e.harness import Bench, bench, profile
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.e2e

LOUD = -35.0

# One that trusts too much: headers go to Stasis() as they are, and afterwards every variable is put
# where it could do something.
DIALPLAN = r"""
[from-phones](+)
exten => _7XX,1,Set(WHO=${CALLERID(name)})
 same => n,Set(NOTE=${PJSIP_HEADER(read,User-to-User)})
 same => n,Stasis(${APP},agent_id=agent_${EXTEN},wait=0,note=${NOTE},who=${WHO})
 same => n,NoOp(${EVAL(${TOPIC})} ${EVAL(${AGENT_REASON})} ${EVAL(${AGENT_TRANSFER_TO})})
 same => n,NoOp($["${TOPIC}" = "x"] $["${AGENT_REASON}" = "x"])
 same => n,Set(ENDED=status=${AGENT_STATUS} to=[${AGENT_TRANSFER_TO}])
 same => n,Log(NOTICE,landed=${EXTEN} ${ENDED} topic=[${TOPIC}])
 same => n,Hangup()
"""

FORGED_ARGUMENTS = "x,agent_id=agent_evil,wait=3600,system__caller_id=1,note=y"


def agent(topic: str) -> AgentProfile:
    """It notes a text, and passes the caller on."""

    def using(name: str, /, **parameters: str) -> dict[str, object]:
        return {"tool": {"name": name, "parameters": parameters, "say_on_error": "No."}}

    turns = [using("set_variable", name="TOPIC", value=topic), using("transfer_call", to="sales@x")]
    return profile(dialogue={"first_message": "Hello.", "turns": turns})


def texts(pwned: Path) -> list[str]:
    return [
        f"${{SHELL(touch {pwned})}}",
        'Boss" <110>, "x',
        '" = "x" | "',
        "a\tb\x1b[2J",
        "Ünïcödé \u202e \U0001f600",
        "x" * 3000,
        "O'Brien, Müller (7)",
    ]


async def one_call(b: Bench, logged: Logged, extension: str, text: str) -> bool:
    """A caller who calls himself so, and an agent who notes that; whether it was noted."""
    user = "%24%7BSHELL(id)%7D%22%3C110%3E"
    uri = f"sip:{extension}@{b.asterisk.sip_host}:{b.asterisk.sip_port}"
    headers = (("User-to-User", f"{FORGED_ARGUMENTS},{text}"),)
    async with Phone(username=user, display=text) as phone:
        call = await phone.call(uri, headers=headers, timeout=PATIENCE_SECONDS)
        (session,) = (s for s in b.sessions() if s.agent_id == f"agent_{extension}")
        told = dict(session.call.plan.briefing.variables)
        assert not any(name.startswith("system__") for name in told)
        assert told["note"] == "x"
        (record,) = (r for r in b.agent.conversations if r.agent_id == f"agent_{extension}")
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(400)
        await call.play(babble(700, -20))
        await until(lambda: bool(record.tools) and record.tools[0].is_error is not None)
        await call.wait_for_silence(400)
        await call.play(babble(700, -20))
        line = await logged(f"landed={extension} ", timeout=PATIENCE_SECONDS)
    found = re.search(r"status=(\S+) to=\[(.*?)\] topic=\[(.*)\]", line)
    assert found is not None, line
    assert (found[1], found[2]) == ("TRANSFER", "sales@x")
    noted = record.tools[0].is_error is False
    assert found[3] == (text if noted else ""), "byte for byte, or refused"
    return noted


async def test_hostile_callers_and_hostile_agents(
    asterisk: LabAsterisk, logged: Logged, tmp_path: Path
) -> None:
    pwned = tmp_path / "pwned"
    calls = {str(700 + number): text for number, text in enumerate(texts(pwned))}
    agents = {f"agent_{extension}": agent(text) for extension, text in calls.items()}
    await asterisk.add_dialplan("hostile", DIALPLAN)
    book = AgentBook(default=None, agents=agents)
    async with bench(asterisk, book, agent_variables="TOPIC") as b:
        noted = await asyncio.gather(*(one_call(b, logged, *call) for call in calls.items()))
        await b.all_gone()
    assert [text for text, was_noted in zip(texts(pwned), noted, strict=True) if was_noted] == [
        "O'Brien, Müller (7)"
    ]
    assert not pwned.exists()
