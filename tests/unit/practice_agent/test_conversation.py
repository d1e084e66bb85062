"""A conversation on virtual time: opening, turns, barge-in, endings."""

from __future__ import annotations

from typing import Any

import pytest

from lab.practice_agent import (
    AgentBook,
    ClientEvent,
    Delivery,
    Dialogue,
    Formats,
    Limits,
    Silence,
    Turn,
)
from lab.practice_agent.profile import DEFAULT_CLIENT_EVENTS
from tests.unit.practice_agent.stage import START, Stage, profile

HELLO = "Hello this is the practice agent"  # Three seconds.
INITIATION = "conversation_initiation_client_data"


def test_metadata_comes_first_with_all_its_fields() -> None:
    formats = Formats.model_validate({"user_input": "pcm_8000", "agent_output": "ulaw_8000"})
    stage = Stage(profile(greeting=HELLO, formats=formats))
    assert stage.sent[0] == (
        START,
        {
            "type": "conversation_initiation_metadata",
            "conversation_initiation_metadata_event": {
                "conversation_id": "conv_1",
                "agent_output_audio_format": "ulaw_8000",
                "user_input_audio_format": "pcm_8000",
            },
        },
    )


def test_a_greeting_leaves_in_bursts_faster_than_real_time() -> None:
    delivery = Delivery(chunk_ms=(1000,), speed=10, think_ms=0)
    stage = Stage(profile(greeting=HELLO, delivery=delivery))
    stage.run(1)
    assert stage.types() == [
        "conversation_initiation_metadata",
        "audio",
        "agent_response",
        "audio",
        "audio",
        "agent_response_complete",
    ]
    assert stage.times("audio") == pytest.approx([0.0, 0.1, 0.2])
    assert [body["is_final"] for body in stage.all("audio")] == [False, False, True]
    assert {body["event_id"] for body in stage.all("audio")} == {1}
    assert stage.all("agent_response") == [
        {
            "agent_response": HELLO,
            "event_id": 1,
            "response_id": "conv_1_r1",
            "response_type": "voice",
        }
    ]
    assert stage.all("agent_response_complete") == [{"event_id": 1}]
    assert stage.record.agent_audio_seconds == 3.0


def test_chunks_can_have_ids_of_their_own() -> None:
    delivery = Delivery(chunk_ms=(1000,), event_ids="per_chunk", think_ms=0)
    stage = Stage(profile("Good bye", greeting=HELLO, delivery=delivery))
    stage.hush(4)
    stage.say()
    assert [body["event_id"] for body in stage.all("audio")] == [1, 2, 3, 4]
    assert stage.all("user_transcript")[0]["event_id"] == 4


def test_without_initiation_it_starts_after_a_while() -> None:
    stage = Stage(profile(greeting=HELLO), initiate=False)
    stage.speak(0.4)
    assert stage.types() == []
    stage.run(0.6)
    assert stage.types()[0] == "conversation_initiation_metadata"
    assert stage.record.started_at == START + 1
    assert stage.record.user_audio_seconds == pytest.approx(0.4)


def test_a_late_initiation_still_gives_variables() -> None:
    stage = Stage(
        profile("Hi {{name}}", dialogue=dialogue("Hi {{name}}", variables={"name": "you"})),
        initiate=False,
    )
    stage.run(1.5)
    stage.send({"type": INITIATION, "dynamic_variables": {"name": "Jane"}})
    stage.say()
    assert stage.said == ["Hi Jane"]


def dialogue(*says: str, **fields: Any) -> Dialogue:
    turns = tuple(Turn(say=text) for text in says)
    return Dialogue.model_validate({"turns": turns, **fields})


def test_setup_of_an_enclave_may_come_first() -> None:
    stage = Stage(profile(greeting=HELLO), initiate=False)
    stage.send({"type": "enclave_setup_config"})
    stage.send({"type": INITIATION})
    stage.run(0)
    assert stage.said == [HELLO]


def test_it_answers_when_the_caller_has_stopped() -> None:
    stage = Stage(profile("first answer", "second", delivery=Delivery(think_ms=200)))
    stage.speak(1.0)
    assert stage.said == []
    stage.hush(0.6)
    assert stage.all("user_transcript") == [
        {"user_transcript": "(caller spoke for 1.0 s)", "event_id": 1}
    ]
    stage.hush(0.16)
    assert stage.said == []
    stage.hush(0.04)
    assert stage.said == ["first answer"]
    assert stage.all("agent_response")[0]["event_id"] == 1
    stage.hush(2)
    stage.say()
    assert stage.said == ["first answer", "second"]
    assert stage.all("user_transcript")[1]["event_id"] == 2
    assert stage.all("audio")[-1]["event_id"] == 2


def test_the_caller_may_go_on_before_the_answer_comes() -> None:
    stage = Stage(profile("first", "second", delivery=Delivery(think_ms=1000)))
    stage.speak(1.0)
    stage.hush(0.8)
    stage.speak(1.0)
    stage.hush(2.0)
    assert stage.said == ["first"]
    assert "interruption" not in stage.types()


def test_barge_in() -> None:
    story = " ".join(["word"] * 40)  # Twenty seconds.
    stage = Stage(profile(story, "yes", delivery=Delivery(chunk_ms=(1000,), speed=4, think_ms=0)))
    stage.say()
    answered_at = stage.times("audio")[0]
    stage.hush(2)
    sent_before = len(stage.all("audio"))
    assert 0 < sent_before < 20, "the answer is still being sent"
    stage.speak(1)
    assert len(stage.all("audio")) == sent_before + 1, "one more chunk before it was noticed"
    assert "agent_response_complete" not in stage.types()
    stage.hush(0.8)
    types = stage.types()
    after = types[types.index("interruption") :]
    assert after[:5] == [
        "interruption",
        "agent_response_correction",
        "user_transcript",
        "audio",
        "agent_response",
    ]
    interrupted = stage.all("interruption")[0]["event_id"]
    assert interrupted == stage.all("audio")[0]["event_id"]
    correction = stage.all("agent_response_correction")[0]
    assert correction["original_agent_response"] == story
    assert correction["event_id"] == interrupted
    assert correction["response_id"] == stage.all("agent_response")[0]["response_id"]
    heard_s = stage.times("interruption")[0] - answered_at
    words = correction["corrected_agent_response"].removesuffix("...").split()
    assert len(words) == int(heard_s / 0.5)
    assert stage.all("user_transcript")[-1]["event_id"] > interrupted
    assert stage.all("audio")[-1]["event_id"] > interrupted
    assert stage.said == [story, "yes"]
    assert stage.record.interruptions[0].heard == correction["corrected_agent_response"]


def test_speech_that_was_sent_but_not_played_can_be_interrupted() -> None:
    stage = Stage(profile("yes", greeting=HELLO))
    stage.hush(1)
    assert stage.types()[-1] == "agent_response_complete"
    stage.say()
    assert stage.all("agent_response_correction")[0]["corrected_agent_response"] == "Hello this..."
    assert stage.said == [HELLO, "yes"]


def test_speech_that_has_been_played_cannot_be_interrupted() -> None:
    stage = Stage(profile("yes", greeting=HELLO))
    stage.hush(3.2)
    stage.say()
    assert "interruption" not in stage.types()


def test_without_the_interruption_event_there_is_no_barge_in() -> None:
    events = DEFAULT_CLIENT_EVENTS - {ClientEvent.INTERRUPTION}
    stage = Stage(profile("yes", greeting=HELLO, client_events=events))
    stage.say(0.5)
    assert stage.said == [HELLO]
    assert "interruption" not in stage.types()
    stage.run(3)
    assert stage.said == [HELLO, "yes"]
    assert stage.times("audio")[-1] >= 3.0


def test_text_and_keys_are_turns() -> None:
    stage = Stage(profile("{{heard_text}} in {{heard_seconds}}", "two", greeting=HELLO))
    stage.run(1)
    stage.send({"type": "user_message", "text": "1234#", "source_medium": "dtmf"})
    stage.run(0.2)
    assert stage.said == [HELLO, "1234# in 0.0"]
    assert stage.types()[-6:] == [
        "interruption",
        "agent_response_correction",
        "audio",
        "agent_response",
        "audio",
        "agent_response_complete",
    ]
    assert "user_transcript" not in stage.types()
    stage.run(5)
    stage.send({"type": "multimodal_message", "text": {"type": "user_message", "text": "see file"}})
    stage.run(0)
    assert stage.said[-1] == "two"
    assert [line.text for line in stage.record.transcript if line.speaker == "caller"] == [
        "1234#",
        "see file",
    ]


def test_text_comes_too_early() -> None:
    stage = Stage(profile("yes"), initiate=False)
    stage.send({"type": "user_message", "text": "hello?"})
    stage.send({"type": "user_activity"})
    stage.run(2)
    assert stage.said == []


def test_text_while_thinking_replaces_the_turn() -> None:
    stage = Stage(profile("first", "second", delivery=Delivery(think_ms=500)))
    for _ in range(2):
        stage.send({"type": "user_message", "text": "hm"})
        stage.run(0.1)
    stage.run(5)
    assert stage.said == ["first"]


def test_messages_that_need_no_answer_are_kept() -> None:
    stage = Stage(profile())
    for message in (
        {"type": "contextual_update", "text": "on hold"},
        {"type": "feedback", "event_id": 1, "score": "dislike"},
        {"type": "mcp_tool_approval_result", "tool_call_id": "x", "is_approved": False},
        {"type": "user_message"},
    ):
        stage.send(message)
        assert stage.record.messages[-1] == message
    assert stage.ending is None
    assert stage.said == []


def test_optional_events() -> None:
    stage = Stage(profile("yes", client_events=frozenset(ClientEvent)))
    stage.say()
    assert stage.all("tentative_user_transcript") == [
        {"user_transcript": "(caller is speaking)", "event_id": 1}
    ]
    assert stage.all("user_transcript")[0]["event_id"] == 1
    scores = [body["vad_score"] for body in stage.all("vad_score")]
    assert 16 <= len(scores) <= 18
    assert scores[2] > 0.9
    assert scores[-1] == 0.0


def test_events_can_be_switched_off() -> None:
    stage = Stage(profile("yes", greeting=HELLO, client_events=frozenset()))
    stage.hush(4)
    stage.say()
    assert {message["type"] for _, message in stage.sent} == {"conversation_initiation_metadata"}
    assert [line.text for line in stage.record.transcript][-1] == "yes"


def test_text_only() -> None:
    for override in ({"text_only": True}, {"conversation": {"text_only": True}}):
        stage = Stage(profile("yes", greeting=HELLO), initiate=False)
        stage.send({"type": INITIATION, "conversation_config_override": override})
        stage.run(0)
        stage.send({"type": "user_message", "text": "hello"})
        stage.run(0)
        assert stage.said == [HELLO, "yes"]
        assert {body["response_type"] for body in stage.all("agent_response")} == {"text"}
        assert stage.types("agent_response")[-2:] == ["agent_response_complete"] * 2
        assert stage.all("audio") == []


def test_first_message_and_duration_can_be_overridden() -> None:
    stage = Stage(profile(greeting=HELLO), initiate=False)
    override = {
        "agent": {"first_message": "Hi Jane"},
        "conversation": {"max_duration_seconds": 30},
    }
    stage.send({"type": INITIATION, "conversation_config_override": override})
    stage.run(29.9)
    assert stage.said == ["Hi Jane"]
    assert stage.ending is None
    stage.run(0.1)
    assert stage.close_code == 1000
    assert stage.record.transcript[-1].speaker == "note"


def test_it_asks_a_silent_caller_twice() -> None:
    silence = Silence(after_seconds=5, say="Still there?", times=2)
    stage = Stage(profile(dialogue=dialogue("yes", when_silent=silence, first_message=HELLO)))
    stage.hush(7.9)
    assert stage.said == [HELLO]
    stage.send({"type": "user_activity"})
    stage.hush(4.9)
    assert stage.said == [HELLO]
    stage.hush(0.2)
    assert stage.said == [HELLO, "Still there?"]
    stage.hush(30)
    assert stage.said == [HELLO, "Still there?", "Still there?"]
    stage.say()
    stage.hush(6)
    assert stage.said[3:] == ["yes", "Still there?"]


def test_a_caller_who_speaks_is_not_silent() -> None:
    silence = Silence(after_seconds=2, say="Still there?")
    stage = Stage(profile(dialogue=dialogue("yes", when_silent=silence)))
    stage.speak(5)
    assert stage.said == []


def test_pings_and_pongs() -> None:
    stage = Stage(profile(limits=Limits(ping_seconds=2)))
    assert stage.all("ping") == [{"event_id": 1, "ping_ms": None}]
    stage.run(0.03)
    stage.send({"type": "pong", "event_id": 1})
    stage.send({"type": "pong", "event_id": 99})
    stage.run(2)
    assert stage.all("ping")[1] == {"event_id": 2, "ping_ms": 30}
    assert [pong.event_id for pong in stage.record.pongs] == [1, 99]
    assert stage.record.pongs[0].round_trip_s == pytest.approx(0.03)
    assert stage.record.pongs[1].round_trip_s is None


def test_a_pong_before_the_start_matches_nothing() -> None:
    stage = Stage(profile(), initiate=False)
    stage.send({"type": "pong", "event_id": 1})
    assert stage.record.pongs[0].round_trip_s is None


def test_a_client_that_sends_nothing_is_closed_with_1002() -> None:
    stage = Stage(profile(limits=Limits(receive_seconds=60)))
    stage.run(30)
    stage.hush(0.04)
    stage.send({"type": "pong", "event_id": 1})
    stage.run(59.9)
    stage.send({"type": "pong", "event_id": 2})
    assert stage.ending is None
    stage.run(0.2)
    assert stage.close_code == 1002
    assert stage.all("client_error") == [
        {
            "code": 1002,
            "error_name": "transport_receive_timeout",
            "message": "No user input was received in time.",
        }
    ]


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ("{nonsense", "invalid_message"),
        ({"type": "interrupt"}, "invalid_message"),
        ({"user_audio_chunk": "AAAA"}, "invalid_message"),
        ({"type": INITIATION}, "invalid_message"),
    ],
)
def test_garbage_is_answered_with_1008(frame: dict[str, Any] | str, error: str) -> None:
    stage = Stage(profile(greeting=HELLO))
    stage.send(frame)
    assert stage.close_code == 1008
    assert stage.all("client_error")[0]["error_name"] == error
    assert stage.record.error is not None
    stage.send({"user_audio_chunk": "AAA="})
    stage.send_binary()
    stage.run(60)
    assert stage.conversation.next_timer() is None
    assert stage.conversation.handle_timer(stage.now) == []


def test_binary_frames_are_answered_with_1008() -> None:
    stage = Stage(profile())
    stage.send_binary()
    assert stage.close_code == 1008


@pytest.mark.parametrize(
    ("initiation", "changes", "error"),
    [
        ({"dynamic_variables": {"system__x": 1}}, {}, "value_error"),
        (
            {"conversation_config_override": {"agent": {"language": "de"}}},
            {"allow_overrides": False},
            "override_error",
        ),
        (
            {"dynamic_variables": {"other": 1}},
            {"dialogue": dialogue("Hi {{name}}")},
            "missing_dynamic_variable",
        ),
    ],
)
def test_an_initiation_that_the_agent_refuses(
    initiation: dict[str, Any], changes: dict[str, Any], error: str
) -> None:
    stage = Stage(profile(**changes), initiate=False)
    stage.send({"type": INITIATION, **initiation})
    stage.run(0)
    assert stage.close_code == 1008
    assert stage.all("client_error")[0]["error_name"] == error
    assert "conversation_initiation_metadata" not in stage.types()


def test_an_agent_without_overrides_takes_an_empty_one() -> None:
    stage = Stage(profile(allow_overrides=False, greeting=HELLO), initiate=False)
    stage.send({"type": INITIATION, "conversation_config_override": {}})
    stage.run(0)
    assert stage.said == [HELLO]


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ("flat", {"type": "error", "message": "The message is not JSON."}),
        (
            "error",
            {
                "type": "error",
                "error_event": {
                    "code": 1008,
                    "error_type": "invalid_message",
                    "message": "The message is not JSON.",
                    "reason": "invalid_message",
                },
            },
        ),
    ],
)
def test_shapes_of_errors(style: str, message: dict[str, Any]) -> None:
    stage = Stage(profile(error_style=style))
    stage.send("?")
    assert stage.sent[-1][1] == message


def test_errors_can_be_silent() -> None:
    stage = Stage(profile(error_style="none"))
    stage.send("?")
    assert stage.types() == ["conversation_initiation_metadata"]
    assert stage.close_code == 1008


def test_the_end_of_the_call() -> None:
    turns = (Turn(say="Good bye Jane", end_call=True),)
    stage = Stage(profile(dialogue=Dialogue(turns=turns)))
    stage.say()
    stage.run(1)
    assert stage.types()[1:] == [
        "user_transcript",
        "audio",
        "agent_response",
        "audio",
        "agent_response_complete",
        "agent_tool_request",
        "agent_tool_response",
    ]
    response = stage.all("agent_tool_response")[0]
    assert (response["tool_name"], response["tool_type"], response["status"]) == (
        "end_call",
        "system",
        "success",
    )
    assert stage.close_code == 1000


def test_kept_audio_is_bounded() -> None:
    stage = Stage(profile())
    stage.hush(3)
    assert stage.record.user_audio_chunks == 75
    assert stage.record.user_audio_seconds == pytest.approx(3.0)
    assert len(stage.record.user_audio) == 25
    assert stage.record.user_audio[0].at == pytest.approx(START + 0.04)


def test_speech_that_was_rendered_too_late_is_not_said() -> None:
    stage = Stage(profile("yes", greeting=HELLO), initiate=False)
    stage.render_nothing = True
    stage.send({"type": INITIATION})
    stage.run(0)
    stage.send({"type": "user_message", "text": "wait"})
    stage.run(0)
    assert stage.all("interruption") == [{"event_id": 0}]
    assert stage.conversation.rendered(HELLO, b"\x00\x00", stage.now) == []
    assert stage.said == []
    effects = stage.conversation.rendered("yes", b"\x00\x00", stage.now)
    assert len(effects) == 4


def test_speech_rendered_after_the_end_is_not_said() -> None:
    stage = Stage(profile(), initiate=False)
    stage.send("?")
    assert stage.conversation.rendered("x", b"\x00\x00", stage.now) == []


def test_summary_is_plain() -> None:
    stage = Stage(profile("yes"))
    stage.say()
    summary = stage.record.summary()
    assert summary["user_audio_seconds"] == 1.8
    assert summary["close_code"] is None
    assert [line["speaker"] for line in summary["transcript"]] == ["caller", "agent"]


def test_the_built_in_reception_from_greeting_to_good_bye() -> None:
    reception = AgentBook.built_in().find("anything")
    assert reception is not None
    stage = Stage(reception, initiate=False)
    stage.send({"type": INITIATION, "dynamic_variables": {"customer_name": "Jane"}})
    for _ in range(4):
        stage.hush(20)
        stage.say()
    stage.hush(5)
    assert stage.close_code == 1000
    assert stage.said[0].startswith("Good morning Jane, this is")
    assert stage.said[-1].startswith("All right.")
    assert stage.record.error is None
