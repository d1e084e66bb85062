"""What a call keeps of an agent that says too much."""

from __future__ import annotations

from ari_app.call.attention import Attention
from ari_app.records.bounded import MAX_SAID_BYTES
from ari_app.records.events import Overflowed
from tests.unit.call.stage import Stage


async def test_an_agent_that_speaks_in_megabytes(stage: Stage) -> None:
    """Each of its messages may be 16 MiB; what a call keeps of them is bounded as a whole."""
    session = await stage.talk()
    agent = stage.agent().handler
    flood = "word " * 200_000
    for number in range(60):
        agent.agent_response(flood, number)
        agent.agent_response_correction(flood, flood, number)
        agent.user_transcript(flood, number)
        agent.tool_call(flood, flood, {"to": flood}, True)
        await stage.settle()
    assert sum(len(line.text) for line in session.transcript) <= MAX_SAID_BYTES
    assert session.transcript.forgotten > 0
    cut = [line for line in session.transcript if line.who != "tool"]
    assert all(line.text.endswith("more characters)") for line in cut)
    with stage.journal.follow(session.record) as events:
        missed = (await anext(events)).event
        assert isinstance(missed, Overflowed) and missed.missed > 0
    assert all(len(text) < 1_000 for _, text, _ in stage.agent().results)


async def test_tools_that_begin_and_never_end(stage: Stage) -> None:
    session = await stage.talk()
    attention = Attention(session.sound, session.call.side.speech, 5.0)
    for number in range(1_000):
        attention.tool_begins(f"{number} " + "x" * 10_000, 30 + number)
    assert len(attention._their_tools) == 64
    attention.tool_ended("999 " + "x" * 10_000, "search")
    assert len(attention._their_tools) == 63, "those that last longest are known"


async def test_tool_calls_by_the_thousand(stage: Stage) -> None:
    session = await stage.talk()
    agent = stage.agent()
    for number in range(1_000):
        agent.handler.tool_call("open_door", str(number), {}, True)
    await stage.settle()
    assert {call_id for call_id, _, _ in agent.results} == {str(number) for number in range(1_000)}
    assert all(is_error for *_, is_error in agent.results)
    told = [line.text for line in session.transcript if "tools are running" in line.text]
    assert len(told) == 1, "once until one of them has ended"
    agent.handler.tool_call("open_door", "later", {}, True)
    await stage.settle()
    assert "There is no tool" in agent.results[-1][1]
