"""What an agent is told that takes a call up again: one in a lost one's place, or one that a
supervisor gives the call back to. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ari_app.records.record import TranscriptLine

MAX_CHARACTERS: Final = 4000
"""Of the transcript, from its end: some four minutes of talk."""

GO_ON: Final = (
    "(The connection was lost for a moment and is back. Go on where you stopped, in one short "
    "sentence, and do not greet again.)"
)
_COLLEAGUE: Final = (
    "A colleague of yours, a human, took the call over and spoke with the caller for {time}. "
    "You were on hold and heard nothing of it. The caller hears you again."
)
_GO_ON_AFTER_COLLEAGUE: Final = (
    "(A colleague has spoken with the caller for {time} and gives the call back to you. You do "
    "not know what was said: in one short sentence, tell the caller that you are back, and go on. "
    "Do not greet again.)"
)
_CONTEXT: Final = (
    "This call has been going on for a while. The connection to you was lost, and you take it up "
    "again: do not greet and do not ask again what you know. What was said so far:\n"
)
_NOTHING: Final = "(nothing)"
LEFT_OUT: Final = "(The beginning is left out.)\n"
_SPEAKERS: Final = {"agent": "Agent", "caller": "Caller", "dtmf": "Keys", "tool": "Tool"}


def transcript_text(lines: Iterable[TranscriptLine], limit: int = MAX_CHARACTERS) -> str:
    """Write down what was said, a line each, as far as it was heard; the last `limit` characters.

    A longer one is cut between two lines, or between two words of the last, and says so.
    """
    said: list[tuple[str, str]] = []
    for line in lines:
        if line.who == "correction":
            agent = next((at for at in reversed(range(len(said))) if said[at][0] == "agent"), None)
            if agent is not None:
                said[agent] = ("agent", line.text)
        elif line.who in _SPEAKERS:
            said.append((line.who, line.text))
    text = "\n".join(f"{_SPEAKERS[who]}: {words}" for who, words in said if words)
    if len(text) > limit:
        note = LEFT_OUT if limit > len(LEFT_OUT) else ""
        end = text[len(note) - limit :]
        text = note + (end.partition("\n")[2] or end.partition(" ")[2] or end)
    return text or _NOTHING


def what_was_said(transcript: str) -> str:
    """Make the contextual update for the new conversation."""
    return _CONTEXT + transcript


def colleague_spoke(seconds: float) -> str:
    """Make what the agent is to know after a supervisor has spoken with the caller for so long."""
    return _COLLEAGUE.format(time=_spoken_time(seconds))


def go_on_after_colleague(seconds: float) -> str:
    """Ask the agent to go on after a supervisor has spoken with the caller for so long."""
    return _GO_ON_AFTER_COLLEAGUE.format(time=_spoken_time(seconds))


def _spoken_time(seconds: float) -> str:
    """Write down for a model how long something took."""
    whole = max(1, round(seconds))
    parts = [(whole // 60, "minute"), (whole % 60, "second")]
    return " and ".join(f"{count} {unit}{'s' * (count != 1)}" for count, unit in parts if count)
