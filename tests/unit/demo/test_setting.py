"""The scene, the voices, the log, the wait at the end: what is around the call."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest
import structlog
from rich.console import Console

from lab.asterisk import LabError
from lab.demo import DemoOptions, run_demo, scene
from lab.demo.analysis import speech_spans
from lab.demo.keep import until_told_to_stop
from lab.demo.logfile import log_to
from lab.demo.parts import release
from lab.demo.tracks import Piece, lay_out
from lab.demo.voice import HigherVoice, caller_voice, spoken
from lab.practice_agent.voice import EspeakVoice


def test_the_agent_has_an_answer_to_every_line() -> None:
    profile = scene.agents().find(scene.AGENT_ID)
    assert profile is not None
    assert len(profile.dialogue.turns) == len(scene.CALLER)
    assert profile.dialogue.missing_variables({}) == []
    assert sum(line.interrupts_after_s is not None for line in scene.CALLER) == 1


def test_the_practice_agents_own_agents_can_be_called_too() -> None:
    assert {"reception", "storyteller", scene.AGENT_ID} <= scene.agents().agents.keys()


def test_what_the_agent_takes_itself() -> None:
    assert scene.own_delay_s(scene.AGENT_ID) == 0.75


@pytest.mark.parametrize("line", scene.CALLER)
def test_every_line_is_one_turn_of_the_built_in_voice(line: scene.Line) -> None:
    pcm = spoken(HigherVoice(), line.text)
    seconds = len(pcm) / 2 / 8000
    assert 1.0 < seconds < 6.0
    # The agent takes 600 ms of silence for the end of a turn.
    [span] = speech_spans(lay_out([Piece(0.0, pcm)], seconds), 8000, join_ms=400)
    assert span.start_s == 0
    assert span.end_s == pytest.approx(seconds, abs=0.02)


def test_a_text_without_sound_is_silence() -> None:
    assert spoken(HigherVoice(), "...") == b""


def test_the_callers_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert isinstance(caller_voice(), EspeakVoice)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert isinstance(caller_voice(), HigherVoice)


@pytest.mark.parametrize(
    ("full", "short"),
    [("22.10.1+dfsg+~cs6.17", "22.10.1"), ("20.6.0~dfsg", "20.6.0"), ("18.4.0", "18.4.0")],
)
def test_the_short_form_of_a_version(full: str, short: str) -> None:
    assert release(full) == short


def test_everything_is_logged_into_the_file_and_then_no_more(tmp_path: Path) -> None:
    path = tmp_path / "demo.log"
    handlers, configuration = list(logging.getLogger().handlers), structlog.get_config()
    with log_to(path):
        structlog.get_logger("bridge").info("call_ended", seconds=3)
        logging.getLogger("library").warning("odd")
    assert logging.getLogger().handlers == handlers
    assert structlog.get_config() == configuration
    text = path.read_text()
    assert "call_ended" in text
    assert "seconds=3" in text
    assert "odd" in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_wait_and_nothing_else(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    waiting = asyncio.create_task(until_told_to_stop())
    await asyncio.sleep(0)
    os.kill(os.getpid(), number)
    await waiting
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("turns", [0, len(scene.CALLER) + 1])
def test_turns_that_the_scene_does_not_have(turns: int) -> None:
    with pytest.raises(ValueError, match="turns must be from 1 to 3"):
        DemoOptions(turns=turns)


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="cannot be written"):
        await run_demo(DemoOptions(out_dir=tmp_path / "file" / "out"), Console(quiet=True))
