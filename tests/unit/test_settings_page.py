from __future__ import annotations

import pytest

from scripts.settings_page import PAGE, allowed, read_example, render


def test_the_page_is_what_code_and_example_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "make docs writes it anew"


def test_settings_under_one_explanation_share_it() -> None:
    text = "# --- Asterisk ----\n# Where it is,\n# and who we are.\n#ARI_URL=http://h\nARI_USER=\n"
    (section,) = read_example(text)
    assert section.title == "Asterisk"
    assert [(block.words, block.names) for block in section.blocks] == [
        (["Where it is,", "and who we are."], ["ARI_URL", "ARI_USER"])
    ]


@pytest.mark.parametrize(
    "text",
    ["# Words.\nNAME=\n", "# --- Title ---\nNAME=\n", "# --- Title ---\n# Words.\n\nNAME=\n"],
)
def test_a_setting_without_heading_or_words_is_a_mistake(text: str) -> None:
    with pytest.raises(ValueError, match="NAME has no heading or no explanation"):
        read_example(text)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "boolean"}, "`true`, `false`"),
        ({"type": "integer", "minimum": 1, "maximum": 10000}, "1 to 10000"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 60}, "above 0 to 60"),
        (
            {"type": "integer", "minimum": 20, "maximum": 250, "multipleOf": 20},
            "20 to 250, in steps of 20",
        ),
        ({"anyOf": [{"type": "string", "format": "password"}, {"type": "null"}]}, "secret"),
        ({"anyOf": [{"type": "string", "format": "path"}, {"type": "null"}]}, "path"),
        ({"$ref": "#/$defs/Mode", "default": "a"}, "`a`, `b`"),
        ({"type": "string"}, "text"),
    ],
)
def test_what_a_setting_may_be(schema: dict[str, object], words: str) -> None:
    assert allowed(schema, {"Mode": {"enum": ["a", "b"], "type": "string"}}) == words
