#!/bin/bash
# twilio (Python): a datetime with a time zone is sent as if it were UTC, so a day begins hours too late.
#
# Software: twilio 9.13.0, its client as it comes; Python 3.11.
# Expected: client.calls.list(start_time_after=datetime(..., tzinfo=...)) asks for what was called from that
#           moment on: the zone is turned into UTC, in which Twilio counts. The datetimes that the library
#           itself gives (call.start_time) have a zone and can be compared with any other.
# Happens:  the digits are sent as they stand, with a Z behind them; the zone is not looked at, and nothing
#           is said. Midnight in Berlin becomes 01:00, in New York 19:00 of the day before: the first
#           hour's calls are not in the report, or another day's are, and a price is too low or too high.
#           What the library gave, shown in local time, and sent back, is another moment.
# Way out:  moment.astimezone(timezone.utc) before each call of the library.
#
# Exit code 0: seen as described; 1: no longer so; 2: could not be tried.
#
# Seen (a call every hour; how many from midnight to midnight of 28 November in that zone):
#   twilio 9.13.0
#   given                      sent                  calls  of that day
#   2026-11-28T00:00:00+00:00  2026-11-28T00:00:00Z     24           24
#   2026-11-28T00:00:00+01:00  2026-11-28T00:00:00Z     24           23
#   2026-11-28T00:00:00-05:00  2026-11-28T00:00:00Z     24           19
#   the same with astimezone   2026-11-28T05:00:00Z     24           24
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check twilio==9.13.0 2>/dev/null ||
    { echo 'The packages cannot be had here.'; exit 2; }
"$folder/venv/bin/python" - <<'PYTHON'
import json
import sys
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from importlib.metadata import version
from typing import Any

from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

ACCOUNT = "AC" + "0" * 32
FIRST = datetime(2026, 11, 26, 0, 30, tzinfo=timezone.utc)
CALLS = [FIRST + timedelta(hours=each) for each in range(24 * 5)]


class FarEnd(TwilioHttpClient):
    """Has the calls, and gives those that it is asked for."""

    asked: dict[str, str]

    def request(self, method: str, url: str, params: Any = None, *_: object, **__: object) -> Response:
        self.asked = params
        after, before = (datetime.fromisoformat(params[each]) for each in ("StartTime>", "StartTime<"))
        page = [
            {"sid": f"CA{at.timestamp():032.0f}", "start_time": format_datetime(at)}
            for at in CALLS
            if after <= at < before
        ]
        return Response(200, json.dumps({"calls": page, "page": 0, "next_page_uri": None}))


far_end = FarEnd()
client = Client(ACCOUNT, "token", http_client=far_end)


def asked_for(since: datetime) -> list[datetime]:
    until = since + timedelta(days=1)
    found = client.calls.list(start_time_after=since, start_time_before=until)
    return [call.start_time for call in found]


print(f"twilio {version('twilio')}")
row = "{:<26} {:<20} {:>6} {:>12}"
print(row.format("given", "sent", "calls", "of that day"))
seen = []
for hours, convert in ((0, False), (1, False), (-5, False), (-5, True)):
    midnight = datetime(2026, 11, 28, tzinfo=timezone(timedelta(hours=hours)))
    found = asked_for(midnight.astimezone(timezone.utc) if convert else midnight)
    right = sum(midnight <= at < midnight + timedelta(days=1) for at in found)
    given = "the same with astimezone" if convert else midnight.isoformat()
    print(row.format(given, far_end.asked["StartTime>"], len(found), right))
    seen.append((far_end.asked["StartTime>"], len(found), right))
expected = [
    ("2026-11-28T00:00:00Z", 24, 24),
    ("2026-11-28T00:00:00Z", 24, 23),
    ("2026-11-28T00:00:00Z", 24, 19),
    ("2026-11-28T05:00:00Z", 24, 24),
]
# What the library gives has a zone.
aware = all(at.utcoffset() == timedelta(0) for at in asked_for(FIRST))
sys.exit(0 if seen == expected and aware else "It behaves differently now.")
PYTHON
