"""The messages of a Media Stream, the play-out, and the documents."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.audio.g711 import pcm_to_ulaw, ulaw_to_pcm
from ari_app.line.arguments import OwnArguments
from ari_app.line.interface import (
    Answered,
    CallEnd,
    Ended,
    Outcome,
    Result,
    Rings,
    Screened,
    Status,
)
from ari_app.line.twilio import protocol, twiml
from ari_app.line.twilio.gateway import read_query
from ari_app.line.twilio.protocol import (
    Digit,
    Marked,
    Media,
    PlayOut,
    Progress,
    Started,
    Stopped,
    Stream,
)
from ari_app.line.twilio.twiml import Elsewhere, Ending
from ari_app.line.websocket_input import BadInput

CONNECTED = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
START: dict[str, Any] = {
    "event": "start",
    "sequenceNumber": "1",
    "streamSid": "MZ1",
    "start": {
        "accountSid": "AC1",
        "streamSid": "MZ1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"k": "v"},
    },
}


def said(event: str, **parts: Any) -> dict[str, Any]:
    return {"event": event, "sequenceNumber": "2", "streamSid": "MZ1", **parts}


def media(data: bytes, track: str = "inbound") -> dict[str, Any]:
    payload = base64.b64encode(data).decode()
    return said("media", media={"track": track, "chunk": "1", "timestamp": "5", "payload": payload})


def started() -> Stream:
    stream = Stream()
    for message in (CONNECTED, START):
        stream.read(json.dumps(message))
    return stream


# --- what Twilio says


def test_a_whole_stream() -> None:
    stream = Stream()
    messages = [
        CONNECTED,
        START,
        media(b"\xff" * 160),
        said("dtmf", dtmf={"track": "inbound_track", "digit": "5"}),
        said("mark", mark={"name": "0.1"}),
        said("stop", stop={"accountSid": "AC1", "callSid": "CA1"}),
        media(b"late"),
    ]
    assert [stream.read(json.dumps(each)) for each in messages] == [
        None,
        Started("AC1", "CA1", {"k": "v"}),
        Media(b"\xff" * 160),
        Digit("5"),
        Marked("0.1"),
        Stopped(),
        None,
    ]


def test_old_streams_have_no_parameters_and_new_events_are_passed_over() -> None:
    stream = Stream()
    stream.read(json.dumps(CONNECTED))
    start = {name: text for name, text in START["start"].items() if name != "customParameters"}
    assert stream.read(json.dumps(START | {"start": start})) == Started("AC1", "CA1")
    assert stream.read('{"event": "applause", "streamSid": "MZ1"}') is None
    assert stream.read(json.dumps(media(b"x", "outbound"))) is None


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([START], "too_early"),
        ([media(b"x")], "too_early"),
        ([CONNECTED, media(b"x")], "too_early"),
        ([CONNECTED, CONNECTED], "twice"),
        ([CONNECTED, START, START], "twice"),
        ([CONNECTED, START, media(b"x") | {"streamSid": "MZ2"}], "wrong_stream"),
        ([CONNECTED, START | {"streamSid": "MZ2"}], "wrong_stream"),
        ([CONNECTED, START | {"streamSid": 'MZ"'}], "wrong_stream"),
        ([CONNECTED, START, media(b"RIFF....WAVE")], "audio_with_header"),
        ([CONNECTED, START, media(b"")], "malformed"),
        ([CONNECTED, START, said("media", media={"payload": "*"})], "malformed"),
        ([CONNECTED, START, said("media", media={"payload": 5})], "malformed"),
        ([CONNECTED, START, said("mark", mark={})], "malformed"),
        ([CONNECTED, START, said("mark", mark={"name": "x" * 65})], "malformed"),
        ([[]], "malformed"),
        ([{}], "malformed"),
        ([{"event": 5}], "malformed"),
        ([None], "malformed"),
    ],
)
def test_what_cannot_be_used(messages: list[Any], reason: str) -> None:
    stream = Stream()
    for message in messages[:-1]:
        stream.read(json.dumps(message))
    with pytest.raises(BadInput) as refusal:
        stream.read(json.dumps(messages[-1]))
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    "change", [{"encoding": "audio/l16"}, {"sampleRate": 16000}, {"channels": 2}]
)
def test_another_format_than_expected_is_found(change: dict[str, Any]) -> None:
    stream = Stream()
    stream.read(json.dumps(CONNECTED))
    other = {"mediaFormat": START["start"]["mediaFormat"] | change}
    with pytest.raises(BadInput) as refusal:
        stream.read(json.dumps(START | {"start": START["start"] | other}))
    assert refusal.value.reason == "wrong_format"


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_any_text_is_read_or_refused(text: str) -> None:
    for stream in (Stream(), started()):
        try:
            stream.read(text)
        except BadInput as error:
            assert error.reason == "malformed"


# --- what we say


def test_our_messages_have_what_twilio_knows_and_nothing_more() -> None:
    assert json.loads(protocol.media("MZ1", b"\x00\xff\x7f")) == {
        "event": "media",
        "streamSid": "MZ1",
        "media": {"payload": "AP9/"},
    }
    assert json.loads(protocol.mark("MZ1", "0.1")) == {
        "event": "mark",
        "streamSid": "MZ1",
        "mark": {"name": "0.1"},
    }
    assert json.loads(protocol.clear("MZ1")) == {"event": "clear", "streamSid": "MZ1"}


def test_mu_law_passes_through_unchanged() -> None:
    """By way of the line's 16-bit PCM: every code, but for the two zeros, which sound the same."""
    codes = bytes(range(256))
    through = pcm_to_ulaw(ulaw_to_pcm(codes))
    assert [code for code in codes if through[code] != code] == [0x7F]
    assert through[0x7F] == 0xFF
    zeros = np.frombuffer(ulaw_to_pcm(b"\x7f\xff"), "<i2")
    assert zeros.tolist() == [0, 0]


# --- how far the caller has heard


def test_without_marks_it_is_played_in_real_time() -> None:
    out = PlayOut()
    out.sent(1600, 10.0)
    assert out.ahead_ms(10.0) == pytest.approx(200)
    assert out.unheard_ms(10.05) == pytest.approx(150)
    out.sent(800, 10.1)
    assert out.unheard_ms(10.1) == pytest.approx(200)
    assert out.unheard_ms(11.0) == 0


def test_marks_tell_how_much_later_it_is() -> None:
    out = PlayOut()
    out.sent(1600, 10.0)
    name = out.mark()
    out.sent(1600, 10.1)
    out.marked(name, 10.35)
    assert out.ahead_ms(10.35) == pytest.approx(50)
    assert out.unheard_ms(10.35) == pytest.approx(200), "the second half has begun just now"
    assert out.clear(10.40) == pytest.approx(150)


def test_no_more_is_unheard_than_was_sent_after_the_last_mark() -> None:
    out = PlayOut()
    out.sent(1600, 10.0)
    out.marked(out.mark(), 15.0)
    out.sent(160, 15.0)
    assert out.unheard_ms(15.0) == pytest.approx(20)


def test_a_mark_of_before_a_clear_says_nothing() -> None:
    out = PlayOut()
    out.sent(8000, 10.0)
    name = out.mark()
    assert out.clear(10.1) == pytest.approx(900)
    assert not out.pending and not out.unmarked
    assert out.clear(10.1) == 0
    out.sent(800, 10.2)
    out.marked(name, 10.2)
    assert out.unheard_ms(10.2) == pytest.approx(100)


def test_a_mark_may_come_twice_but_none_that_was_not_sent() -> None:
    out = PlayOut()
    out.sent(800, 10.0)
    name = out.mark()
    out.marked(name, 10.1)
    out.marked(name, 10.2)
    for other in ("", "0.2", "1.1", "0", "0.", "x.1", "0.-1", "0." + "9" * 5000, "0.\u0661"):
        with pytest.raises(BadInput, match="not sent"):
            out.marked(other, 10.2)


@given(
    st.lists(
        st.tuples(st.sampled_from(["send", "mark", "clear", "echo"]), st.floats(0, 0.3)),
        max_size=40,
    )
)
def test_it_never_knows_more_than_was_sent(steps: list[tuple[str, float]]) -> None:
    out, now, names, sent = PlayOut(), 5.0, [], 0
    for what, pause in steps:
        now += pause
        match what:
            case "send":
                out.sent(320, now)
                sent += 40
            case "mark":
                names.append(out.mark())
            case "echo" if names:
                out.marked(names.pop(0), now)
            case "clear":
                lost = out.clear(now)
                assert 0 <= lost <= sent
                sent = 0
        assert 0 <= out.unheard_ms(now) <= sent


# --- what becomes of a call


def test_status_callbacks_in_any_order() -> None:
    progress = Progress(placed=True)
    assert progress.heard("queued") == []
    assert progress.heard("in-progress") == [Answered()]
    assert progress.heard("ringing") == []
    assert progress.heard("in-progress") == []
    assert progress.heard("completed", 200) == [Ended("caller_hung_up")]
    assert progress.heard("completed") == progress.heard("ringing") == []
    assert (progress.cause.hangup_cause, progress.cause.sip_code) == (16, 200)


def test_one_that_was_completed_had_been_answered() -> None:
    progress = Progress(placed=True)
    assert progress.heard("ringing") == [Rings()]
    assert progress.heard("completed") == [Answered(), Ended("caller_hung_up")]


@pytest.mark.parametrize(
    ("status", "sip_code", "result", "cause"),
    [
        ("busy", 486, Result.BUSY, 17),
        ("busy", 603, Result.REJECTED, 17),
        ("busy", None, Result.BUSY, 17),
        ("no-answer", 487, Result.NO_ANSWER, 19),
        ("canceled", None, Result.NO_ANSWER, 16),
        ("failed", 404, Result.INVALID_NUMBER, 1),
        ("failed", 503, Result.UNREACHABLE, 41),
        ("failed", None, Result.FAILED, None),
    ],
)
def test_results(status: str, sip_code: int | None, result: Result, cause: int | None) -> None:
    progress = Progress(placed=True)
    assert progress.heard(status, sip_code) == [Ended(result.value, result)]
    assert progress.cause.hangup_cause == cause


def test_a_caller_who_ends_has_hung_up() -> None:
    for status in ("completed", "no-answer", "canceled", "failed", "busy"):
        assert Progress(placed=False).heard(status) == [Ended("caller_hung_up")]


def test_who_has_answered() -> None:
    assert protocol.screened("human") == Screened("HUMAN", "human")
    assert protocol.screened("machine_end_beep") == Screened("MACHINE", "machine_end_beep")
    assert protocol.screened("unknown") == Screened("NOTSURE", "unknown")
    assert protocol.screened("") is None


# --- documents

DONE = Outcome(Status.COMPLETED, "agent_ended")
FAILED = Outcome(Status.FAILED, "agent_timeout")
END = CallEnd("session-1", "conv_1")
EVERYWHERE = Elsewhere(
    "https://ivr.example/next?queue=a&AGENT_STATUS=x", "+15550100009", "+15550100003"
)


def tree(document: str) -> ElementTree.Element:
    assert document.startswith("<?xml")
    return ElementTree.fromstring(document)


def after(outcome: Outcome, elsewhere: Elsewhere = EVERYWHERE, **more: Any) -> ElementTree.Element:
    ending = Ending(outcome, END, "+15550100001", {"TOPIC": "rain & <wind>"})
    document = tree(twiml.after(ending, elsewhere, dialled="https://x/after?a=1&b=2", **more))
    assert len(document) == 1
    return document[0]


def test_a_call_is_given_to_a_stream() -> None:
    document = tree(
        twiml.stream("wss://x/m/t", after="https://x/a", status="https://x/s", session_id='<&"')
    )
    connect = document[0]
    assert connect.attrib == {"action": "https://x/a", "method": "POST"}
    stream = connect[0]
    assert stream.attrib["url"] == "wss://x/m/t"
    assert stream[0].attrib == {"name": "session_id", "value": '<&"'}


def test_after_a_completed_call_comes_nothing() -> None:
    assert after(DONE).tag == "Hangup"


def test_after_a_failure_comes_the_fallback_with_what_is_known() -> None:
    redirect = after(FAILED)
    assert (redirect.tag, redirect.attrib) == ("Redirect", {"method": "POST"})
    query = urlsplit(redirect.text or "").query
    assert list(parse_qs(query)) == sorted(parse_qs(query))
    assert parse_qs(query) == {
        "AGENT_CONVERSATION_ID": ["conv_1"],
        "AGENT_REASON": ["agent_timeout"],
        "AGENT_SESSION_ID": ["session-1"],
        "AGENT_STATUS": ["FAILED"],
        "TOPIC": ["rain & <wind>"],
        "queue": ["a"],
    }
    number = after(FAILED, Elsewhere(None, "+15550100009"))
    assert (number.tag, number[0].tag, number[0].text) == ("Dial", "Number", "+15550100009")
    assert after(FAILED, Elsewhere()).tag == "Hangup"
    assert after(FAILED, placed=True).tag == "Hangup", "nobody else waits for them"


@pytest.mark.parametrize(
    ("to", "tag", "text"),
    [
        ("+15550100004", "Number", "+15550100004"),
        ("15550100004", "Number", "15550100004"),
        ("sales@pbx.example", "Sip", "sip:sales@pbx.example"),
    ],
)
def test_a_transfer(to: str, tag: str, text: str) -> None:
    for placed in (False, True):
        dial = after(Outcome(Status.TRANSFER, "agent_transfer", to), placed=placed)
        assert dial.attrib == {
            "answerOnBridge": "true",
            "timeout": "30",
            "callerId": "+15550100001",
            "action": "https://x/after?a=1&b=2",
            "method": "POST",
        }
        assert [(each.tag, each.text) for each in dial] == [(tag, text)]


def test_what_twilio_cannot_call_the_fallback_judges() -> None:
    redirect = after(Outcome(Status.TRANSFER, "agent_transfer", "2000"))
    assert parse_qs(urlsplit(redirect.text or "").query)["AGENT_TRANSFER_TO"] == ["2000"]
    assert after(Outcome(Status.TRANSFER, "agent_transfer", "2000"), Elsewhere()).tag == "Hangup"


def test_after_a_target_comes_the_end_or_the_fallback() -> None:
    ending = Ending(Outcome(Status.TRANSFER, "agent_transfer", "+15550100004"), END)
    assert tree(twiml.after_dial("completed", ending, EVERYWHERE))[0].tag == "Hangup"
    redirect = tree(twiml.after_dial("no-answer", ending, EVERYWHERE))[0]
    query = parse_qs(urlsplit(redirect.text or "").query)
    assert (query["AGENT_STATUS"], query["DIAL_STATUS"]) == (["TRANSFER"], ["no-answer"])


def test_a_refusal_does_not_answer_the_call() -> None:
    full = Ending(Outcome(Status.REJECTED, "at_capacity"), END)
    assert tree(twiml.refusal(full, Elsewhere()))[0].attrib == {"reason": "busy"}
    assert tree(twiml.refusal(full, EVERYWHERE))[0].tag == "Redirect"
    assert tree(twiml.refusal(Ending(DONE, END), EVERYWHERE))[0].tag == "Reject"


@given(st.text(max_size=50))
def test_any_text_makes_a_document(text: str) -> None:
    ending = Ending(Outcome(Status.TRANSFER, text, text), CallEnd(text, text), text, {"A": text})
    for elsewhere in (EVERYWHERE, Elsewhere()):
        tree(twiml.after(ending, elsewhere, dialled="https://x/"))
        tree(twiml.refusal(ending, elsewhere))
    tree(twiml.stream("wss://x", after="https://x", status="https://x", session_id=text))


# --- the address of a number's webhook


def test_its_parameters_become_agent_and_variables() -> None:
    own, variables, problems = read_query(
        "agent.language=de&agent_id=agent_7&b=%26&customer=Jane%20D&empty=&record=no"
    )
    assert own == OwnArguments("agent_7", recorded=False, overridden={"agent.language": "de"})
    assert variables == {"customer": "Jane D", "empty": "", "b": "&"}
    assert problems == ()


def test_what_they_cannot_set() -> None:
    own, variables, problems = read_query(
        "agent_id=a/b&caller_id=1&call_sid=2&called_number=3&system__x=4&9=5&a-b=6&bodySHA256=7&"
        f"long={'x' * 5000}"
    )
    assert (own, variables) == (OwnArguments(), {})
    assert len(problems) == 8
    assert not any("x" * 10 in problem for problem in problems)
