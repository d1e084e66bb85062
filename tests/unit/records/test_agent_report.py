from __future__ import annotations

from typing import Any

import orjson
import pytest

from ari_app.records.agent_report import NoReport, report_of, report_on
from lab.practice_agent.post_call import conversation, event
from lab.practice_agent.record import Closing, ConversationRecord, TranscriptLine

DATA: dict[str, Any] = {
    "agent_id": "agent_7",
    "conversation_id": "conv_1",
    "status": "done",
    "transcript": [{"role": "agent", "message": "Hello."}],
    "metadata": {"cost": 350, "call_duration_secs": 61, "phone_call": {"type": "twilio"}},
    "analysis": {
        "call_successful": "success",
        "transcript_summary": "They booked a table.",
        "evaluation_criteria_results": {
            "polite": {"criteria_id": "polite", "result": "success", "rationale": "It was."}
        },
        "data_collection_results": {
            "name": {"value": "Jürgen", "json_schema": {"type": "string"}, "rationale": "said"}
        },
    },
}


def told(kind: str = "post_call_transcription", data: object = DATA) -> dict[str, Any]:
    return {"type": kind, "event_timestamp": 1_700_000_000, "data": data}


def test_what_is_kept_of_a_transcription() -> None:
    report = report_of(told())
    assert report is not None
    assert report.conversation_id == "conv_1"
    assert report.value == {
        "conversation_id": "conv_1",
        "source": "webhook",
        "at": "2023-11-14T22:13:20.000000Z",
        "agent_id": "agent_7",
        "status": "done",
        "cost": 350,
        "call_duration_secs": 61,
        "call_successful": "success",
        "transcript_summary": "They booked a table.",
        "evaluation_criteria_results": DATA["analysis"]["evaluation_criteria_results"],
        "data_collection_results": {"name": {"value": "Jürgen", "rationale": "said"}},
    }


def test_opentelemetry_says_the_same() -> None:
    record = ConversationRecord("conv_1", "agent_7", 100.0)
    record.transcript.append(TranscriptLine("conv_1", "agent_7", 2.0, "caller", "It's me."))
    record.closing = Closing(1000, "", "agent")
    data = conversation(record, 110.0)
    plain, traced = (
        report_of(orjson.loads(event(data, form, 1_700_000_000)))
        for form in ("json", "opentelemetry")
    )
    assert plain is not None
    assert traced is not None
    # These two are not in the traces.
    for missing in ("authorization_method", "has_audio"):
        del plain.value[missing]
    del plain.value["cost"]
    assert traced.value == plain.value
    assert traced.value["data_collection_results"]["utterances"]["value"] == 1


@pytest.mark.parametrize(
    "text", ["{'value': __import__('os')}", "{'a'", 4000 * "[", "{1: 2", "{[1]}"]
)
def test_results_that_cannot_be_read_stay_texts(text: str) -> None:
    assert results_of(text) == {"x": text}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (r"{'value': 'cut in the middle of \ud83d'}", "cut in the middle of ?"),
        ("{'value': 1e999}", None),
    ],
)
def test_results_that_no_json_can_hold_cost_no_more_than_themselves(
    text: str, kept: object
) -> None:
    assert results_of(text) == {"x": {"value": kept}}


def results_of(text: str) -> Any:
    """What is kept of a result that Python has written."""
    attribute = {
        "key": "elevenlabs.analysis.data_collection_results.x",
        "value": {"stringValue": text},
    }
    span = {"name": "elevenlabs.conversation", "attributes": [attribute]}
    traces = {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}
    report = report_of(
        told("post_call_transcription_otel", {"conversation_id": "conv_1", "otlp_traces": traces})
    )
    assert report is not None
    return report.value["data_collection_results"]


def test_a_call_that_did_not_begin_says_why() -> None:
    data = {
        "agent_id": "agent_7",
        "conversation_id": "conv_1",
        "failure_reason": "busy",
        "metadata": {"type": "sip", "body": {"sip_status_code": 486}},
    }
    report = report_of(told("call_initiation_failure", data))
    assert report is not None
    assert report.value["failure_reason"] == "busy"
    assert report.value["status"] == "failed"
    assert report.value["metadata"]["body"] == {"sip_status_code": 486}


@pytest.mark.parametrize("kind", ["post_call_audio", "something_new"])
def test_of_other_events_nothing_is_kept(kind: str) -> None:
    assert report_of(told(kind)) is None


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        "post_call_transcription",
        {},
        {"type": 7, "data": {}},
        {"type": "post_call_transcription"},
        told(data=[]),
        told(data={}),
        told(data={"conversation_id": 7}),
        told(data={"conversation_id": "../../etc"}),
        told(data={"conversation_id": 129 * "x"}),
        told("post_call_transcription_otel", {"otlp_traces": None}),
        told("call_initiation_failure", {}),
    ],
)
def test_what_is_no_report(event: object) -> None:
    with pytest.raises(NoReport):
        report_of(event)


@pytest.mark.parametrize(
    "traces",
    [
        None,
        7,
        {"resourceSpans": 7},
        {
            "resourceSpans": [
                7,
                {},
                {"scopeSpans": [{"spans": [{"name": "elevenlabs.conversation"}]}]},
            ]
        },
        {
            "resourceSpans": [
                {
                    "scopeSpans": [
                        {
                            "spans": [
                                {
                                    "name": "elevenlabs.conversation",
                                    "attributes": [
                                        {},
                                        {"key": 7, "value": {"stringValue": "x"}},
                                        {"key": "elevenlabs.analysis.a", "value": {}},
                                        {
                                            "key": "elevenlabs.analysis.a",
                                            "value": {"intValue": "x"},
                                        },
                                        {
                                            "key": "elevenlabs.analysis.b",
                                            "value": {"boolValue": True},
                                        },
                                        {
                                            "key": "elevenlabs.analysis.b.c",
                                            "value": {"boolValue": True},
                                        },
                                    ],
                                }
                            ]
                        }
                    ]
                }
            ]
        },
    ],
)
def test_odd_traces_cost_nothing_but_themselves(traces: object) -> None:
    data = {"conversation_id": "conv_1", "otlp_traces": traces}
    report = report_of(told("post_call_transcription_otel", data))
    assert report is not None
    assert report.value["conversation_id"] == "conv_1"


def test_what_is_kept_is_bounded_and_plain() -> None:
    deep: Any = "x"
    for _ in range(60):
        deep = {"d": [deep]}
    analysis = {
        "call_successful": "success",
        "transcript_summary": "a\0b" + 100_000 * "x",
        "data_collection_results": {f"n{number}": 20_000 * "y" for number in range(5000)},
        "evaluation_criteria_results": {"deep": deep, "number": 10**30},
    }
    report = report_of(told(data={**DATA, "analysis": analysis}))
    assert report is not None
    assert len(orjson.dumps(report.value)) < 160_000
    assert report.value["call_successful"] == "success"
    assert report.value["transcript_summary"].startswith("abxx")
    assert report.value["left_out"] == ["data_collection_results"]


def test_a_conversation_is_reported_once_it_is_analysed() -> None:
    assert report_on({**DATA, "status": "processing"}) is None
    report = report_on(DATA)
    assert report is not None
    assert report.value["source"] == "api"
    with pytest.raises(NoReport):
        report_on("busy")
