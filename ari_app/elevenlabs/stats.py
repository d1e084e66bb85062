"""The counters of one conversation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MAX_UNKNOWN_TYPES = 32


@dataclass(slots=True)
class ConversationStats:
    """Counts only ever grow. Bytes are of audio as the codec carries it, without base64."""

    messages_in: int = 0
    messages_out: int = 0
    audio_bytes_in: int = 0
    audio_bytes_out: int = 0

    malformed: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    """Messages of unknown types, by type; `…` stands for all beyond the first 32 types."""
    repeated_metadata: int = 0
    handler_errors: int = 0
    """Callbacks of ours that raised."""

    overtaken_audio_messages: int = 0
    """Agent audio dropped because an interruption came first."""
    overtaken_audio_bytes: int = 0
    dropped_early_events: int = 0
    """Dropped because too much came before the metadata."""
    dropped_late_messages: int = 0
    """Caller audio dropped because the agent did not read in time."""
    dropped_late_bytes: int = 0

    ping_ms: float | None = None
    """The last round trip that the agent measured."""

    def count_unknown(self, kind: str) -> None:
        """Count a message of unknown type `kind`; a peer's whims cannot fill the memory."""
        if kind not in self.unknown and len(self.unknown) >= MAX_UNKNOWN_TYPES:
            kind = "…"
        self.unknown[kind] += 1
