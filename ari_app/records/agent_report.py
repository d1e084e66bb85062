"""What the agent's service says of a conversation afterwards: its analysis, its cost. Pure.

Source: https://elevenlabs.io/docs/eleven-agents/workflows/post-call-webhooks and
https://elevenlabs.io/docs/eleven-agents/customization/opentelemetry-traces

The names are ElevenLabs'. The transcript is left out: the call's own says what was heard, and when.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

import orjson

from ari_app.records.plain_json import stamp

PART: Final = "agent_report"
"""The part of a call's document."""
_OVER: Final = ("done", "failed")

_CONVERSATION_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
_MAX_BYTES: Final = 128 * 1024
_MAX_TEXT: Final = 16 * 1024
_MAX_ITEMS: Final = 200
_MAX_DEPTH: Final = 8

_OF_CONVERSATION: Final = ("status", "agent_id", "branch_id", "version_id", "has_audio")
_OF_METADATA: Final = (
    "call_duration_secs",
    "queue_wait_secs",
    "cost",
    "cost_fiat",
    "charging",
    "termination_reason",
    "error",
    "warnings",
    "main_language",
    "authorization_method",
)
_OF_ANALYSIS: Final = (
    "call_successful",
    "call_success_score",
    "call_summary_title",
    "transcript_summary",
    "evaluation_criteria_results",
    "data_collection_results",
)
# How a value is to be found is no part of what was found.
_NOT_KEPT: Final = frozenset({"json_schema", "llm_usage"})
_ROOT_SPAN: Final = "elevenlabs.conversation"
_ANALYSIS_ATTRIBUTE: Final = "elevenlabs.analysis."


class NoReport(ValueError):
    """It says nothing of a conversation. The text is a clause."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was said of one conversation, for the document of its call."""

    conversation_id: str
    value: dict[str, Any]


def report_of(event: object) -> Report | None:
    """Read an event of the service's.

    Returns:
        None for an event of a kind that there is nothing to keep of, such as audio.

    Raises:
        NoReport: It is no event, or one of these kinds without what belongs to it.
    """
    match event:
        case {"type": str(kind), "data": dict(data)}:
            pass
        case _:
            raise NoReport("it is no event")
    at = _moment(event.get("event_timestamp")) if isinstance(event, dict) else None
    match kind:
        case "post_call_transcription":
            return _report(data, "webhook", at, _conversation(data))
        case "post_call_transcription_otel":
            return _report(data, "webhook", at, _conversation(_untraced(data)))
        case "call_initiation_failure":
            failure = {"status": "failed", "failure_reason": data.get("failure_reason")}
            return _report(data, "webhook", at, {**failure, "metadata": data.get("metadata")})
        case _:
            return None


def report_on(conversation: object) -> Report | None:
    """Read what the service answers when it is asked for a conversation.

    Returns:
        None while the conversation is not analysed yet.

    Raises:
        NoReport: It is no conversation.
    """
    if not isinstance(conversation, dict):
        raise NoReport("it is no conversation")
    if conversation.get("status") not in _OVER:
        return None
    return _report(conversation, "api", None, _conversation(conversation))


def _report(
    data: Mapping[str, Any], source: str, at: str | None, told: Mapping[str, Any]
) -> Report:
    name = data.get("conversation_id")
    if not isinstance(name, str) or not _CONVERSATION_ID.match(name):
        raise NoReport("it names no conversation")
    value: dict[str, Any] = {"conversation_id": name, "source": source}
    if at is not None:
        value["at"] = at
    left_out = []
    for key, each in told.items():
        if each is None:
            continue
        clean = _clean(each)
        if len(orjson.dumps(value)) + len(orjson.dumps(clean)) > _MAX_BYTES:
            left_out.append(key)
        else:
            value[key] = clean
    if left_out:
        value["left_out"] = left_out
    return Report(name, value)


def _conversation(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a conversation, flat; short things first, for there is a limit."""
    metadata, analysis = _mapping(data.get("metadata")), _mapping(data.get("analysis"))
    return {
        **{name: data.get(name) for name in _OF_CONVERSATION},
        **{name: metadata.get(name) for name in _OF_METADATA},
        **{name: analysis.get(name) for name in _OF_ANALYSIS},
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


# --- the form of OpenTelemetry


def _untraced(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the traces say in the form in which the service says it otherwise."""
    found: dict[str, Any] = {}
    for span in _spans(data.get("otlp_traces")):
        if span.get("name") == _ROOT_SPAN:
            found.update(_attributes(span))
    analysis: dict[str, Any] = {}
    for name, value in found.items():
        if name.startswith(_ANALYSIS_ATTRIBUTE):
            path = name.removeprefix(_ANALYSIS_ATTRIBUTE).split(".", 1)
            if len(path) == 1:
                analysis[path[0]] = value
            elif isinstance(inner := analysis.setdefault(path[0], {}), dict):
                inner[path[1]] = _literal(value)
    duration = found.get("elevenlabs.session.duration_ms")
    metadata = {
        "call_duration_secs": duration / 1000 if isinstance(duration, int | float) else None,
        "termination_reason": found.get("elevenlabs.termination_reason"),
        "cost": found.get("elevenlabs.cost.credits", found.get("elevenlabs.cost")),
    }
    return {
        "agent_id": data.get("agent_id"),
        "status": found.get("elevenlabs.status", "done"),
        "metadata": metadata,
        "analysis": analysis,
    }


def _spans(traces: object) -> Iterator[Mapping[str, Any]]:
    for resource in _list(_mapping(traces).get("resourceSpans")):
        for scope in _list(resource.get("scopeSpans")):
            yield from _list(scope.get("spans"))


def _list(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _attributes(span: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for attribute in _list(span.get("attributes")):
        match attribute:
            case {"key": str(name), "value": {"stringValue": str(text)}}:
                yield name, text
            case {"key": str(name), "value": {"intValue": int() | str() as number}}:
                # 64 bits stand in quotes there.
                if re.fullmatch(r"-?[0-9]{1,18}", str(number)):
                    yield name, int(number)
            case {"key": str(name), "value": {"doubleValue": int() | float() as number}}:
                yield name, number
            case {"key": str(name), "value": {"boolValue": bool(truth)}}:
                yield name, truth
            case _:
                pass


def _literal(value: object) -> object:
    """Return what a text holds that was written by Python, as results are; or the text itself."""
    if not isinstance(value, str) or not value.startswith(("{", "[")):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


# --- what others have written


def _clean(value: object, depth: int = _MAX_DEPTH) -> Any:
    """Return plain data of bounded size that every database takes."""
    match value:
        case bool() | None:
            return value
        case float():
            return value if isfinite(value) else None
        case int():
            return value if abs(value) < 2**53 else str(value)
        case str():
            # What was cut in the middle of a character, and written by Python, can be no UTF-8.
            return value.replace("\0", "")[:_MAX_TEXT].encode(errors="replace").decode()
        case dict() if depth:
            kept = list(value.items())[:_MAX_ITEMS]
            return {
                _clean(str(name))[:200]: _clean(inner, depth - 1)
                for name, inner in kept
                if name not in _NOT_KEPT
            }
        case list() | tuple() if depth:
            return [_clean(each, depth - 1) for each in value[:_MAX_ITEMS]]
        case _:
            return None


def _moment(value: object) -> str | None:
    match value:
        case int() if 0 < value < 2**33:
            return stamp(datetime.fromtimestamp(value, UTC))
        case _:
            return None
