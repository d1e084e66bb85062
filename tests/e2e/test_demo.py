"""The whole demonstration, with a real Asterisk."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from lab.asterisk import LabError
from lab.demo import DemoOptions, DemoResult, run_demo, scene, ways
from lab.demo.picture import HEIGHT_PX, WIDTH_PX
from lab.practice_agent import AgentBook
from tests.recordings import sides_of

pytestmark = [pytest.mark.e2e, pytest.mark.long]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Shown:
    """A demonstration that has been run, and what it printed."""

    result: DemoResult
    screen: str


def console() -> Console:
    return Console(file=io.StringIO(), width=120)


def screen(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner() as runner:
        return runner.run(work)


async def until_shown(terminal: Console, words: str, demo: asyncio.Task[DemoResult]) -> None:
    while True:
        if words in " ".join(screen(terminal).split()):
            return
        assert not demo.done(), "the demonstration is over"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    terminal = console()
    options = DemoOptions(out_dir=tmp_path_factory.mktemp("demo") / "output")
    return Shown(run(run_demo(options, terminal)), screen(terminal))


def test_the_call_goes_its_whole_way(shown: Shown) -> None:
    analysis = shown.result.analysis
    assert len(analysis.caller) == len(scene.CALLER)
    assert len(analysis.replies) == len(scene.CALLER)
    assert len(analysis.agent) == len(scene.AGENT.turns) + 1
    assert shown.result.ending.by == "far"


def test_set_up_goes_in_order(shown: Shown) -> None:
    result = shown.result
    assert result.ringing_s is not None
    assert result.greeting_s is not None
    assert 0 < result.ringing_s < result.answered_s < result.greeting_s < result.ended_s


def test_the_agent_answers_when_it_has_thought(shown: Shown) -> None:
    # Where speech ends is found in steps of the analysis, to 0.1 s.
    for reply in shown.result.analysis.replies:
        assert shown.result.agent_delay_s - 0.1 < reply.seconds < shown.result.agent_delay_s + 0.75


def test_the_interruption_silences_the_agent(shown: Shown) -> None:
    [barge_in] = shown.result.analysis.barge_ins
    assert 0 < barge_in.seconds < 0.75
    kinds = [entry.kind for entry in shown.result.transcript]
    assert kinds.count("interruption") == kinds.count("correction") == 1


def test_no_frame_is_lost(shown: Shown) -> None:
    assert shown.result.heard.lost == 0
    assert shown.result.heard.gap_p50_ms == pytest.approx(20, abs=1)


def test_everything_said_is_on_the_screen(shown: Shown) -> None:
    words = " ".join(shown.screen.split())
    spoken = [scene.AGENT.first_message, *(turn.say for turn in scene.AGENT.turns)]
    assert all(text in words for text in spoken)
    assert all(line.text in words for line in scene.CALLER)
    assert "hang_up" in words
    assert all(f"{name} {value}" in words for name, value in shown.result.figures())
    # Before it begins, what will happen; at the end, how to go on.
    assert "It takes 40 seconds and costs nothing" in words.partition("Calling")[0]
    assert "ari-app demo --keep" in words.partition("call.png")[2]


def test_the_recording_has_the_caller_left_and_the_agent_right(shown: Shown) -> None:
    sound = sides_of(shown.result.recording)
    assert len(sound) / 8000 == pytest.approx(shown.result.ended_s, abs=0.01)
    for side, spans in ((0, shown.result.analysis.caller), (1, shown.result.analysis.agent)):
        for span in spans:
            piece = sound[round(span.start_s * 8000) : round(span.end_s * 8000), side]
            level_dbfs = 20 * np.log10(np.sqrt(np.mean(np.square(piece, dtype=float))) / 32768)
            assert -22 < level_dbfs < -12


def test_the_picture_is_there(shown: Shown) -> None:
    assert imread(shown.result.picture).shape[:2] == (HEIGHT_PX, WIDTH_PX)


def test_the_log_goes_into_its_file(shown: Shown) -> None:
    assert "call_ended" in shown.result.log.read_text()
    assert "call_ended" not in shown.screen


def test_it_stays_until_it_is_told_to_stop(tmp_path: Path) -> None:
    """And with fewer turns than the scene has, the caller hangs up."""

    async def show() -> tuple[DemoResult, str]:
        terminal = console()
        options = DemoOptions(out_dir=tmp_path, turns=1, keep=True)
        demo = asyncio.create_task(run_demo(options, terminal))
        await until_shown(terminal, "Ctrl-C", demo)
        os.kill(os.getpid(), signal.SIGINT)
        return await demo, screen(terminal)

    result, words = run(show())
    assert result.ending.by == "us"
    assert len(result.analysis.caller) == 1
    assert "sip:100@127.0.0.1:" in words
    assert "Stopping …" in words


def test_a_dialer_of_ones_own_brings_the_caller(tmp_path: Path) -> None:
    terminal = console()
    options = DemoOptions(out_dir=tmp_path, turns=1, way="custom")
    result = run(run_demo(options, terminal))
    assert len(result.analysis.caller) == len(result.analysis.replies) == 1
    assert (result.ending.by, result.heard.lost) == ("us", 0)
    assert "Asterisk" not in screen(terminal).replace("without any Asterisk", "")
    assert (tmp_path / "call.png").exists()


def test_twilio_brings_the_caller(tmp_path: Path) -> None:
    terminal = console()
    options = DemoOptions(out_dir=tmp_path, turns=1, way="twilio")
    result = run(run_demo(options, terminal))
    assert len(result.analysis.caller) == len(result.analysis.replies) == 1
    assert result.ending.by == "us"
    figures = dict(result.figures())
    # That there are none on a machine with time is proven in test_twilio_faults.py.
    assert re.fullmatch(r"none|\d+, the longest of \d+ ms", figures["holes in the agent's voice"])
    assert figures["errors and warnings at Twilio"] == "none"
    assert "docs/twilio.md" in screen(terminal)
    assert (tmp_path / "call.png").exists()


def test_an_agent_that_cannot_be_reached_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene, "agents", lambda: AgentBook(default=None))
    with pytest.raises(LabError, match=r"agent FAILED \(\w+\); see .*demo.log"):
        run(run_demo(DemoOptions(out_dir=tmp_path), console()))
    assert not (tmp_path / "call.wav").exists()


def test_a_call_that_is_refused_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "EXTENSION", "603")
    with pytest.raises(LabError, match=r"did not connect the call \(486 .*\); see .*demo.log"):
        run(run_demo(DemoOptions(out_dir=tmp_path), console()))


def test_an_interrupted_demonstration_leaves_nothing_running(tmp_path: Path) -> None:
    before = set(_children())

    async def show() -> tuple[int, ...]:
        terminal = console()
        demo = asyncio.create_task(run_demo(DemoOptions(out_dir=tmp_path), terminal))
        await until_shown(terminal, "How can I help you?", demo)
        children = _children()
        demo.cancel()
        with pytest.raises(asyncio.CancelledError):
            await demo
        return children

    assert set(run(show())) - before
    assert set(_children()) == before


def _children() -> tuple[int, ...]:
    """The processes that this one has started and that still run."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return tuple(map(int, text.split()))
