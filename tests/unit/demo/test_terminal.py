"""What is seen in the terminal: steps and transcript."""

from __future__ import annotations

import asyncio
import io
from typing import cast

import pytest
from rich.console import Console

from ari_app.records.events import AgentConnected, CallEnded, StateChanged
from ari_app.records.record import CallRecord, TranscriptLine
from lab.demo.progress import Steps
from lab.demo.transcript import Entry, LiveTranscript, clock, render
from tests.unit.words import words


def terminal(*, live: bool = False) -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=live, color_system=None)


def seen(console: Console) -> str:
    return cast(io.StringIO, console.file).getvalue()


class Clock:
    """A clock that goes on by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def says(transcript: LiveTranscript, at_seconds: float, who: str, text: str) -> None:
    record = CallRecord("s1", "sip-1", 0.0)
    record.transcript.append(TranscriptLine(at_seconds, who, text))
    transcript.heard(record, words(who, text))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0:00.0"), (7.34, "0:07.3"), (59.96, "1:00.0"), (605.1, "10:05.1"), (-1.0, "0:00.0")],
)
def test_the_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Entry(1.0, "agent", "Hello [you]."), ["0:01.0", "agent", "Hello [you]."]),
        (Entry(1.0, "caller", "Good day."), ["caller", "Good day."]),
        (Entry(1.0, "heard", "good day"), ["the agent heard: good day"]),
        (Entry(1.0, "correction", "Hel"), ["the caller heard: Hel"]),
        (Entry(1.0, "correction", ""), ["the caller heard nothing"]),
        (Entry(1.0, "interruption", "after 300 ms"), ["barge-in", "after 300 ms"]),
        (Entry(1.0, "tool", "hang_up: it ends"), ["tool", "hang_up: it ends"]),
    ],
)
def test_an_entry_on_the_screen(entry: Entry, words: list[str]) -> None:
    console = terminal()
    console.print(render(entry))
    assert all(word in seen(console) for word in words)


def test_times_count_from_the_start_of_the_call() -> None:
    console, now = terminal(), Clock()
    transcript = LiveTranscript(console, now=now)
    transcript.start_at(100.0)
    now.now = 102.5
    transcript.caller_speaks("Hello.")
    says(transcript, 2.1, "agent", "Good morning.")
    transcript.start_at(None)
    says(transcript, 2.1, "caller", "(spoke)")
    assert list(transcript.entries) == [
        Entry(2.5, "caller", "Hello."),
        Entry(2.5, "agent", "Good morning."),
        Entry(2.1, "heard", "(spoke)"),
    ]
    assert "Good morning." in seen(console)


async def test_the_life_of_a_call_is_told() -> None:
    console = terminal()
    transcript = LiveTranscript(console)
    record = CallRecord("s1", "sip-1", asyncio.get_running_loop().time() - 7.0)
    transcript.heard(record, StateChanged("connecting", "active"))
    transcript.heard(record, AgentConnected("conv_1", 0.0123))
    transcript.heard(record, StateChanged("joining", "active"))
    transcript.heard(record, StateChanged("talking", "active"))
    assert not transcript.ended.is_set()
    transcript.heard(record, StateChanged("ended", "ended"))
    outcome = CallEnded("COMPLETED", "agent_ended", 9.0)
    transcript.heard(record, outcome)
    assert transcript.ended.is_set()
    assert transcript.outcome is outcome
    assert [round(entry.at_s, 1) for entry in transcript.entries] == [0.0, 0.0, 7.0, 9.0]
    assert [entry.text for entry in transcript.entries] == [
        "the call has reached the service",
        "the agent is ready after 12 ms",
        "answered; the caller and the agent are joined",
        "the service has let the call go: COMPLETED, agent_ended",
    ]


def test_a_step_is_ticked_off_with_its_time() -> None:
    console, now = terminal(), Clock()
    with Steps(console, now=now).step("Asterisk") as step:
        step.report("Fetching [it]")
        step.result = "22.10.1"
        now.now += 1.5
    assert seen(console).splitlines() == [
        "   Fetching [it]",
        " ✓ Asterisk            1.50 s   22.10.1",
    ]


def test_a_live_terminal_shows_details_only_while_they_last() -> None:
    console = terminal(live=True)
    with Steps(console).step("Asterisk") as step:
        step.report("Fetching")
    assert "✓ Asterisk" in seen(console)
    assert not any(line.startswith("   Fetching") for line in seen(console).splitlines())


def test_a_step_that_fails_is_crossed_out() -> None:
    console = terminal()
    with pytest.raises(RuntimeError), Steps(console).step("Asterisk"):
        raise RuntimeError
    assert seen(console).startswith(" ✗ Asterisk")
