"""What others are told: the events, as JSON. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ari_app.records.spend.limits import SpendAlert

_OURS: Final = uuid.UUID("6f0f0f0e-6c0b-5d0e-9a55-6d9f0a3c2b41")
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS

_AT_THE_START: Final = (
    "version",
    "session_id",
    "direction",
    "way",
    "trunk",
    "line_id",
    "reference",
    "campaign_id",
    "caller_number",
    "called_number",
    "agent_id",
    "trace_id",
    "traceparent",
    "metadata",
    "started_at",
    "hidden",
)
"""What is known of a call when it begins."""
_WHICH_CALL: Final = (
    "session_id",
    "conversation_id",
    "reference",
    "campaign_id",
    "trace_id",
    "traceparent",
    "metadata",
)


@dataclass(frozen=True, slots=True)
class Event:
    """One event, ready to be sent.

    Attributes:
        id: The same however often it is told, and however often it is sent.
        kind: `call.started`, `call.ended`, `recording.ready`, `spend.near_limit`,
            `spend.limit_reached` or `webhook.test`.
        session_id: The call that it is about; empty: none.
        body: What is sent, to the byte.
    """

    id: str
    kind: str
    session_id: str
    body: bytes


def call_started(call: Mapping[str, Any], at: str) -> Event:
    """Tell that a call has begun.

    Args:
        call: Its document, see `ari_app.records.document`.
        at: When this was told.
    """
    known = {name: call[name] for name in _AT_THE_START if name in call}
    return _event("call.started", call, at, {"call": known})


def call_ended(call: Mapping[str, Any], at: str) -> Event:
    """Tell that a call is over, with all that is known of it."""
    return _event("call.ended", call, at, {"call": call})


def recording_ready(call: Mapping[str, Any], recording: Mapping[str, Any], at: str) -> Event:
    """Tell that a recording can be fetched."""
    which = {name: call[name] for name in _WHICH_CALL if name in call}
    data = {"call": which, "recording": recording}
    return _event("recording.ready", call, at, data, str(recording["path"]))


def spend_alert(alert: SpendAlert, at: str) -> Event:
    """Tell that a limit of a day is near, or reached; of each once, whichever process sees it."""
    use = alert.use
    kind = "spend.limit_reached" if alert.reached else "spend.near_limit"
    name = "\n".join((kind, alert.day, use.agent_id or "", use.of, f"{use.limit:g}"))
    event_id = f"evt_{uuid.uuid5(_OURS, name).hex}"
    spend = {
        "day": alert.day,
        "time_zone": alert.time_zone,
        "agent_id": use.agent_id,
        "of": use.of,
        "used": round(use.used, 1),
        "limit": use.limit,
    }
    body = {"id": event_id, "type": kind, "created_at": at, "call": None, "spend": spend}
    return Event(event_id, kind, "", orjson.dumps(body))


def test_event(at: str) -> Event:
    """Tell nothing: somebody tries whether it arrives."""
    name = f"evt_{uuid.uuid4().hex}"
    body = {"id": name, "type": "webhook.test", "created_at": at, "call": None}
    return Event(name, "webhook.test", "", orjson.dumps(body))


def _event(
    kind: str, call: Mapping[str, Any], at: str, data: Mapping[str, Any], which: str | None = None
) -> Event:
    """Make an event, whose id follows from what is told.

    Args:
        kind: Its type.
        call: What it is about.
        at: When it was told.
        data: What is told.
        which: Of several of this kind in a call; None: there is but one.
    """
    session_id = str(call["session_id"])
    # A session's name may be a client's own, and come again in another call.
    name = "\n".join((kind, session_id, which or str(call["started_at"])))
    event_id = f"evt_{uuid.uuid5(_OURS, name).hex}"
    body = {"id": event_id, "type": kind, "created_at": at, **data}
    return Event(event_id, kind, session_id, orjson.dumps(body, default=str, option=_OPTIONS))
