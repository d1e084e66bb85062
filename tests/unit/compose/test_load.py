"""What `docker compose run load` makes of what SIPp and the service say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
LOAD = runpy.run_path(str(ROOT / "deploy/load/run.py"))
SCENARIO = (ROOT / "deploy/load/call.xml").read_text()


def sipp(placed: int, answered: int) -> dict[str, str]:
    return {
        "TotalCallCreated": str(placed),
        "SuccessfulCall(C)": str(answered),
        "FailedCall(C)": str(placed - answered),
        "ResponseTimeanswer(C)": "00:00:01:012345",
    }


def calls(**ways: int) -> list[dict[str, Any]]:
    return [
        {"agent_status": status, "end_reason": "why", "state": "ended"}
        for status, number in ways.items()
        for _ in range(number)
    ]


def test_all_is_well_when_each_call_had_an_agent() -> None:
    lines, is_well = LOAD["judge"](3, sipp(3, 3), calls(COMPLETED=3))
    assert is_well
    assert lines == [
        "Asterisk: 3 calls placed, 3 answered and ended well, 0 failed; "
        "answered after 1012 ms on average",
        "Service:  3 calls, 3 COMPLETED (why)",
        "All 3 calls went well.",
    ]


@pytest.mark.parametrize(
    ("figures", "known", "last"),
    [
        (sipp(30, 30), calls(COMPLETED=19, REJECTED=11), "11 of 30 calls did not go well."),
        (sipp(30, 30), [], "30 of 30 calls did not go well."),
        (sipp(30, 28), calls(COMPLETED=30), "2 of 30 calls did not go well."),
        (sipp(4, 4), calls(COMPLETED=4), "26 of 30 calls did not go well."),
        (sipp(30, 30), calls(COMPLETED=31), "The service had more than these 30 calls: "),
    ],
)
def test_what_is_short_of_it_is_said(
    figures: dict[str, str], known: list[dict[str, Any]], last: str
) -> None:
    lines, is_well = LOAD["judge"](30, figures, known)
    assert not is_well
    assert lines[-1].startswith(last)


class Service:
    """Says one list after another, or nothing where there is none."""

    def __init__(self, *answers: list[str] | None) -> None:
        self._answers = list(answers)

    def calls(self) -> dict[str, dict[str, str]]:
        ids = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if ids is None:
            raise LOAD["Unknown"]("silent")
        return {name: {"id": name, "status": "ended"} for name in ids}


def follow(service: Service, rounds: int) -> list[str]:
    LOAD["follow"].__globals__["ASK_SECONDS"] = 0
    left = iter([True] * rounds + [False] * 99)
    found = LOAD["follow"](service, lambda: next(left), {"before"})
    return sorted(call["id"] for call in found)


def test_calls_are_kept_that_the_service_has_forgotten_at_the_end() -> None:
    service = Service(["before", "a"], None, ["a", "b"], ["c"])
    assert follow(service, 3) == ["a", "b", "c"]


def test_a_service_that_is_silent_at_the_end_is_no_success() -> None:
    with pytest.raises(LOAD["Unknown"]):
        follow(Service(["a"], None), 1)


def test_nothing_that_tells_calls_apart_comes_again_in_the_next_container() -> None:
    """A process number and a counter would."""
    assert not re.search(r"\[(pid|branch|call_id_counter)\]", SCENARIO)
    branches = re.findall(r"branch=(\S+)", SCENARIO)
    assert len(set(branches)) == len(branches) == 4
    assert all(text.startswith("z9hG4bK[run]-[call_number]-") for text in branches)
    assert all("[run]" in tag for tag in re.findall(r"^ *From: .*tag=(\S+)", SCENARIO, re.M))
    command = LOAD["command"]("192.0.2.1", "token", {})
    assert command[command.index("-cid_str") + 1] == "%u-token@%s"
    assert command[command.index("-key") + 1 :][:2] == ["run", "token"]
