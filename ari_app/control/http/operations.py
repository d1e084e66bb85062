"""The operations of the HTTP interface as a table.

The routes and the OpenAPI document are both made from it, so neither can have what the other lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from ari_app.control.http.access import needed_for
from ari_app.control.http.call_models import (
    CSV,
    JSON_LINES,
    TEXT,
    VTT,
    CallDocument,
    CallList,
    CallsQuery,
    EventsQuery,
    ExportQuery,
    RecordingQuery,
    Transcript,
    TranscriptQuery,
)
from ari_app.control.http.idempotency import MAX_KEY_LENGTH, MAX_KEYS
from ari_app.control.http.keys import Scope
from ari_app.control.http.models import (
    ActionResponse,
    EndCallResponse,
    InitiateCallResponse,
    Liveness,
    Readiness,
    SessionDetail,
    SessionList,
)
from ari_app.control.http.requests import (
    DtmfRequest,
    EndCallRequest,
    InitiateCallRequest,
    MuteRequest,
    RecordingRequest,
    SayToAgentRequest,
    TakeOverRequest,
    TransferRequest,
)
from ari_app.control.http.streams import EVENT_STREAM, LAST_EVENT_ID

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class HeaderField:
    """A request header that an operation knows."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation.

    Attributes:
        name: Of the handler, and the `operationId`.
        body: What it takes; None takes nothing.
        query: What may stand after the path's question mark; None: nothing that counts.
        answer: What it answers with 200; None for what is no model of ours.
        media_type: Of that answer.
        media_types: Others in which it can be had, as a text.
        problems: The codes that it can fail with, beside those of every operation.
        also: More statuses of success, and what they mean.
        headers: That it knows.
        is_open: No key is asked for.
        scope: What a key must be allowed; None: what its method says.
        has_head: HEAD is answered, too; it is of all that are open.
    """

    method: str
    path: str
    name: str
    tag: str
    summary: str
    description: str = ""
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    media_type: str = _JSON
    media_types: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    also: Mapping[int, str] = field(default_factory=dict)
    headers: tuple[HeaderField, ...] = ()
    is_open: bool = False
    scope: Scope | None = None

    @property
    def needs(self) -> Scope:
        """What a key must be allowed."""
        return self.scope or needed_for(self.method)

    has_head: bool = False


TAGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "calls": "Begin and end calls.",
        "sessions": "See calls, and act on them.",
        "call log": "Calls that have ended.",
        "service": "Health, metrics and this description.",
    }
)
EVENTS_PATH: Final = "/sessions/{session_id}/events"

_READS_BODY = ("body_too_large", "body_too_late", "unsupported_media_type", "invalid_request")
_TAKES_BODY = ("bad_request", "invalid_json", *_READS_BODY)
_READS_LOG = ("no_call_log", "call_log_unavailable")
_ACTS = ("session_not_found", "not_talking", "already_transferring", "busy", "asterisk", "line")


def _action(
    name: str,
    summary: str,
    body: type[BaseModel] | None = None,
    *problems: str,
    description: str = "",
) -> Operation:
    return Operation(
        method="POST",
        path=f"/sessions/{{session_id}}/{name.replace('_', '-')}",
        name=name,
        tag="sessions",
        summary=summary,
        description=description,
        body=body,
        answer=ActionResponse,
        problems=(
            *_ACTS,
            *problems,
            *(_TAKES_BODY if body is not None else _READS_BODY),
        ),
    )


OPERATIONS: Final = (
    Operation(
        method="POST",
        path="/webhook/initiate-call",
        name="initiate_call",
        tag="calls",
        summary="Call a number, or connect a waiting caller with an agent",
        description=(
            "With `called_number` a call is placed through Asterisk. Without it, `call_id` names a "
            "channel that waits in the application (`wait=30` in the dialplan). With `audio` you "
            "hold the call, and bring its sound to `audio_url`. You get the answer before the "
            "callee answers: follow the session's events, or ask for the session."
        ),
        body=InitiateCallRequest,
        answer=InitiateCallResponse,
        problems=(
            *_TAKES_BODY,
            "invalid_header",
            "idempotency_mismatch",
            "invalid_number",
            "no_agent_id",
            "no_such_channel",
            "no_such_way",
            "audio_url",
            "bad_variable",
            "session_exists",
            "rate_limited",
            "capacity",
            "quota",
            "queue_timeout",
            "precall_timeout",
            "precall_unreachable",
            "precall_status",
            "precall_too_long",
            "precall_malformed",
            "draining",
            "not_connected",
        ),
        headers=(
            HeaderField(
                IDEMPOTENCY_KEY,
                "Makes it safe to repeat the request: within 24 hours, and before "
                f"{MAX_KEYS:,} other keys have come, the same key with the same body gets the "
                "first answer again, with the header `Idempotent-Replayed: true`, and nobody is "
                "called twice. A refusal is not remembered.",
                # No spaces at the ends: HTTP takes them for its own.
                {
                    "type": "string",
                    "pattern": "^[!-~]+$",
                    "minLength": 1,
                    "maxLength": MAX_KEY_LENGTH,
                },
            ),
            HeaderField(
                "traceparent",
                "The trace that the call becomes part of (W3C Trace Context), with `tracestate` "
                "beside it. What is not of the standard counts as not sent.",
                {"type": "string"},
            ),
        ),
    ),
    Operation(
        method="POST",
        path="/webhook/end-call",
        name="end_call",
        tag="calls",
        summary="End a call",
        description="Answers when everything of the call has been cleaned up. Ending a call that "
        "has ended already changes nothing.",
        body=EndCallRequest,
        answer=EndCallResponse,
        problems=(*_TAKES_BODY, "session_not_found"),
    ),
    Operation(
        method="GET",
        path="/sessions",
        name="list_sessions",
        tag="sessions",
        summary="All calls, also those that ended in the last minute",
        answer=SessionList,
    ),
    Operation(
        method="GET",
        path="/sessions/{session_id}",
        name="get_session",
        tag="sessions",
        summary="One call, with what was said",
        answer=SessionDetail,
        problems=("session_not_found",),
    ),
    Operation(
        method="GET",
        path=EVENTS_PATH,
        name="follow_session",
        tag="sessions",
        summary="A call's events as they happen",
        description=(
            "As server-sent events, or as WebSocket messages when the request asks for an upgrade; "
            "a message is the JSON of an event's `data`. It begins with the call's first event and "
            "ends after `ended`. If the connection breaks, connect again and send the last `seq` "
            "that you saw as `Last-Event-ID` (or `?last_event_id=`): the last 1000 events are kept."
        ),
        query=EventsQuery,
        media_type=EVENT_STREAM,
        problems=(
            "session_not_found",
            "not_acceptable",
            "invalid_header",
            "bad_request",
            "too_many_streams",
        ),
        also={
            101: "The events come as WebSocket messages.",
            204: "The call has ended, and nothing more will come.",
        },
        headers=(
            HeaderField(
                LAST_EVENT_ID,
                "The `seq` of the last event that was seen.",
                {"type": "string", "pattern": "^[0-9]{0,18}$"},
            ),
        ),
    ),
    Operation(
        method="GET",
        path="/sessions/{session_id}/listen",
        name="listen",
        tag="sessions",
        summary="Listen to a call that runs",
        description=(
            "A WebSocket. First comes a text message with `rate_hz`, then binary messages of 60 "
            "ms: stereo PCM, 16 bits, little endian, the caller left, the agent right, as they are "
            "heard, 100 ms behind. The call's record says who listened."
        ),
        media_type="application/octet-stream",
        problems=("session_not_found", "not_talking", "bad_request", "too_many_streams"),
        also={101: "Both sides come as WebSocket messages."},
        scope=Scope.OPERATE,
    ),
    _action(
        "transfer",
        "Transfer the caller",
        TransferRequest,
        "bad_target",
        "invalid_number",
        description="Once the agent has finished its sentence. With `attended` the caller hears "
        "music while the target is called and the agent tells it what the call is about.",
    ),
    _action(
        "take_over",
        "Speak with the caller instead of the agent",
        TakeOverRequest,
        "bad_target",
        description="The telephone rings while the agent goes on. Once it is answered the agent is "
        "held, and the two people hear each other, until the call is given back or the supervisor "
        "hangs up. The events say what comes of it: `taken_over`, or `take_over_failed` and why.",
    ),
    _action(
        "give_back",
        "Let the agent speak with the caller again",
        description="The agent is told that a colleague spoke with the caller, and for how long. "
        "While the supervisor's telephone still rings, it rings no more. Of an attended transfer "
        "that is under way the target is given up, and the agent is told so.",
    ),
    _action("dtmf", "Press keys on the caller's line", DtmfRequest, "bad_digits"),
    _action("hold", "Give the caller music instead of the agent"),
    _action("unhold", "Give the caller the agent again"),
    _action(
        "say_to_agent",
        "Tell the agent something",
        SayToAgentRequest,
        description="`context` is something to know, `user` is answered as if the caller had said "
        "it.",
    ),
    _action(
        "recording",
        "Record the call from now on, pause, or go on",
        RecordingRequest,
        "not_recorded",
        description="Of what is said in a pause nothing is kept: there is silence in its place.",
    ),
    Operation(
        method="GET",
        path="/calls/{session_id}/recording",
        name="get_recording",
        tag="calls",
        summary="The recording of a call that has ended",
        description="The caller is left, what they heard is right. Ranges of bytes are served. "
        "Of a recording in several files `?part=2` is the second.",
        query=RecordingQuery,
        media_type="audio/*",
        has_head=True,
        problems=("no_recording", "not_finished", "bad_request", "call_log_unavailable"),
        also={206: "A range of bytes.", 304: "It is as it was.", 416: "There are no such bytes."},
    ),
    _action("mute", "Keep the caller's voice from the agent, or let it through again", MuteRequest),
    Operation(
        method="GET",
        path="/calls",
        name="list_calls",
        tag="call log",
        summary="Calls that have ended, the newest first",
        description="A page of them; `cursor` leads to the next one, also while calls are added.",
        query=CallsQuery,
        answer=CallList,
        problems=(*_READS_LOG, "invalid_request", "invalid_cursor"),
    ),
    Operation(
        method="GET",
        path="/calls/export",
        name="export_calls",
        tag="call log",
        summary="All calls that fit, as a table or as JSON, a line each",
        description="CSV has a summary of each call, JSON lines all that is kept. An answer that "
        "breaks off before its end is not complete.",
        query=ExportQuery,
        media_type=CSV,
        media_types=(JSON_LINES,),
        problems=(*_READS_LOG, "invalid_request", "not_acceptable", "too_many_exports"),
    ),
    Operation(
        method="GET",
        path="/calls/{session_id}",
        name="get_call",
        tag="call log",
        summary="All that is kept of a call",
        answer=CallDocument,
        problems=(*_READS_LOG, "call_not_found", "call_running"),
    ),
    Operation(
        method="GET",
        path="/calls/{session_id}/transcript",
        name="get_transcript",
        tag="call log",
        summary="What was said in a call",
        description="As JSON, as text to read, or as subtitles (WebVTT) for its recording: by "
        "`format`, or else by `Accept`.",
        query=TranscriptQuery,
        answer=Transcript,
        media_types=(TEXT, VTT),
        problems=(
            *_READS_LOG,
            "call_not_found",
            "call_running",
            "invalid_request",
            "not_acceptable",
        ),
    ),
    Operation(
        method="DELETE",
        path="/calls/{session_id}",
        name="delete_call",
        tag="call log",
        summary="Remove all that is kept of a call, its recording too",
        answer=ActionResponse,
        problems=(*_READS_LOG, "call_not_found", "call_running"),
    ),
    Operation(
        method="GET",
        path="/health/live",
        name="live",
        tag="service",
        summary="Whether the process runs",
        answer=Liveness,
        is_open=True,
    ),
    Operation(
        method="GET",
        path="/health/ready",
        name="ready",
        tag="service",
        summary="Whether new calls are taken",
        answer=Readiness,
        also={503: "New calls are not taken; `problems` says why."},
        is_open=True,
    ),
    Operation(
        method="GET",
        path="/metrics",
        name="metrics",
        tag="service",
        summary="Metrics in Prometheus' text format",
        media_type="text/plain",
        is_open=True,
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        name="openapi",
        tag="service",
        summary="This description",
        media_type=_JSON,
    ),
    Operation(
        method="GET",
        path="/docs",
        name="docs",
        tag="service",
        summary="A page that shows this description and lets you try it",
        media_type="text/html",
    ),
)
OPEN_PATHS: Final = frozenset(operation.path for operation in OPERATIONS if operation.is_open)
