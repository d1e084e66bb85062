"""What a call is made with: what all calls share, and what is decided about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ari_app.agent.elevenlabs.client import AgentClient
from ari_app.agent.elevenlabs.client_messages import Initiation
from ari_app.audio.sound_file import SoundFile
from ari_app.call.keypad import DigitMode
from ari_app.call.signals import OnMachine
from ari_app.line.asterisk.ari.client import Client
from ari_app.line.numbers import check_number, check_target, dial_string
from ari_app.patterns import LinearPattern
from ari_app.records.events import SessionObserver
from ari_app.records.recording import Recordings
from ari_app.tools.http_tools import HttpTools
from audiosocket.frames import LineFormat
from audiosocket.server import AudioSocketServer


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """What holds for every call.

    Attributes:
        outbound_endpoint: How a number is dialled, with ``{number}`` in it.
        transfer_endpoint: How the target of an attended transfer is dialled.
        number_pattern: What a number must match; None is E.164.
        target_pattern: What the target of a transfer must match; None: that of an attended one
            is a number, that of a blind one is for the dialplan to judge.
        transfer_context: Where a call that we placed goes on (extension ``s``) when its agent
            transfers it blindly.
        amd_context: Where a call is screened for machines (extension ``s``).
        on_machine: What to do when a machine has answered.
        consult_ring_seconds: How long the target of an attended transfer may ring.
        no_speech_timeout_seconds: A call in which nobody speaks for so long ends; 0: never.
        hold_timeout_seconds: A call whose caller holds us for so long ends; 0: never.
        replace_lost_agent: A call whose agent is lost gets another one, once.
        resume_message: What that one says first; empty: it goes on in its own words.
        silence_timeout_seconds: An agent that does not answer for so long is told so, and has
            failed after the same time again; 0: never.
        settable_variables: The channel variables that an agent may set.
        digit_mode, digit_timeout_seconds, digit_terminator, max_digits: How keys are collected.
        digits_are_sensitive: Keys stay out of transcripts, events and logs.
    """

    outbound_endpoint: str = "PJSIP/{number}@trunk"
    transfer_endpoint: str = "PJSIP/{number}@trunk"
    number_pattern: LinearPattern | None = None
    target_pattern: LinearPattern | None = None
    transfer_context: str = "voice-agent-after"
    amd_context: str = "voice-agent-amd"
    on_machine: OnMachine = OnMachine.TALK
    consult_ring_seconds: float = 30.0
    no_speech_timeout_seconds: float = 0.0
    hold_timeout_seconds: float = 0.0
    replace_lost_agent: bool = True
    resume_message: str = ""
    silence_timeout_seconds: float = 0.0
    settable_variables: frozenset[str] = frozenset()
    digit_mode: DigitMode = DigitMode.COLLECT
    digit_timeout_seconds: float = 3.0
    digit_terminator: str = "#"
    max_digits: int = 32
    digits_are_sensitive: bool = False

    def number(self, text: str) -> str:
        """The number of a callee as it is dialled.

        Raises:
            ValueError: It may not be dialled; a sentence that does not repeat it.
        """
        return check_number(text, self.number_pattern)

    def callee(self, number: str) -> str:
        """How Asterisk dials a number.

        Raises:
            ValueError: As for :meth:`number`.
        """
        return dial_string(self.outbound_endpoint, self.number(number))

    def target(self, number: str) -> str:
        """How Asterisk dials the target of an attended transfer.

        Raises:
            ValueError: As for :meth:`number`.
        """
        pattern = self.target_pattern or self.number_pattern
        return dial_string(self.transfer_endpoint, check_number(number, pattern))

    def blind_target(self, to: str) -> str:
        """Check the target of a blind transfer, which the dialplan carries out.

        Raises:
            ValueError: As for :meth:`number`.
        """
        return check_target(to, self.target_pattern)

    def on_amd_status(self, amd_status: str) -> OnMachine:
        """What to do with what AMD() has found (``AMDSTATUS``)."""
        return self.on_machine if amd_status.upper() == "MACHINE" else OnMachine.TALK


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
