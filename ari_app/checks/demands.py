"""What single settings of Asterisk's files have to say, wherever they are read from. Pure.

`asterisk-conf/production` has them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ari_app.checks.finding import Finding, Verdict

CONFIGURATION: Final = "Configuration"

# What Asterisk takes for a yes (main/utils.c, ast_true).
_TRUE: Final = frozenset({"yes", "true", "y", "t", "1", "on"})


def is_true(value: str) -> bool:
    """Whether Asterisk reads this as yes."""
    return value.strip().lower() in _TRUE


@dataclass(frozen=True, slots=True)
class Said:
    """What a file says.

    Attributes:
        value: As it stands there.
        where: ``http.conf:12``, or only the file.
    """

    value: str
    where: str


@dataclass(frozen=True, slots=True)
class Demand:
    """One setting, and when it is as it should be.

    Attributes:
        file, section, key: Where it stands.
        default: What Asterisk takes when it does not; None: nothing, which never fits.
        fits: Whether a value will do.
        write: The line to write instead.
        why: What goes wrong otherwise; the end of a sentence.
        verdict: How bad that is.
    """

    file: str
    section: str
    key: str
    default: str | None
    fits: Callable[[str], bool]
    write: str
    why: str
    verdict: Verdict = Verdict.WARNING


def _at_least(number: int) -> Callable[[str], bool]:
    def fits(value: str) -> bool:
        text = value.strip()
        return text.isascii() and text.isdigit() and int(text) >= number

    return fits


def _is_false(value: str) -> bool:
    return not is_true(value)


def demands(username: str) -> tuple[Demand, ...]:
    """All of them, for this user of ari.conf."""
    return (
        Demand(
            "ari.conf",
            username,
            "read_only",
            "no",
            _is_false,
            "read_only = no",
            "the application may only look on",
            Verdict.FAILED,
        ),
        Demand(
            "ari.conf",
            username,
            "password_format",
            "plain",
            lambda value: value.strip().lower() == "crypt",
            "password_format = crypt",
            "whoever reads the file has the password. Put its hash there instead, as the comment "
            "in asterisk-conf/production/ari.conf shows",
        ),
        Demand(
            "ari.conf",
            "general",
            "websocket_write_timeout",
            "100",
            _at_least(1000),
            "websocket_write_timeout = 1000",
            "Asterisk closes the event socket when its reader pauses for so many milliseconds",
        ),
        Demand(
            "ari.conf",
            "general",
            "allowed_origins",
            "",
            lambda value: "*" not in value,
            "allowed_origins =",
            "every web page may use ARI from the browser of somebody who can reach it",
        ),
        Demand(
            "http.conf",
            "general",
            "sessionlimit",
            "100",
            _at_least(100),
            "sessionlimit = 200",
            "Asterisk closes further connections without a word, and the application has up to 51",
        ),
        Demand(
            "http.conf",
            "general",
            "session_keep_alive",
            "15000",
            _at_least(15000),
            "session_keep_alive = 15000",
            "Asterisk closes idle connections before the application does, which holds them 10 s",
        ),
        Demand(
            "rtp.conf",
            "general",
            "strictrtp",
            "yes",
            is_true,
            "strictrtp = yes",
            "anybody who guesses a port can speak into a call",
        ),
        Demand(
            "asterisk.conf",
            "options",
            "live_dangerously",
            "no",
            _is_false,
            "live_dangerously = no",
            "a user of ARI reaches SHELL(), FILE() and CURL()",
        ),
    )


def judge(demand: Demand, said: Said | None) -> Finding | None:
    """Compare a demand with what is said, None: nothing is. None where it fits."""
    value = demand.default if said is None else said.value
    if value is not None and demand.fits(value):
        return None
    place = f"[{demand.section}]"
    found = (
        f"{demand.file} has no {demand.key} in {place}"
        if said is None
        else f"{said.where} says {demand.key} = {said.value} in {place}"
    )
    return Finding(CONFIGURATION, demand.verdict, f"{found}: {demand.why}. Write `{demand.write}`.")
