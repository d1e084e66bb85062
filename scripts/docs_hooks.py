"""What MkDocs does beyond its own: the start page, and links to the repository's files.

README.md is the start page. A page may link to a file outside docs/ (`../asterisk-conf/README.md`),
which works where the repository is browsed. The site does not hold those files: there the link
becomes the file's name. A link to a file that is not there is a warning, which ends a strict build.

What belongs to a numbered item is indented by three spaces, which is enough where repositories are
browsed. Python-Markdown wants four.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)#\s]+)(#[^)\s]*)?\)")
_NUMBERED = re.compile(r"\d+\. ")
_DOCS_LINK = re.compile(r"\]\(docs/")

log = logging.getLogger("mkdocs.hooks.docs")


def on_files(files: Files, *, config: Any) -> Files:
    """Make README.md the start page: one text for those who browse and those who read."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = _DOCS_LINK.sub("](", text)
    text = re.sub(r"\]\((?!https?://|#|[a-z0-9-]+\.md|images/)([^)]+)\)", r"](../\1)", text)
    files.append(File.generated(config, "index.md", content=text))
    return files


def indent_items(markdown: str) -> str:
    """Indent what belongs to numbered items by four spaces instead of three."""
    lines = []
    in_item = False
    for line in markdown.splitlines():
        if line and not line.startswith(" "):
            in_item = _NUMBERED.match(line) is not None
        lines.append(f" {line}" if in_item and line.startswith("   ") else line)
    return "\n".join(lines) + "\n"


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Turn links that leave docs/ into the names of the files, and indent numbered items anew."""

    def named(link: re.Match[str]) -> str:
        path = (ROOT / "docs" / link["target"]).resolve()
        if not path.exists() or not path.is_relative_to(ROOT):
            log.warning("%s links to %s, which is not there", page.file.src_uri, link["target"])
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else link["target"]
        text = link["text"].strip("`")
        return f"`{name}`" if text in (name, path.name) else f"{link['text']} (`{name}`)"

    return indent_items(_LINK.sub(named, markdown))
