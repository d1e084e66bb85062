"""The practice agent: a server that speaks the ElevenLabs agent protocol, without ElevenLabs.

For the demo, for tests and for benchmarks. It greets, listens, answers, can be interrupted, calls
client tools and ends the call; and it goes wrong in a chosen way when asked to.
"""

from lab.practice_agent.config import PracticeConfig
from lab.practice_agent.dialogue import Dialogue, Silence, ToolCall, Turn
from lab.practice_agent.formats import AudioFormat
from lab.practice_agent.profile import (
    AgentBook,
    AgentProfile,
    ClientEvent,
    CloseFault,
    Delivery,
    Faults,
    Formats,
    Hearing,
    Limits,
    PracticeAgentError,
    Queue,
)
from lab.practice_agent.record import ConversationRecord, Observer, TranscriptLine
from lab.practice_agent.server import PracticeAgent, serve
from lab.practice_agent.voice import Voice

__all__ = [
    "AgentBook",
    "AgentProfile",
    "AudioFormat",
    "ClientEvent",
    "CloseFault",
    "ConversationRecord",
    "Delivery",
    "Dialogue",
    "Faults",
    "Formats",
    "Hearing",
    "Limits",
    "Observer",
    "PracticeAgent",
    "PracticeAgentError",
    "PracticeConfig",
    "Queue",
    "Silence",
    "ToolCall",
    "TranscriptLine",
    "Turn",
    "Voice",
    "serve",
]
