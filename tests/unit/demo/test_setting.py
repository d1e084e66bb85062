"""The scene, the voices, the log: what is around the call."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import structlog
from rich.console import Console

from lab.asterisk import LabError
from lab.demo import DemoOptions, run_demo, scene
from lab.demo.analysis import Samples, speech_spans
from lab.demo.logfile import log_to
from lab.demo.tracks import Piece, lay_out
from lab.demo.voice import FOLDER, HigherVoice, KeptVoice, file_name, spoken
from lab.demo.ways import release
from lab.practice_agent.voice import Voice


def test_the_agent_has_an_answer_to_every_line() -> None:
    profile = scene.agents().find(scene.AGENT_ID)
    assert profile is not None
    assert len(profile.dialogue.turns) == len(scene.CALLER)
    assert profile.dialogue.missing_variables({}) == []
    assert sum(line.interrupts_after_s is not None for line in scene.CALLER) == 1


def test_the_practice_agents_own_agents_can_be_called_too() -> None:
    assert {"reception", "storyteller", scene.AGENT_ID} <= scene.agents().agents.keys()


def test_what_the_agent_takes_itself() -> None:
    assert scene.own_delay_s() == 0.75


class Mute:
    """Says nothing: what is heard comes from what is kept."""

    def speak(self, text: str, rate_hz: int) -> Samples:
        return np.zeros(0, np.int16)


@pytest.mark.parametrize("voice", [KeptVoice(Mute()), HigherVoice()], ids=["kept", "syllables"])
@pytest.mark.parametrize("text", [*scene.caller_texts(), *scene.agent_texts()])
def test_every_line_is_one_turn(text: str, voice: Voice) -> None:
    pcm = spoken(voice, text)
    seconds = len(pcm) / 2 / 8000
    assert 1.0 < seconds < 8.0
    # The agent takes 600 ms of silence for the end of a turn.
    [span] = speech_spans(lay_out([Piece(0.0, pcm)], seconds), 8000, join_ms=400)
    assert span.start_s == 0
    assert span.end_s == pytest.approx(seconds, abs=0.02)


def test_what_is_kept_is_what_is_said_and_no_more() -> None:
    texts = [*scene.caller_texts(), *scene.agent_texts()]
    assert {path.name for path in FOLDER.iterdir()} == {file_name(text) for text in texts}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 300_000


def test_a_kept_sentence_has_the_rate_that_is_asked_for() -> None:
    at_8, at_24 = (KeptVoice(Mute()).speak(scene.AGENT.first_message, hz) for hz in (8000, 24000))
    assert len(at_24) == pytest.approx(3 * len(at_8), abs=3)
    assert np.sqrt(np.mean(np.square(at_24, dtype=float))) == pytest.approx(
        np.sqrt(np.mean(np.square(at_8, dtype=float))), rel=0.02
    )


def test_what_is_not_kept_is_spoken_by_another_voice() -> None:
    text = "Whatever else there is to say."
    assert np.array_equal(
        KeptVoice(HigherVoice()).speak(text, 8000), HigherVoice().speak(text, 8000)
    )


def test_a_text_without_sound_is_silence() -> None:
    assert spoken(HigherVoice(), "...") == b""


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


@pytest.mark.parametrize("turns", [0, len(scene.CALLER) + 1])
def test_turns_that_the_scene_does_not_have(turns: int) -> None:
    with pytest.raises(ValueError, match="turns must be from 1 to 3"):
        DemoOptions(turns=turns)


async def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="cannot be written"):
        await run_demo(DemoOptions(out_dir=tmp_path / "file" / "out"), Console(quiet=True))
