"""The document of a call that has ended: plain JSON, which the call log keeps and others are sent.

Times in it, such as `at`, are seconds since the call began. `docs/call-log.md` says what the rest
means.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ari_app.records.chronicle import Keys, Note, ToolUse, Turn
from ari_app.records.hiding import hide
from ari_app.records.record import CallRecord, Leg
from ari_app.records.score import score

VERSION: Final = 1
_MAX_DEPTH: Final = 64
_MAX_INTEGER: Final = 2**53
# What no database takes: halves of characters, and the character that ends texts in C.
_NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")


def call_document(record: CallRecord, what_to_hide: Collection[str] = ()) -> dict[str, Any]:
    """Make the document of a call.

    Args:
        record: The call, which has ended.
        what_to_hide: What must not be in it: `numbers`, `words`.
    """
    turns: list[Turn] = []
    tools: list[ToolUse] = []
    keys: list[Keys] = []
    notes: list[Note] = []
    for entry in record.chronicle:
        match entry:
            case Turn():
                turns.append(entry)
            case ToolUse():
                tools.append(entry)
            case Keys():
                keys.append(entry)
            case Note():
                notes.append(entry)
    document = {
        **_facts(record),
        "legs": [_leg(leg) for leg in record.legs or [_only_leg(record)]],
        "turns": [dataclasses.asdict(turn) for turn in sorted(turns, key=lambda turn: turn.at)],
        "tools": [dataclasses.asdict(tool) for tool in sorted(tools, key=lambda tool: tool.at)],
        "keys": [dataclasses.asdict(each) for each in keys],
        "notes": [dataclasses.asdict(note) for note in notes],
        "left_out": record.chronicle.forgotten,
        "response_times": list(record.response_times),
        "sound": _rounded(dataclasses.asdict(record.sound)),
    }
    document["score"] = score(document)
    plain: dict[str, Any] = _plain(document)
    return hide(plain, what_to_hide)


def _facts(record: CallRecord) -> dict[str, Any]:
    ids = record.conversation_ids or ([record.conversation_id] if record.conversation_id else [])
    return {
        "version": VERSION,
        "session_id": record.session_id,
        "direction": "out" if record.placed else "in",
        "way": record.way,
        "line_id": record.line_id,
        "reference": record.reference,
        "campaign_id": None,
        "caller_number": record.caller_number,
        "called_number": record.called_number,
        "agent_id": record.agent_id,
        "conversation_id": record.conversation_id,
        "conversation_ids": ids,
        "status": record.agent_status,
        "reason": record.end_reason,
        "transfer_to": record.transfer_to,
        "result": record.result,
        "hangup_cause": record.hangup_cause,
        "sip_code": record.sip_code,
        "detail": record.detail,
        "metadata": record.metadata,
        "started_at": stamp(record.started_at),
        "answered_at": stamp(record.answered_at),
        "ended_at": stamp(record.ended_at),
        "seconds": _seconds(record.seconds),
    }


def stamp(moment: datetime | None) -> str | None:
    """Write a moment down, in UTC, to the microsecond: as text it sorts by time."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _only_leg(record: CallRecord) -> Leg:
    """Make the leg of somebody who waited, and never became a call."""
    kind, number = "caller", record.caller_number
    if record.placed:
        kind, number = "callee", record.called_number
    return Leg(
        kind,
        number,
        ended=record.seconds,
        result=record.result,
        cause=record.hangup_cause,
        sip_code=record.sip_code,
    )


def _leg(leg: Leg) -> dict[str, Any]:
    times = {name: _seconds(getattr(leg, name)) for name in ("began", "answered", "ended")}
    return {**dataclasses.asdict(leg), **times}


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _rounded(report: dict[str, Any]) -> dict[str, Any]:
    return {
        name: round(value, 1) if isinstance(value, float) else value
        for name, value in report.items()
    }


def _plain(value: Any, depth: int = 0) -> Any:
    """Make JSON of it that every database and every reader takes, whatever somebody has sent."""
    match value:
        case None | bool():
            return value
        case str():
            return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value)
        case int():
            return value if abs(value) <= _MAX_INTEGER else str(value)
        case float():
            return value if math.isfinite(value) else None
        case _ if depth >= _MAX_DEPTH:
            return "…"
        case Mapping():
            return {_plain(str(name)): _plain(each, depth + 1) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each, depth + 1) for each in value]
        case _:
            return _plain(str(value))
