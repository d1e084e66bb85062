from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from lab.demo.analysis import Analysis, BargeIn, Reply, Span
from lab.demo.picture import Mark
from lab.demo.result import DemoResult
from lab.softphone import Ending, HeardStats

CALLER, ANSWER, LATER = Span(1.0, 2.0), Span(2.8, 4.0), Span(3.0, 4.0)
EMPTY = Analysis((), (), (), ())
RESULT = DemoResult(
    recording=Path("call.wav"),
    picture=Path("call.png"),
    log=Path("demo.log"),
    analysis=Analysis(
        (CALLER,),
        (Span(0.3, 0.9), ANSWER),
        (Reply(CALLER, ANSWER), Reply(CALLER, LATER)),
        (BargeIn(5.0, 5.125),),
    ),
    heard=HeardStats(1500, 2, 0, 0, 20.0, 21.25, 40.0, 0.5),
    sound=(("frames heard, lost", "1,500, 2"),),
    begins="INVITE",
    ringing_s=0.01,
    answered_s=0.2,
    greeting_s=0.3,
    ended_s=9.0,
    ending=Ending("far", 200, "OK"),
    agent_delay_s=0.75,
    transcript=(),
)


def test_the_figures() -> None:
    assert dict(RESULT.figures()) == {
        "INVITE to answer": "200 ms",
        "answer to greeting": "100 ms",
        "response time": "median 900 ms, longest 1,000 ms",
        "the agent answers after": "750 ms of silence",
        "caller's first sound to silence": "125 ms",
        "frames heard, lost": "1,500, 2",
    }


def test_what_did_not_happen_has_no_figure() -> None:
    names = [name for name, _ in replace(RESULT, analysis=EMPTY, greeting_s=None).figures()]
    assert names == ["INVITE to answer", "frames heard, lost"]


def test_the_table_holds_every_figure() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(RESULT.table())
    text = console.export_text()
    assert all(name in text and value in text for name, value in RESULT.figures())


def test_the_marks_of_the_picture() -> None:
    assert RESULT.marks() == [
        Mark(0.0, "INVITE at 0 ms"),
        Mark(0.01, "ringing after 10 ms"),
        Mark(0.2, "answered after 200 ms"),
        Mark(0.3, "greeting heard after 300 ms"),
        Mark(9.0, "the agent hangs up"),
    ]


def test_marks_of_a_call_that_neither_rang_nor_spoke() -> None:
    quiet = replace(RESULT, ringing_s=None, greeting_s=None, ending=Ending("us", 200, "OK"))
    assert [mark.text for mark in quiet.marks()] == [
        "INVITE at 0 ms",
        "answered after 200 ms",
        "the caller hangs up",
    ]
