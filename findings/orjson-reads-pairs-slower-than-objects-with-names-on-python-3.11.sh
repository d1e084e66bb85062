#!/bin/bash
# orjson: a list of pairs takes longer to read than one of objects with names: Python's collector.
#
# Software: orjson 3.13.0, CPython 3.11.7 with its garbage collector as it comes.
# Expected: the shorter form of the same data is the cheaper one to read, and a parser in machine
#           code is not held up by Python's garbage collector.
# Happens:  each list that orjson makes is one more object to the collector, so it runs again and
#           again in the middle of `loads`, over all that was read so far: a list of pairs takes three
#           to four times as long as with the collector off. A dict of plain values is no such object,
#           so the longer form pays nothing. In a service with one event loop all calls wait
#           meanwhile. The standard library's json does the same.
# Way out:  CPython 3.12 or later, where the collector waits until `loads` is over (seen on 3.12.1 and
#           3.13.0: 1.3 to 1.5 times); gc.disable() around the reading of a large message; or objects
#           instead of small lists.
#
# Needs CPython 3.11. Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   orjson 3.13.0, Python 3.11.7; 500,000 of a form, in ms:
#            form                  MB  collector on   off  ratio
#   json     [time, level]          5           200    63    3.2
#   json     {"time", "level"}     13           131   130    1.0
#   orjson   [time, level]          5           157    46    3.4
#   orjson   {"time", "level"}     13           100    98    1.0
set -euo pipefail
[ "$(python3 -c 'import sys; print(*sys.version_info[:2])')" = '3 11' ] ||
    { echo 'python3 is not CPython 3.11 here.'; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check orjson==3.13.0 2>/dev/null ||
    { echo 'The packages cannot be had here.'; exit 2; }
"$folder/venv/bin/python" - <<'PYTHON'
import gc
import json
import platform
import sys
import time
from collections.abc import Callable

import orjson

COUNT = 500_000
FORMS = {
    "[time, level]": "[" + ",".join(f"[{n},7]" for n in range(COUNT)) + "]",
    '{"time", "level"}': "[" + ",".join(f'{{"time":{n},"level":7}}' for n in range(COUNT)) + "]",
}


def milliseconds(read: Callable[[bytes], object], data: bytes, collector: bool) -> float:
    """Of CPU, the best of five."""
    times = []
    for _ in range(5):
        gc.collect()
        if not collector:
            gc.disable()
        begin = time.process_time()
        kept = read(data)
        times.append(time.process_time() - begin)
        del kept
        gc.enable()
    return min(times) * 1000


print(f"orjson {orjson.__version__}, Python {platform.python_version()}; {COUNT:,} of a form, in ms:")
row = "{:<8} {:<18} {:>5} {:>13} {:>5} {:>6}"
print(row.format("", "form", "MB", "collector on", "off", "ratio"))
on: dict[str, float] = {}
ratio: dict[str, float] = {}
for name, read in (("json", json.loads), ("orjson", orjson.loads)):
    for form, text in FORMS.items():
        data = text.encode()
        on[form], off = (milliseconds(read, data, collector) for collector in (True, False))
        ratio[form] = on[form] / off
        size = f"{len(data) / 1e6:.0f}"
        print(row.format(name, form, size, f"{on[form]:.0f}", f"{off:.0f}", f"{ratio[form]:.1f}"))
# orjson's, which came last.
lists, objects = FORMS
same = ratio[lists] > 2 and ratio[objects] < 1.5 and on[lists] > 1.2 * on[objects]
sys.exit(0 if same else "It behaves differently now.")
PYTHON
