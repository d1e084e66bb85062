"""The transcript of a call, of its document: for programs, for people, for players. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_SPEAKERS: Final = {"agent": "Agent", "caller": "Caller"}
_READING_CHARACTERS: Final = 15.0
"""So many a second one reads with ease; for a turn of which nobody knows how long it took."""
_SHORTEST_SECONDS: Final = 1.0


def clock(seconds: float, *, long: bool = False) -> str:
    """Write a time within a call: `1:02.3`, or `00:01:02.300`."""
    millis = max(0, round(seconds * 1000))
    minutes, rest = divmod(millis, 60_000)
    if long:
        hours, minutes = divmod(minutes, 60)
        return f"{hours:02}:{minutes:02}:{rest // 1000:02}.{rest % 1000:03}"
    return f"{minutes}:{rest / 1000:04.1f}" if rest < 59_950 else f"{minutes + 1}:00.0"


def as_json(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was said as JSON."""
    return {
        "session_id": document["session_id"],
        "conversation_id": document["conversation_id"],
        "started_at": document["started_at"],
        "seconds": document["seconds"],
        "turns": document["turns"],
        "left_out": document.get("left_out", 0),
        "hidden": document["hidden"],
    }


def as_text(document: Mapping[str, Any]) -> str:
    """Return what was said, a line each; what was not heard of a turn stands in brackets."""
    lines = [f"Call {document['session_id']}, {document['started_at']}"]
    if left_out := document.get("left_out", 0):
        lines.append(f"({left_out} entries from the beginning were not kept.)")
    if "words" in document["hidden"]:
        lines.append("(The words of this call were not kept.)")
    for turn in document["turns"]:
        who = f"{_SPEAKERS.get(turn['who'], turn['who'])}:"
        lines.append(f"{clock(turn['at']):>8}  {who:<7} {_in_one_line(turn['text'])}{_heard(turn)}")
    return "\n".join(lines) + "\n"


def _heard(turn: Mapping[str, Any]) -> str:
    if turn["heard"] is None:
        return " [interrupted]" if turn["interrupted"] else ""
    why = "interrupted" if turn["interrupted"] else "not heard to its end"
    heard = _in_one_line(turn["heard"])
    return f" [{why}; heard: {heard}]" if heard else f" [{why}; nothing was heard]"


def as_vtt(document: Mapping[str, Any]) -> str:
    """Return what was heard as subtitles (WebVTT), for the first recording where there is one."""
    recordings = document.get("recordings") or [{}]
    offset = recordings[0].get("from") or 0.0
    cues = [_cue(turn, offset) for turn in _audible(document["turns"])]
    return "\n\n".join(["WEBVTT", *cues]) + "\n"


def _audible(turns: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for turn in turns:
        text = turn["text"] if turn["heard"] is None else turn["heard"]
        if text.strip():
            yield {**turn, "text": _in_one_line(text)}


def _cue(turn: Mapping[str, Any], offset: float) -> str:
    at, text, until = turn["at"], turn["text"], turn["until"] or 0.0
    if until <= at:
        until = at + max(_SHORTEST_SECONDS, len(text) / _READING_CHARACTERS)
    begins, ends = (clock(max(0.0, moment - offset), long=True) for moment in (at, until))
    who = _SPEAKERS.get(turn["who"], turn["who"])
    for character, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, written)
    return f"{begins} --> {ends}\n<v {who}>{text}"


def _in_one_line(text: str) -> str:
    return " ".join(text.split())
