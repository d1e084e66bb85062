from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.agent import interface as e
from ari_app.agent.elevenlabs import server_messages
from ari_app.agent.elevenlabs.closing import CloseKind
from ari_app.agent.elevenlabs.errors import UnsupportedFormat
from ari_app.agent.elevenlabs.protocol import (
    AgentProtocol,
    ConversationStarted,
    Garbled,
    Other,
    ProtocolEvent,
)
from ari_app.audio.formats import AGENT_FORMATS
from tests.unit.agent.elevenlabs.samples import BY_TYPE, SAMPLES


def wire(kind: str, **payload: Any) -> str:
    return json.dumps({"type": kind, server_messages.SERVER_MESSAGES[kind].payload_key: payload})


def metadata(output: str = "pcm_16000", user: str = "pcm_16000") -> str:
    return wire(
        "conversation_initiation_metadata",
        conversation_id="conv_1",
        agent_output_audio_format=output,
        user_input_audio_format=user,
    )


def audio(event_id: int | None, data: bytes = b"\1\2", **more: Any) -> str:
    fields = {"audio_base_64": base64.b64encode(data).decode(), **more}
    if event_id is not None:
        fields["event_id"] = event_id
    return wire("audio", **fields)


def interruption(event_id: int) -> str:
    return wire("interruption", event_id=event_id)


def running(**options: Any) -> AgentProtocol:
    protocol = AgentProtocol(**options)
    protocol.receive(metadata())
    return protocol


def tool_response(name: str = "end_call", **fields: Any) -> str:
    return wire("agent_tool_response", tool_name=name, **{"tool_call_id": "t1", **fields})


def test_the_metadata_start_the_conversation() -> None:
    protocol = AgentProtocol()
    started, other = protocol.receive(metadata("pcm_24000", "ulaw_8000"))
    assert started == ConversationStarted("conv_1", "ulaw_8000", "pcm_24000")
    assert protocol.started == started
    assert isinstance(other, Other)
    assert isinstance(other.message, server_messages.InitiationMetadata)


@pytest.mark.parametrize("name", sorted(AGENT_FORMATS))
def test_every_documented_format_is_taken(name: str) -> None:
    assert AgentProtocol().receive(metadata(name, name))[0] == ConversationStarted(
        "conv_1", name, name
    )


@pytest.mark.parametrize(
    ("output", "user"), [("opus_48000", "pcm_16000"), ("pcm_16000", "alaw_8000")]
)
def test_an_unknown_format_is_a_clear_error(output: str, user: str) -> None:
    with pytest.raises(UnsupportedFormat, match=r"'(opus_48000|alaw_8000)'; known are") as caught:
        AgentProtocol().receive(metadata(output, user))
    assert caught.value.code == "agent_unsupported_format"


def test_second_metadata_change_nothing() -> None:
    protocol = running()
    assert protocol.receive(metadata("opus_48000")) == []
    assert protocol.started == ConversationStarted("conv_1", "pcm_16000", "pcm_16000")


def test_what_comes_before_the_metadata_is_held_in_order() -> None:
    protocol = AgentProtocol()
    transcript = wire("user_transcript", user_transcript="hi", event_id=1)
    assert protocol.receive(audio(1)) == []
    assert protocol.receive(transcript) == []
    assert protocol.receive("garbage") == []
    _, _, *held = protocol.receive(metadata())
    assert held == [
        e.Spoke(1, b"\1\2"),
        e.CallerSaid("hi", 1),
        Garbled("not_json", "malformed message from the agent: not_json"),
    ]
    assert protocol.receive(audio(2)) == [e.Spoke(2, b"\1\2")]


def test_a_ping_before_the_metadata_is_answered_at_once() -> None:
    protocol = AgentProtocol()
    protocol.receive(wire("ping", event_id=7, ping_ms=None))
    owed = [protocol.data_to_send(), protocol.data_to_send()]
    assert owed == [[b'{"type":"pong","event_id":7}'], []]


def test_an_interruption_overtakes_held_audio() -> None:
    protocol = AgentProtocol()
    for message in (audio(1), audio(2), interruption(1)):
        protocol.receive(message)
    _, _, *held = protocol.receive(metadata())
    assert held == [e.Spoke(2, b"\1\2"), e.Interrupted(1)]


def test_what_is_held_is_bounded_by_bytes() -> None:
    protocol = AgentProtocol(max_held_bytes=5)
    for event_id in (1, 2, 3):
        protocol.receive(audio(event_id))
    protocol.receive(interruption(1))
    protocol.receive(audio(4))
    _, _, *held = protocol.receive(metadata())
    assert held == [
        e.Spoke(2, b"\1\2"),
        e.Interrupted(1),
        e.Spoke(4, b"\1\2"),
    ]


def test_long_texts_that_are_held_count_as_well() -> None:
    protocol = AgentProtocol(max_held_bytes=10_000)
    for _ in range(3):
        said = {
            "type": "user_transcript",
            "user_transcription_event": {"user_transcript": "x" * 4500},
        }
        protocol.receive(json.dumps(said))
    _, _, *held = protocol.receive(metadata())
    assert len(held) == 2


def test_what_is_held_is_bounded_by_number() -> None:
    protocol = AgentProtocol(max_held_events=2)
    for _ in range(5):
        protocol.receive(wire("queue_status", status="waiting"))
    assert len(protocol.receive(metadata())) == 2 + 2


def test_audio_up_to_the_interruption_is_overtaken() -> None:
    protocol = running()
    assert protocol.receive(audio(4)) == [e.Spoke(4, b"\1\2")]
    assert protocol.receive(interruption(5)) == [e.Interrupted(5)]
    assert protocol.receive(audio(4)) == []
    assert protocol.receive(audio(5, b"123")) == []
    assert protocol.receive(audio(6)) == [e.Spoke(6, b"\1\2")]


def test_what_answers_a_text_of_ours_may_bear_the_id_of_the_interruption_that_it_was() -> None:
    protocol = running()
    protocol.receive(audio(4))
    protocol.asked()
    assert protocol.receive(interruption(5)) == [e.Interrupted(5)]
    assert protocol.receive(audio(4)) == []
    assert protocol.receive(audio(5)) == [e.Spoke(5, b"\1\2")]
    assert protocol.receive(interruption(6)) == [e.Interrupted(6)]
    assert protocol.receive(audio(6)) == []


@pytest.mark.parametrize(
    "before", [audio(7), wire("agent_response", agent_response="A", event_id=7)]
)
def test_the_rest_of_what_a_text_of_ours_has_interrupted_is_not_heard(before: str) -> None:
    protocol = running()
    protocol.receive(before)
    protocol.asked()
    protocol.receive(interruption(7))
    assert protocol.receive(audio(7)) == []


def test_without_an_interruption_no_id_is_too_low() -> None:
    protocol = running()
    assert protocol.receive(audio(0)) == [e.Spoke(0, b"\1\2")]
    assert protocol.receive(audio(-3)) == [e.Spoke(-3, b"\1\2")]


def test_a_later_interruption_replaces_an_earlier_one() -> None:
    protocol = running()
    protocol.receive(interruption(9))
    protocol.receive(interruption(3))
    assert protocol.receive(audio(4)) == [e.Spoke(4, b"\1\2")]


def test_an_interruption_without_an_id_means_all_so_far() -> None:
    protocol = running()
    assert protocol.receive(wire("interruption", reason="user")) == [e.Interrupted(0)]
    protocol.receive(audio(8))
    assert protocol.receive(wire("interruption", reason="user")) == [e.Interrupted(8)]
    assert protocol.receive(audio(8)) == []
    protocol.receive(interruption(12))
    assert protocol.receive(wire("interruption", reason="user")) == [e.Interrupted(12)]


def test_audio_without_an_id_never_looks_overtaken() -> None:
    protocol = running()
    assert protocol.receive(audio(None)) == [e.Spoke(0, b"\1\2")]
    protocol.receive(audio(6))
    assert protocol.receive(audio(None)) == [e.Spoke(6, b"\1\2")]
    protocol.receive(interruption(9))
    assert protocol.receive(audio(None)) == [e.Spoke(10, b"\1\2")]


def test_every_ping_gets_its_pong() -> None:
    protocol = running()
    for event_id, ping_ms in ((1, None), ("2", 35)):
        assert protocol.receive(wire("ping", event_id=event_id, ping_ms=ping_ms)) == []
    assert [json.loads(data) for data in protocol.data_to_send()] == [
        {"type": "pong", "event_id": 1},
        {"type": "pong", "event_id": 2},
    ]


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("user_transcript", e.CallerSaid("Hello", 4)),
        ("agent_response", e.AgentSaid("Hi, how can I help?", 5)),
        ("agent_response_correction", e.AgentCorrected("A long text", "A long", 5)),
        ("agent_response_complete", e.ResponseComplete(5)),
        ("client_tool_call", e.ToolCalled("transfer_call", "tc1", {"to": "200"}, True, 6)),
        (
            "audio",
            e.Spoke(3, b"\x00\x01\x02\xff", True),
        ),
        ("agent_tool_response_full_payload", e.TheirToolEnded("lookup", "tc2", "error", True)),
    ],
)
def test_messages_with_an_event_of_their_own(kind: str, event: e.AgentEvent) -> None:
    assert running().receive(json.dumps(BY_TYPE[kind])) == [event]


@pytest.mark.parametrize(
    "kind",
    [
        "queue_status",
        "client_error",
        "error",
    ],
)
def test_all_others_are_passed_on_whole(kind: str) -> None:
    (event,) = running().receive(json.dumps(BY_TYPE[kind]))
    assert isinstance(event, Other)
    assert isinstance(event.message, server_messages.SERVER_MESSAGES[kind])


def test_end_call_is_announced_once_after_the_tools_own_event() -> None:
    protocol = running()
    assert protocol.receive(json.dumps(BY_TYPE["agent_tool_response"])) == [
        e.TheirToolEnded("end_call", "end_1", "success", False),
        e.Ending(),
    ]
    assert protocol.call_ending
    assert protocol.receive(tool_response(tool_call_id="again", status="success")) == [
        e.TheirToolEnded("end_call", "again", "success", False)
    ]
    assert protocol.closed(1006).kind is CloseKind.AGENT_ENDED


def test_a_tool_call_that_is_told_twice_is_reported_once() -> None:
    def call(tool_call_id: str, event_id: int | None, to: str = "200") -> str:
        return wire(
            "client_tool_call",
            tool_name="transfer_call",
            tool_call_id=tool_call_id,
            parameters={"to": to},
            event_id=event_id,
        )

    protocol = running()
    assert protocol.receive(call("tc1", 6)) == [
        e.ToolCalled("transfer_call", "tc1", {"to": "200"}, True, 6)
    ]
    (event,) = protocol.receive(call("tc1", 6))
    assert isinstance(event, Other)
    # Others are called by other ids, or in another response.
    for tool_call_id, event_id in (("tc2", 6), ("tc1", 7), ("tc1", None), ("tc1", None)):
        (event,) = protocol.receive(call(tool_call_id, event_id))
        assert isinstance(event, e.ToolCalled)
    assert isinstance(protocol.receive(call("tc1", 6, "201"))[0], e.ToolCalled)
    assert isinstance(running().receive(call("tc1", 6))[0], e.ToolCalled)


def test_the_full_form_of_the_same_response_is_not_reported_twice() -> None:
    protocol = running()
    protocol.receive(tool_response(status="success"))
    (event,) = protocol.receive(
        wire(
            "agent_tool_response_full_payload",
            tool_name="end_call",
            tool_call_id="t1",
            full_tool_result="bye",
        )
    )
    assert isinstance(event, Other)


@pytest.mark.parametrize(
    ("fields", "status", "ends"),
    [
        ({}, "success", True),
        ({"is_error": True}, "error", False),
        ({"status": "error", "is_error": True}, "error", False),
        ({"status": "blocked"}, "blocked", False),
        ({"status": "skipped"}, "skipped", False),
    ],
)
def test_only_a_successful_end_call_ends(fields: dict[str, Any], status: str, ends: bool) -> None:
    protocol = running()
    first, *rest = protocol.receive(tool_response(**fields))
    assert isinstance(first, e.TheirToolEnded)
    assert first.status == status
    assert bool(rest) is ends is protocol.call_ending


def test_another_tool_ends_nothing() -> None:
    protocol = running()
    assert protocol.receive(tool_response("skip_turn", status="success")) == [
        e.TheirToolEnded("skip_turn", "t1", "success", False)
    ]
    assert not protocol.call_ending


def test_an_unknown_type_is_passed_on_by_its_name() -> None:
    (event,) = running().receive('{"type":"new"}')
    assert event == Other(server_messages.Unknown("new"))


def test_garbage_is_counted_and_survived() -> None:
    protocol = running()
    (event,) = protocol.receive(b"\xff")
    assert isinstance(event, Garbled)
    assert protocol.malformed == 1
    assert protocol.receive(audio(1)) == [e.Spoke(1, b"\1\2")]


@pytest.mark.parametrize(
    ("sent", "code", "reason", "kind"),
    [
        ([], 1000, "", CloseKind.AGENT_ENDED),
        ([json.dumps(BY_TYPE["client_error"])], 1002, "", CloseKind.LLM_TIMEOUT),
        ([json.dumps(BY_TYPE["error"])], 1008, "", CloseKind.OVERRIDE_ERROR),
        (
            ['{"type":"error","message":"received 1002 … exceeds your quota limit"}'],
            1002,
            "",
            CloseKind.QUOTA,
        ),
        ([json.dumps(BY_TYPE["client_error"]), audio(1)], 1006, "", CloseKind.LOST),
        (
            [json.dumps(BY_TYPE["client_error"]), json.dumps(BY_TYPE["agent_response"])],
            1006,
            "",
            CloseKind.LOST,
        ),
        ([wire("queue_status", status="timed_out")], 1000, "", CloseKind.QUEUE_TIMEOUT),
        (
            [wire("queue_status", status="waiting"), wire("queue_status", status="admitted")],
            1000,
            "",
            CloseKind.AGENT_ENDED,
        ),
    ],
)
def test_the_close_is_explained_by_what_came_before(
    sent: list[str], code: int, reason: str, kind: CloseKind
) -> None:
    protocol = running()
    for message in sent:
        protocol.receive(message)
    assert protocol.closed(code, reason).kind is kind
    assert protocol.closed(code, reason, local=True).kind is CloseKind.LOCAL


def test_an_error_without_words_has_an_empty_text() -> None:
    assert server_messages.Error().text == ""
    assert server_messages.ClientError(code=1).text == ""


# All but audio, interruption and the metadata, which the test makes itself.
_OTHERS = [sample for sample in SAMPLES[1:] if sample["type"] not in ("audio", "interruption")]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("audio"), st.integers(0, 6), st.binary(max_size=6)),
            st.tuples(st.just("interruption"), st.integers(0, 6), st.just(b"")),
            st.tuples(st.just("metadata"), st.just(0), st.just(b"")),
            st.tuples(st.just("sample"), st.integers(0, len(_OTHERS) - 1), st.just(b"")),
            st.tuples(st.just("garbage"), st.just(0), st.binary(max_size=6)),
        ),
        max_size=30,
    )
)
def test_no_order_of_messages_breaks_the_rules(steps: list[tuple[str, int, bytes]]) -> None:
    protocol, narrow = AgentProtocol(), AgentProtocol(max_held_bytes=12, max_held_events=8)
    seen: list[ProtocolEvent] = []
    seen_narrowly: list[ProtocolEvent] = []
    due: list[e.Spoke] = []
    overtaken = -1
    for kind, number, data in steps:
        match kind:
            case "audio":
                message: str | bytes = audio(number, data)
                if number > overtaken:
                    due.append(e.Spoke(number, data))
            case "interruption":
                message, overtaken = interruption(number), number
                if protocol.started is None:
                    due = [spoke for spoke in due if spoke.event_id > number]
            case "metadata":
                message = metadata()
            case "sample":
                message = json.dumps(_OTHERS[number])
            case _:
                message = data
        seen += protocol.receive(message)
        seen_narrowly += narrow.receive(message)
    if protocol.started is None:
        assert seen == seen_narrowly == []
        return
    assert [event for event in seen if isinstance(event, e.Spoke)] == due
    for events in (seen, seen_narrowly):
        assert isinstance(events[0], ConversationStarted)
        assert sum(isinstance(event, ConversationStarted) for event in events) == 1
    last = None
    for event in seen:
        if isinstance(event, e.Interrupted):
            last = event.event_id
        elif isinstance(event, e.Spoke):
            assert last is None or event.event_id > last
    # What there was no room for is missing, be it an interruption; nothing comes out of its order.
    rest = iter(due)
    assert all(event in rest for event in seen_narrowly if isinstance(event, e.Spoke))
