from __future__ import annotations

import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.agent.elevenlabs import server_messages
from ari_app.agent.elevenlabs.codec import decode, encode
from ari_app.agent.elevenlabs.errors import MalformedMessage
from tests.unit.agent.elevenlabs.samples import BY_TYPE, SAMPLES

json_value: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["AAAA", "12", "evt_1", "0x", "1" * 40]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=10,
)


def test_there_is_a_sample_of_every_message() -> None:
    assert set(BY_TYPE) == set(server_messages.SERVER_MESSAGES)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample["type"]))
def test_decode_then_encode_keeps_every_field(sample: dict[str, Any]) -> None:
    message = decode(json.dumps(sample))
    assert isinstance(message, server_messages.SERVER_MESSAGES[sample["type"]])
    assert json.loads(encode(message)) == sample
    assert decode(encode(message)) == message


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample["type"]))
def test_unknown_fields_are_ignored_on_every_level(sample: dict[str, Any]) -> None:
    extended = copy.deepcopy(sample)
    key = server_messages.SERVER_MESSAGES[sample["type"]].payload_key
    extended["brand_new"] = [1]
    extended[key]["brand_new"] = {"a": 1}
    assert decode(json.dumps(extended)) == decode(json.dumps(sample))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample["type"]))
def test_the_flat_form_is_understood(sample: dict[str, Any]) -> None:
    key = server_messages.SERVER_MESSAGES[sample["type"]].payload_key
    payload = sample[key]
    flat = {**payload, "type": sample["type"]}
    assert decode(json.dumps(flat)) == decode(json.dumps({"type": sample["type"], key: payload}))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample["type"]))
def test_null_counts_as_absent(sample: dict[str, Any]) -> None:
    model = server_messages.SERVER_MESSAGES[sample["type"]]
    optional = [
        field.alias or name for name, field in model.model_fields.items() if not field.is_required()
    ]
    with_null = copy.deepcopy(sample)
    without = copy.deepcopy(sample)
    for name in optional:
        with_null[model.payload_key][name] = None
        without[model.payload_key].pop(name, None)
    assert decode(json.dumps(with_null)) == decode(json.dumps(without))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            {"type": "user_transcript", "user_transcription_event": {"user_transcript": "a"}},
            server_messages.UserTranscript(user_transcript="a"),
        ),
        (
            {"type": "agent_response", "agent_response_event": {"agent_response": "a"}},
            server_messages.AgentResponse(agent_response="a"),
        ),
        (
            {
                "type": "client_tool_call",
                "client_tool_call": {"tool_name": "n", "tool_call_id": "i"},
            },
            server_messages.ClientToolCall(tool_name="n", tool_call_id="i"),
        ),
        (
            {"type": "agent_response_complete", "agent_response_complete_event": {"event_id": "7"}},
            server_messages.AgentResponseComplete(event_id=7),
        ),
        (
            {"type": "agent_response_complete", "agent_response_complete_event": {"event_id": "e"}},
            server_messages.AgentResponseComplete(event_id=None),
        ),
        (
            {"type": "interruption", "interruption_event": {"reason": "user"}},
            server_messages.Interruption(reason="user"),
        ),
        (
            {"type": "ping", "ping_event": {"event_id": "17", "ping_ms": None}},
            server_messages.Ping(event_id=17),
        ),
        (
            {"type": "error", "message": "received 1002 This request exceeds your quota limit."},
            server_messages.Error(message="received 1002 This request exceeds your quota limit."),
        ),
        (
            {"type": "audio", "audio_event": {"audio_base_64": "AAA=", "event_id": "3"}},
            server_messages.Audio(data=b"\0\0", event_id=3),
        ),
        (
            {"type": "audio", "audio_event": {"audio_base_64": "AAA="}},
            server_messages.Audio(data=b"\0\0"),
        ),
        (
            {
                "type": "audio",
                "audio_event": {"audio_base_64": "", "event_id": 3, "alignment": {"chars": 7}},
            },
            server_messages.Audio(data=b"", event_id=3),
        ),
        (
            {
                "type": "audio",
                "audio_event": {"audio_base_64": "", "event_id": "3", "alignment": []},
            },
            server_messages.Audio(data=b"", event_id=3),
        ),
        ({"type": "brand_new", "brand_new_event": {}}, server_messages.Unknown("brand_new")),
        ({"type": "x" * 1000}, server_messages.Unknown("x" * 64)),
    ],
)
def test_old_and_odd_forms(message: dict[str, Any], expected: object) -> None:
    assert decode(json.dumps(message)) == expected


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "not_json"),
        (b"\xff\xfe", "not_json"),
        ("{", "not_json"),
        ("[" * 100_000, "not_json"),
        ('"' + "," * 1_000, "not_json"),
        ('{"type":"ping","ping_event":' + '{"a":' * 5000, "not_json"),
        ('{"type":"ping","x":"\\ud800"}', "not_json"),
        ('"\ud800"', "not_json"),
        ("[" + "0," * 100_000 + "0]", "too_many_values"),
        (
            b'{"type":"client_tool_call","parameters":[' + b"[]," * 60_000 + b"0]}",
            "too_many_values",
        ),
        ("[]", "not_an_object"),
        ("17", "not_an_object"),
        ("null", "not_an_object"),
        ("{}", "no_type"),
        ('{"type":5}', "no_type"),
        ('{"user_audio_chunk":"AAAA"}', "no_type"),
        ('{"type":"ping","ping_event":[]}', "bad_payload"),
        ('{"type":"ping","ping_event":"x"}', "bad_payload"),
        ('{"type":"ping","ping_event":{}}', "bad_payload"),
        ('{"type":"ping","ping_event":{"event_id":true}}', "bad_payload"),
        ('{"type":"ping","ping_event":{"event_id":"x"}}', "bad_payload"),
        ('{"type":"ping","ping_event":{"event_id":9223372036854775808}}', "bad_payload"),
        (f'{{"type":"ping","ping_event":{{"event_id":{"9" * 400}}}}}', "not_json"),
        (f'{{"type":"ping","ping_event":{{"event_id":"{"9" * 9000}"}}}}', "bad_payload"),
        ('{"type":"interruption","interruption_event":{"event_id":[]}}', "bad_payload"),
        ('{"type":"interruption","interruption_event":{"event_id":true}}', "bad_payload"),
        ('{"type":"user_transcript","user_transcription_event":{}}', "bad_payload"),
        ('{"type":"audio","audio_event":{"event_id":1}}', "bad_payload"),
        ('{"type":"audio","audio_event":{"audio_base_64":"","event_id":true}}', "bad_payload"),
        ('{"type":"audio","audio_event":{"audio_base_64":7,"event_id":1}}', "bad_payload"),
        ('{"type":"audio","audio_event":{"audio_base_64":"","event_id":1e9999}}', "not_json"),
        (
            '{"type":"audio","audio_event":{"audio_base_64":"","event_id":9223372036854775808}}',
            "bad_payload",
        ),
        ('{"type":"audio","audio_event":{"audio_base_64":"*","event_id":1}}', "bad_audio"),
        ('{"type":"audio","audio_event":{"audio_base_64":"é","event_id":1}}', "bad_audio"),
        ('{"type":"audio","audio_event":{"audio_base_64":"AAA","event_id":1}}', "bad_audio"),
        ('{"type":"audio","audio_event":{"audio_base_64":"*"}}', "bad_payload"),
        (
            '{"type":"audio","audio_event":{"audio_base_64":"","event_id":1,"is_final":[]}}',
            "bad_payload",
        ),
    ],
)
def test_what_makes_no_sense_is_malformed(data: bytes | str, reason: str) -> None:
    for form in (data, data.encode(errors="surrogatepass") if isinstance(data, str) else data):
        with pytest.raises(MalformedMessage) as caught:
            decode(form)
        assert caught.value.reason == reason
        assert caught.value.code == "agent_malformed_message"


def test_the_error_names_the_field_and_not_its_value() -> None:
    with pytest.raises(MalformedMessage, match=r"user_transcript \(string_type\)") as caught:
        decode('{"type":"user_transcript","user_transcription_event":{"user_transcript":4930123}}')
    assert "4930123" not in str(caught.value)


@given(
    st.binary(max_size=2000),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([None, True, False]),
    st.none() | json_value,
)
def test_fast_audio_is_what_the_model_makes_of_it(
    data: bytes, event_id: int, is_final: bool | None, alignment: Any
) -> None:
    payload = {
        "audio_base_64": base64.b64encode(data).decode(),
        "event_id": event_id,
        "is_final": is_final,
        "alignment": alignment,
    }
    text = json.dumps({"type": "audio", "audio_event": payload})
    for form in (text, text.encode()):
        fast = decode(form)
        assert fast == server_messages.Audio.model_validate(payload)
        assert isinstance(fast, server_messages.Audio)
        assert fast.data == data


@pytest.mark.parametrize(
    "text",
    [
        '{"audio_event": {"event_id": 1, "audio_base_64" :\n "AAEC"}, "type": "audio"}',
        '{"type":"audio","audio_event":{"audio_base_64":"AA\\u0041A","event_id":1}}',
        '{"type":"audio","audio_event":{"audio_base_64":"AAEC","audio_base_64":"AQID","event_id":1}}',
        '{"type":"audio","audio_base_64":"AAEC","event_id":1}',
        '{"type":"audio","audio_base_64":"AAEC","audio_event":{"audio_base_64":"","event_id":1}}',
        '{"type":"audio","audio_event":{"audio_base_64":"AAEC","event_id":"1"}}',
        '{"type":"audio","x":"\\"audio_base_64","audio_event":{"audio_base_64":"AAEC","event_id":1}}',
        '{"type":"audio","x\\"audio_base_64":"AAEC","audio_event":{"audio_base_64":"AQID","event_id":1}}',
        '{"type":"agent_response","agent_response_event":{"agent_response":"\\"audio_base_64\\":\\"AA\\""}}',
        '{"type":"brand_new","audio_base_64":"AAEC"}',
        '{"type":"audio","audio_event":{"audio_base_64":"","event_id":1}}',
    ],
)
def test_sound_is_found_in_bytes_as_a_parser_finds_it(text: str) -> None:
    assert decode(text.encode()) == decode(text)
