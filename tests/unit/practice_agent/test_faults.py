"""Faults on request."""

from __future__ import annotations

from typing import Any

import pybase64
import pytest

from lab.practice_agent import AgentProfile, CloseFault, Delivery, Faults
from lab.practice_agent.effects import Close, Drop, Freeze, Send
from lab.practice_agent.faults import GARBAGE, FaultyWire
from tests.unit.practice_agent.stage import Stage, profile

STORY = " ".join(["word"] * 20)  # Ten seconds.
METADATA = "conversation_initiation_metadata"


def agent(**faults: Any) -> AgentProfile:
    delivery = Delivery(chunk_ms=(1000,), speed=10, think_ms=0)
    return profile("yes", greeting=STORY, delivery=delivery, faults=Faults.model_validate(faults))


def test_none() -> None:
    stage = Stage(agent())
    stage.run(2)
    assert stage.types().count("audio") == 10
    assert stage.ending is None


def test_late_audio_carries_the_interrupted_id() -> None:
    stage = Stage(agent(late_audio_chunks=2))
    stage.hush(2)
    stage.speak(0.2)
    types = stage.types()
    at = types.index("interruption")
    assert types[at : at + 4] == ["interruption", "audio", "audio", "agent_response_correction"]
    late = stage.all("audio")[-2:]
    assert {body["event_id"] for body in late} == {stage.all("interruption")[0]["event_id"]}


def test_late_audio_needs_audio() -> None:
    wire = FaultyWire(Faults(late_audio_chunks=2), now=0.0)
    effect = Send({"type": "interruption", "interruption_event": {"event_id": 1}})
    assert wire.outgoing([effect], 0.0) == [effect]


def test_never_answers() -> None:
    stage = Stage(agent(never_answers=True))
    stage.hush(11)
    stage.say()
    stage.hush(10)
    assert stage.said == [STORY]


def test_slow_metadata() -> None:
    stage = Stage(agent(metadata_delay_ms=3000))
    stage.run(2.9)
    assert stage.sent == []
    stage.run(0.2)
    assert stage.types()[0] == METADATA


def test_no_metadata() -> None:
    stage = Stage(agent(no_metadata=True))
    assert stage.types()[0] == "audio"


def test_two_metadata() -> None:
    stage = Stage(agent(metadata_twice=True))
    assert stage.types()[:2] == [METADATA, METADATA]


@pytest.mark.parametrize("kind", ["json", "binary", "list"])
def test_garbage(kind: str) -> None:
    stage = Stage(agent(garbage=kind))
    stage.run(2)
    assert stage.raw == [GARBAGE[kind]]


def test_torn_samples() -> None:
    stage = Stage(agent(torn_samples=True))
    stage.run(2)
    lengths = [len(pybase64.b64decode(body["audio_base_64"])) for body in stage.all("audio")]
    assert lengths[0] % 2 == 1
    assert sum(lengths) == 10 * 32000


def test_no_event_ids() -> None:
    stage = Stage(agent(omit_event_ids=True))
    stage.hush(1)
    stage.say()
    assert len(stage.sent) > 10
    for _, message in stage.sent:
        assert "event_id" not in str(message)


def test_null_alignment_and_empty_audio() -> None:
    stage = Stage(agent(null_alignment=True, empty_audio=True))
    stage.run(2)
    assert [body.get("alignment", 0) for body in stage.all("audio")[:2]] == [None, 0]
    assert [body["audio_base_64"] == "" for body in stage.all("audio")[:4]] == [
        False,
        True,
        False,
        True,
    ]


def test_unknown_messages() -> None:
    stage = Stage(agent(unknown_messages=True))
    kinds = [message["type"] for _, message in stage.sent]
    assert kinds[:6] == [METADATA, "agent_mood", "ping", "agent_mood", "audio", "agent_mood"]


def test_close_after_a_time() -> None:
    stage = Stage(agent(close=CloseFault(code=1011, reason="boom", after_ms=1500)))
    stage.run(1.4)
    assert stage.close_code is None
    stage.run(0.2)
    assert stage.ending == Close(1011, "boom")
    stage.hush(1)


def test_close_before_anything() -> None:
    stage = Stage(agent(close=CloseFault(code=3008)), initiate=False)
    stage.run(0)
    assert (stage.close_code, stage.sent) == (3008, [])


def test_drop_after_the_first_chunk() -> None:
    stage = Stage(agent(close=CloseFault(mid_response=True)))
    stage.run(5)
    assert stage.ending == Drop()
    assert stage.types() == [METADATA, "audio"]


def test_drop_in_a_later_response() -> None:
    close = CloseFault(mid_response=True, response=2, after_ms=10)
    stage = Stage(agent(close=close))
    stage.hush(3)
    stage.say()
    assert stage.said == [STORY, "yes"]
    assert isinstance(stage.ending, Drop)


@pytest.mark.parametrize(
    ("style", "kind"), [("flat", "error"), ("client_error", "client_error"), ("error", "error")]
)
def test_an_error_before_the_close(style: str, kind: str) -> None:
    close = CloseFault.model_validate({"code": 1002, "after_ms": 100, "error": style})
    stage = Stage(agent(close=close))
    stage.run(1)
    assert stage.types()[-1] == kind
    assert stage.close_code == 1002


def test_nothing_passes_after_the_end() -> None:
    wire = FaultyWire(Faults(close=CloseFault(after_ms=1000)), now=0.0)
    assert wire.next_timer() == 1.0
    assert wire.outgoing([Close(1000, ""), Send({"type": "x"})], 0.0) == [Close(1000, "")]
    assert wire.next_timer() is None
    assert wire.handle_timer(2.0) == []


def test_freeze() -> None:
    stage = Stage(agent(freeze_after_ms=500))
    stage.run(0.4)
    sent = len(stage.sent)
    stage.hush(10)
    assert stage.ending == Freeze()
    assert len(stage.sent) - sent <= 1, "only what was due in the tenth of a second until then"


def test_whichever_comes_first() -> None:
    close = CloseFault(code=1011, after_ms=400)
    stage = Stage(agent(freeze_after_ms=500, close=close))
    stage.run(1)
    assert stage.close_code == 1011


def test_deaf() -> None:
    stage = Stage(agent(deaf=True))
    stage.hush(11)
    stage.say()
    stage.hush(5)
    assert stage.said == [STORY]
    assert "user_transcript" not in stage.types()
    stage.send({"type": "user_message", "text": "Hello?"})
    stage.hush(2)
    assert stage.said == [STORY, "yes"]
