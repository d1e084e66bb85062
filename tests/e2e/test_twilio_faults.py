"""Calls by Twilio, as the lab plays it, when more goes wrong than one call."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping

import aiohttp
import pytest

from ari_app.control.refusals import ControlRefused
from ari_app.line.twilio.protocol import LEAD_MS
from lab.asterisk import LabAsterisk
from lab.faults import TcpProxy
from lab.practice_agent import AgentBook
from lab.softphone import CallFailed, Phone
from lab.softphone.sounds import babble, level_dbfs, tone
from lab.twilio import Callee, Post, RestError, StreamFaults, TwilioCall
from lab.twilio.call import Source
from tests.e2e.harness import book, loud_seconds
from tests.e2e.twilio_bench import (
    CALLER,
    LOUD,
    NUMBER,
    ORIGIN,
    TARGET,
    TwilioBench,
    twilio_bench,
)
from tests.waiting import PATIENCE_SECONDS, PROMPT_SECONDS, until

pytestmark = pytest.mark.e2e

STORY = "Let me tell you a story that takes a while, for it has a beginning, a middle and an end."
LONG = (
    "Let me tell you a story that takes a while, for it has a beginning, a middle and an end, and "
    "nobody has ever heard it without falling asleep somewhere between the middle and the end."
)
GOODBYE = {
    "dialogue": {
        "first_message": "Hello, how can I help you today?",
        "turns": [{"say": "Good bye, and thank you for calling us today.", "end_call": True}],
    }
}


def holes(b: TwilioBench, call: TwilioCall, longest_pause_ms: float = 400) -> list[float]:
    """Where the caller heard nothing in the middle of what was said, in ms.

    What lies ahead is no help where the machine lets all of us wait for as long.
    """
    return [
        gap.ms
        for stream in call.streams
        for gap in stream.playout.gaps
        if gap.ms < longest_pause_ms
        and b.hold_ups.between(gap.at - LEAD_MS / 500, gap.at + gap.ms / 1000) < LEAD_MS / 2000
    ]


async def over(call: TwilioCall, seconds: float = 20.0) -> TwilioCall:
    await asyncio.wait_for(call.ended, seconds)
    return call


# --- a good call


@pytest.mark.parametrize("speaks", ["ulaw_8000", "pcm_16000"])
async def test_a_whole_call(speaks: str) -> None:
    formats = {"user_input": speaks, "agent_output": speaks}
    async with twilio_bench(book(formats=formats, **GOODBYE)) as b:
        call = await b.greeted("?agent_id=agent_7&customer_name=Jane")
        await call.play(babble(1500, -20))
        ending = await asyncio.wait_for(call.ended, PATIENCE_SECONDS)
        ended_at = time.monotonic()
        record = await b.record(call)
        conversation = await b.conversation(record)
        await b.all_gone()
        assert ending.by == "far"
        assert (record.agent_status, record.end_reason) == ("COMPLETED", "agent_ended")
        assert (record.caller_number, record.called_number) == (CALLER, NUMBER)
        assert conversation.agent_id == "agent_7"
        assert conversation.dynamic_variables == {
            "caller_id": CALLER,
            "called_number": NUMBER,
            "call_sid": call.sid,
            "customer_name": "Jane",
        }
        playout = call.stream.playout
        assert not b.complaints()
        assert not holes(b, call)
        # Every byte that the agent said was played, and only then was hung up.
        sent = sum(told.size for told in playout.told) / 8000
        assert sent == pytest.approx(conversation.agent_audio_seconds, abs=0.3)
        assert playout.waiting_ms == 0
        assert playout.heard_until is not None
        assert call.stream.stopped_at is not None
        assert playout.heard_until <= call.stream.stopped_at < ended_at
        assert not any(played.cleared for played in playout.played)
        if speaks == "pcm_16000":
            assert loud_seconds(conversation) == pytest.approx(1.5, abs=0.3)


async def test_sound_goes_through_unchanged_where_both_speak_mu_law() -> None:
    formats = {"user_input": "ulaw_8000", "agent_output": "ulaw_8000"}
    async with twilio_bench(book(formats=formats)) as b:
        call = await b.greeted()
        sound = tone(440, 1000, -10)
        await call.play(sound)
        conversation = await b.conversation(await b.record(call))
        expected = call.codec.encode(sound)
        await until(lambda: expected in b"".join(each.payload for each in conversation.user_audio))
        await call.hang_up()
        await b.all_gone()


async def test_an_interruption_clears_within_20_ms_and_ends_what_is_heard() -> None:
    talk = {"first_message": LONG, "turns": [{"say": LONG}, {"say": LONG}, {"say": "Bye."}]}
    async with twilio_bench(book(dialogue=talk)) as b:
        call = b.call()
        await call.answered()
        conversation = await b.conversation(await b.record(call))
        for turn in range(1, 4):
            await call.wait_for_sound(LOUD)
            await asyncio.sleep(1.0)
            await call.play(babble(1200, -20, seed=turn))
            await until(lambda: len(conversation.interruptions) == turn)  # noqa: B023
        playout = call.stream.playout
        await until(lambda: sum(told.kind == "clear" for told in playout.told) == 3)
        clears = [told.at for told in playout.told if told.kind == "clear"]
        told = [interruption.at for interruption in conversation.interruptions]
        delays = [c - i - b.hold_ups.between(i, c) for i, c in zip(told, clears, strict=True)]
        assert max(delays) < 0.02
        for clear in clears:
            loud = [a.at - clear for a in call.ear.arrivals if level_dbfs(a.pcm) > LOUD]
            soon = 0.06 + b.hold_ups.between(clear, clear + 0.3)
            assert not [late for late in loud if soon < late < 0.3]
        await call.wait_for_sound(LOUD)
        await call.wait_for_silence(1000)
        await call.hang_up()
        record = await b.record(call)
        await b.all_gone()
        corrections = [line.text for line in record.transcript if line.who == "correction"]
        assert len(corrections) == 3
        assert all(0 < len(text) < len(LONG) / 2 for text in corrections)
        assert not b.complaints()


async def test_last_words_are_heard_although_an_interruption_came_before() -> None:
    turns = [{"say": "Good bye, and thank you for calling us today.", "end_call": True}]
    talk = {"first_message": LONG, "turns": turns}
    async with twilio_bench(book(dialogue=talk)) as b:
        call = b.call()
        await call.answered()
        await call.wait_for_sound(LOUD, since=0)
        await asyncio.sleep(1.0)
        await call.play(babble(1200, -20))
        await over(call)
        playout = call.stream.playout
        await b.all_gone()
        last_clear = max(told.at for told in playout.told if told.kind == "clear")
        after = sum(told.size for told in playout.told if told.at > last_clear) / 8000
        assert after > 1.5
        assert playout.waiting_ms == 0
        assert not playout.played[-1].cleared
        assert not b.complaints()


async def test_a_network_that_takes_its_time_cuts_nothing() -> None:
    talk = {"first_message": LONG, **{"turns": GOODBYE["dialogue"]["turns"]}}
    async with twilio_bench(book(dialogue=talk)) as b:
        host, port = b.bridge.api_address
        async with TcpProxy(host, port) as slow:
            b.origins[ORIGIN] = f"http://{slow.address}"
            await slow.delay(0.1)
            call = b.call()
            await call.answered()
            await call.wait_for_sound(LOUD, since=0)
            await asyncio.sleep(2.0)
            await call.play(babble(1200, -20))
            await over(call)
            record = await b.record(call)
            playout = call.stream.playout
            assert not holes(b, call)
            assert playout.waiting_ms == 0
            assert playout.heard_until is not None and call.stream.stopped_at is not None
            assert playout.heard_until < call.stream.stopped_at
            assert not playout.played[-1].cleared
            await b.all_gone()
            assert record.agent_status == "COMPLETED"
            assert not b.complaints()


# --- what comes before a call


async def test_fields_that_nobody_has_announced_do_no_harm() -> None:
    async with twilio_bench() as b:
        call = b.call("?agent_id=agent_7", NewField="ä&=+ %", CallerName="", SipHeader_X="1")
        await call.answered()
        await call.wait_for_sound(LOUD, since=0)
        await call.hang_up()
        await b.all_gone()
        assert not b.complaints()


@pytest.mark.parametrize(
    ("changes", "verbs"),
    [
        ({"twilio_fallback_number": TARGET}, ["Dial"]),
        ({"twilio_fallback_url": f"{ORIGIN}/elsewhere"}, ["Redirect"]),
    ],
    ids=["number", "address"],
)
async def test_a_call_without_a_place(changes: dict[str, str], verbs: list[str]) -> None:
    async with twilio_bench(max_concurrent_calls=1, **changes) as b:
        first = await b.greeted()
        second = b.call()
        if verbs == ["Dial"]:
            person = await b.twilio.call_to(TARGET)
            await person.answered()
            await person.hang_up()
        await over(second)
        assert [verb.name for verb in second.verbs][:1] == verbs
        if verbs == ["Redirect"]:
            asked = b.twilio.webhooks.asked[-1]
            assert "AGENT_STATUS=REJECTED" in asked.url
        assert first.is_up
        await first.hang_up()
        await b.all_gone()


# --- streams that are not what they should be


async def test_a_token_works_once() -> None:
    async with twilio_bench() as b:
        good = await b.greeted()
        b.twilio.faults = StreamFaults(url=good.stream.url)
        bad = b.call()
        await over(bad)
        assert bad.stream.status in (403, 404, 409, 410)
        assert good.is_up
        assert good.stream.stopped_at is None
        await good.hang_up()
        await b.all_gone()


@pytest.mark.parametrize("greeting", [(), ("connected",)], ids=["nothing", "no start"])
async def test_a_stream_that_says_nothing_is_closed_within_ten_seconds(
    greeting: tuple[()],
) -> None:
    async with twilio_bench() as b:
        b.twilio.faults = StreamFaults(greeting=greeting)
        call = b.call()
        await call.answered()
        began = time.monotonic()
        await over(call, 15)
        assert time.monotonic() - began < 10.5
        assert call.stream.ended_by == "server"
        await b.all_gone()


async def test_a_webhook_whose_stream_never_comes_holds_no_place_for_ever() -> None:
    async with twilio_bench(max_concurrent_calls=1) as b:
        b.twilio.faults = StreamFaults(signing="missing")
        await over(b.call())
        await until(lambda: b.bridge.calls.count() == 0)
        b.twilio.faults = StreamFaults()
        call = await b.greeted()
        await call.hang_up()
        await b.all_gone()


async def test_odd_messages_in_a_call_disturb_nobody_else() -> None:
    messages: list[str | bytes] = [b"\x00\x01", "{", "[]", '{"event": "dance"}']
    messages += ['{"event": "media"}', "x" * 100_000]
    async with twilio_bench() as b:
        good, *odd = await asyncio.gather(*(b.greeted() for _ in (None, *messages)))
        for call, message in zip(odd, messages, strict=True):
            await call.stream.send_raw(message)
        await asyncio.sleep(0.5)
        assert good.is_up
        await good.play(babble(800, -20))
        await good.wait_for_sound(LOUD)
        await good.hang_up()
        for call in odd:
            if not call.is_over:
                await call.hang_up()
        await b.all_gone()


async def test_a_flood_of_bad_sockets_beside_calls() -> None:
    talk = {"first_message": STORY, "turns": []}
    async with twilio_bench(book(dialogue=talk)) as b:
        calls = [b.call() for _ in range(3)]
        for call in calls:
            await call.answered()
            await call.wait_for_sound(LOUD, since=0)
        async with aiohttp.ClientSession() as session:

            async def intrude(number: int) -> int:
                path = f"/twilio/media/{number:032}"
                try:
                    async with session.ws_connect(b.url + path, compress=0):
                        return 101
                except aiohttp.WSServerHandshakeError as refused:
                    return refused.status
                except aiohttp.ClientError:
                    return 0

            statuses: set[int] = set()
            for start in range(0, 200, 25):
                statuses.update(
                    await asyncio.gather(*(intrude(start + number) for number in range(25)))
                )
        assert 101 not in statuses
        for call in calls:
            await call.wait_for_silence(1000, timeout=PATIENCE_SECONDS)
            assert not holes(b, call)
            await call.hang_up()
        await b.all_gone()


# --- calls that are placed


@pytest.mark.parametrize(
    "order",
    [
        Post({"initiated": 1.0, "ringing": 0.8, "answered": 0.6}),
        Post({}, {"initiated": 0, "ringing": 0, "answered": 0}),
        Post({"answered": 5.0}),
    ],
    ids=["late", "never", "answered after the stream"],
)
async def test_a_call_that_is_answered_whatever_the_callbacks(order: Post) -> None:
    async with twilio_bench() as b:
        b.twilio.post = order
        record = await b.initiate(variables={"customer_name": "Jane"})
        call = await b.twilio.call_to(TARGET)
        await call.answered()
        await call.wait_for_sound(LOUD, since=0)
        conversation = await b.conversation(record)
        assert conversation.dynamic_variables["customer_name"] == "Jane"
        assert record.result == "answered"
        await call.hang_up()
        await b.all_gone()
        assert record.result == "answered"
        assert record.end_reason == "caller_hung_up"
        assert not b.complaints()


async def test_a_result_of_which_nobody_tells_is_found() -> None:
    async with twilio_bench() as b:
        b.twilio.post = Post({}, {"completed": 0})
        b.twilio.callees[TARGET] = Callee("busy")
        record = await b.initiate()
        await until(lambda: record.end_reason)
        assert record.result == "busy"
        await b.all_gone()


@pytest.mark.parametrize(
    "refusal",
    [
        RestError(400, 21211, "Invalid 'To' Phone Number"),
        RestError(400, 21215, "Geo permission"),
        RestError(401, 20003, "Authenticate"),
        RestError(429, 20429, "Too many requests"),
        RestError(503, 20503, "Unavailable"),
    ],
    ids=["number", "permission", "authentication", "too many", "down"],
)
async def test_a_create_that_is_refused_has_a_result(refusal: RestError) -> None:
    async with twilio_bench() as b:
        b.twilio.refusals.extend([refusal] * 5)
        record = await b.initiate()
        await until(lambda: record.end_reason)
        assert record.result in ("failed", "invalid_number", "unreachable", "rejected")
        assert len(b.twilio.calls) == 0
        await b.all_gone()


async def test_a_call_is_given_up_while_it_rings() -> None:
    async with twilio_bench() as b:
        b.twilio.callees[TARGET] = Callee(ring_seconds=30)
        record = await b.initiate()
        call = await b.twilio.call_to(TARGET)
        await until(lambda: call.status == "ringing")
        await b.bridge.control.end(record.session_id, "changed_my_mind")
        with pytest.raises(CallFailed):
            await call.answered()
        await b.all_gone()
        assert record.end_reason == "changed_my_mind"


async def test_calls_by_asterisk_and_by_twilio_share_one_limit(asterisk: LabAsterisk) -> None:
    both = {
        "dialer_type": "twilio,asterisk",
        "ari_url": asterisk.ari_url,
        "ari_username": asterisk.ari_username,
        "ari_password": asterisk.ari_password,
        "audiosocket_bind": "127.0.0.1:0",
    }
    async with twilio_bench(max_concurrent_calls=3, **both) as b, Phone() as phone:
        by_twilio = await b.greeted()
        await b.initiate()
        placed = await b.twilio.call_to(TARGET)
        by_asterisk = await phone.call(f"sip:100@{asterisk.sip_host}:{asterisk.sip_port}")
        calls = (by_twilio, placed, by_asterisk)
        for call in calls:
            await call.wait_for_sound(LOUD, since=0)
        fourth = b.call()
        await over(fourth)
        assert fourth.status == "busy"
        with pytest.raises(ControlRefused):
            await b.initiate()
        await asyncio.gather(*(call.play(babble(800, -20)) for call in calls))
        for call in calls:
            await call.wait_for_sound(LOUD)
            await call.hang_up()
        await b.all_gone()
        assert not holes(b, by_twilio)
        assert not b.complaints()
    await asterisk.wait_until_empty(2)


# --- callers who are held, targets who are briefed

_ASKS = {
    "name": "transfer_call",
    "parameters": {"to": TARGET, "mode": "attended"},
    "say_on_success": LONG,
    "say_on_error": "Nobody is there at the moment.",
    "timeout_seconds": 30,
}
BRIEFS = {
    "first_message": "Hello.",
    "turns": [{"say": "I will ask.", "tool": _ASKS}, {"say": "Certainly."}],
}
BRIEFS_SOON_DONE = {
    "first_message": "Hello.",
    "turns": [{"say": "I will ask.", "tool": {**_ASKS, "say_on_success": "A caller for you."}}],
}


async def consulted(b: TwilioBench) -> tuple[TwilioCall, TwilioCall]:
    """A caller who waits, and the target that is called for them."""
    call = await b.greeted()
    await call.play(babble(800, -20))
    target = await b.twilio.call_to(TARGET, 15)
    await until(lambda: call.verbs[-1].name == "Dial")
    return call, target


async def is_back(call: TwilioCall) -> None:
    """The caller is with the agent again, and both hear each other."""
    await until(lambda: len(call.streams) == 2 and call.stream.up.is_set())
    await call.wait_for_sound(LOUD, timeout=PATIENCE_SECONDS)
    await call.wait_for_silence(600)
    await call.play(babble(800, -20))
    await call.wait_for_sound(LOUD, timeout=PATIENCE_SECONDS)


async def test_a_caller_who_goes_while_the_target_rings() -> None:
    async with twilio_bench(book(dialogue=BRIEFS)) as b:
        b.twilio.callees[TARGET] = Callee(ring_seconds=30)
        call, target = await consulted(b)
        await call.hang_up()
        await asyncio.wait_for(target.ended, PROMPT_SECONDS)
        assert target.status == "canceled"
        await b.all_gone()
        assert not b.complaints()


async def test_a_caller_who_goes_while_the_target_is_briefed() -> None:
    async with twilio_bench(book(dialogue=BRIEFS)) as b:
        call, target = await consulted(b)
        await target.wait_for_sound(LOUD, since=0, timeout=PATIENCE_SECONDS)
        await call.hang_up()
        await asyncio.wait_for(target.ended, PROMPT_SECONDS)
        await b.all_gone()
        assert not b.complaints()


@pytest.mark.parametrize("how", ["hangs up", "resets", "says nothing"])
async def test_a_target_who_goes_while_it_is_briefed(how: str) -> None:
    async with twilio_bench(book(dialogue=BRIEFS)) as b:
        call, target = await consulted(b)
        await target.wait_for_sound(LOUD, since=0, timeout=PATIENCE_SECONDS)
        match how:
            case "hangs up":
                await target.hang_up()
            case "resets":
                target.stream.reset()
            case "says nothing":
                target.stream.go_silent()
        await is_back(call)
        await call.hang_up()
        if not target.is_over:
            await asyncio.wait_for(target.ended, PATIENCE_SECONDS)
        await b.all_gone()


async def test_a_target_that_twilio_does_not_join_at_once_is_joined_all_the_same() -> None:
    async with twilio_bench(book(dialogue=BRIEFS_SOON_DONE)) as b:
        call, target = await consulted(b)
        await target.wait_for_sound(LOUD, since=0, timeout=PATIENCE_SECONDS)
        b.twilio.refusals.extend([RestError(500, 20500, "Internal")] * 3)
        await until(lambda: target.verbs[-1].name == "Dial")
        assert not b.twilio.refusals
        (room,) = b.twilio.conferences
        await until(lambda: len(room.participants) == 2)
        await call.hang_up()
        await asyncio.wait_for(target.ended, PROMPT_SECONDS)
        await b.all_gone()


async def test_answers_that_are_lost_move_nobody_twice() -> None:
    async with twilio_bench(book(dialogue=BRIEFS_SOON_DONE)) as b:
        b.twilio.fail_updates = 1
        call, target = await consulted(b)
        await target.wait_for_sound(LOUD, since=0, timeout=PATIENCE_SECONDS)
        b.twilio.fail_updates = 1
        await until(lambda: target.verbs[-1].name == "Dial")
        (room,) = b.twilio.conferences
        await until(lambda: len(room.participants) == 2)
        # One who was moved again would leave the conference, and that would end it.
        await asyncio.sleep(2)
        assert call.is_up
        assert target.is_up
        assert [verb.name for verb in target.verbs] == ["Connect", "Dial"]
        await call.hang_up()
        await asyncio.wait_for(target.ended, PROMPT_SECONDS)
        await b.all_gone()


async def test_hold_and_back_as_fast_as_can_be_asked() -> None:
    async with twilio_bench() as b:
        call = await b.greeted()
        record = await b.record(call)
        for pause in (0.0, 0.0, 0.02, 0.3):
            for on in (True, False):
                await b.bridge.control.hold(record.session_id, on=on)
                await asyncio.sleep(pause)
        await asyncio.sleep(1.0)
        assert call.verbs[-1].name == "Connect"
        await call.play(babble(800, -20))
        await call.wait_for_sound(LOUD, timeout=PATIENCE_SECONDS)
        await call.hang_up()
        await b.all_gone()
        assert record.end_reason == "caller_hung_up"
        assert not b.complaints()


async def test_a_hold_that_twilio_refuses_ends_nothing() -> None:
    async with twilio_bench() as b:
        call = await b.greeted()
        record = await b.record(call)
        b.twilio.refusals.extend([RestError(500, 20500, "Internal")] * 2)
        await b.bridge.control.hold(record.session_id, on=True)
        await until(lambda: not b.twilio.refusals)
        await b.bridge.control.hold(record.session_id, on=False)
        await call.play(babble(800, -20))
        await call.wait_for_sound(LOUD, timeout=PATIENCE_SECONDS)
        await call.hang_up()
        await b.all_gone()


# --- what others do meanwhile


async def test_a_flood_of_unsigned_webhooks_keeps_no_call_out() -> None:
    async with twilio_bench() as b:
        first = await b.greeted()
        fields = {"CallSid": "CA" + "0" * 32, "From": CALLER, "To": NUMBER}
        flood = asyncio.create_task(_intrude(b, fields))
        await asyncio.sleep(0.5)
        calls = [b.call() for _ in range(3)]
        for call in calls:
            await call.answered()
            await call.wait_for_sound(LOUD, since=0)
        assert not flood.done()
        flood.cancel()
        for call in (first, *calls):
            assert not call.application_error
            await call.hang_up()
        await b.all_gone()


async def _intrude(b: TwilioBench, fields: Mapping[str, str]) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            for _ in range(5):
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.post(f"{b.url}/twilio/voice", data=fields):
                        pass
            await asyncio.sleep(0.01)


async def test_many_calls_at_once_all_come_in() -> None:
    async with twilio_bench(max_concurrent_calls=60) as b:
        calls = [b.call() for _ in range(60)]
        for call in calls:
            await call.answered()
        assert not [call for call in calls if call.application_error]
        await until(lambda: all(call.streams and call.stream.up.is_set() for call in calls))
        await asyncio.gather(*(call.hang_up() for call in calls))
        await b.all_gone()
        assert not b.complaints()


async def test_a_call_that_somebody_else_takes_away_is_left_alone() -> None:
    async with twilio_bench() as b:
        call = await b.greeted()
        record = await b.record(call)
        call.update(Source(twiml="<Response><Pause length='60'/></Response>"))
        await until(lambda: record.end_reason)
        await asyncio.sleep(1.0)
        assert call.is_up
        assert call.stream.ended_by == "twilio"
        await call.hang_up()
        await b.all_gone()


async def test_a_stream_that_nobody_reads_is_no_harm_to_others() -> None:
    talk = {"first_message": STORY, "turns": []}
    async with twilio_bench(book(dialogue=talk)) as b:
        b.twilio.faults = StreamFaults(reads=False)
        deaf = b.call()
        await deaf.answered()
        b.twilio.faults = StreamFaults()
        good = b.call()
        await good.answered()
        await good.wait_for_sound(LOUD, since=0)
        await good.wait_for_silence(1000, timeout=PATIENCE_SECONDS)
        assert not holes(b, good)
        for call in (good, deaf):
            await call.hang_up()
        await b.all_gone()


async def test_a_caller_who_hangs_up_while_it_rings() -> None:
    slow = {"faults": {"handshake_delay_ms": 1500}}
    async with twilio_bench(book(**slow)) as b:
        call = b.call()
        await until(lambda: b.records())
        await call.hang_up()
        await until(lambda: b.records()[0].end_reason)
        await b.all_gone()
        assert not b.complaints()


async def test_an_agent_that_cannot_be_reached_leads_to_the_fallback() -> None:
    elsewhere = f"{ORIGIN}/elsewhere?queue=1"
    async with twilio_bench(AgentBook(default=None), twilio_fallback_url=elsewhere) as b:
        call = b.call()
        await over(call)
        await b.all_gone()
        asked = b.twilio.webhooks.asked[-2:]
        told = next(each.url for each in asked if "/elsewhere" in each.url)
        assert "queue=1" in told
        assert "AGENT_STATUS=FAILED" in told
        assert "AGENT_SESSION_ID=" in told
