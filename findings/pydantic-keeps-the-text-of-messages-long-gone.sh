#!/bin/bash
# pydantic: what was in messages that are long gone stays in memory, up to 16,384 texts of them.
#
# Software: pydantic 2.14.4 (pydantic-core of that release), as installed, no options.
# Expected: a validated message and all that was in it is freed with its last reference, as after
#           `json.loads` and `model_validate`.
# Happens:  `model_validate_json` and `TypeAdapter.validate_json` put each text shorter than 64 bytes,
#           values as well as keys, into one table of the process, which has 16,384 places and is
#           never emptied. A service that reads ids which come once (calls, channels, sessions)
#           grows by one text an id: a test that counts objects around some calls finds a leak that
#           is none, and telephone numbers stay in memory after their call, until others take
#           their place.
# Way out:  `model_config = ConfigDict(cache_strings="keys")`: names of fields, which do come again,
#           are kept, values are not.
#
# Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen:
#   pydantic 2.14.4, pydantic-core 2.50.5, Python 3.11.7
#   objects more than before, after messages with one new id each, all deleted:
#   how it was read                    1,000 messages   100,000 messages
#   json.loads + model_validate                     2                  2
#   model_validate_json                         1,002             16,385
#   the same, cache_strings="keys"                  2                  2
#   the same, ids of 64 characters                  2                  2
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pydantic==2.14.4 2>/dev/null ||
    { echo 'The packages cannot be had here.'; exit 2; }
"$folder/venv/bin/python" - <<'PYTHON'
import gc
import json
import platform
import subprocess
import sys

import pydantic
import pydantic_core

CHILD = '''
import gc, json, sys
from pydantic import BaseModel, ConfigDict

how, count = sys.argv[1], int(sys.argv[2])

class Event(BaseModel):
    model_config = ConfigDict(cache_strings="keys") if how == "keys" else ConfigDict()
    id: str

def read(number):
    text = f"{number:064}" if how == "long" else f"1764360000.{number}"
    message = f'{{"id":"{text}"}}'
    if how == "plain":
        return Event.model_validate(json.loads(message))
    return Event.model_validate_json(message)

for number in range(100):  # what the first ones set up once is not counted
    read(10**9)
gc.collect()
before = sys.getallocatedblocks()
for number in range(count):
    read(number)
gc.collect()
print(sys.getallocatedblocks() - before)
'''
ROWS = {
    "plain": "json.loads + model_validate",
    "as it comes": "model_validate_json",
    "keys": 'the same, cache_strings="keys"',
    "long": "the same, ids of 64 characters",
}


def kept(how: str, count: int) -> int:
    """In a process of its own, since the table is never emptied."""
    command = [sys.executable, "-c", CHILD, how, str(count)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


versions = f"pydantic {pydantic.__version__}, pydantic-core {pydantic_core.__version__}"
print(f"{versions}, Python {platform.python_version()}")
print("objects more than before, after messages with one new id each, all deleted:")
print(f"{'how it was read':<32} {'1,000 messages':>16} {'100,000 messages':>18}")
same = True
for how, name in ROWS.items():
    few, many = kept(how, 1_000), kept(how, 100_000)
    print(f"{name:<32} {few:>16,} {many:>18,}")
    if how == "as it comes":
        same &= 900 < few < 1_100 and 15_000 < many < 16_500
    else:
        same &= few < 50 and many < 50
sys.exit(0 if same else "It behaves differently now.")
PYTHON
