from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.agent.elevenlabs.client_messages import ConfigOverride
from ari_app.line.arguments import NAMES
from ari_app.line.asterisk.dialplan import (
    CallArguments,
    moved_arguments,
    parse_arguments,
    read_moved,
)
from ari_app.line.interface import CallLimits

LIMITS = {"call_timeout_seconds", "no_speech_timeout_seconds"}


def test_agent_wait_and_variables() -> None:
    arguments = parse_arguments(["agent_id=agent_7", " wait = 30 ", "customer_name=Jane = J", ""])
    assert arguments == CallArguments("agent_7", 30.0, None, {"customer_name": "Jane = J"})


def test_what_of_the_agent_is_otherwise_and_how_long_the_call_may_be() -> None:
    assert parse_arguments(
        [
            "agent.language=de",
            "tts.voice_id=v1",
            "tts.speed=1.1",
            "call_timeout_seconds=90",
            "no_speech_timeout_seconds=0",
            "agent.first_message=Guten Tag",
            " wer spricht?",
            "tier=2",
        ]
    ) == CallArguments(
        variables={"tier": "2"},
        overrides={
            "agent": {"language": "de", "first_message": "Guten Tag, wer spricht?"},
            "tts": {"voice_id": "v1", "speed": 1.1},
        },
        limits=CallLimits(90.0, 0.0),
        problems=("argument 7 is taken as more of agent.first_message: put its value in quotes",),
    )


@pytest.mark.parametrize("name", sorted(NAMES - {"agent_id", "record"} - LIMITS))
def test_every_override_is_one_that_elevenlabs_has(name: str) -> None:
    overrides = parse_arguments([f"{name}=1"]).overrides
    told = ConfigOverride.model_validate(overrides).model_dump(mode="json", exclude_none=True)
    assert told == overrides != {}


def test_a_first_message_may_have_a_callers_own_words_in_it() -> None:
    said = ["agent.first_message=Hello DOE", "agent.language=xx", "agent_id=x"]
    arguments = parse_arguments(said)
    assert arguments.overrides == {"agent": {"first_message": "Hello DOE"}}
    assert arguments.agent_id is None
    assert len(arguments.problems) == 2


@pytest.mark.parametrize(("said", "recorded"), [("yes", True), ("No", False)])
def test_whether_the_call_is_recorded(said: str, recorded: bool) -> None:
    arguments = parse_arguments([f"record={said}", "tier=2"])
    assert arguments == CallArguments(recorded=recorded, variables={"tier": "2"})


def test_nothing_given() -> None:
    assert parse_arguments([]) == CallArguments()
    assert parse_arguments(["agent_id="]).agent_id is None


@pytest.mark.parametrize(
    ("argument", "problem"),
    [
        ("human", "argument 1 is not name=value"),
        ("two words=1", "argument 1 has a name that is not letters, digits and _"),
        ("wait=soon", "wait is not a number of seconds from 0 to 3600"),
        ("wait=3601", "wait is not a number of seconds from 0 to 3600"),
        ("record=perhaps", "record is not yes or no"),
        ("tts.voice_id=a b", "tts.voice_id is not letters, digits and _ . : -, 128 at most"),
        ("tts.speed=fast", "tts.speed is not a number"),
        (
            f"agent.first_message={'x' * 5000}",
            "agent.first_message is not a text of at most 4096 characters",
        ),
        ("agent.tools=x", "argument 1 has a name that is not letters, digits and _"),
        (
            "call_timeout_seconds=0",
            "call_timeout_seconds is not a number of seconds above 0, 86400 at most",
        ),
        (
            "no_speech_timeout_seconds=90000",
            "no_speech_timeout_seconds is not a number of seconds from 0 to 86400",
        ),
        ("system__time=1", "system__time: names that begin with system__ belong to ElevenLabs"),
    ],
)
def test_what_cannot_be_used_is_named_and_left_out(argument: str, problem: str) -> None:
    arguments = parse_arguments([argument, "tier=2"])
    assert arguments.problems == (problem,)
    assert arguments.variables == {"tier": "2"}


def test_a_name_with_a_comma_is_kept_whole() -> None:
    arguments = parse_arguments(["agent_id=a", "customer_name=DOE", " JANE", "x y=1 ", "tier=2"])
    assert arguments.variables == {"customer_name": "DOE, JANE,x y=1", "tier": "2"}
    assert arguments.problems == (
        "argument 3 is taken as more of customer_name: put its value in quotes",
        "argument 4 is taken as more of customer_name: put its value in quotes",
    )


OWN = [
    "agent_id=agent_evil",
    "wait=20",
    "record=no",
    "agent.language=de",
    "call_timeout_seconds=9",
    "caller_id=1",
    "called_number=2",
    "call_sid=3",
]


@pytest.mark.parametrize("argument", OWN)
def test_what_comes_after_a_variable_cannot_set_our_own_names(argument: str) -> None:
    name, _, value = argument.partition("=")
    arguments = parse_arguments(["customer_name=DOE", argument, "tier=2"])
    assert arguments.variables == {"customer_name": "DOE", "tier": "2"}
    assert arguments.overrides == {} and arguments.limits == CallLimits()
    assert (arguments.agent_id, arguments.wait_seconds, arguments.recorded) == (None, None, None)
    (problem,) = arguments.problems
    assert problem.startswith(f"{name} comes after customer_name")
    assert value not in problem.replace(name, "")

    assert parse_arguments([argument, "customer_name=DOE"]).problems == ()
    as_before = parse_arguments(["own_names=anywhere", "customer_name=DOE", argument])
    assert as_before.problems == ()
    assert as_before != parse_arguments(["customer_name=DOE"])


def test_a_variables_text_cannot_say_that_our_own_names_may_stand_anywhere() -> None:
    arguments = parse_arguments(["customer_name=DOE", "own_names=anywhere", "wait=20"])
    assert arguments.wait_seconds is None


@given(st.lists(st.text(max_size=40), max_size=10))
def test_no_argument_raises(args: list[str]) -> None:
    arguments = parse_arguments(args)
    assert len(arguments.problems) + len(arguments.variables) <= len(args)


@given(st.lists(st.text()), st.booleans())
def test_a_moved_channel_brings_its_arguments_as_they_were(args: list[str], room: bool) -> None:
    # As Asterisk splits them, whatever is in them.
    arrived = moved_arguments(args, has_room=room).split(",")
    assert read_moved(arrived) == (args, room)


@pytest.mark.parametrize("args", [(), ("agent_id=agent_7",), ("name=%",)])
def test_one_that_was_not_moved_is_told_apart(args: tuple[str, ...]) -> None:
    assert read_moved(args) is None
