"""Calls as rows of a table, of their documents: for lists and spreadsheets. Pure."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, Final

SUMMARY: Final = (
    "session_id",
    "direction",
    "way",
    "trunk",
    "reference",
    "campaign_id",
    "caller_number",
    "called_number",
    "agent_id",
    "conversation_id",
    "status",
    "reason",
    "transfer_to",
    "result",
    "hangup_cause",
    "sip_code",
    "started_at",
    "answered_at",
    "ended_at",
    "seconds",
    "agent_seconds",
)
COUNTED: Final = (
    *("score", "turns", "interruptions", "tools", "response_time"),
    *("credits", "cost_usd"),
)
COLUMNS: Final = (*SUMMARY, *COUNTED, "metadata")

# What a spreadsheet takes for the beginning of a formula; also after what it takes for the end of a
# cell where its language has another one.
_FORMULA: Final = re.compile("(^|[;,|\t\r\n])(\\s*)([=+\\-@\uff1d\uff0b\uff0d\uff20\t\r])")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a list shows of a call."""
    times = document.get("response_times") or []
    report = document.get("agent_report") or {}
    counted = {
        "score": (document.get("score") or {}).get("value"),
        "turns": len(document.get("turns") or ()),
        "interruptions": (document.get("sound") or {}).get("interruptions", 0),
        "tools": len(document.get("tools") or ()),
        "response_time": round(median(times), 3) if times else None,
        # As the agent's service says itself, later.
        "credits": _amount(report.get("cost")),
        "cost_usd": _amount(report.get("cost_fiat")),
    }
    return {name: document.get(name) for name in SUMMARY} | counted


def _amount(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value


def csv_head() -> str:
    """Return the row of names."""
    return _row(COLUMNS)


def csv_row(document: Mapping[str, Any]) -> str:
    """Return a call as a row of CSV (RFC 4180), none of whose cells a spreadsheet carries out."""
    cells = summary(document)
    metadata = document.get("metadata") or {}
    cells["metadata"] = json.dumps(metadata, ensure_ascii=False) if metadata else ""
    return _row(_harmless(cells[name]) for name in COLUMNS)


def _harmless(value: object) -> str:
    text = "" if value is None else str(value)
    if _NUMBER.fullmatch(text):
        return text
    return _FORMULA.sub(r"\1\2'\3", text)


def _row(cells: Iterable[str]) -> str:
    row = io.StringIO()
    csv.writer(row, quoting=csv.QUOTE_ALL).writerow(cells)
    return row.getvalue()
