"""What ElevenLabs says of a conversation after it: the answer to `GET`, and the post-call webhook.

Source: https://elevenlabs.io/docs/eleven-agents/workflows/post-call-webhooks
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import Any, Final

import aiohttp
import orjson
import structlog

from lab.practice_agent.record import ConversationRecord

logger = structlog.get_logger(__name__)

SIGNATURE_HEADER: Final = "ElevenLabs-Signature"
_SEND_SECONDS: Final = 10.0
_CREDITS_A_SECOND: Final = 2


def sign(secret: str, body: bytes, now: int) -> str:
    """Return the header's value."""
    mac = hmac.new(secret.encode(), b"%d." % now + body, hashlib.sha256)
    return f"t={now},v0={mac.hexdigest()}"


def conversation(record: ConversationRecord, now: float) -> dict[str, Any]:
    """Return a conversation as the service describes it; `now` as in the record."""
    over = record.closing is not None
    lines = [line for line in record.transcript if line.speaker != "note"]
    seconds = round(lines[-1].at_s) if lines else 0
    heard = sum(line.speaker == "caller" for line in lines)
    return {
        "agent_id": record.agent_id,
        "conversation_id": record.conversation_id,
        "status": "done" if over else "in-progress",
        "transcript": [
            {
                "role": "user" if line.speaker == "caller" else "agent",
                "message": line.text,
                "time_in_call_secs": round(line.at_s),
                "interrupted": False,
            }
            for line in lines
        ],
        "metadata": {
            "start_time_unix_secs": round(time.time() - (now - record.opened_at)),
            "call_duration_secs": seconds,
            "cost": _CREDITS_A_SECOND * seconds,
            "termination_reason": f"closed by the {record.closing.by}" if record.closing else "",
            "authorization_method": record.authorization,
        },
        "analysis": _analysis(heard, len(lines)) if over else None,
        "has_audio": False,
        "has_user_audio": False,
        "has_response_audio": False,
        "has_auxiliary_audio": False,
    }


def _analysis(heard: int, said: int) -> dict[str, Any]:
    """Judge as simply as can be checked: whoever has said something was served."""
    result = "success" if heard else "failure"
    rationale = f"The caller has spoken {heard} times."
    return {
        "call_successful": result,
        "call_summary_title": "A practice call",
        "transcript_summary": f"A practice call with {said} utterances.",
        "evaluation_criteria_results": {
            "was_served": {"criteria_id": "was_served", "result": result, "rationale": rationale}
        },
        "data_collection_results": {
            "utterances": {
                "data_collection_id": "utterances",
                "value": heard,
                "rationale": rationale,
                "json_schema": {"type": "integer", "description": "How often the caller spoke."},
            }
        },
    }


def traced(data: dict[str, Any]) -> dict[str, Any]:
    """Return what the webhook holds in the form of OpenTelemetry."""
    analysis, metadata = data["analysis"], data["metadata"]
    attributes: dict[str, Any] = {
        "elevenlabs.source": "post_call_webhook",
        "elevenlabs.status": data["status"],
        "elevenlabs.termination_reason": metadata["termination_reason"],
        "elevenlabs.session.duration_ms": 1000 * metadata["call_duration_secs"],
    }
    for name, value in analysis.items():
        if isinstance(value, dict):
            # As it was seen there: written by Python, not as JSON.
            for key, result in value.items():
                attributes[f"elevenlabs.analysis.{name}.{key}"] = repr(result)
        else:
            attributes[f"elevenlabs.analysis.{name}"] = value
    begin = metadata["start_time_unix_secs"]
    span = {
        "traceId": hashlib.sha256(data["conversation_id"].encode()).hexdigest()[:32],
        "spanId": 16 * "1",
        "name": "elevenlabs.conversation",
        "kind": 1,
        "startTimeUnixNano": str(begin * 10**9),
        "endTimeUnixNano": str((begin + metadata["call_duration_secs"]) * 10**9),
        "attributes": [_attribute(name, value) for name, value in attributes.items()],
        "status": {"code": 1},
    }
    scope = {"name": "elevenlabs.convai", "version": "1.0.0"}
    resource = {
        "attributes": [
            _attribute("service.name", "elevenlabs-convai"),
            _attribute("elevenlabs.conversation_id", data["conversation_id"]),
        ]
    }
    spans = [{"resource": resource, "scopeSpans": [{"scope": scope, "spans": [span]}]}]
    return {
        "conversation_id": data["conversation_id"],
        "agent_id": data["agent_id"],
        "otlp_traces": {"resourceSpans": spans},
    }


def _attribute(name: str, value: object) -> dict[str, Any]:
    match value:
        case int():
            return {"key": name, "value": {"intValue": str(value)}}
        case _:
            return {"key": name, "value": {"stringValue": str(value)}}


def event(data: dict[str, Any], form: str, now: int) -> bytes:
    """Return the webhook's body; `form` is `json` or `opentelemetry`."""
    kind = "post_call_transcription"
    if form == "opentelemetry":
        kind, data = f"{kind}_otel", traced(data)
    return orjson.dumps({"type": kind, "event_timestamp": now, "data": data})


async def send(url: str, secret: str, body: bytes) -> int | None:
    """Send a webhook once; the answer's status, or None when there is none."""
    headers = {
        "Content-Type": "application/json",
        SIGNATURE_HEADER: sign(secret, body, int(time.time())),
    }
    try:
        async with (
            asyncio.timeout(_SEND_SECONDS),
            aiohttp.ClientSession() as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            logger.info("post-call webhook sent", status=response.status)
            return response.status
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        logger.warning("post-call webhook not sent", error=type(error).__name__)
        return None
