"""The document of a call that has ended: plain JSON, which the call log keeps and others are sent.

Times in it, such as `at`, are seconds since the call began. `docs/call-log.md` says what the rest
means.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from operator import itemgetter
from typing import Any, Final

from ari_app.records.chronicle import Chronicle, Entry, Keys, Note, ToolUse, Turn
from ari_app.records.hiding import hide
from ari_app.records.plain_json import plain_json, plain_text, stamp
from ari_app.records.record import CallRecord, Leg, Listener, SoundReport, TakeOver
from ari_app.records.score import score

VERSION: Final = 1
_LONGEST_CAMPAIGN_ID: Final = 128
"""As long as what can be looked for; what is longer stays in the metadata alone."""


def call_document(record: CallRecord, what_to_hide: Collection[str] = ()) -> dict[str, Any]:
    """Make the document of a call.

    Args:
        record: The call, which has ended.
        what_to_hide: What must not be in it: `numbers`, `words`.
    """
    turns, tools, keys, notes = _of_each_kind(record.chronicle)
    document = {
        **plain_json(_facts(record)),
        "legs": [_leg(leg) for leg in record.legs or [_only_leg(record)]],
        "turns": turns,
        "tools": tools,
        "keys": keys,
        "notes": notes,
        "take_overs": [_take_over(each) for each in record.take_overs],
        "listeners": [_listener(each) for each in record.listeners],
        "left_out": record.chronicle.forgotten,
        "response_times": list(record.response_times),
        "sound": _report(record.sound),
    }
    document["score"] = score(document)
    return hide(document, what_to_hide)


_Entries = list[dict[str, Any]]


def _of_each_kind(chronicle: Chronicle) -> tuple[_Entries, _Entries, _Entries, _Entries]:
    # There may be 10,000 of them, and calls wait meanwhile.
    found: dict[type[Entry], _Entries] = {Turn: [], ToolUse: [], Keys: [], Note: []}
    for entry in chronicle:
        found[type(entry)].append(entry.as_json())
    for kind in (Turn, ToolUse):
        # They are kept when they are told of, which is not when they began.
        found[kind].sort(key=itemgetter("at"))
    return found[Turn], found[ToolUse], found[Keys], found[Note]


def _facts(record: CallRecord) -> dict[str, Any]:
    ids = record.conversation_ids or ([record.conversation_id] if record.conversation_id else [])
    return {
        "version": VERSION,
        "session_id": record.session_id,
        "direction": "out" if record.placed else "in",
        "way": record.way,
        "trunk": record.trunk,
        "line_id": record.line_id,
        "reference": record.reference,
        "campaign_id": _campaign(record.metadata),
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
        "trace_id": record.trace_id,
        "traceparent": None if record.trace is None else record.trace.traceparent,
        "metadata": record.metadata,
        "started_at": stamp(record.started_at),
        "answered_at": stamp(record.answered_at),
        "ended_at": stamp(record.ended_at),
        "seconds": _seconds(record.seconds),
        "agent_seconds": _seconds(record.agent_seconds),
    }


def _campaign(metadata: Mapping[str, Any]) -> str | None:
    campaign = metadata.get("campaign_id")
    fits = isinstance(campaign, str) and 0 < len(campaign) <= _LONGEST_CAMPAIGN_ID
    return campaign if fits else None


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
    return {**plain_json(_plain_fields(leg)), **times}


def _plain_fields(of: Leg | SoundReport) -> dict[str, Any]:
    # `dataclasses.asdict` copies each value first, and `plain_json` does so anyway.
    return {field.name: getattr(of, field.name) for field in dataclasses.fields(of)}


def _take_over(taken: TakeOver) -> dict[str, Any]:
    return {
        "who": plain_text(taken.who),
        "number": plain_text(taken.number),
        "asked": taken.asked,
        "from": taken.began,
        "until": taken.until,
        "failed": taken.failed,
        "renewed": taken.renewed,
    }


def _listener(listener: Listener) -> dict[str, Any]:
    return {"who": plain_text(listener.who), "from": listener.began, "until": listener.until}


def _seconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _report(sound: SoundReport) -> dict[str, Any]:
    report = plain_json(_plain_fields(sound))
    return {
        name: round(value, 1) if isinstance(value, float) else value
        for name, value in report.items()
    }
