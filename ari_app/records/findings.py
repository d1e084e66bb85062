"""What went well in a call, what did not, and in which order it happened, of its document. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType
from typing import Any, Final

from ari_app.records.transcript import clock

WHY: Final = MappingProxyType(
    {
        "agent_ended": "The agent said goodbye and ended the call.",
        "agent_hung_up": "The agent hung up.",
        "agent_lost": "The connection to the agent was lost, and no other could be had.",
        "agent_quota": "The workspace's quota at ElevenLabs is used up.",
        "agent_silent": "The agent said nothing, and not when it was told so either.",
        "agent_timeout": "The agent was not there in time: AGENT_CONNECT_TIMEOUT_SECONDS.",
        "agent_transfer": "The agent passed the caller on.",
        "agent_unauthorized": "ElevenLabs refused ELEVENLABS_API_KEY.",
        "agent_unavailable": "ElevenLabs could not be reached, or had no room.",
        "ari_server_error": "Asterisk could not do what the call needs; `ari-app check` tries it.",
        "ari_timeout": "Asterisk did not answer in time; `ari-app check` measures it.",
        "ari_unavailable": "Asterisk could not be reached.",
        "at_capacity": "All places were taken: MAX_CONCURRENT_CALLS.",
        "busy": "The line was busy.",
        "call_timeout": "It had lasted as long as a call may: CALL_TIMEOUT_SECONDS.",
        "caller_hung_up": "The caller hung up.",
        "caller_left": "Somebody else took the caller: a transfer from outside, or a redirect.",
        "connect_timeout": "Sound could not be set up in time; `ari-app check` tries its way.",
        "draining": "The service was stopping and took no calls.",
        "end_requested": "Somebody ended it over HTTP.",
        "hold_timeout": "The caller's phone held us for too long: HOLD_TIMEOUT_SECONDS.",
        "internal_error": "A fault of this service; its log says more.",
        "invalid_number": "There is no such number.",
        "join_timeout": "The caller could not be joined with the agent in time.",
        "lost": "The service lost the call while it was away from Asterisk.",
        "machine_detected": "An answering machine took the call.",
        "media_channel_gone": "Asterisk ended the sound's channel; `ari-app check` tries its way.",
        "no_agent_id": "No agent was named, and ELEVENLABS_AGENT_ID is empty.",
        "no_answer": "Nobody answered.",
        "no_speech": "Nobody said anything: NO_SPEECH_TIMEOUT_SECONDS.",
        "not_found": "ElevenLabs knows no such agent, or the key may not see it.",
        "rejected": "The call was rejected.",
        "shutting_down": "The service was stopped before the call had ended.",
        "transfer_requested": "Somebody passed the caller on over HTTP.",
        "transferred": "The caller was joined with the target of a transfer.",
        "unreachable": "The line could not be reached.",
        "wait_timeout": "Nobody named an agent while the caller waited.",
        "worker_lost": "The process that carried the call was lost.",
    }
)
_GOOD_STATUS: Final = frozenset({"COMPLETED", "TRANSFER"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that went well, or did not."""

    well: bool
    text: str


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that happened in the call, `at` so many seconds after it began.

    Attributes:
        kind: `caller`, `agent`, `tool`, `keys`, `note` or `leg`.
    """

    at: float
    kind: str
    text: str


def why(document: Mapping[str, Any]) -> str:
    """Say why a call has ended, as a sentence; empty where its reason is somebody's own word."""
    reason = document["reason"] or ""
    if (told := WHY.get(reason) or WHY.get(reason.removeprefix("agent_"))) is not None:
        return told
    return "" if document["status"] in _GOOD_STATUS else "See docs/agent.md#reasons."


def findings(document: Mapping[str, Any]) -> list[Finding]:
    """Say what went well in a call, and what did not, with its score's reasons."""
    status, sound = document["status"], document["sound"]
    ended = f"{status} ({document['reason']}). {why(document)}".rstrip()
    found = [Finding(status in _GOOD_STATUS, ended)]
    if detail := document["detail"]:
        found.append(Finding(False, detail))
    found += [Finding(False, reason) for reason in document["score"]["reasons"]]
    if times := document["response_times"]:
        found.append(
            Finding(
                True,
                f"Answers: {len(times)}, after {median(times):.1f} s as a rule, "
                f"{max(times):.1f} s at most.",
            )
        )
    if pauses := sound["barge_in_ms"]:
        found.append(
            Finding(
                True,
                f"Interruptions: {len(pauses)}, silence after {max(pauses):.0f} ms at most.",
            )
        )
    found += _supervised(document)
    for tool in document["tools"]:
        if tool["is_error"]:
            found.append(Finding(False, f"The tool {tool['name']} failed: {tool['result']}"))
    if good := sum(not tool["is_error"] for tool in document["tools"]):
        found.append(
            Finding(True, f"Tools that did their work: {good} of {len(document['tools'])}.")
        )
    if sound["short_gaps_ms"] == 0 and document["answered_at"] is not None:
        found.append(Finding(True, "Nothing of the caller's sound is known to be missing."))
    if sound["rtp"] is not None and not sound["rtp"]["rtcp"]:
        found.append(
            Finding(True, "The telephone sent no reports (RTCP): how well it heard is not known.")
        )
    return sorted(found, key=lambda each: each.well)


def _supervised(document: Mapping[str, Any]) -> Iterator[Finding]:
    # Calls that were kept before there were supervisors say nothing of them.
    for taken in document.get("take_overs", ()):
        who = taken["who"] or "Somebody"
        if taken["from"] is not None:
            seconds = taken["until"] - taken["from"]
            began = clock(taken["from"])
            yield Finding(
                True, f"{who} spoke with the caller for {seconds:.0f} s, from {began} on."
            )
        elif taken["failed"]:
            why = taken["failed"].replace("_", " ")
            yield Finding(False, f"{who} did not take the call over ({why}).")
    for listener in document.get("listeners", ()):
        who, seconds = listener["who"] or "Somebody", listener["until"] - listener["from"]
        yield Finding(
            True, f"{who} listened for {seconds:.0f} s, from {clock(listener['from'])} on."
        )


def timeline(document: Mapping[str, Any]) -> list[Happened]:
    """Return all that happened, in its order."""
    return sorted(_happened(document), key=lambda each: each.at)


def _happened(document: Mapping[str, Any]) -> Iterator[Happened]:
    for turn in document["turns"]:
        yield Happened(turn["at"], turn["who"], _turn(turn))
    for tool in document["tools"]:
        told = ", ".join(f"{name}={value}" for name, value in tool["arguments"].items())
        outcome = "failed" if tool["is_error"] else "done"
        text = f"{tool['name']}({told}) {outcome} in {tool['seconds']:.1f} s: {tool['result']}"
        yield Happened(tool["at"], "tool", text)
    for keys in document["keys"]:
        yield Happened(keys["at"], "keys", keys["digits"])
    for note in document["notes"]:
        yield Happened(note["at"], "note", note["text"])
    for leg in document["legs"]:
        who = f"{leg['kind']} {leg['number'] or 'without a number'}"
        began = "is here" if leg["kind"] == "caller" else "is called"
        yield Happened(leg["began"], "leg", f"{who} {began}")
        if leg["answered"]:
            yield Happened(leg["answered"], "leg", f"{who} is connected")
        if leg["ended"] is not None:
            because = [
                f"{name} {value}"
                for name, value in (("cause", leg["cause"]), ("SIP", leg["sip_code"]))
                if value is not None
            ]
            result = [] if leg["result"] is None else [leg["result"]]
            told = ", ".join([*result, *because])
            yield Happened(leg["ended"], "leg", f"{who} has left" + (f" ({told})" if told else ""))


def _turn(turn: Mapping[str, Any]) -> str:
    text = str(turn["text"])
    if turn["interrupted"]:
        text += " [interrupted]"
    if turn["heard"] is not None:
        text += f" [heard: {turn['heard'] or 'nothing'}]"
    if turn["until"] is not None and turn["until"] > turn["at"]:
        text += f" (until {clock(turn['until'])})"
    return text
