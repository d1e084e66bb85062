from __future__ import annotations

import time

import orjson
import pytest

from lab.practice_agent.post_call import conversation, event, sign
from lab.practice_agent.record import Closing, ConversationRecord, TranscriptLine

SECRET = "wsec_of_the_tests"


@pytest.fixture
def record() -> ConversationRecord:
    record = ConversationRecord("conv_1", "agent_7", 100.0)
    for at, who, text in ((0.4, "agent", "Hello."), (2.0, "caller", "Hi."), (3.0, "note", "x")):
        record.transcript.append(TranscriptLine("conv_1", "agent_7", at, who, text))  # type: ignore[arg-type]
    record.closing = Closing(1000, "", "agent")
    return record


def test_a_conversation_is_one_to_the_sdk(record: ConversationRecord) -> None:
    # Here, where alone it is needed: each worker of the tests reads this file, for half a second.
    from elevenlabs import GetConversationResponseModel

    model = GetConversationResponseModel.model_validate(conversation(record, 110.0), strict=True)
    assert model.status == "done"
    assert [turn.message for turn in model.transcript] == ["Hello.", "Hi."]
    assert model.analysis is not None
    assert model.analysis.call_successful == "success"
    record.closing = None
    assert conversation(record, 110.0)["status"] == "in-progress"


@pytest.mark.parametrize("form", ["json", "opentelemetry"])
def test_the_sdk_takes_the_webhook(record: ConversationRecord, form: str) -> None:
    from elevenlabs import ElevenLabs
    from elevenlabs.types import OTelTracePayload

    body = event(conversation(record, 110.0), form, 1_700_000_000)
    header = sign(SECRET, body, int(time.time()))
    construct = ElevenLabs(api_key="sk").webhooks.construct_event
    told = construct(body.decode(), header, SECRET)
    assert told == orjson.loads(body)
    assert told["data"]["conversation_id"] == "conv_1"
    with pytest.raises(Exception, match="does not match"):
        construct(body.decode() + " ", header, SECRET)
    if form == "opentelemetry":
        assert told["type"] == "post_call_transcription_otel"
        OTelTracePayload.model_validate(told["data"]["otlp_traces"])
