"""`python -m benchmarks.fill`: puts the figures of `bench-output/` into `docs/measurements.md`.

In the text, what stands between `<!-- bridge -->` and `<!-- /bridge -->` (and so on) is replaced.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from benchmarks.goals import goal_rows
from benchmarks.rows import ROWS, machine_line
from benchmarks.soak.report import soak_rows

Json = dict[str, Any]

_ALL_ROWS = {**ROWS, "soak": soak_rows}


def fill(text: str, bodies: dict[str, Json]) -> str:
    """Replace every marked part for which there is a result; the goals when all were measured."""
    for name, body in bodies.items():
        tables = [rows.to_markdown() for rows in _ALL_ROWS[name](body["results"])]
        quick = " A quick run." if body["quick"] else ""
        text = _replace(text, name, "\n\n".join([*tables, machine_line(body["machine"]) + quick]))
    results = {name: body["results"] for name, body in bodies.items()}
    if not ROWS.keys() - {"compare"} <= results.keys():
        # What was not measured this time may have been before.
        return text
    return _replace(text, "goals", goal_rows(results).to_markdown())


def _replace(text: str, name: str, content: str) -> str:
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text)


def main() -> None:
    """Read the results that there are, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fill", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("bench-output"))
    parser.add_argument("--page", type=Path, default=Path("docs/measurements.md"))
    options = parser.parse_args()
    paths = {name: options.results / f"{name}.json" for name in ROWS}
    paths["soak"] = options.results / "soak" / "soak.json"
    bodies = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if path.exists()
    }
    page = options.page.read_text(encoding="utf-8")
    options.page.write_text(fill(page, bodies), encoding="utf-8")


if __name__ == "__main__":
    main()
