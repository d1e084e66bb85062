"""The wait in a queue."""

from __future__ import annotations

import pytest

from lab.practice_agent import Queue
from tests.unit.practice_agent.stage import Stage, profile

HOLD = "Please hold the line"  # Two seconds.


def test_hold_audio_comes_in_seconds_until_an_agent_is_free() -> None:
    stage = Stage(profile("yes", greeting="Hello there", queue=Queue(seconds=5, message=HOLD)))
    stage.speak(4.9)
    assert stage.types() == ["conversation_initiation_metadata", "queue_status", *["audio"] * 5]
    assert stage.times("audio") == pytest.approx([0, 1, 2, 3, 4])
    assert stage.all("queue_status") == [{"status": "waiting"}]
    assert stage.said == []
    stage.hush(1)
    assert stage.types()[7:9] == ["queue_status", "audio"]
    assert stage.all("queue_status")[1] == {"status": "admitted"}
    assert stage.said == ["Hello there"]
    ids = [body["event_id"] for body in stage.all("audio")]
    assert ids == [1, 1, 1, 1, 1, 2]
    stage.hush(1)
    stage.say()
    assert stage.said == ["Hello there", "yes"]


def test_nobody_becomes_free() -> None:
    stage = Stage(profile(greeting="Hello", queue=Queue(seconds=3, outcome="timed_out")))
    stage.hush(3)
    assert stage.all("queue_status")[-1] == {"status": "timed_out"}
    assert stage.close_code == 4300
    assert stage.said == []


def test_while_the_message_is_rendered_it_is_not_asked_for_again() -> None:
    stage = Stage(profile(queue=Queue(seconds=3, message=HOLD)), initiate=False)
    stage.render_nothing = True
    stage.send({"type": "conversation_initiation_client_data"})
    stage.run(1)
    assert stage.all("audio") == []
    assert len(stage.conversation.rendered(HOLD, bytes(32000), stage.now)) == 1
    stage.run(2)
    assert stage.all("queue_status")[-1] == {"status": "admitted"}


def test_the_client_may_leave_the_queue_by_mistake() -> None:
    stage = Stage(profile(queue=Queue(seconds=3, message=HOLD)))
    stage.send("nonsense")
    assert stage.close_code == 1008
    assert stage.conversation.next_timer() is None
