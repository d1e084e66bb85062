"""Calls through the lab's Twilio: webhooks, streams and REST over real sockets."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from ari_app.audio.g711 import ulaw_to_pcm
from lab.practice_agent import ConversationRecord
from lab.softphone.sounds import babble, level_dbfs
from lab.twilio import Callee, Post, StreamFaults, TwilioCall
from lab.web import serving
from tests.e2e.harness import book, hears
from tests.e2e.twilio_bench import CALLER, INTENDED, LOUD, NUMBER, TARGET, ULAW, twilio_bench
from tests.waiting import PATIENCE_SECONDS, until

pytestmark = pytest.mark.e2e


def verbs(call: TwilioCall) -> list[str]:
    """What of our documents was begun, in order."""
    return [verb.name for verb in call.verbs]


def saying(text: str, **turn: Any) -> dict[str, Any]:
    """An agent that greets, and then says something and does something."""
    return {"first_message": "Hello, how can I help you?", "turns": [{"say": text, **turn}]}


# --- sound


async def test_the_greeting_is_heard_from_its_first_byte_to_its_last_unchanged(
    spoken: list[bytes],
) -> None:
    async with twilio_bench() as b:
        call = await b.answered()
        stream = call.stream
        sent: list[bytes] = []
        take = stream.playout.media

        def keep(payload: bytes, now: float) -> bool:
            sent.append(payload)
            return take(payload, now)

        stream.playout.media = keep  # type: ignore[method-assign]
        await call.wait_for_sound(LOUD, since=0)
        await call.wait_for_silence(800)
        await call.hang_up()
        await b.all_gone()
    said, heard = b"".join(spoken), b"".join(sent)
    assert len(said) > 8000
    # µ-law has two zeros, and the end of an answer fills a frame.
    assert heard.replace(b"\x7f", b"\xff")[: len(said)] == said.replace(b"\x7f", b"\xff")
    assert len(heard) - len(said) < 160
    assert stream.playout.gaps == []
    assert b.twilio.codes() == []
    assert b.refused() == {}


async def test_it_lies_no_further_ahead_than_160_ms() -> None:
    async with twilio_bench() as b:
        call = await b.answered()
        playout, most = call.stream.playout, 0.0
        await call.wait_for_sound(LOUD, since=0)
        for _ in range(100):
            await asyncio.sleep(0.01)
            most = max(most, playout.waiting_ms)
        await call.hang_up()
        await b.all_gone()
    # Twilio takes whole frames by a clock of its own.
    assert 60 < most <= 160 + 5 * 20


async def test_the_callers_voice_and_keys_reach_the_agent() -> None:
    agents = book(formats=ULAW, dialogue={"first_message": "", "turns": []})
    async with twilio_bench(agents) as b:
        call = await b.answered(CallerName="JANE")
        record = await b.last_conversation()
        await call.play(babble(1500, -15))
        await call.stream.press("7")
        await call.stream.press("#")
        await until(lambda: any(line.text.endswith("7") for line in b.records()[0].transcript))
        await call.hang_up()
        await b.all_gone()
        assert loud_seconds(record) == pytest.approx(1.5, abs=0.3)
        (kept,) = b.records()
        assert (kept.caller_number, kept.called_number) == (CALLER, NUMBER)
        assert kept.line_id == call.sid
        assert kept.end_reason == "caller_hung_up"


def loud_seconds(record: ConversationRecord) -> float:
    """How long the agent has heard a voice."""
    pcm = np.frombuffer(b"".join(ulaw_to_pcm(each.payload) for each in record.user_audio), "<i2")
    frames = pcm[: len(pcm) // 160 * 160].reshape(-1, 160)
    return 0.02 * sum(level_dbfs(frame.tobytes()) > LOUD for frame in frames)


async def test_an_interruption_clears_what_was_sent_and_knows_what_was_heard() -> None:
    long = " ".join(["I will tell you a very long story about the weather."] * 6)
    agents = book(formats=ULAW, dialogue={"first_message": long, "turns": [{"say": "Yes?"}]})
    async with twilio_bench(agents) as b:
        call = await b.answered()
        await call.wait_for_sound(LOUD, since=0)
        await asyncio.sleep(1.5)
        await call.play(babble(1500, -12))
        stream = call.stream
        await until(lambda: any(each.kind == "clear" for each in stream.playout.told))
        record = await b.last_conversation()
        cleared = next(each for each in stream.playout.told if each.kind == "clear")
        assert record.interruptions, "the agent was interrupted"
        told_at = record.interruptions[0].at
        assert cleared.at - told_at - b.hold_ups.between(told_at, cleared.at) < 0.05
        await asyncio.sleep(0.1)
        (kept,) = b.records()
        assert kept.sound.interruptions == 1
        note = next(line.text for line in kept.transcript if "unheard" in line.text)
        played = [each for each in stream.playout.played if not each.cleared]
        (heard_ms,) = map(float, re.findall(r"after (\d+) ms", note))
        sent_ms = sum(each.size for each in stream.playout.told if each.at < cleared.at) / 8
        # What lay at Twilio when it was told to forget it was not heard. A mark that we read late
        # counts as one that came late.
        held_ms = 1000 * b.hold_ups.between(cleared.at - 0.5, cleared.at)
        assert sent_ms - 260 - held_ms < heard_ms < sent_ms - 40
        assert played, "marks came back before"
        await call.hang_up()
        await b.all_gone()
    assert b.twilio.codes() == []


# --- what comes after


async def test_last_words_are_heard_and_the_call_ends() -> None:
    agents = book(
        formats=ULAW, dialogue=saying("Good bye, and thank you for calling.", end_call=True)
    )
    async with twilio_bench(agents) as b:
        call = await b.answered()
        await call.wait_for_silence(600)
        await call.play(babble(800, -12))
        await call.ended
        stream = call.stream
        assert all(not each.cleared for each in stream.playout.played)
        assert stream.playout.waiting_ms == 0
        assert stream.playout.heard_until is not None and stream.stopped_at is not None
        assert stream.stopped_at >= stream.playout.heard_until
        await b.all_gone()
        assert verbs(call) == ["Connect", "Hangup"]
        (record,) = b.records()
        assert (record.agent_status, record.end_reason) == ("COMPLETED", "agent_ended")
    assert set(b.twilio.codes()) <= {INTENDED}


@pytest.mark.parametrize("outcome", ["answer", "busy"])
async def test_a_transfer_calls_the_target_and_goes_on_when_it_is_not_reached(
    outcome: Any,
) -> None:
    tool = {"name": "transfer_call", "parameters": {"to": TARGET}}
    agents = book(formats=ULAW, dialogue=saying("One moment.", tool=tool))
    told: list[dict[str, Any]] = []

    async def human(request: web.Request) -> web.Response:
        told.append(dict(request.query))
        return web.Response(text="<Response><Hangup/></Response>", content_type="text/xml")

    app = web.Application()
    app.router.add_post("/human", human)
    async with (
        serving(app) as url,
        twilio_bench(agents, twilio_fallback_url="https://ivr.test/human?queue=7") as b,
    ):
        b.twilio.webhooks._origins["https://ivr.test"] = url  # type: ignore[index]
        b.twilio.callees[TARGET] = Callee(outcome, talk_seconds=0.5)
        call = await b.answered()
        await call.wait_for_silence(600)
        await call.play(babble(800, -12))
        target = await b.twilio.call_to(TARGET, 15)
        assert target.fields()["From"] == CALLER
        await call.ended
        await b.all_gone()
        assert verbs(call)[:2] == ["Connect", "Dial"]
        (record,) = b.records()
        assert record.agent_status == "TRANSFER"
        if outcome == "answer":
            assert told == []
        else:
            (query,) = told
            assert query["AGENT_STATUS"] == "TRANSFER"
            assert (query["AGENT_TRANSFER_TO"], query["DIAL_STATUS"]) == (TARGET, "busy")
            assert query["queue"] == "7"
            assert query["AGENT_SESSION_ID"] == record.session_id
            assert query["AGENT_CONVERSATION_ID"] == record.conversation_id


ATTENDED = {
    "name": "transfer_call",
    "parameters": {"to": TARGET, "mode": "attended"},
    "say_on_success": "Here is a caller with a question about an invoice.",
    "say_on_error": "Nobody is there at the moment.",
    "timeout_seconds": 30,
}
BRIEFS = {
    "first_message": "Hello, how can I help you?",
    "turns": [{"say": "I will ask.", "tool": ATTENDED}, {"say": "Certainly."}],
}


async def test_a_target_is_told_first_and_then_joined_with_the_caller() -> None:
    async with twilio_bench(book(formats=ULAW, dialogue=BRIEFS)) as b:
        call = await b.answered()
        await call.wait_for_silence(600)
        await call.play(babble(800, -12))
        target = await b.twilio.call_to(TARGET, 15)
        assert target.fields()["From"] == NUMBER
        await target.wait_for_sound(LOUD, since=0, timeout=PATIENCE_SECONDS)
        await until(lambda: b.records()[0].state == "handed_over")
        await until(lambda: len(target.verbs) == 2)
        (room,) = b.twilio.conferences
        await until(lambda: len(room.participants) == 2)
        assert verbs(call) == ["Connect", "Dial"]
        assert verbs(target) == ["Connect", "Dial"]
        assert b.bridge.calls.count() == 0, "it holds no place"
        await target.hang_up()
        await b.all_gone(12)
        (record,) = b.records()
        assert (record.agent_status, record.end_reason) == ("COMPLETED", "transferred")


async def test_a_target_that_is_not_reached_leaves_the_caller_with_the_agent() -> None:
    async with twilio_bench(book(formats=ULAW, dialogue=BRIEFS)) as b:
        b.twilio.callees[TARGET] = Callee("busy", sip_code=486)
        call = await b.answered()
        await call.wait_for_silence(600)
        await call.play(babble(800, -12))
        await until(lambda: len(call.streams) == 2)
        await call.wait_for_sound(LOUD, timeout=PATIENCE_SECONDS)
        assert verbs(call) == ["Connect", "Dial", "Connect"]
        conversation = await b.last_conversation()
        assert "busy" in str(conversation.tools[0].result)
        await call.hang_up()
        await b.all_gone()
        assert b.records()[0].end_reason == "caller_hung_up"


async def test_a_call_is_taken_over_and_given_back() -> None:
    async with twilio_bench(book(formats=ULAW)) as b:
        call = await b.greeted()
        record = await b.record(call)
        name = record.session_id
        await b.bridge.control.take_over(name, TARGET, "lea")
        target = await b.twilio.call_to(TARGET, 15)
        await until(lambda: record.state == "taken_over")
        conversation = await b.last_conversation()
        heard = loud_seconds(conversation)
        assert await hears(call, target, 600)
        assert await hears(target, call, 1000)
        assert loud_seconds(conversation) == heard
        await b.bridge.control.give_back(name)
        await call.wait_for_sound(LOUD)
        asked = [m["text"] for m in conversation.messages if m.get("type") == "user_message"]
        assert "A colleague has spoken with the caller" in str(asked[-1])
        assert verbs(call) == ["Connect"], "the caller was never moved"
        await call.hang_up()
        await b.all_gone()


async def test_a_caller_is_held_and_taken_back_and_keys_are_pressed() -> None:
    async with twilio_bench() as b:
        call = await b.answered()
        await call.wait_for_silence(600)
        (record,) = b.records()
        control = b.bridge.control
        await control.hold(record.session_id, on=True)
        await until(lambda: verbs(call) == ["Connect", "Dial"])
        await control.hold(record.session_id, on=False)
        await until(lambda: len(call.streams) == 2 and call.streams[1].up.is_set())
        await call.play(babble(800, -12))
        await call.wait_for_sound(LOUD, timeout=PATIENCE_SECONDS)
        await call.wait_for_silence(600)
        await control.send_dtmf(record.session_id, "12#")
        await until(lambda: len(call.streams) == 3 and call.streams[2].up.is_set())
        assert verbs(call) == ["Connect", "Dial", "Connect", "Play", "Connect"]
        assert call.verbs[3].get("digits") == "12#"
        await call.play(babble(800, -12))
        await call.wait_for_sound(LOUD, timeout=PATIENCE_SECONDS)
        await control.hold(record.session_id, on=True)
        await until(lambda: verbs(call)[-1] == "Dial")
        await call.hang_up()
        await b.all_gone()
        assert b.records()[0].end_reason == "caller_hung_up"


async def test_at_the_limit_the_caller_hears_that_we_are_busy() -> None:
    async with twilio_bench(max_concurrent_calls=1) as b:
        first = await b.answered()
        second = b.twilio.call(CALLER, NUMBER)
        await until(lambda: second.is_over)
        assert (second.status, verbs(second)) == ("busy", ["Reject"])
        assert second.answered_at is None
        await first.hang_up()
        await b.all_gone()


async def test_an_agent_that_is_lost_leaves_the_caller_to_the_fallback() -> None:
    agents = book(formats=ULAW, faults={"close": {"after_ms": 1000, "code": 1011}})
    async with twilio_bench(agents, agent_on_loss="dialplan", twilio_fallback_number=TARGET) as b:
        b.twilio.callees[TARGET] = Callee(talk_seconds=0.3)
        call = await b.answered()
        await b.twilio.call_to(TARGET, 15)
        await call.ended
        await b.all_gone()
        assert verbs(call)[:2] == ["Connect", "Dial"]
        assert b.records()[0].agent_status == "FAILED"


# --- calls that we place


async def test_a_placed_call_is_heard_from_its_answer() -> None:
    async with twilio_bench() as b:
        b.twilio.callees[TARGET] = Callee(ring_seconds=0.5)
        record = await b.initiate()
        call = await b.twilio.call_to(TARGET)
        await call.answered()
        await call.wait_for_sound(LOUD, since=0)
        assert call.fields()["From"] == NUMBER
        await call.hang_up()
        await b.all_gone()
        assert (record.result, record.end_reason) == ("answered", "caller_hung_up")
    assert b.twilio.codes() == []


@pytest.mark.parametrize(
    ("callee", "result", "sip_code"),
    [
        (Callee("busy", sip_code=486), "busy", 486),
        (Callee("no-answer", sip_code=487), "no_answer", 487),
        (Callee("failed", sip_code=404), "invalid_number", 404),
    ],
)
async def test_results(callee: Callee, result: str, sip_code: int) -> None:
    async with twilio_bench() as b:
        b.twilio.callees[TARGET] = callee
        # They come twice, and the first ones last.
        b.twilio.post = Post({"initiated": 0.6, "ringing": 0.4}, {"completed": 2, "ringing": 2})
        record = await b.initiate()
        await until(lambda: record.ended_at is not None)
        assert (record.result, record.sip_code) == (result, sip_code)
        await b.all_gone()


async def test_one_who_lets_it_ring_is_not_called_any_longer() -> None:
    async with twilio_bench() as b:
        b.twilio.callees[TARGET] = Callee("no-answer", ring_seconds=30)
        began = time.monotonic()
        record = await b.initiate(ring_timeout_seconds=1.0)
        await until(lambda: record.ended_at is not None)
        assert time.monotonic() - began < 3
        assert record.result == "no_answer"
        await b.all_gone()
        (call,) = b.twilio.calls.values()
        assert call.status in ("canceled", "completed", "no-answer")


@pytest.mark.parametrize(
    ("answered_by", "status"),
    [("human", "HUMAN"), ("machine_start", "MACHINE"), ("unknown", "NOTSURE")],
)
async def test_machines_are_found(answered_by: str, status: str) -> None:
    async with twilio_bench(amd_on_machine="hang_up") as b:
        b.twilio.callees[TARGET] = Callee(answered_by=answered_by)
        record = await b.initiate(amd=True)
        call = await b.twilio.call_to(TARGET)
        await call.answered()
        if status == "MACHINE":
            await call.ended
            assert record.end_reason == "machine_detected"
        else:
            await call.wait_for_sound(LOUD, since=0)
            await call.hang_up()
        await b.all_gone()
        assert record.metadata["amd_status"] == status


async def test_nobody_is_called_twice_because_an_answer_was_lost() -> None:
    async with twilio_bench() as b:
        b.twilio.stall_creates = 1
        record = await b.initiate()
        call = await b.twilio.call_to(TARGET)
        await call.answered()
        await call.wait_for_sound(LOUD, since=0)
        await asyncio.sleep(9)
        assert record.state == "talking"
        await call.hang_up()
        await b.all_gone()
        assert len(b.twilio.calls) == 1
        assert record.result == "answered"


# --- what breaks


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (StreamFaults(signing="wrong"), "wrong_signature"),
        (StreamFaults(signing="missing"), "unsigned"),
        (StreamFaults(signing="https"), "wrong_signature"),
        (StreamFaults(url="wss://bridge.test/twilio/media/never-was"), "unknown_token"),
        (StreamFaults(call_sid="CA" + "0" * 32), "wrong_call"),
        (StreamFaults(greeting=()), "no_start"),
        (StreamFaults(greeting=("start",)), "too_early"),
        (StreamFaults(greeting=("connected",)), "no_start"),
        (StreamFaults(greeting=("connected", "start", "start")), "twice"),
    ],
)
async def test_a_bad_stream_disturbs_nobody_else(faults: StreamFaults, reason: str) -> None:
    async with twilio_bench(twilio_fallback_number=TARGET) as b:
        b.twilio.callees[TARGET] = Callee(talk_seconds=0.2)
        good = await b.answered()
        await good.wait_for_sound(LOUD, since=0)
        b.twilio.faults = faults
        bad = b.twilio.call(CALLER, NUMBER)
        await bad.ended
        assert b.refused().get(reason, 0) >= 1
        await good.play(babble(600, -12))
        await good.wait_for_sound(LOUD)
        await good.hang_up()
        await b.all_gone(12)


async def test_a_stream_that_breaks_leaves_the_caller_to_the_fallback() -> None:
    async with twilio_bench(twilio_fallback_number=TARGET) as b:
        b.twilio.callees[TARGET] = Callee(talk_seconds=0.2)
        call = await b.answered()
        await call.wait_for_sound(LOUD, since=0)
        call.stream.reset()
        await call.ended
        await b.all_gone()
        (record,) = b.records()
        assert (record.agent_status, record.end_reason) == ("FAILED", "line_lost")


async def test_a_caller_who_goes_without_a_word_is_noticed() -> None:
    async with twilio_bench() as b:
        call = await b.answered()
        await call.wait_for_sound(LOUD, since=0)
        call.stream.skip_stop()
        await call.hang_up()
        await b.all_gone()
        assert b.records()[0].end_reason == "caller_hung_up"


async def test_a_stream_that_falls_silent_is_given_up_after_ten_seconds() -> None:
    async with twilio_bench(twilio_fallback_number=TARGET) as b:
        b.twilio.callees[TARGET] = Callee(talk_seconds=0.2)
        call = await b.answered()
        await call.wait_for_sound(LOUD, since=0)
        began = time.monotonic()
        call.stream.go_silent()
        (record,) = b.records()
        await until(lambda: record.state not in ("talking", "closing"))
        assert 9.0 < time.monotonic() - began < 12.5
        assert record.end_reason == "line_silent"
        assert b.refused() == {"silent": 1}
        await call.ended
        await b.all_gone(15)


async def test_a_stall_and_lost_frames_end_nothing() -> None:
    async with twilio_bench() as b:
        b.twilio.faults = StreamFaults(stalls={100: 1.0, 200: 0.3}, jumps={50: 400})
        call = await b.answered()
        await call.wait_for_sound(LOUD, since=0)
        await asyncio.sleep(6)
        assert call.is_up
        await call.hang_up()
        await b.all_gone()


async def test_a_stop_of_the_service_ends_calls_and_refuses_new_ones() -> None:
    async with twilio_bench(drain_timeout_seconds=0.5, twilio_fallback_number=TARGET) as b:
        b.twilio.callees[TARGET] = Callee(talk_seconds=0.2)
        call = await b.answered()
        b.bridge.drain()
        late = b.twilio.call(CALLER, NUMBER)
        await late.ended
        await call.ended
        assert verbs(late) == ["Dial"]
        assert verbs(call)[:2] == ["Connect", "Dial"]
