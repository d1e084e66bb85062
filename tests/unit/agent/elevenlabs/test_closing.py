from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.agent.elevenlabs.closing import AgentClose, CloseKind, ServiceError, classify

K = CloseKind


@pytest.mark.parametrize(
    ("code", "reason", "kind", "retryable"),
    [
        (1000, "", K.AGENT_ENDED, False),
        (1000, "max_duration_exceeded", K.MAX_DURATION, False),
        (1000, "Conversation has exceeded maximum duration", K.MAX_DURATION, False),
        (
            1011,
            "Unexpected error in websocket endpoint: Conversation has exceeded maximum duration",
            K.MAX_DURATION,
            False,
        ),
        (1011, "Call ended after 30 seconds of silence", K.AGENT_ENDED, False),
        (1000, "Quota talk is no error here: llm_timeout", K.AGENT_ENDED, False),
        (1001, "", K.UNAVAILABLE, True),
        (1002, "", K.UNAVAILABLE, True),
        (1002, "llm_timeout", K.LLM_TIMEOUT, True),
        (1002, "safety_violation", K.SAFETY, False),
        (1002, "transport_receive_timeout: nothing for 60 s", K.NO_INPUT, False),
        (1002, "This request exceeds your quota limit.", K.QUOTA, False),
        (
            1002,
            "The AI agent you are trying to reach appears to be misconfigured",
            K.MISCONFIGURED,
            False,
        ),
        (1002, "custom_llm_error", K.LLM_ERROR, True),
        (1002, "tts_cascade_error", K.SPEECH_ERROR, True),
        (1002, "redis_timeout_error", K.UNAVAILABLE, True),
        (1008, "", K.REJECTED, False),
        (1008, "invalid_message", K.INVALID_MESSAGE, False),
        (1008, "override_error", K.OVERRIDE_ERROR, False),
        (1008, "Override for field 'language' is not allowed", K.OVERRIDE_ERROR, False),
        (1008, "missing_dynamic_variable", K.MISSING_DYNAMIC_VARIABLE, False),
        (1008, "missing_dynamic_variable_transfer", K.MISSING_DYNAMIC_VARIABLE, False),
        (
            1008,
            "Missing required dynamic variables: {'name'}",
            K.MISSING_DYNAMIC_VARIABLE,
            False,
        ),
        (1008, "mcp_https_error", K.TOOL_ERROR, False),
        (1008, "User is not authorized", K.UNAUTHORIZED, False),
        (1008, "Invalid signature", K.UNAUTHORIZED, False),
        (1008, "Agent does not exist", K.NOT_FOUND, False),
        (1005, "", K.LOST, True),
        (1006, "", K.LOST, True),
        (1009, "over size limit", K.TOO_BIG, False),
        (1011, "", K.CRASHED, True),
        (1011, "unknown_websocket_crash", K.CRASHED, True),
        (1013, "", K.UNAVAILABLE, True),
        (3000, "Test reason", K.REJECTED, False),
        (3008, "too many concurrent connections", K.LIMIT, True),
        (3008, "", K.LIMIT, True),
        (4001, "", K.REJECTED, False),
        (4300, "", K.QUEUE_TIMEOUT, False),
        (1999, "", K.LOST, True),
    ],
)
def test_codes_and_reasons(code: int, reason: str, kind: CloseKind, retryable: bool) -> None:
    assert classify(code, reason) == AgentClose(code, reason, kind, retryable)


def test_an_error_message_explains_a_silent_close() -> None:
    error = ServiceError(None, "received 1002 This request exceeds your quota limit")
    close = classify(1002, "", error=error)
    assert close.kind is K.QUOTA
    assert close.reason_text == error.text


@pytest.mark.parametrize(
    ("error_code", "code", "kind"),
    [
        (1002, 1002, K.LLM_TIMEOUT),
        (1002, 1006, K.LLM_TIMEOUT),
        (1002, 1005, K.LLM_TIMEOUT),
        (1002, 1011, K.CRASHED),
        (None, 1011, K.LLM_TIMEOUT),
        (1002, 1000, K.AGENT_ENDED),
    ],
)
def test_an_error_counts_when_its_code_is_the_closes(
    error_code: int | None, code: int, kind: CloseKind
) -> None:
    assert classify(code, error=ServiceError(error_code, "llm_timeout")).kind is kind


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006])
def test_after_end_call_a_silent_end_is_the_agents(code: int) -> None:
    close = classify(code, call_ending=True)
    assert (close.kind, close.retryable) == (K.AGENT_ENDED, False)


def test_after_end_call_a_crash_is_still_a_crash() -> None:
    assert classify(1011, call_ending=True).kind is K.CRASHED


def test_a_queue_that_timed_out_explains_any_close() -> None:
    assert classify(1006, queue_timed_out=True).kind is K.QUEUE_TIMEOUT


def test_our_own_close_is_ours() -> None:
    assert classify(1000, local=True, call_ending=True).kind is K.LOCAL


@given(st.integers(), st.text(), st.none() | st.integers(), st.text())
def test_any_close_has_a_kind(
    code: int, reason: str, error_code: int | None, error_text: str
) -> None:
    close = classify(code, reason, error=ServiceError(error_code, error_text))
    assert close.kind in CloseKind
    assert len(close.reason_text) <= 300
