"""A running conversation: what it tells, sending, a peer that does not read, every way to end."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import time
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
import structlog
import uvloop
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode

from ari_app.agent.elevenlabs import connection as connection_module
from ari_app.agent.elevenlabs.client import AgentClient
from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.agent.elevenlabs.connection import AgentConnection, Outbox
from ari_app.agent.elevenlabs.errors import ConnectError
from ari_app.agent.elevenlabs.protocol import AgentProtocol
from ari_app.agent.elevenlabs.socket import _MAX_AT_ONCE, AgentSocket
from ari_app.agent.interface import (
    AgentCorrected,
    AgentEvent,
    AgentSaid,
    Briefing,
    CallerSaid,
    Closed,
    Ending,
    Interrupted,
    ResponseComplete,
    Spoke,
    TheirToolEnded,
    ToolCalled,
)
from tests.compiled import replaces_code
from tests.unit.agent.elevenlabs.fake_agent import FakeAgent, FakeConversation, Script, quiet
from tests.unit.agent.elevenlabs.samples import BY_TYPE
from tests.unit.agent.elevenlabs.told import Told
from tests.waiting import PATIENCE_SECONDS, PROMPT_SECONDS, until

GREETING = b"\1\2" * 400


@asynccontextmanager
async def conversation(
    script: Script, told: Told, **options: Any
) -> AsyncIterator[tuple[FakeAgent, AgentConnection]]:
    async with FakeAgent(script) as agent, AgentClient(agent.base_url, **options) as client:
        connection = await client.connect(Briefing("a"), told)
        try:
            yield agent, connection
        finally:
            await connection.close()


def audio(event_id: int, data: bytes = GREETING, *, is_final: bool = False) -> dict[str, Any]:
    event = {
        "audio_base_64": base64.b64encode(data).decode(),
        "event_id": event_id,
        "is_final": is_final,
    }
    return {"type": "audio", "audio_event": event}


async def test_every_event_is_told_in_order(told: Told) -> None:
    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        await peer.send(
            audio(1),
            BY_TYPE["user_transcript"],
            BY_TYPE["agent_response"],
            BY_TYPE["interruption"],
            audio(5),
            BY_TYPE["agent_response_correction"],
            audio(6, is_final=True),
            BY_TYPE["agent_response_complete"],
            BY_TYPE["client_tool_call"],
            {"type": "brand_new"},
            BY_TYPE["agent_tool_response"],
        )
        await peer.socket.close()

    async with conversation(script, told) as (_, connection):
        await told.until_told(Closed)
    *events, closed = told.events
    assert events == [
        Spoke(1, GREETING, False),
        CallerSaid("Hello", 4),
        AgentSaid("Hi, how can I help?", 5),
        Interrupted(5),
        AgentCorrected("A long text", "A long", 5),
        Spoke(6, GREETING, True),
        ResponseComplete(5),
        ToolCalled("transfer_call", "tc1", {"to": "200"}, True, 6),
        TheirToolEnded("end_call", "end_1", "success", False),
        Ending(),
    ]
    assert closed == told.end
    assert told.end.reason == CloseKind.AGENT_ENDED
    assert not connection.is_open


async def test_a_message_in_pieces_keeps_its_place(told: Told) -> None:
    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        for number in range(1, 40, 3):
            whole = json.dumps(audio(number + 1))
            await peer.send(audio(number))
            await peer.socket.send([whole[:50], whole[50:90], whole[90:]])
            await peer.send(audio(number + 2))
        await peer.socket.close()

    async with conversation(script, told):
        await told.until_told(Closed)
    assert told.events[:-1] == [Spoke(number, GREETING, False) for number in range(1, 40)]


async def test_everything_that_can_be_sent_arrives_as_text(told: Told) -> None:
    async with conversation(quiet, told) as (agent, connection):
        connection.hear(b"\0\1\2\3")
        connection.hear(b"")
        connection.answer_tool("t1", "done")
        connection.answer_tool("t2", "no", is_error=True)
        connection.ask("12#", keys=True)
        connection.ask("yes")
        connection.tell("on hold", about="line")
        connection.still_here()
    frames = agent.conversations[0].frames
    assert [json.loads(frame) for frame in frames[1:]] == [
        {"user_audio_chunk": "AAECAw=="},
        {"type": "client_tool_result", "tool_call_id": "t1", "result": "done", "is_error": False},
        {"type": "client_tool_result", "tool_call_id": "t2", "result": "no", "is_error": True},
        {"type": "user_message", "text": "12#", "source_medium": "dtmf"},
        {"type": "user_message", "text": "yes"},
        {"type": "contextual_update", "text": "on hold", "context_id": "line"},
        {"type": "user_activity"},
    ]


async def test_what_answers_keys_is_heard_though_it_bears_the_id_of_the_interruption(
    told: Told,
) -> None:
    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        await peer.receive()
        interruption = {"type": "interruption", "interruption_event": {"event_id": 2}}
        await peer.send(interruption, audio(2))
        await peer.socket.close()

    async with conversation(script, told) as (_, connection):
        connection.ask("1", keys=True)
        await told.until_told(Closed)
    assert told.events[:-1] == [Interrupted(2), Spoke(2, GREETING, False)]


async def test_garbage_does_not_end_the_conversation(told: Told) -> None:
    garbage: list[str | bytes] = [
        "",
        "{",
        b"\xff\xfe",
        "[" * 5000,
        '{"type":"audio","audio_event":{"audio_base_64":"***","event_id":1}}',
        '{"type":"ping","ping_event":{"event_id":"nine"}}',
        "7",
    ]

    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        # A text frame that is no UTF-8 is the agent's fault and no reason to hang up either.
        peer.socket.protocol.send_text(b"\xc3\x28")
        # A binary frame with JSON in it is as good as text.
        await peer.send(*garbage, json.dumps(audio(2)).encode())
        await peer.until_closed()

    with structlog.testing.capture_logs() as logs:
        async with conversation(script, told) as (_, connection):
            await told.until_told(Spoke)
            assert connection.is_open
    assert [log["event"] for log in logs].count("agent_message_malformed") == 5


async def test_whoever_fails_is_told_the_rest(told: Told) -> None:
    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        await peer.send(audio(1), audio(2))
        await peer.socket.close()

    told.failing = True
    with structlog.testing.capture_logs() as logs:
        async with conversation(script, told):
            await told.until_told(Closed)
    assert told.kinds == [Spoke, Spoke, Closed]
    failed = [log["callback"] for log in logs if log["event"] == "agent_handler_failed"]
    assert failed == ["Spoke", "Spoke", "Closed"]


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (1000, "", CloseKind.AGENT_ENDED),
        (1002, "llm_timeout", CloseKind.LLM_TIMEOUT),
        (1008, "mcp_tool_error", CloseKind.TOOL_ERROR),
        (1011, "unknown_websocket_crash", CloseKind.CRASHED),
        (4300, "", CloseKind.QUEUE_TIMEOUT),
    ],
)
async def test_the_agent_closes(told: Told, code: int, reason: str, kind: CloseKind) -> None:
    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        await peer.socket.close(code, reason)

    async with conversation(script, told) as (_, connection):
        await told.until_told(Closed)
        connection.hear(b"\0\0")
        connection.still_here()
        assert not connection.is_open
    assert told.kinds.count(Closed) == 1
    assert told.end.code == code
    assert told.end.reason == kind


async def test_the_line_breaks(told: Told) -> None:
    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        peer.socket.transport.abort()

    async with conversation(script, told):
        await told.until_told(Closed)
    assert (told.end.code, told.end.reason) == (1006, CloseKind.LOST)
    assert told.end.retryable


async def test_a_message_above_the_limit_ends_the_conversation(told: Told) -> None:
    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        await peer.send(audio(1, bytes(5000)))
        await peer.until_closed()

    async with conversation(script, told, max_message_bytes=4096):
        await told.until_told(Closed)
    assert (told.end.code, told.end.reason) == (1009, CloseKind.TOO_BIG)


async def test_all_audio_before_the_close_is_delivered(told: Told) -> None:
    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        await peer.send(*(audio(number, bytes(40_000)) for number in range(60)))
        await peer.socket.close()

    async with conversation(script, told):
        await told.until_told(Closed)
    assert [event.event_id for event in told.events if isinstance(event, Spoke)] == list(range(60))


async def test_close_says_goodbye_and_may_be_repeated(told: Told) -> None:
    async with conversation(quiet, told) as (agent, connection):
        await asyncio.gather(connection.close(), connection.close())
        await connection.close()
        assert told.kinds.count(Closed) == 1
        assert told.end.reason == CloseKind.LOCAL
        await agent.conversations[0].socket.wait_closed()
        assert agent.conversations[0].socket.close_code == 1000


async def test_after_close_nothing_but_closed_is_told(told: Told) -> None:
    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        while True:
            await peer.send(audio(1))

    async with conversation(script, told) as (_, connection):
        await told.until_told(Spoke)
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)
        heard = len(told.events)
        await closing
    assert told.kinds[heard:] == [Closed]


async def test_close_by_whoever_is_told(told: Told) -> None:
    closing: list[asyncio.Task[None]] = []

    class Closing(Told):
        def __call__(self, event: AgentEvent) -> None:
            super().__call__(event)
            if isinstance(event, Spoke):
                closing.append(asyncio.create_task(connection.close()))

    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        await peer.send(audio(1))
        await peer.until_closed()

    own = Closing()
    async with conversation(script, own) as (_, connection):
        await own.until_told(Closed)
        await asyncio.gather(*closing)
    assert own.end.reason == CloseKind.LOCAL


async def test_a_close_of_the_agent_wins_over_ours(told: Told) -> None:
    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        await peer.socket.close(1002, "llm_timeout")

    async with conversation(script, told) as (agent, connection):
        await agent.conversations[0].socket.wait_closed()
        await connection.close()
    assert told.end.reason == CloseKind.LLM_TIMEOUT


async def deaf(peer: FakeConversation) -> None:
    """An agent that begins, stops reading, and reads again when `heed` is set."""
    await peer.begin()
    peer.socket.transport.pause_reading()
    await asyncio.Event().wait()


def chunk(number: int) -> bytes:
    return number.to_bytes(4, "big") * 1000


def overfill(connection: AgentConnection) -> int:
    """Send until audio is dropped, without giving the loop a turn; returns how many chunks."""
    sent = 0
    while connection._outbox.dropped_messages == 0:
        connection.hear(chunk(sent))
        sent += 1
        assert sent < 10_000
    return sent


async def send_to_a_deaf_agent(told: Told) -> None:
    heed, news = asyncio.Event(), asyncio.Event()
    texts: list[str] = []
    chunks: list[int] = []

    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        peer.socket.transport.pause_reading()
        await heed.wait()
        peer.socket.transport.resume_reading()
        while True:
            message = await peer.receive()
            if "text" in message:
                texts.append(message["text"])
            else:
                data = base64.b64decode(message["user_audio_chunk"])
                chunks.append(int.from_bytes(data[:4], "big"))
                assert data == chunk(chunks[-1])
            news.set()

    async with conversation(script, told) as (_, connection):
        sent = overfill(connection)
        connection.ask("never dropped")
        heed.set()
        while sent - 1 not in chunks:
            await news.wait()
            news.clear()
        dropped = connection._outbox.dropped_messages
    assert texts == ["never dropped"]
    # In order, with one gap: the oldest of what waited.
    missing = sorted(set(range(sent)) - set(chunks))
    assert chunks == sorted(chunks)
    assert len(missing) == dropped
    assert missing == list(range(missing[0], missing[-1] + 1))


async def test_while_the_agent_does_not_read_old_audio_is_dropped(
    told: Told,
) -> None:
    await send_to_a_deaf_agent(told)


def test_the_same_on_uvloop() -> None:
    async def main() -> None:
        await send_to_a_deaf_agent(Told())

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_little_waits_in_the_kernel_for_a_deaf_agent(told: Told) -> None:
    async with conversation(deaf, told, close_timeout=0.05) as (_, connection):
        for number in range(1000):
            connection.hear(chunk(number))
            await asyncio.sleep(0)
        # What fits into the agent's receive buffer and little more. With the kernel's own idea of
        # how much may be unsent it would be about 3 MB: a minute and a half of pcm_16000.
        outbox = connection._outbox
        assert 1000 * 4000 - outbox.dropped_bytes - outbox._audio_bytes < 1_000_000


async def test_close_is_bounded_when_the_agent_does_not_read(told: Told) -> None:
    async with conversation(deaf, told, close_timeout=0.05) as (_, connection):
        overfill(connection)
        await asyncio.wait_for(connection.close(), PATIENCE_SECONDS)
    assert told.end.reason == CloseKind.LOCAL


async def test_close_is_bounded_when_the_agent_does_not_answer(told: Told) -> None:
    async with conversation(deaf, told, close_timeout=0.05) as (_, connection):
        await asyncio.wait_for(connection.close(), PATIENCE_SECONDS)
    assert told.end.reason == CloseKind.LOCAL


async def test_a_cancelled_close_still_ends(told: Told) -> None:
    async with conversation(deaf, told, close_timeout=60.0) as (_, connection):
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        await connection.close()
    assert told.end.reason == CloseKind.LOCAL


@replaces_code
@pytest.mark.parametrize("control", [False, True])
async def test_an_agent_that_never_reads_again_is_lost(
    told: Told, monkeypatch: pytest.MonkeyPatch, control: bool
) -> None:
    monkeypatch.setattr(connection_module, "Outbox", lambda: Outbox(max_stall_s=-1.0))
    async with conversation(deaf, told) as (_, connection):
        while connection.is_open:
            if control:
                connection.ask("x" * 10_000)
            else:
                connection.hear(bytes(10_000))
        await told.until_told(Closed)
    assert (told.end.code, told.end.reason) == (1006, CloseKind.LOST)


async def test_a_cancelled_reader_still_reports_the_end(told: Told) -> None:
    async with conversation(quiet, told) as (_, connection):
        (reader,) = (task for task in asyncio.all_tasks() if task.get_name() == "agent-reader")
        reader.cancel()
        await told.until_told(Closed)
        assert not connection.is_open
    assert told.end.reason == CloseKind.LOCAL


@replaces_code
async def test_a_fault_of_our_own_leaves_nobody_waiting(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with conversation(quiet, told) as (agent, _):
            monkeypatch.setattr(AgentProtocol, "receive", lambda *_: 1 // 0)
            await agent.conversations[0].send(*[audio(1)] * 3)
            await told.until_told(Closed)
    assert told.end.reason == CloseKind.LOST
    assert [log["event"] for log in logs].count("agent_reader_failed") == 1


async def frozen(peer: FakeConversation) -> None:
    """An agent that begins, and then reads and answers nothing, not even a ping."""
    await peer.begin()
    peer.socket.transport.pause_reading()
    await asyncio.get_running_loop().create_future()


async def test_an_agent_that_answers_no_ping_is_lost(told: Told) -> None:
    loop = asyncio.get_running_loop()
    async with conversation(frozen, told, dead_after=0.2) as (_, connection):
        began = loop.time()
        await told.until_told(Closed)
        assert loop.time() - began >= 0.2
        assert not connection.is_open
        assert told.end.silent_seconds == pytest.approx(0.2)
    assert (told.end.code, told.end.reason) == (1006, CloseKind.LOST)


async def test_one_that_answers_pings_and_says_nothing_is_not(told: Told) -> None:
    async with conversation(quiet, told, dead_after=0.1) as (_, connection):
        await asyncio.sleep(1)
        assert connection.is_open


async def test_a_process_that_was_held_up_takes_nobody_for_dead(told: Told) -> None:
    async with conversation(quiet, told, dead_after=0.2) as (_, connection):
        for _ in range(3):
            time.sleep(0.5)  # noqa: ASYNC251
            await asyncio.sleep(0.02)
        assert connection.is_open


@pytest.mark.parametrize("breaks", [False, True], ids=["closed", "broken"])
async def test_an_ended_conversation_lets_go_of_its_socket(told: Told, breaks: bool) -> None:
    def sockets() -> Counter[type]:
        kinds = (AgentSocket, ClientProtocol)
        return Counter(type(found) for found in gc.get_objects() if type(found) in kinds)

    gc.collect()
    before = sockets()
    gc.disable()
    try:
        async with conversation(quiet, told) as (_, connection):
            assert sockets() - before == {AgentSocket: 1, ClientProtocol: 1}
            if breaks:
                connection._socket.transport.abort()
            await connection.close()
            # It goes by itself, not when the collector comes.
            await until(lambda: sockets() == before)
            connection.hear(b"\0" * 640)
            connection.still_here()
            assert not connection.is_open
    finally:
        gc.enable()


async def test_a_refused_conversation_lets_go_of_its_socket() -> None:
    def sockets() -> int:
        return sum(type(found) is AgentSocket for found in gc.get_objects())

    async with FakeAgent(quiet) as agent, AgentClient(agent.base_url) as client:
        agent.upgrade_status = 403
        gc.collect()
        before = sockets()
        gc.disable()
        try:
            with pytest.raises(ConnectError):
                await client.connect(Briefing("a"), Told())
            await until(lambda: sockets() == before, PROMPT_SECONDS)
        finally:
            gc.enable()


async def test_an_ended_conversation_and_whoever_was_told_do_not_keep_each_other() -> None:
    class Side(Told):
        connection: AgentConnection

    async with FakeAgent(quiet) as agent, AgentClient(agent.base_url) as client:
        gc.disable()
        try:
            side = Side()
            side.connection = await client.connect(Briefing("a"), side)
            await side.connection.close()
            gone = weakref.ref(side)
            del side
            await until(lambda: gone() is None)
        finally:
            gc.enable()


@pytest.mark.parametrize(
    ("come", "most"), [("one by one", 2), ("with the first", 2), ("all at once", _MAX_AT_ONCE + 2)]
)
async def test_others_get_their_turn_between_many_messages(
    told: Told, monkeypatch: pytest.MonkeyPatch, come: str, most: int
) -> None:
    monkeypatch.setattr(connection_module, "_TURN_SECONDS", 0.0)
    turns: list[int] = []
    message = BY_TYPE["agent_response"]

    async def script(peer: FakeConversation) -> None:
        await peer.begin()
        if come == "one by one":
            await peer.send(*[message] * 400)
        else:
            if come == "all at once":
                await peer.send(audio(1))
                await told.until_told(Spoke)
            frame = Frame(Opcode.TEXT, json.dumps(message).encode())
            peer.socket.transport.write(frame.serialize(mask=False) * 400)
        await peer.until_closed()

    async def count() -> None:
        while True:
            turns.append(told.kinds.count(AgentSaid))
            await asyncio.sleep(0)

    async with conversation(script, told):
        counting = asyncio.create_task(count())
        await told.until_told(AgentSaid, 400)
        counting.cancel()
    assert max(after - before for before, after in pairwise(turns)) <= most
