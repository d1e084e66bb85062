"""What a new agent is told that takes the place of a lost one. Pure.

ElevenLabs has no way to go on with a conversation whose socket is gone: a new one knows nothing. It
gets what was said as a contextual update, which every agent takes, and as dynamic variables for
those whose prompt asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ari_app.call.observer import TranscriptLine
from ari_app.elevenlabs import Initiation

MAX_CHARACTERS: Final = 4000
"""Of the transcript, from its end: some four minutes of talk."""

GO_ON: Final = (
    "(The connection was lost for a moment and is back. Go on where you stopped, in one short "
    "sentence, and do not greet again.)"
)
_CONTEXT: Final = (
    "This call has been going on for a while. The connection to you was lost, and you take it up "
    "again: do not greet and do not ask again what you know. What was said so far:\n"
)
_NOTHING: Final = "(nothing)"
LEFT_OUT: Final = "(The beginning is left out.)\n"
_SPEAKERS: Final = {"agent": "Agent", "caller": "Caller", "dtmf": "Keys", "tool": "Tool"}


def transcript_text(lines: Iterable[TranscriptLine], limit: int = MAX_CHARACTERS) -> str:
    """What was said, a line each, as far as it was heard; the last ``limit`` characters.

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


def context(transcript: str) -> str:
    """The contextual update for the new conversation."""
    return _CONTEXT + transcript


def initiation_for(
    initiation: Initiation, transcript: str, conversation_id: str, first_message: str | None
) -> Initiation:
    """The first message to the new agent.

    Args:
        initiation: What the lost one was told.
        transcript: See :func:`transcript_text`.
        conversation_id: The lost one's.
        first_message: What the new one says first; empty: it waits to be told. None leaves its own
            greeting, for an agent that allows no override.
    """
    variables = {
        **(initiation.dynamic_variables or {}),
        "resumed_from": conversation_id,
        "transcript_so_far": transcript,
    }
    overrides = initiation.conversation_config_override
    if first_message is not None:
        agent = (overrides or {}).get("agent")
        said = {**(agent if isinstance(agent, dict) else {}), "first_message": first_message}
        overrides = {**(overrides or {}), "agent": said}
    return initiation.model_copy(
        update={"dynamic_variables": variables, "conversation_config_override": overrides}
    )
