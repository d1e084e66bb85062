"""Nothing that is to be hidden slips into what is kept, wherever somebody has put it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.records.document import call_document
from ari_app.records.events import KeysPressed, Noted, Said, ToolRan
from ari_app.records.hiding import Secrets, hide_in_part, hide_keys, what_to_hide
from ari_app.records.record import CallRecord, Leg

SECRET = "xylophone"
NUMBERS = st.from_regex(r"\A\+?[1-9][0-9]{6,14}\Z")
BETWEEN = st.sampled_from(["", " ", "-", "/", " - ", "\u00a0", "."])


def digits(text: str) -> str:
    return "".join(each for each in text if each.isdecimal())


@st.composite
def written(draw: st.DrawFn, number: str) -> str:
    """The number as somebody might write it, in a sentence."""
    pieces = [draw(BETWEEN) + each for each in number]
    before, after = draw(st.sampled_from([("", ""), ("call ", "!"), ("tel:", ", please")]))
    return before + "".join(pieces).strip() + after


@st.composite
def calls(draw: st.DrawFn) -> tuple[CallRecord, list[str]]:
    """A call with its own and other numbers in all places, and them."""
    numbers = draw(st.lists(NUMBERS, min_size=5, max_size=5))
    caller, called, target, transfer, other = numbers

    def somewhere() -> str:
        return draw(written(draw(st.sampled_from(numbers))))

    number = int(digits(other))
    record = CallRecord(
        "s1",
        f"PJSIP/{caller}-0001",
        0.0,
        caller_number=caller,
        called_number=called,
        transfer_to=transfer,
        reference=somewhere(),
        end_reason=digits(somewhere()),
        detail=somewhere(),
        metadata={
            "as text": somewhere(),
            "campaign_id": somewhere(),
            "as number": number,
            somewhere(): [{"deep": somewhere()}],
        },
    )
    record.metadata["as float"] = float(number)
    record.legs = [Leg("caller", caller), Leg("target", target)]
    record.fold(Said("agent", somewhere()), 1.0)
    record.fold(Said("caller", somewhere()), 2.0)
    arguments = {"to": somewhere(), "n": number, somewhere(): somewhere()}
    record.fold(ToolRan("x", name="x", arguments=arguments, result=somewhere()), 3.0)
    record.fold(KeysPressed(digits(other)), 4.0)
    record.fold(Noted(somewhere()), 5.0)
    return record, numbers


def leaves(value: Any) -> list[str]:
    """All texts and numbers in a document, names too."""
    match value:
        case dict():
            return [*map(str, value), *(leaf for each in value.values() for leaf in leaves(each))]
        case list():
            return [leaf for each in value for leaf in leaves(each)]
        case _:
            return [str(value)]


@given(calls())
def test_no_number_slips(call: tuple[CallRecord, list[str]]) -> None:
    record, numbers = call
    document = call_document(record, {"numbers"})
    assert document["hidden"] == ["numbers"]
    shown = [digits(leaf) for leaf in leaves(document)]
    for number in numbers:
        assert not any(digits(number) in each for each in shown)
    assert document["caller_number"] == "*" + digits(record.caller_number)[-3:]
    assert document["legs"][1]["number"] == "*" + digits(numbers[2])[-3:]


def spoken() -> CallRecord:
    record = CallRecord("s1", "sip-1", 0.0, caller_number="100")
    record.chronicle.sound_began(0.0)
    record.chronicle.hears(1, 0.0, 9.0)
    record.fold(Said("agent", f"a {SECRET} for you", event_id=1), 1.0)
    record.chronicle.interrupted(5.0, 1)
    record.fold(Said("correction", SECRET, original=f"a {SECRET} for you"), 1.0)
    record.fold(Said("caller", SECRET), 2.0)
    arguments = {SECRET: [SECRET], "said": {"by": SECRET}}
    record.fold(ToolRan(SECRET, name="look_up", arguments=arguments, result=SECRET), 3.0)
    record.fold(Noted("the caller holds"), 5.0)
    return record


def test_no_word_slips() -> None:
    record = spoken()
    assert SECRET.encode() in orjson.dumps(call_document(record))
    document = call_document(record, {"words"})
    assert SECRET.encode() not in orjson.dumps(document)
    assert document["hidden"] == ["words"]
    assert [(turn["who"], turn["interrupted"]) for turn in document["turns"]] == [
        ("agent", True),
        ("caller", False),
    ]
    assert [tool["name"] for tool in document["tools"]] == ["look_up"]
    assert [note["text"] for note in document["notes"]] == ["the caller holds"]


def test_both() -> None:
    assert call_document(spoken(), {"words", "numbers"})["hidden"] == ["numbers", "words"]


REPORT = {
    "agent_id": "agent_7",
    "status": "done",
    "transcript": [{"role": "user", "message": SECRET}],
    "metadata": {"cost": 296, "call_duration_secs": 22, "termination_reason": "", "n": 4930231250},
    "analysis": {
        "call_successful": "success",
        "transcript_summary": f"They want a {SECRET}.",
        "call_summary_title": SECRET,
        "evaluation_criteria_results": {"c": {"criteria_id": "c", "result": "success"}},
        "data_collection_results": {
            "d": {"data_collection_id": "d", "value": 42, "rationale": SECRET}
        },
    },
    "something_new": SECRET,
}


def test_the_agents_own_report() -> None:
    assert hide_in_part("agent_report", REPORT, ()) == REPORT
    told = hide_in_part("agent_report", REPORT, {"words"})
    assert SECRET.encode() not in orjson.dumps(told)
    analysis = told["analysis"]
    assert told["metadata"]["cost"] == 296
    assert analysis["call_successful"] == "success"
    assert analysis["evaluation_criteria_results"]["c"]["result"] == "success"
    assert analysis["data_collection_results"]["d"]["value"] is None
    assert hide_in_part("agent_report", REPORT, {"numbers"})["metadata"]["n"] == "*250"
    assert hide_in_part("recordings", [{"path": "2026/1-4930231250.wav"}], {"numbers"}) == [
        {"path": "2026/1-4930231250.wav"}
    ]


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("nothing", set()),
        ("numbers", {"numbers"}),
        ("words", {"words"}),
        ("numbers, words", {"numbers", "words"}),
    ],
)
def test_the_setting(text: str, hidden: set[str]) -> None:
    assert what_to_hide(text) == hidden


@pytest.mark.parametrize("text", ["", "everything", "nothing,words", "words,words", "words,"])
def test_a_setting_that_cannot_be_meant(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be nothing, or one or both of numbers, words"):
        what_to_hide(text)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("It is 12345, or 1-2 3.", "It is [digits], or [digits]."),
        ("12341234512", "[digits]4[digits]"),
        ("12 34 512 then 123123", "[digits] then [digits][digits]"),
        ("1234", "[digits]4"),
        ("12#345 or B12345", "12#345 or B[digits]"),
        ("no keys, A to D", "no keys, A to D"),
    ],
)
def test_no_secret_leaves_something_of_another(said: str, told: str) -> None:
    secrets = Secrets()
    for keys in ("123", "12345", "34512", "12"):
        secrets.add(keys)
    assert secrets.out_of(said) == told


@given(st.text("1234", max_size=30), st.lists(st.text("1234", min_size=3, max_size=6)))
def test_secrets_are_found_wherever_they_are(said: str, known: list[str]) -> None:
    whole, beginnings = Secrets(), Secrets(beginnings=True)
    for keys in known:
        whole.add(keys)
        beginnings.add(keys)
    assert not any(keys in whole.out_of(said) for keys in known)
    assert not any(keys[:3] in beginnings.out_of(said) for keys in known)


def test_a_beginning_is_known_by_the_longest_that_begins_so() -> None:
    secrets = Secrets(beginnings=True)
    for length in range(1, 17):
        secrets.add("4111222233334444"[:length])
    assert list(secrets) == ["4111222233334444"]
    assert secrets.out_of(["41 or 411", 41112]) == ["41 or [digits]", "[digits]"]


def test_a_report_without_anything_that_may_be_keys() -> None:
    report = {
        "agent_id": "agent_4711",
        "cost": 4711,
        "call_success_score": 100,
        "transcript_summary": "The PIN 4711, or 4 7 1 1 and 4-7-11#, was right; 12 calls.",
        "evaluation_criteria_results": {
            "crit_4711": {"criteria_id": "crit_4711", "result": "success", "rationale": "4711#"}
        },
        "data_collection_results": {
            "pin": {"data_collection_id": "pin_4711", "value": 4711, "rationale": "It was 4711."},
            "known": {"value": True},
            "few": {"value": ["12", 471]},
        },
    }
    assert hide_keys(report) == {
        "agent_id": "agent_4711",
        "cost": 4711,
        "call_success_score": 100,
        "transcript_summary": "The PIN [digits], or [digits] and [digits], was right; 12 calls.",
        "evaluation_criteria_results": {
            "crit_4711": {"criteria_id": "crit_4711", "result": "success", "rationale": "[digits]"}
        },
        "data_collection_results": {
            "pin": {
                "data_collection_id": "pin_4711",
                "value": "[digits]",
                "rationale": "It was [digits].",
            },
            "known": {"value": True},
            "few": {"value": ["12", "[digits]"]},
        },
    }
    assert hide_keys("not a report") == "not a report"
