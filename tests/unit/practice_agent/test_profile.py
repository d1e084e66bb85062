"""The book of agents: ids, formats in ids, YAML and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.practice_agent import (
    AgentBook,
    AgentProfile,
    AudioFormat,
    Dialogue,
    Formats,
    PracticeAgentError,
)


def greeting(book: AgentBook, agent_id: str) -> str | None:
    profile = book.find(agent_id)
    return profile.dialogue.first_message if profile else None


BOOK = AgentBook(
    default=AgentProfile(dialogue=Dialogue(first_message="default")),
    agents={
        "shop": AgentProfile(dialogue=Dialogue(first_message="shop")),
        "odd-pcm_8000": AgentProfile(dialogue=Dialogue(first_message="odd")),
    },
)


@pytest.mark.parametrize(
    ("agent_id", "text", "formats"),
    [
        ("shop", "shop", ("pcm_16000", "pcm_16000")),
        ("anything", "default", ("pcm_16000", "pcm_16000")),
        ("shop-ulaw_8000", "shop", ("ulaw_8000", "ulaw_8000")),
        ("shop-pcm_8000-pcm_44100", "shop", ("pcm_8000", "pcm_44100")),
        ("x-pcm_8000-pcm_8000-pcm_48000", "default", ("pcm_8000", "pcm_48000")),
        ("odd-pcm_8000", "odd", ("pcm_16000", "pcm_16000")),
        ("agent-7", "default", ("pcm_16000", "pcm_16000")),
    ],
)
def test_find(agent_id: str, text: str, formats: tuple[str, str]) -> None:
    profile = BOOK.find(agent_id)
    assert profile is not None
    assert profile.dialogue.first_message == text
    assert profile.formats == Formats(
        user_input=AudioFormat(formats[0]), agent_output=AudioFormat(formats[1])
    )


def test_without_a_default_other_ids_are_unknown() -> None:
    book = BOOK.model_copy(update={"default": None})
    assert greeting(book, "shop-pcm_8000") == "shop"
    assert greeting(book, "nobody") is None
    assert greeting(book, "nobody-pcm_8000") is None


def test_the_built_in_book_needs_no_variables_and_ends_the_call() -> None:
    book = AgentBook.built_in()
    assert book.default is not None
    assert book.agents["reception"] == book.default
    for profile in [book.default, *book.agents.values()]:
        assert profile.dialogue.missing_variables({}) == []
        assert profile.dialogue.first_message
    assert len(book.default.dialogue.turns) >= 4
    assert book.default.dialogue.turns[-1].end_call


def test_yaml_errors_name_the_place() -> None:
    text = "agents:\n  shop:\n    dialogue:\n      turns:\n        - say: [1]\n    bad: 1\n"
    with pytest.raises(PracticeAgentError) as caught:
        AgentBook.from_yaml(text, name="my.yaml")
    lines = str(caught.value).splitlines()
    assert lines[0] == "my.yaml cannot be used:"
    assert lines[1].startswith("  agents.shop.dialogue.turns.0.say: ")
    assert lines[2].startswith("  agents.shop.bad: ")


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "is not YAML"), ("- 1", "  file: "), ("", "  file: ")]
)
def test_a_file_that_is_no_book(text: str, message: str) -> None:
    with pytest.raises(PracticeAgentError, match=message):
        AgentBook.from_yaml(text)


def test_files(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("default: {dialogue: {first_message: Hallo}}", encoding="utf-8")
    bad.write_bytes(b"\xff\xfe\x00")
    assert greeting(AgentBook.from_file(good), "x") == "Hallo"
    for path in (bad, tmp_path / "none.yaml"):
        with pytest.raises(PracticeAgentError, match="cannot be read"):
            AgentBook.from_file(path)
