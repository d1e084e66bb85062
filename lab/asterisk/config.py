"""Fills in the files of `asterisk-conf/` for one instance."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lab.asterisk.errors import LabError

_PLACE = re.compile(r"@([A-Z][A-Z_]*)@")
_MODULE = re.compile(r"(?P<how>load|require) = (?P<name>\S+\.so)")
_CHECKOUT = Path(__file__).parents[2] / "asterisk-conf"
_INSTALLED = Path(__file__).parents[1] / "asterisk_conf"


def template_dir() -> Path:
    """Return the folder of the configuration, in a checkout or as installed with the package."""
    return _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED


def fill_in(text: str, values: Mapping[str, str]) -> str:
    """Put `values` in the places of their names between two at-signs.

    Raises LabError for a name that has no value.
    """

    def value(match: re.Match[str]) -> str:
        try:
            return values[match[1]]
        except KeyError:
            raise LabError(f"Asterisk's configuration asks for an unknown {match[0]}.") from None

    return _PLACE.sub(value, text)


def keep_available(modules: str, available: Collection[str]) -> str:
    """Return modules.conf without the `load` lines of modules that are not there.

    Asterisk reports each of those as an error; which ones there are differs from release to
    release. Raises LabError where one is missing that the file marks `require`.
    """
    lines: list[str] = []
    for line in modules.splitlines():
        match = _MODULE.fullmatch(line.strip())
        if match is None or match["name"] in available:
            lines.append(line)
        elif match["how"] == "require":
            raise LabError(
                f"This Asterisk has no {match['name']}: install the package of its modules."
            )
    return "\n".join(lines) + "\n"


def write_config(
    target: Path,
    values: Mapping[str, str],
    available_modules: Collection[str] | None,
    others: Mapping[str, str] | None = None,
    *,
    templates: Sequence[Path] = (),
) -> None:
    """Write the filled-in configuration into the folder `target`, which must exist.

    `templates` are the folders of the templates, those of `template_dir` when it is empty; of two
    files of one name the later folder's is taken. `others` are files, by name, that are written
    instead of those or beside them. Where it is not known which modules there are (None), none is
    left out. Raises LabError as `fill_in` and `keep_available` do.
    """
    folders = templates or (template_dir(),)
    files = {path.name: path.read_text() for folder in folders for path in folder.glob("*.conf")}
    if available_modules is not None:
        files["modules.conf"] = keep_available(files["modules.conf"], available_modules)
    for name, text in sorted({**files, **(others or {})}.items()):
        (target / name).write_text(fill_in(text, values))
