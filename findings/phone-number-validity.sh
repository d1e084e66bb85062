#!/bin/sh
# phonenumbers (Google's libphonenumber in Python): what "valid" does not promise for Germany.
#
# A CRM's numbers are cleaned with parse() and is_valid_number(), and what is valid is dialled. One
# expects that a number with lost digits, or two numbers in one field, are not valid, as it is for
# North America. German numbers have no fixed length, so the library takes a local part of almost any
# length: a number that lacks its last three digits is valid, and the way in which a German office
# writes two lines ("...001 / 02") becomes one longer, valid number.
#
# Output seen:
#   phonenumbers 9.0.16, Python 3.11.7
#   field                          what it is                     E.164              expected  seen
#   +49 30 23125001                a number                       +493023125001      valid     valid
#   +49 30 23125                   its last three digits lost     +493023125         invalid   valid
#   +49 30 23125001 / 02           two lines of one office        +49302312500102    invalid   valid
#   +1 202 555 0100                a number                       +12025550100       valid     valid
#   +1 202 555 01                  its last two digits lost       +120255501         invalid   invalid
#   +1 202 555 0100 / 01           two lines of one office        +1202555010001     invalid   invalid
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check phonenumbers==9.0.16
"$work/venv/bin/python" - <<'END'
import platform
import sys

import phonenumbers

CASES = [
    ("+49 30 23125001", "a number", "valid", "valid"),
    ("+49 30 23125", "its last three digits lost", "invalid", "valid"),
    ("+49 30 23125001 / 02", "two lines of one office", "invalid", "valid"),
    ("+1 202 555 0100", "a number", "valid", "valid"),
    ("+1 202 555 01", "its last two digits lost", "invalid", "invalid"),
    ("+1 202 555 0100 / 01", "two lines of one office", "invalid", "invalid"),
]
print(f"phonenumbers {phonenumbers.__version__}, Python {platform.python_version()}")
row = "{:<30} {:<30} {:<18} {:<9} {}"
print(row.format("field", "what it is", "E.164", "expected", "seen"))
changed = False
for field, what, expected, before in CASES:
    number = phonenumbers.parse(field, None)
    seen = "valid" if phonenumbers.is_valid_number(number) else "invalid"
    text = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    print(row.format(field, what, text, expected, seen))
    changed |= seen != before
sys.exit("It behaves differently now." if changed else 0)
END
