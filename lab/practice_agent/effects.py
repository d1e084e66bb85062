"""What the conversation asks its shell to do."""

from __future__ import annotations

from dataclasses import dataclass

from lab.practice_agent.record import TranscriptLine
from lab.practice_agent.server_messages import Message


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message."""

    message: Message


@dataclass(frozen=True, slots=True)
class SendRaw:
    """Send a frame that is no message: a text frame for str, a binary one for bytes."""

    payload: str | bytes


@dataclass(frozen=True, slots=True)
class Render:
    """Turn a text into audio of the output format and hand it to ``rendered``."""

    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """Tell whoever watches."""

    line: TranscriptLine


@dataclass(frozen=True, slots=True)
class Close:
    """Close with a close frame. Nothing follows."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Cut the connection without a close frame. Nothing follows."""


@dataclass(frozen=True, slots=True)
class Freeze:
    """Neither read nor write any more until the other side has gone. Nothing follows."""


Effect = Send | SendRaw | Render | Report | Close | Drop | Freeze
