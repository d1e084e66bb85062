"""Where in the picture the words of a call belong. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lab.demo.analysis import Span
from lab.demo.transcript import Entry


@dataclass(frozen=True, slots=True)
class Caption:
    """Words, and the second at which they begin to be heard."""

    at_s: float
    text: str


def agent_captions(entries: Iterable[Entry], spans: Sequence[Span]) -> list[Caption]:
    """Put each of the agent's texts where it was heard: to the first speech not yet given away
    that had not ended when the text came.

    Of an interrupted text only what was heard is left, with an ellipsis. A text that was never
    heard has no caption.
    """
    free = list(spans)
    captions: list[Caption] = []
    for entry in entries:
        match entry.kind:
            case "agent":
                free = [span for span in free if span.end_s > entry.at_s]
                if free:
                    captions.append(Caption(free.pop(0).start_s, entry.text))
            case "correction" if captions:
                # A no-break space: the ellipsis stays with the last word.
                cut = f"{entry.text.rstrip(' .,;:…')}\N{NO-BREAK SPACE}…"
                captions[-1] = Caption(captions[-1].at_s, cut)
    return captions


def caller_captions(entries: Iterable[Entry]) -> list[Caption]:
    """Put each of the caller's texts where it was begun."""
    return [Caption(entry.at_s, entry.text) for entry in entries if entry.kind == "caller"]
