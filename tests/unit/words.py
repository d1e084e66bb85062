from __future__ import annotations

from ari_app.records.events import (
    CallerInterrupted,
    KeysPressed,
    Noted,
    Said,
    ToolRan,
    Words,
)

_KINDS = {each.kind: each for each in (CallerInterrupted, ToolRan, KeysPressed, Noted)}


def words(who: str, text: str) -> Words:
    """The event that is this line of a transcript."""
    kind = _KINDS.get(who)
    return Said(who, text) if kind is None else kind(text)
