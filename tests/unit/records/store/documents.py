"""Documents of calls, for tests of the call log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)


def stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def call(session_id: str = "s1", minute: float = 0, **changes: Any) -> dict[str, Any]:
    """A call that began so many minutes after noon."""
    began = NOON + timedelta(minutes=minute)
    return {
        "version": 1,
        "session_id": session_id,
        "direction": "in",
        "caller_number": "+49 30 23125 000",
        "called_number": "100",
        "agent_id": "agent_1",
        "conversation_id": f"conv_{session_id}",
        "conversation_ids": [f"conv_{session_id}"],
        "status": "COMPLETED",
        "reason": "agent_ended",
        "result": None,
        "campaign_id": None,
        "started_at": stamp(began),
        "ended_at": stamp(began + timedelta(seconds=61.2)),
        "seconds": 61.2,
        "turns": [],
        "notes": [],
    } | changes


def turns(*texts: str) -> list[dict[str, Any]]:
    return [{"at": n, "who": "caller", "text": text} for n, text in enumerate(texts)]
