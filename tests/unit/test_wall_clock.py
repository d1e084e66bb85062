"""Nothing is decided by the wall clock: it may jump. Only stamps for people are read from it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
READS_WALL_CLOCK = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "asctime", "strftime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
STAMPS = {
    "ari_app/control/http/models.py": "when an answer was given",
    "ari_app/records/journal.py": "when an event was",
    "ari_app/call/call.py": "when a call was answered",
    "ari_app/records/record.py": "when a call began and ended",
    "ari_app/checks/asking.py": "how far Asterisk's clock is from ours, which is the question",
}


def readings(source: str) -> Iterator[str]:
    """Each place that reads the wall clock, as written."""
    names: dict[str, str] = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            for alias in node.names:
                if alias.name in READS_WALL_CLOCK["time"] and node.module == "time":
                    yield f"from time import {alias.name}"
                names[alias.asname or alias.name] = alias.name
        elif isinstance(node, ast.Import):
            names.update({alias.asname or alias.name: alias.name for alias in node.names})
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attr):
                if attr in READS_WALL_CLOCK.get(names.get(name, ""), ()):
                    yield f"{name}.{attr}"
            case ast.Attribute(value=ast.Attribute(value=ast.Name(), attr=kind), attr=attr):
                if kind in ("datetime", "date") and attr in READS_WALL_CLOCK[kind]:
                    yield f"{kind}.{attr}"
            case _:
                pass


def test_only_stamps_are_read_from_the_wall_clock() -> None:
    found = {
        str(path.relative_to(ROOT))
        for package in ("ari_app", "audiosocket", "linekit")
        for path in (ROOT / package).rglob("*.py")
        if list(readings(path.read_text()))
    }
    assert found == set(STAMPS)


def test_it_sees_every_way_to_read_it() -> None:
    assert list(readings("import time as t\nt.time()\nt.monotonic()\n")) == ["t.time"]
    assert list(readings("from time import time\n")) == ["from time import time"]
    assert list(readings("from datetime import datetime\ndatetime.now()\n")) == ["datetime.now"]
    assert list(readings("import datetime\ndatetime.datetime.now()\n")) == ["datetime.now"]
    assert list(readings("import time\nloop.time()\ntime.sleep(1)\n")) == []
