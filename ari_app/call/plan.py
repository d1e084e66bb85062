"""Policy, services and plan of a call: what all calls share, and what is decided about each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from ari_app.agent.interface import Agents, Briefing
from ari_app.call.amd import AmdRules, OnMachine
from ari_app.call.keypad import DigitCollector, DigitMode
from ari_app.line.interface import LineFormat
from ari_app.line.numbers import check_number, check_target
from ari_app.patterns import LinearPattern
from ari_app.records.checkpoints import Checkpoints
from ari_app.records.journal import Journal
from ari_app.records.recording.archive import RecordingArchive
from ari_app.records.trace import Begin, read_traceparent
from ari_app.tools.http_tools import HttpTools

if TYPE_CHECKING:
    from ari_app.audio.sound_file import SoundFile


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """The rules of every call.

    Attributes:
        number_pattern: What a number must match; None is E.164.
        target_pattern: What the target of a transfer must match; None: that of an attended one
            is a number, that of a blind one is for the dialplan to judge.
        amd: What to do when a machine has answered.
        consult_ring_seconds: How long the target of an attended transfer may ring, or a
            supervisor.
        decline_key: With it a target who hears the agent declines the call; empty: none does.
        supervisor_pattern: What a supervisor's telephone must match; None: as a target's.
        no_speech_timeout_seconds: A call in which nobody speaks for so long ends; 0: never.
        hold_timeout_seconds: A call whose caller holds us for so long ends; 0: never.
        replace_lost_agent: A call whose agent is lost gets another one, once.
        resume_message: What that one says first; empty: it goes on in its own words.
        silence_timeout_seconds: An agent that does not answer for so long is told so, and has
            failed after the same time again; 0: never.
        settable_variables: The line's variables that an agent may set.
        digit_mode, digit_timeout_seconds, digit_terminator, max_digits: How keys are collected.
        digits_are_sensitive: Keys stay out of transcripts, events and logs.
    """

    number_pattern: LinearPattern | None = None
    target_pattern: LinearPattern | None = None
    amd: AmdRules = field(default_factory=AmdRules)
    consult_ring_seconds: float = 30.0
    decline_key: str = ""
    supervisor_pattern: LinearPattern | None = None
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
        """Check the number of a callee; return it as it is dialled.

        Raises:
            ValueError: It may not be dialled; a sentence that does not repeat it.
        """
        return check_number(text, self.number_pattern, "NUMBER_PATTERN")

    def target(self, number: str) -> str:
        """Check the number of an attended transfer's target; return it as it is dialled.

        Raises:
            ValueError: As for `number`.
        """
        pattern = self.target_pattern or self.number_pattern
        return check_number(number, pattern, "TRANSFER_PATTERN")

    def supervisor(self, endpoint: str) -> str:
        """Check a supervisor's telephone; return it as it is dialled.

        Raises:
            ValueError: As for `number`.
        """
        pattern = self.supervisor_pattern or self.target_pattern or self.number_pattern
        return check_number(endpoint, pattern, "TAKE_OVER_PATTERN")

    def blind_target(self, to: str) -> str:
        """Check the target of a blind transfer, which the dialplan carries out.

        Raises:
            ValueError: As for `number`.
        """
        return check_target(to, self.target_pattern, "TRANSFER_PATTERN")

    def digit_collector(self) -> DigitCollector:
        """Make what turns a caller's keys into entries."""
        return DigitCollector(
            self.digit_mode,
            inter_digit_timeout=self.digit_timeout_seconds,
            terminator=self.digit_terminator,
            max_digits=self.max_digits,
        )


class Announcement(Enum):
    """Announcements that a caller has to hear before the thing itself, in the order of playing."""

    LISTENING = auto()
    """Somebody may listen; told before the agent says anything."""
    RECORDING = auto()
    """The call is recorded."""


@dataclass(frozen=True, slots=True)
class Services:
    """The services that every call uses.

    Attributes:
        loss_sound: The phrase that covers the gap when an agent is lost; None: there is music.
        recordings: Where calls are recorded; None: no call is.
        begin_trace: Gives a call its place in a trace.
        announcements: What callers are told, once each.
        checkpoints: Keeps each call for another process; None: calls are not kept.
        ends: Held by a call for a turn of the loop while it ends: writing and telling that takes a
            millisecond, and where hundreds end at once the other calls have to go on.
    """

    agents: Agents
    journal: Journal
    policy: CallPolicy = field(default_factory=CallPolicy)
    http_tools: HttpTools | None = None
    loss_sound: SoundFile | None = None
    recordings: RecordingArchive | None = None
    begin_trace: Begin = read_traceparent
    announcements: Mapping[Announcement, SoundFile] = field(default_factory=dict)
    checkpoints: Checkpoints | None = None
    ends: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class CallPlan:
    """The decisions about a call before it starts.

    Attributes:
        briefing: Which agent, and what it is told.
        line_format: The sound of the line.
        ring_seconds: How long it may ring at somebody whom we call.
        uplink_chunk_ms: How much sound the agent is given at once.
        recorded: It is recorded from its beginning, where that is possible.
        on_machine: What is done when a machine answers, in place of what the policy says; None: as
            that says.
        no_speech_timeout_seconds: In place of the policy's; None: as that says.
    """

    briefing: Briefing
    line_format: LineFormat
    call_timeout_seconds: float
    connect_timeout_seconds: float
    uplink_chunk_ms: int
    ring_seconds: float = 0.0
    recorded: bool = False
    on_machine: OnMachine | None = None
    no_speech_timeout_seconds: float | None = None
