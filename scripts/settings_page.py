"""Writes docs/settings.md: names, types and bounds from the code, the words from .env.example.

``python -m scripts.settings_page`` writes the page; a test holds it together with both.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "settings.md"

_HEADING = re.compile(r"# --- (?P<title>.+?) -+")
_SETTING = re.compile(r"#?(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)")
_INTRODUCTION = """\
# Settings

Read from the environment, and from a file `.env` in the folder where the command starts
(`--env-file` names another). The environment wins. A value that does not fit ends the command with
a sentence that says why, and exit code 2. Secrets are never logged, echoed or put into a URL.

[`.env.example`](../.env.example) is this page as a file to copy. Both are held together with the
code by a test.
"""


@dataclass(slots=True)
class Block:
    """Settings that share one explanation."""

    words: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Section:
    """Settings under one heading."""

    title: str
    blocks: list[Block] = field(default_factory=list)


def read_example(text: str) -> list[Section]:
    """Take .env.example apart.

    Raises:
        ValueError: A setting has no heading above it, or no explanation.
    """
    sections: list[Section] = []
    block = Block()
    for line in text.splitlines():
        if heading := _HEADING.fullmatch(line):
            sections.append(Section(heading["title"]))
            block = Block()
        elif setting := _SETTING.fullmatch(line):
            if not sections or not block.words:
                raise ValueError(f"{setting['name']} has no heading or no explanation above it")
            if not block.names:
                sections[-1].blocks.append(block)
            block.names.append(setting["name"])
        elif line.startswith("# "):
            if block.names:
                block = Block()
            block.words.append(line.removeprefix("# "))
        else:
            block = Block()
    return sections


def allowed(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Say what a setting may be, from its JSON schema."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    part = {**schema, **options[0]}
    if "$ref" in part:
        part |= definitions[part["$ref"].rpartition("/")[2]]
    if "enum" in part:
        return ", ".join(f"`{choice}`" for choice in part["enum"])
    match part.get("type"):
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number":
            return _range(part)
        case _ if part.get("format") == "password":
            return "secret"
        case _ if part.get("format") == "path":
            return "path"
        case _:
            return "text"


def _range(part: dict[str, Any]) -> str:
    low = part.get("minimum", part.get("exclusiveMinimum"))
    above = "above " if "exclusiveMinimum" in part else ""
    text = f"{above}{low:.12g} to {part['maximum']:.12g}"
    return f"{text}, in steps of {part['multipleOf']:.12g}" if "multipleOf" in part else text


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "" if value in (None, "") else f"`{value}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _table(sections: Sequence[Section], schema: dict[str, Any]) -> Iterator[str]:
    definitions = schema.get("$defs", {})
    for section in sections:
        yield f"\n## {section.title}\n"
        yield "| setting | default | may be | meaning |"
        yield "|---|---|---|---|"
        for block in section.blocks:
            meaning = _cell(" ".join(block.words))
            for name in block.names:
                part = schema["properties"][name.lower()]
                limits = allowed(part, definitions)
                yield f"| `{name}` | {_cell(_default(part))} | {_cell(limits)} | {meaning} |"
                meaning = "as above"


def render() -> str:
    """The page."""
    from ari_app.settings import Settings

    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    lines = _table(read_example(example), Settings.model_json_schema())
    return _INTRODUCTION + "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(render(), encoding="utf-8")
    sys.stdout.write(f"{PAGE.relative_to(ROOT)} written\n")


if __name__ == "__main__":
    main()
