#!/bin/sh
# orjson: a whole number of twenty digits becomes another one, without an error.
#
# Telephone systems make ids of date, time and a counter (20261128195900000001), and some send them as
# JSON numbers. One expects of a JSON library for Python what the standard library and pydantic do: an
# int, exact whatever its size; or at least an error, as orjson itself raises when it is to write such
# an int. orjson reads whole numbers above 2**64 - 1 (and below -2**63) as floats: two calls that
# follow each other have the same id afterwards.
#
# Output seen:
#   orjson 3.13.0, pydantic 2.14.4, Python 3.11.7
#   text: 20261128195900000001 and 20261128195900000002
#   json:     int, two ids
#   pydantic: int, two ids
#   orjson:   float, one id (expected: int, two ids)
#   orjson writes what it read as 2.02611281959e+19
#   orjson asked to write the int: TypeError: Integer exceeds 64-bit range
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check orjson==3.13.0 pydantic==2.14.4
"$work/venv/bin/python" - <<'END'
import json
import platform
import sys

import orjson
import pydantic

FIRST, SECOND = "20261128195900000001", "20261128195900000002"
READERS = {
    "json": json.loads,
    "pydantic": pydantic.TypeAdapter(int | float).validate_json,
    "orjson": orjson.loads,
}
versions = f"orjson {orjson.__version__}, pydantic {pydantic.__version__}"
print(f"{versions}, Python {platform.python_version()}")
print(f"text: {FIRST} and {SECOND}")
seen = {}
for name, read in READERS.items():
    first, second = read(FIRST), read(SECOND)
    count = "one id" if first == second else "two ids"
    seen[name] = f"{type(first).__name__}, {count}"
    note = " (expected: int, two ids)" if name == "orjson" else ""
    print(f"{name + ':':<9} {seen[name]}{note}")
print("orjson writes what it read as", orjson.dumps(orjson.loads(FIRST)).decode())
try:
    refused = f"no error: {orjson.dumps(int(FIRST))!r}"
except TypeError as error:
    refused = f"TypeError: {error}"
print("orjson asked to write the int:", refused)
exact = "int, two ids"
same = seen == {"json": exact, "pydantic": exact, "orjson": "float, one id"}
same = same and refused.startswith("TypeError")
sys.exit(0 if same else "It behaves differently now.")
END
