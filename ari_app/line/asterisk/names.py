"""The names by which what is ours in Asterisk is known, and what a bridge's name tells.

Ids are chosen by us, so that a later start can tell what is ours. A bridge's name tells its caller
and the process that serves the call.

A process that has died cannot give its calls back, and whoever does so for it must not touch those
of another that lives. So a process writes its own name, which nobody else can have or get later,
into that of its bridges: machine, since when that is up, namespace, process id, and when it began.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

# chan_pjsip.c and chan_sip.c end a name with eight hexadecimal digits, chan_iax2.c with a number;
# chan_dahdi.c names the span or the channel first.
_ENDPOINT: Final = re.compile(
    r"(PJSIP|SIP|IAX2)/(.{1,80})-[0-9a-f]{1,16}|(DAHDI)/([A-Za-z0-9]{1,16})[-/].*"
)
FAR_HALF: Final = ";2"
"""What the id of a Local channel's other half ends with. It runs the dialplan that is the route, is
in no application for that, and ends when ours does."""
_MARK: Final = " served-by "
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process.

    Attributes:
        place: Its machine and its namespace of process ids.
        pid: Its id there.
        began: When, in ticks since the machine started (field 22 of proc_pid_stat(5)).
    """

    place: str
    pid: int
    began: int

    def __str__(self) -> str:
        return f"{self.place}.{self.pid}.{self.began}"

    @classmethod
    def parse(cls, parts: Sequence[str]) -> Owner | None:
        """Read the parts of its name that dots divide; None: they are none of ours."""
        match parts:
            case [place, pid, began] if _is_number(pid) and _is_number(began):
                return cls(place, int(pid), int(began))
            case _:
                return None

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended; of one elsewhere nothing is known."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            # Somebody else's, whose beginning may be hidden from us.
            return False
        return _began(self.pid) not in (self.began, None) or _is_zombie(self.pid)


@dataclass(frozen=True, slots=True)
class BridgeName:
    """The parts of a bridge's name; empty and None where it was not one of ours."""

    caller: str = ""
    owner: Owner | None = None

    def __str__(self) -> str:
        return f"{self.caller}{_MARK}{self.owner}"

    @classmethod
    def parse(cls, text: str) -> BridgeName:
        """Read a name; whatever may stand there."""
        caller, _, parts = text.partition(_MARK)
        owner = Owner.parse(parts.split("."))
        return cls() if owner is None else cls(caller, owner)


def bridge_name(caller: str) -> str:
    """Make the name of a bridge that this process makes for a caller."""
    return str(BridgeName(caller, _this_process(os.getpid())))


@cache
def _this_process(pid: int) -> Owner:
    return Owner(_place(), pid, _began(pid) or 0)


@cache
def _place() -> str:
    try:
        return f"{_BOOT_ID.read_text()[:8]}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return "unknown"


def _began(pid: int) -> int | None:
    """Find when a process began; None when that cannot be known."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[:1] == ["Z"]


def _stat(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third, the state, on; none when it is not
    there."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


_MOST_LETTERS: Final = 64
"""Ids of ours begin with an application's name, and Asterisk takes 150 letters."""


def machine_name() -> str:
    """Return this machine's name, as it stands in names of ours."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", socket.gethostname())


def worker_app(app: str, number: int, machine: str | None = None) -> str:
    """Return the name of a worker's application, beside that which the dialplan names.

    It holds its machine's name, for several machines may serve one Asterisk. Where that is long it
    is cut, so an application is compared with this name, and never with the beginning of one.

    Args:
        app: The application that the dialplan names.
        number: The worker's.
        machine: The worker's machine; None: this one.
    """
    name, ending = f"{app}.{machine or machine_name()}", f".{number}"
    if len(name + ending) > _MOST_LETTERS:
        mark = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: _MOST_LETTERS - len(ending) - 9]}-{mark}"
    return name + ending


def media_channel_id(app: str, session_id: str) -> str:
    """Return the id of a call's media channel."""
    return f"{app}-media-{session_id}"


_BY: Final = ".by-"
_LONGEST_ID: Final = 145
"""Asterisk takes names of 149 characters (AST_MAX_PUBLIC_UNIQUEID); a number may follow ours."""


def adopted_media_channel_id(app: str, session_id: str) -> str:
    """Return the id of the media channel of a call that this process has adopted: the bridge tells
    the process that made it, and this one tells who serves the call now."""
    first = media_channel_id(app, session_id)
    whole = f"{first}{_BY}{_this_process(os.getpid())}"
    return whole if len(whole) <= _LONGEST_ID else f"{first}.{os.getpid()}"


def adopter(channel_id: str) -> Owner | None:
    """Return the process that has adopted the call of a media channel; None: none has."""
    # Where it was renewed, a number follows.
    return Owner.parse(channel_id.partition(_BY)[2].split(".")[:3])


def placed_channel_id(app: str, session_id: str) -> str:
    """Return the id of the channel of somebody whom we call."""
    return f"{app}-out-{session_id}"


def target_channel_id(app: str, session_id: str) -> str:
    """Return what the ids of the channels to a call's transfer targets begin with."""
    return f"{app}-target-{session_id}"


def bridge_id(app: str, session_id: str) -> str:
    """Return the id of a call's bridge."""
    return f"{app}-bridge-{session_id}"


def trunk_of(name: str) -> str:
    """Return the endpoint that a channel belongs to, by the channel's name: `PJSIP/trunk`.

    Returns:
        Empty where the name says none. That of a Local channel holds what was dialled, not by what.
    """
    found = _ENDPOINT.fullmatch(name)
    if found is None:
        return ""
    return f"{found[1] or found[3]}/{found[2] or found[4]}"
