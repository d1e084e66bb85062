"""Whatever comes, in whatever order, the agent keeps to the protocol."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from lab.practice_agent import ClientEvent, Dialogue, Queue, Silence, ToolCall, Turn
from lab.practice_agent.profile import DEFAULT_CLIENT_EVENTS
from tests.unit.practice_agent.stage import Stage, profile

DIALOGUE = Dialogue(
    first_message="Good morning to you",
    turns=(
        Turn(say="This answer takes five seconds to say, so it can be interrupted"),
        Turn(say="One moment", tool=ToolCall(name="t", timeout_seconds=2, say_on_success="Done")),
        Turn(say="Good bye", end_call=True),
    ),
    after_last="start_again",
    when_silent=Silence(after_seconds=4),
)


def tool_result(stage: Stage) -> None:
    """Answer the last tool call, whether or not somebody waits."""
    calls = stage.all("client_tool_call")
    if calls:
        tool_call_id = calls[-1]["tool_call_id"]
        stage.send({"type": "client_tool_result", "tool_call_id": tool_call_id, "result": "x"})


Action = Callable[[Stage], None]
ACTIONS: dict[str, Action] = {
    "speak": lambda stage: stage.speak(0.4),
    "hush": lambda stage: stage.hush(0.8),
    "nothing": lambda stage: stage.run(1.5),
    "write": lambda stage: stage.send({"type": "user_message", "text": "hello"}),
    "initiate": lambda stage: stage.send({"type": "conversation_initiation_client_data"}),
    "tool result": tool_result,
    "activity": lambda stage: stage.send({"type": "user_activity"}),
    "pong": lambda stage: stage.send({"type": "pong", "event_id": 1}),
}


@given(
    actions=st.lists(st.sampled_from(sorted(ACTIONS)), max_size=25),
    barge_in=st.booleans(),
    queued=st.booleans(),
)
def test_the_protocol_holds(actions: list[str], barge_in: bool, queued: bool) -> None:
    events = DEFAULT_CLIENT_EVENTS - (set() if barge_in else {ClientEvent.INTERRUPTION})
    queue = Queue(seconds=2) if queued else None
    stage = Stage(profile(dialogue=DIALOGUE, client_events=events, queue=queue), initiate=False)
    for action in actions:
        ACTIONS[action](stage)
    stage.run(0)

    messages = [message for _, message in stage.sent]
    metadata = [m["type"] == "conversation_initiation_metadata" for m in messages]
    assert sum(metadata) <= 1
    assert not messages or metadata[0] or messages[0]["type"] == "client_error"

    spoken_id = barred = -1
    for message in messages:
        if message["type"] == "audio":
            event_id = message["audio_event"]["event_id"]
            assert event_id >= spoken_id
            assert event_id > barred
            spoken_id = event_id
        elif message["type"] == "interruption":
            assert barge_in
            event_id = message["interruption_event"]["event_id"]
            assert event_id >= spoken_id
            barred = event_id

    timer = stage.conversation.next_timer()
    assert (timer is None) == (stage.ending is not None)
    assert timer is None or timer > stage.now
