"""What can be measured in the two voices of a call. Pure.

All measures come from energy in the sound as the phone said and heard it, so they hold the whole
way: microphone, network, Asterisk, the service, the agent and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

WINDOW_MS = 10
"""The resolution of every measure here."""
THRESHOLD_DBFS = -45.0
"""RMS of a window that counts as sound; 0 dBFS is a full-scale square wave."""
JOIN_MS = 700
"""A shorter pause belongs to the speech around it: a comma, a full stop."""
MIN_MS = 60
"""Anything shorter is a click, not speech."""

_FULL_SCALE = 32768.0


@dataclass(frozen=True, slots=True)
class Span:
    """From the first to the last moment of a piece of speech, in seconds."""

    start_s: float
    end_s: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Reply:
    """The agent answered: `caller` is what it answered, `answer` its answer."""

    caller: Span
    answer: Span

    @property
    def seconds(self) -> float:
        """How long the caller waited: from the end of the own speech to the first sound."""
        return self.answer.start_s - self.caller.end_s


@dataclass(frozen=True, slots=True)
class BargeIn:
    """The caller began to speak while the agent was heard."""

    at_s: float
    silent_s: float
    """When the agent was no longer heard."""

    @property
    def seconds(self) -> float:
        """How long both were heard at once."""
        return self.silent_s - self.at_s


@dataclass(frozen=True, slots=True)
class Analysis:
    """The course of one call. All times are seconds on the recording's time line."""

    caller: tuple[Span, ...]
    agent: tuple[Span, ...]
    replies: tuple[Reply, ...]
    barge_ins: tuple[BargeIn, ...]


def analyse(said: Samples, heard: Samples, rate_hz: int) -> Analysis:
    """Measure a call from what the phone said and what it heard, on one time line."""
    caller = speech_spans(said, rate_hz)
    agent = speech_spans(heard, rate_hz)
    return Analysis(
        tuple(caller), tuple(agent), tuple(replies(caller, agent)), tuple(barge_ins(caller, agent))
    )


def speech_spans(
    samples: Samples,
    rate_hz: int,
    *,
    join_ms: float = JOIN_MS,
    min_ms: float = MIN_MS,
) -> list[Span]:
    """Find where there is speech in mono sound, in order and without overlap.

    `rate_hz` must have a whole number of samples in 10 ms, as every telephone rate does.
    """
    window = rate_hz * WINDOW_MS // 1000
    padded = np.zeros(-(-len(samples) // window) * window)
    padded[: len(samples)] = samples
    powers = np.mean(np.square(padded.reshape(-1, window)), axis=1)
    loud = np.flatnonzero(powers >= (_FULL_SCALE * 10 ** (THRESHOLD_DBFS / 20)) ** 2)
    if not loud.size:
        return []
    breaks = np.flatnonzero(np.diff(loud) > join_ms / WINDOW_MS + 1)
    firsts = loud[np.concatenate(([0], breaks + 1))]
    ends = loud[np.concatenate((breaks, [loud.size - 1]))] + 1
    return [
        Span(first * WINDOW_MS / 1000, end * WINDOW_MS / 1000)
        for first, end in zip(firsts.tolist(), ends.tolist(), strict=True)
        if (end - first) * WINDOW_MS >= min_ms
    ]


def replies(caller: Sequence[Span], agent: Sequence[Span]) -> list[Reply]:
    """Pair each turn of the caller's with the agent's answer to it.

    The answer is the first speech that begins after the turn has ended and before the next one
    begins. A turn without one has no pair; a second speech after the same turn is no reply.
    """
    found: list[Reply] = []
    for index, turn in enumerate(caller):
        until = caller[index + 1].start_s if index + 1 < len(caller) else float("inf")
        answer = next((span for span in agent if turn.end_s <= span.start_s < until), None)
        if answer is not None:
            found.append(Reply(turn, answer))
    return found


def barge_ins(caller: Sequence[Span], agent: Sequence[Span]) -> list[BargeIn]:
    """Find where the caller began to speak while the agent was heard."""
    return [
        BargeIn(turn.start_s, span.end_s)
        for turn in caller
        for span in agent
        if span.start_s < turn.start_s < span.end_s
    ]
