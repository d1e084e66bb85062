"""What is fuzzed: for each parser a function that takes bytes and raises for real faults only."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID

import orjson
from pydantic import BaseModel

from ari_app.agent.elevenlabs.client import initiation_for
from ari_app.agent.elevenlabs.codec import decode, encode
from ari_app.agent.elevenlabs.errors import MalformedMessage, UnsupportedFormat
from ari_app.agent.elevenlabs.protocol import AgentProtocol
from ari_app.agent.elevenlabs.server_messages import ServerMessage
from ari_app.agent.interface import Briefing
from ari_app.agent.precall import PreCallError, parse_answer
from ari_app.call.plan import CallPolicy
from ari_app.call.tools import SetVariable, read_tool_call
from ari_app.control.http.operations import OPERATIONS
from ari_app.control.http.problems import Problem
from ari_app.control.http.requests import InitiateCallRequest, validate
from ari_app.control.planner import Wish
from ari_app.json_text import NotJson, read_json
from ari_app.line.asterisk.ari.errors import AriMalformed
from ari_app.line.asterisk.ari.events import EVENTS, UnknownEvent, parse_event
from ari_app.line.asterisk.dial_string import dial_string
from ari_app.line.asterisk.dialplan import parse_arguments
from ari_app.line.dialer.api import DialerApi, DialerError, DialerOptions, read_answer
from ari_app.line.dialer.protocol import read_text
from ari_app.line.dialer.sound import CODINGS, Inflow
from ari_app.line.numbers import caller_id, check_caller, text_value, transfer_target
from ari_app.line.twilio.gateway import read_query
from ari_app.line.twilio.protocol import Marked, PlayOut, Stream
from ari_app.line.twilio.signature import read_form
from ari_app.line.websocket_input import BadInput
from ari_app.records.agent_report import NoReport, report_of
from ari_app.records.hiding import hide_in_part
from ari_app.records.record import CallFacts
from ari_app.records.webhooks.signing import BadSignature, SignatureCheck
from ari_app.tools.http_config import HttpTool
from ari_app.tools.http_tools import build_request
from ari_app.tools.tool import ToolAnswer
from audiosocket import frames as codec
from audiosocket.frames import Audio, Dtmf, Hangup, Identify, Kind, Message, ProtocolError
from lab.softphone.errors import SdpError, SipError
from lab.softphone.sdp import Session
from lab.softphone.sip import parse
from tests.unit.agent.elevenlabs.samples import SAMPLES
from tests.unit.hostile import HOSTILE
from tests.unit.line.asterisk.ari import samples as ari_samples

TALKING = orjson.dumps(SAMPLES[0])
POLICY = CallPolicy(settable_variables=frozenset({"TOPIC"}))
TOOL = HttpTool(
    name="ask",
    description="Asks.",
    url="https://crm.example/orders/{id}",
    method="GET",
    parameters={
        "type": "object",
        "properties": {"id": {"type": "string"}, "q": {}},
        "required": ["id"],
    },
)


@dataclass(frozen=True, slots=True)
class Target:
    """A parser.

    Attributes:
        name: What it is called on the command line.
        run: Tries an input; raises for a fault of the parser.
        seeds: Real inputs to begin with.
    """

    name: str
    run: Callable[[bytes], None]
    seeds: Sequence[bytes]


def audiosocket(data: bytes) -> None:
    """Any split of a stream gives the same messages and the same fault, and they encode back."""
    step = data[0] % 61 + 1 if data else 1
    whole, fault = _decoded([data])
    pieces, same_fault = _decoded([data[at : at + step] for at in range(0, len(data), step)])
    assert (whole, type(fault)) == (pieces, type(same_fault))
    # A phone may name A to D in lower case; what is handed on is upper case.
    back = b"".join(map(codec.encode, whole))
    assert data[: len(back)].upper() == back.upper()
    assert len(back) == len(data) or fault is not None or len(data) - len(back) <= 65538


def _decoded(pieces: Sequence[bytes]) -> tuple[list[Message], ProtocolError | None]:
    decoder = codec.Decoder()
    messages: list[Message] = []
    for piece in pieces:
        try:
            messages += decoder.feed(piece)
        except ProtocolError as error:
            return [*messages, *error.before], error
    return messages, None


def agent_messages(data: bytes) -> None:
    """A message is read, or refused by name; the conversation survives it, before and after."""
    with suppress(MalformedMessage):
        message = decode(data)
        if isinstance(message, ServerMessage):
            assert decode(encode(message)) == message
    for before in ([], [TALKING]):
        protocol = AgentProtocol()
        for each in before:
            protocol.receive(each)
        with suppress(UnsupportedFormat):
            protocol.receive(data)
        for owed in protocol.data_to_send():
            orjson.loads(owed)
        assert protocol.closed(1006).kind


def ari_events(data: bytes) -> None:
    """An event is read, or refused by name; a refusal repeats no value."""
    try:
        event = parse_event(data)
    except AriMalformed as error:
        assert len(str(error)) < 10_000
        return
    assert event.type in EVENTS or isinstance(event, UnknownEvent)
    repr(event)


BODIES: tuple[type[BaseModel], ...] = tuple(
    operation.body for operation in OPERATIONS if operation.body is not None
)


def http_bodies(data: bytes) -> None:
    """A body is taken or refused by name; what it asks Asterisk for is checked."""
    try:
        value = read_json(data)
    except NotJson:
        return
    for model in BODIES:
        try:
            taken = validate(value, model)
        except Problem as problem:
            assert problem.code == "invalid_request"
            problem.response("1")
            continue
        taken.model_dump_json()
        if isinstance(taken, InitiateCallRequest):
            _initiates(taken.to_wish())


def _initiates(wish: Wish) -> None:
    if wish.called_number is not None:
        with suppress(ValueError):
            dialled = dial_string("PJSIP/{number}@trunk", POLICY.number(wish.called_number))
            assert re.fullmatch(r"PJSIP/[0-9A-Za-z+*._-]+@trunk", dialled)
    if wish.caller_number is not None:
        with suppress(ValueError):
            assert caller_id(check_caller(wish.caller_number))


def stasis_arguments(data: bytes) -> None:
    """Nothing in them is an error, and names are names."""
    text = data.decode("utf-8", "replace")
    read = parse_arguments(text.split(","))
    assert read.agent_id is None or re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", read.agent_id)
    assert read.wait_seconds is None or 0 <= read.wait_seconds <= 3600
    for name, value in read.variables.items():
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name)
        assert not name.startswith("system__")
        # A comma in a value parts it, and so it is put together again.
        assert _bare(value) in _bare(text)


def _bare(text: str) -> str:
    return "".join(text.replace(",", "").split())


def precall_answers(data: bytes) -> None:
    """An answer is used, or refused by name."""
    try:
        answer = parse_answer(data)
    except PreCallError as error:
        assert error.code == "precall_malformed"
        assert len(str(error)) < 2000
        return
    told = Briefing("agent_7", {"call_sid": "1", **answer.variables}, answer.options)
    encode(initiation_for(told))


def tool_calls(data: bytes) -> None:
    """A tool's parameters fit or are refused; what becomes of them can do no harm."""
    try:
        parameters = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    if not isinstance(parameters, dict):
        return
    for name in ("transfer_call", "send_dtmf", "set_variable", "hold", str(parameters)):
        match read_tool_call(name, parameters, POLICY):
            case SetVariable(_, value):
                assert text_value(value) == value
                assert not set('\n\r\0"\\`${};|&<>') & set(value)
            case ToolAnswer(ends_with=outcome) if outcome is not None:
                to = outcome.transfer_to or ""
                assert transfer_target(to) == to
    _calls_http_tool(parameters)


def _calls_http_tool(parameters: dict[str, Any]) -> None:
    if not isinstance(parameters.get("id"), str):
        return
    with suppress(ValueError):
        request = build_request(TOOL, parameters, CallFacts())
        assert str(request.url.origin()) == "https://crm.example"
        path = request.url.raw_path
        assert path.removeprefix("/orders/") == quote(parameters["id"], safe="")
        assert not re.search(r"[\s\x00-\x1f]", str(request.url))


def sip_messages(data: bytes) -> None:
    """The phone of the lab reads a message or refuses it; what it reads it writes the same way."""
    with suppress(SipError):
        message = parse(data)
        with suppress(ValueError):
            again = parse(message.encode())
            assert again.headers.get("Call-ID") == message.headers.get("Call-ID")
            assert again.body == message.body
    with suppress(SdpError):
        Session.parse(data)


def twilio_messages(data: bytes) -> None:
    """Messages of a stream, a line each, are read or refused by name; so is a webhook's form."""
    text = data.decode("utf-8", "replace")
    stream, play_out = Stream(), PlayOut()
    play_out.sent(160, 1.0)
    play_out.mark()
    with suppress(BadInput):
        for line in text.split("\n"):
            if isinstance(said := stream.read(line), Marked):
                play_out.marked(said.name, 2.0)
    assert 0 <= play_out.unheard_ms(1.0) <= 20
    with suppress(BadInput):
        form = read_form(data)
        assert all(isinstance(value, str) for values in form.values() for value in values)
    _, variables, problems = read_query(text)
    assert not {"caller_id", "called_number", "call_sid"} & variables.keys()
    assert all("\n" not in problem for problem in problems)


def dialer_messages(data: bytes) -> None:
    """What a dialer says is read or refused by name; only hosts that are named are gone to."""
    text = data.decode("utf-8", "replace")
    inflow = Inflow("pcm_8000", 0.0)
    for at, line in enumerate(text.split("\n")):
        with suppress(BadInput):
            read_text(line)
            inflow.text_came(at / 50)
    for coding in CODINGS.values():
        with suppress(BadInput):
            assert len(coding.read(data)) * coding.sample_bytes == len(data) * 2
    api = DialerApi(DialerOptions("https://dialer.example/v1"))
    for wanted in (text, _url_in(data)):
        with suppress(DialerError):
            url = api.audio_url(wanted)
            assert (url.scheme, url.raw_host) == ("wss", "dialer.example")


def _url_in(answer: bytes) -> str:
    try:
        return read_answer(answer).url or ""
    except DialerError as error:
        assert error.code == "answer"
        assert len(str(error)) < 2000
        return ""


_UUID = UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
_MESSAGES: tuple[Message, ...] = (
    Identify(_UUID),
    Audio(Kind.SLIN8, bytes(320)),
    Dtmf("5"),
    Audio(Kind.SLIN16, b"\x01\x02" * 320),
    Hangup(),
)
_STREAM = b"".join(codec.encode(message) for message in _MESSAGES)
_DIALER: list[dict[str, str]] = [
    {"type": "digit", "digit": "5"},
    {"type": "hold"},
    {"type": "mark", "name": "2"},
    {"type": "target", "id": "1", "state": "lost", "result": "busy"},
    {"type": "hang_up", "reason": "gone"},
]
_AUDIO = {"url": "wss://dialer.example:9000/calls/1?token=2", "format": "ulaw_8000"}
_INITIATE = {
    "agent_id": "agent_7",
    "session_id": "lead-4711",
    "called_number": "+493023125001",
    "caller_number": "+49 30 23125002",
    "call_id": "1700000000.42",
    "dynamic_variables": {"customer_name": "Jane", "tier": 2, "vip": True},
    "conversation_config_override": {"agent": {"language": "de"}},
    "ring_timeout_seconds": 25,
    "amd": True,
    "wait_seconds": 1.5,
    "metadata": {"call_id": "1", "dynamic_variables": {"a": "b"}, "crm": [1, None]},
}
_BODIES: list[dict[str, Any]] = [
    _INITIATE,
    {"session_id": "lead-4711", "reason": "customer has paid"},
    {"to": "2000", "mode": "attended"},
    {"digits": "123#"},
    {"kind": "context", "text": "The customer has paid."},
    {"muted": True},
]
_EVENTS = [
    ari_samples.event("StasisStart", channel=ari_samples.channel(), args=["agent_id=a", "wait=3"]),
    ari_samples.event("StasisEnd", channel=ari_samples.channel()),
    ari_samples.event("ChannelDestroyed", channel=ari_samples.channel(), cause=16, tech_cause=200),
    ari_samples.event("ChannelDtmfReceived", channel=ari_samples.channel(), digit="5"),
    ari_samples.event(
        "ChannelEnteredBridge", channel=ari_samples.channel(), bridge=ari_samples.bridge()
    ),
    ari_samples.event("Dial", peer=ari_samples.channel(), dialstatus="RINGING"),
    ari_samples.event("ApplicationReplaced"),
    ari_samples.event("Unheard"),
]


def agent_reports(data: bytes) -> None:
    """What is kept of a webhook of the agent's service can be written, and is not large."""
    with suppress(NotJson, NoReport):
        report = report_of(read_json(data))
        if report is not None:
            written = orjson.dumps(hide_in_part("agent_report", report.value, ("numbers", "words")))
            assert b"\\u0000" not in written
            assert len(orjson.dumps(report.value)) < 300_000


_NOW = 1_700_000_000


def signatures(data: bytes) -> None:
    """Nobody makes up a signature."""
    try:
        check = SignatureCheck(data.decode("latin-1"), [b"nobody knows it"], _NOW)
        check.update(data)
        check.finish()
    except BadSignature as error:
        assert re.fullmatch("[a-z_]+", error.reason)
    else:
        raise AssertionError("it was believed")


_INVITE = (
    b"INVITE sip:100@127.0.0.1:5060 SIP/2.0\r\n"
    b"Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1;rport\r\n"
    b'From: "Jane \\"J\\"" <sip:jane@127.0.0.1>;tag=1\r\nTo: <sip:100@127.0.0.1>\r\n'
    b"Call-ID: a@b\r\nCSeq: 1 INVITE\r\nContact: <sip:jane@127.0.0.1:5070>\r\n"
    b"Content-Type: application/sdp\r\nContent-Length: 0\r\n\r\n"
)
_SDP = (
    b"v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n"
    b"a=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n"
)
_REPORTS = [
    {
        "type": "post_call_transcription",
        "event_timestamp": 1_700_000_000,
        "data": {
            "conversation_id": "conv_1",
            "status": "done",
            "metadata": {"cost": 3, "charging": {"llm": [1, 2.5, None]}},
            "analysis": {"data_collection_results": {"name": {"value": "Jane"}}},
        },
    },
    {
        "type": "post_call_transcription_otel",
        "data": {
            "conversation_id": "conv_1",
            "otlp_traces": {
                "resourceSpans": [
                    {
                        "scopeSpans": [
                            {
                                "spans": [
                                    {
                                        "name": "elevenlabs.conversation",
                                        "attributes": [
                                            {
                                                "key": "elevenlabs.analysis.data.name",
                                                "value": {"stringValue": "{'value': [1, 'x']}"},
                                            },
                                            {
                                                "key": "elevenlabs.session.duration_ms",
                                                "value": {"intValue": "61000"},
                                            },
                                        ],
                                    }
                                ]
                            }
                        ]
                    }
                ]
            },
        },
    },
    {"type": "call_initiation_failure", "data": {"conversation_id": "c", "failure_reason": "busy"}},
]
_CALL = {"streamSid": "MZ" + "0" * 32, "sequenceNumber": "1"}
_START = {
    "streamSid": "MZ" + "0" * 32,
    "accountSid": "AC" + "0" * 32,
    "callSid": "CA" + "0" * 32,
    "tracks": ["inbound"],
    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    "customParameters": {"session_id": "s"},
}
_MEDIA = {"track": "inbound", "chunk": "1", "timestamp": "100", "payload": "//8="}
_TWILIO = [
    {"event": "connected", "protocol": "Call", "version": "1.0.0"},
    {"event": "start", **_CALL, "start": _START},
    {"event": "media", **_CALL, "media": _MEDIA},
    {"event": "dtmf", **_CALL, "dtmf": {"track": "inbound_track", "digit": "1"}},
    {"event": "mark", **_CALL, "mark": {"name": "0.1"}},
    {"event": "stop", **_CALL, "stop": {"accountSid": "AC0", "callSid": "CA0"}},
]
_HOSTILE = [text.encode("utf-8", "replace") for text in HOSTILE.values()]


def _json(trees: Sequence[object]) -> list[bytes]:
    return [orjson.dumps(tree) for tree in trees]


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("audiosocket", audiosocket, [_STREAM, _STREAM[:25]]),
        Target("agent_messages", agent_messages, _json(SAMPLES)),
        Target("ari_events", ari_events, _json(_EVENTS)),
        Target("http_bodies", http_bodies, _json(_BODIES)),
        Target(
            "stasis_arguments",
            stasis_arguments,
            [b"agent_id=agent_7,wait=30,customer_name=Jane,system__x=1", *_HOSTILE],
        ),
        Target(
            "precall_answers",
            precall_answers,
            _json(
                [
                    {
                        "type": "conversation_initiation_client_data",
                        "agent_id": "agent_7",
                        "dynamic_variables": {"a": "b", "n": 2, "f": 0.5},
                        "conversation_config_override": {"agent": {"first_message": "Hi."}},
                        "user_id": "u1",
                    }
                ]
            ),
        ),
        Target(
            "tool_calls",
            tool_calls,
            _json(
                [
                    {"to": "+493023125001", "mode": "attended"},
                    {"digits": "12#w"},
                    {"name": "TOPIC", "value": "invoice 17, urgent"},
                    {"id": "A-1", "q": ["x", 1]},
                    *({"to": t, "value": t, "name": "TOPIC", "id": t} for t in HOSTILE.values()
                      if t.isprintable()),
                ]
            ),
        ),
        Target("agent_reports", agent_reports, _json(_REPORTS)),
        Target(
            "signatures",
            signatures,
            [f"t={_NOW},v1={64 * 'a'}".encode(), f"t={_NOW},v0={64 * '0'},v1=x".encode()],
        ),
        Target(
            "twilio_messages",
            twilio_messages,
            [
                b"\n".join(_json(_TWILIO)),
                b"agent_id=agent_7&customer_name=Jane%20D&CallSid=CA0&FromCity=",
                *_json(_TWILIO),
            ],
        ),
        Target(
            "dialer_messages",
            dialer_messages,
            [
                b"\n".join(_json(_DIALER)),
                *_json([*_DIALER, _AUDIO]),
                _AUDIO["url"].encode(),
                bytes(320),
            ],
        ),
        Target("sip_messages", sip_messages, [_INVITE, _INVITE + _SDP, _SDP]),
    )
}  # fmt: skip
"""Every target by its name."""
