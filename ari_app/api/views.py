"""Calls as the HTTP interface shows them."""

from __future__ import annotations

from ari_app.api.models import SessionDetail, SessionSummary, SoundReport, SpokenLine
from ari_app.call.session import CallSession


def call_id(session: CallSession) -> str:
    """What the dialer calls the call; the channel in Asterisk where it gave no name."""
    return session.reference or session.call_id


def summary(session: CallSession) -> SessionSummary:
    """A call, as a list shows it."""
    return SessionSummary(**_summary_fields(session))


def _summary_fields(session: CallSession) -> dict[str, object]:
    outcome = session.outcome
    return {
        "session_id": session.session_id,
        "call_id": call_id(session),
        "channel_id": session.call_id,
        "agent_id": session.agent_id,
        "caller_number": session.caller_number,
        "called_number": session.called_number,
        "status": session.status,
        "state": session.state.value,
        "duration": round(session.duration(), 3),
        "started_at": session.started_at,
        "ended_at": session.ended_at,
        "conversation_id": session.conversation_id,
        "agent_status": outcome.status.value if outcome else None,
        "end_reason": outcome.reason if outcome else None,
        "result": session.result,
        "hangup_cause": session.hangup_cause,
        "sip_code": session.sip_code,
    }


def detail(session: CallSession) -> SessionDetail:
    """A call, with what was said and what became of its sound."""
    audio = session.audio_interface
    samples_per_ms = audio.rate_hz / 1000
    uplink, playout = audio.uplink_stats, audio.playout.stats
    return SessionDetail(
        **_summary_fields(session),
        agent_input_format=session.agent.input_format if session.agent else None,
        agent_output_format=session.agent.output_format if session.agent else None,
        line_format=session.line_format,
        sound=SoundReport(
            heard_by_agent_ms=uplink.received_samples / samples_per_ms,
            silence_filled_ms=uplink.filled_samples / samples_per_ms,
            surplus_ms=uplink.all_surplus_samples / samples_per_ms,
            said_to_caller_ms=playout.samples_played / samples_per_ms,
            dropped_ms=playout.samples_dropped / samples_per_ms,
            queued_ms=audio.playout.pending_ms,
            underruns=playout.underruns,
            interruptions=session.interruptions,
            frames_not_read=audio.line.stats.frames_skipped_backpressure if audio.line else 0,
        ),
        metadata=dict(session.metadata),
        response_times=[round(turn.seconds, 3) for turn in audio.hearing.responses],
        transcript=[
            SpokenLine(at_seconds=line.at_seconds, who=line.who, text=line.text)
            for line in session.transcript
        ],
        transcript_left_out=session.transcript.forgotten,
    )
