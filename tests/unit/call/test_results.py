from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.line.interface import Result, result_of


@pytest.mark.parametrize(
    ("cause", "sip_code", "rang", "result"),
    [
        (17, 486, True, Result.BUSY),
        (17, 600, False, Result.BUSY),
        (21, 603, True, Result.REJECTED),
        (21, 403, False, Result.REJECTED),
        (1, 404, False, Result.INVALID_NUMBER),
        (28, 484, False, Result.INVALID_NUMBER),
        (19, 480, True, Result.NO_ANSWER),
        (19, 480, False, Result.UNREACHABLE),
        (18, 408, True, Result.NO_ANSWER),
        (18, 408, False, Result.UNREACHABLE),
        (127, 487, False, Result.NO_ANSWER),
        (34, 503, False, Result.UNREACHABLE),
        (58, 488, False, Result.FAILED),
    ],
)
def test_the_sip_status_says_most(cause: int, sip_code: int, rang: bool, result: Result) -> None:
    assert result_of(cause, sip_code, rang=rang) is result


@pytest.mark.parametrize("sip_code", [None, 0])
@pytest.mark.parametrize(
    ("cause", "rang", "result"),
    [
        (17, True, Result.BUSY),
        (21, True, Result.REJECTED),
        (1, False, Result.INVALID_NUMBER),
        (28, False, Result.INVALID_NUMBER),
        (19, True, Result.NO_ANSWER),
        (19, False, Result.UNREACHABLE),
        (102, False, Result.UNREACHABLE),
        (3, False, Result.UNREACHABLE),
        (20, False, Result.UNREACHABLE),
        (16, True, Result.FAILED),
        (0, False, Result.FAILED),
        (None, False, Result.FAILED),
    ],
)
def test_without_it_the_cause_does(
    sip_code: int | None, cause: int | None, rang: bool, result: Result
) -> None:
    assert result_of(cause, sip_code, rang=rang) is result


def test_a_status_that_says_nothing_leaves_it_to_the_cause() -> None:
    assert result_of(17, 500, rang=True) is Result.BUSY


@given(st.none() | st.integers(0, 127), st.none() | st.integers(0, 699), st.booleans())
def test_a_call_that_was_not_answered_never_counts_as_answered(
    cause: int | None, sip_code: int | None, rang: bool
) -> None:
    assert result_of(cause, sip_code, rang=rang) is not Result.ANSWERED
