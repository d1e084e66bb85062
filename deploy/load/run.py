"""Places many calls with SIPp, and asks the service what became of each.

LOAD_CALLS calls, LOAD_AT_ONCE at most at one time, LOAD_PER_SECOND new ones in a second, of
LOAD_SECONDS each, to LOAD_NUMBER. Exit code 0 only when each of them was answered, talked with an
agent and ended well. SIPp alone cannot tell: a call that the service refuses is answered by the
dialplan.
"""

from __future__ import annotations

import csv
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLER = "load"
API_URL = "http://ari-app:8080"
TARGET = "asterisk:5060"
SCENARIO = "/usr/local/share/sipp/call.xml"
# Ended calls are listed for 60 s.
ASK_SECONDS = 2.0
READY_SECONDS = 60.0
END_SECONDS = 15.0
PATIENCE_SECONDS = 5.0
SHOWN_LINES = 20

Call = dict[str, Any]


class Unknown(Exception):
    """The service does not say what becomes of calls."""


class Service:
    """The service's list of calls."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    def calls(self) -> dict[str, Call]:
        """Our calls that it knows now, by id. Raises Unknown."""
        request = urllib.request.Request(f"{self._url}/sessions", headers={"X-API-Key": self._key})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                listed = json.load(answer)["sessions"]
        except (OSError, ValueError, KeyError) as error:
            raise Unknown(f"The service at {self._url} does not answer: {error}.") from None
        return {call["session_id"]: call for call in listed if call["caller_number"] == CALLER}


def follow(service: Service, is_running: Callable[[], bool], known: set[str]) -> list[Call]:
    """Ask for as long as calls are placed, and until the last has ended; all that are not `known`.

    Raises Unknown when it did not answer at the end.
    """
    seen: dict[str, Call] = {}
    end = float("inf")
    while True:
        over = not is_running()
        try:
            seen |= {key: call for key, call in service.calls().items() if key not in known}
        except Unknown:
            if over:
                raise
        if over:
            end = min(end, time.monotonic() + END_SECONDS)
            if all(call["status"] == "ended" for call in seen.values()) or time.monotonic() > end:
                return list(seen.values())
        time.sleep(ASK_SECONDS)


def judge(asked: int, sipp: dict[str, str], calls: list[Call]) -> tuple[list[str], bool]:
    """What SIPp and the service say, as lines, and whether every call went well. Pure."""
    placed, answered = int(sipp["TotalCallCreated"]), int(sipp["SuccessfulCall(C)"])
    ways = Counter(
        f"{call['agent_status'] or 'not ended'} ({call['end_reason'] or call['state']})"
        for call in calls
    )
    well = sum(call["agent_status"] == "COMPLETED" for call in calls)
    listed = ", ".join(f"{number} {way}" for way, number in ways.most_common()) or "none"
    lines = [
        f"Asterisk: {placed} calls placed, {answered} answered and ended well, "
        f"{sipp['FailedCall(C)']} failed; answered after {milliseconds(sipp)} on average",
        f"Service:  {len(calls)} calls, {listed}",
    ]
    if answered == well == asked:
        return [*lines, f"All {asked} calls went well."], True
    short = asked - min(answered, well)
    if short > 0:
        lines.append(f"{short} of {asked} calls did not go well.")
    else:
        lines.append(f"The service had more than these {asked} calls: is another run under way?")
    return lines, False


def milliseconds(sipp: dict[str, str]) -> str:
    """SIPp's average time to the answer, which it writes as hour:minute:second:microsecond."""
    hours, minutes, seconds, micro = map(int, sipp["ResponseTimeanswer(C)"].split(":"))
    return f"{((hours * 60 + minutes) * 60 + seconds) * 1000 + micro / 1000:.0f} ms"


def command(own: str, run: str, env: dict[str, str]) -> list[str]:
    """How SIPp is started. `run` goes into every Call-ID, tag and branch: what an earlier
    container used may still be known to Asterisk, for each counts from 1 again."""
    seconds = int(env.get("LOAD_SECONDS", "20"))
    return [
        *("sipp", TARGET, "-s", env.get("LOAD_NUMBER", "102"), "-sf", SCENARIO),
        *("-inf", "/load/accounts.csv", "-i", own, "-mi", own, "-nostdin"),
        *("-key", "run", run, "-cid_str", f"%u-{run}@%s"),
        *("-m", env.get("LOAD_CALLS", "20"), "-l", env.get("LOAD_AT_ONCE", "10")),
        *("-r", env.get("LOAD_PER_SECOND", "2"), "-d", str(seconds * 1000)),
        *("-recv_timeout", "15000", "-trace_stat", "-stf", "calls.csv", "-fd", "5"),
        *("-trace_err", "-error_file", "errors.log"),
    ]


def wait_until_there(service: Service) -> set[str]:
    """The calls that it has before ours. Raises Unknown when it does not answer in time."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            return set(service.calls())
        except Unknown:
            if time.monotonic() > deadline:
                raise
            time.sleep(ASK_SECONDS)


def say(text: str) -> None:
    """Print a line, or several."""
    sys.stdout.write(f"{text}\n")


def last_lines(*names: str) -> str:
    """The ends of those files that are there."""
    lines: list[str] = []
    for path in map(Path, names):
        if path.exists():
            lines += path.read_text(errors="replace").splitlines()[-SHOWN_LINES:]
    return "\n".join(lines)


def main() -> int:
    """Place the calls, print what became of them, return the exit code."""
    try:
        key = Path("/load/api.key").read_text()
    except OSError:
        say("The lab has never been up: `docker compose up -d --wait` first.")
        return 1
    service = Service(os.environ.get("LOAD_API", API_URL), key)
    try:
        known = wait_until_there(service)
        own = socket.gethostbyname(socket.gethostname())
        with Path("screen.log").open("wb") as screen:
            sipp = subprocess.Popen(
                command(own, secrets.token_hex(4), dict(os.environ)), stdout=screen, stderr=screen
            )
        calls = follow(service, lambda: sipp.poll() is None, known)
    except Unknown as error:
        say(f"{error} What became of the calls is not known.")
        return 1
    try:
        with open("calls.csv", newline="") as file:
            *_, figures = csv.DictReader(file, delimiter=";")
    except (OSError, ValueError):
        say(last_lines("errors.log", "screen.log"))
        return 1
    lines, is_well = judge(int(os.environ.get("LOAD_CALLS", "20")), figures, calls)
    say("\n".join(lines))
    if sipp.returncode:
        say(last_lines("errors.log"))
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
