"""What a call is made with: what all calls share, and what is decided about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ari_app.ari import Client
from ari_app.audio.recording import Recordings
from ari_app.audio.sound_file import SoundFile
from ari_app.call.observer import SessionObserver
from ari_app.call.policy import CallPolicy
from ari_app.elevenlabs import AgentClient, Initiation
from ari_app.tools.http_tools import HttpTools
from audiosocket import AudioSocketServer, LineFormat


@dataclass(frozen=True, slots=True)
class Services:
    """What every call uses.

    Attributes:
        app: The application's name in Asterisk.
        audiosocket_target: What Asterisk is told to dial.
        loss_sound: The phrase that covers the gap when an agent is lost; None: there is music.
    """

    ari: Client
    lines: AudioSocketServer
    agents: AgentClient
    app: str
    audiosocket_target: str
    observer: SessionObserver
    policy: CallPolicy = field(default_factory=CallPolicy)
    http_tools: HttpTools | None = None
    loss_sound: SoundFile | None = None
    recordings: Recordings = field(default_factory=Recordings)


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What is decided about a call before it starts.

    Attributes:
        agent_id: The agent to talk with.
        initiation: What it is told at the start: variables, overrides.
        line_format: What is spoken on the line.
        recording_path: Where both sides are written to; None does not record.
    """

    agent_id: str
    initiation: Initiation
    line_format: LineFormat
    call_timeout_seconds: float
    connect_timeout_seconds: float
    wait_seconds: float
    uplink_chunk_ms: int
    recording_path: Path | None = None

    def with_variables(self, variables: Mapping[str, str]) -> Initiation:
        """The initiation with more dynamic variables."""
        merged = {**(self.initiation.dynamic_variables or {}), **variables}
        return self.initiation.model_copy(update={"dynamic_variables": merged})
