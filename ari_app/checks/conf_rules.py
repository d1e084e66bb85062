"""The rules that Asterisk's files must keep for calls to work. Pure.

Single settings are demands, wherever they are read from; the rest looks at whole files.
`asterisk-conf/production` fits all of it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from ari_app.checks.asterisk import (
    FILES_PER_CALL,
    OF_AUDIOSOCKET,
    OF_STATES,
    REQUIRED,
    USEFUL,
    endpoint_of,
)
from ari_app.checks.conf_file import ConfFile, Section
from ari_app.checks.dialplan import Dialplan, HandOver
from ari_app.checks.finding import (
    AMD,
    CALLS_IN,
    CALLS_OUT,
    EVERYTHING,
    NOTHING,
    Finding,
    Use,
    Verdict,
    failed,
    note,
    ok,
    warning,
)
from ari_app.clients import requests_at_once
from ari_app.line.asterisk.media_transport import NEEDED
from ari_app.process.addresses import is_loopback
from ari_app.settings import Settings

CONFIGURATION: Final = "Configuration"
DIALPLAN: Final = "Dialplan"

FILES: Final = (
    *("ari.conf", "http.conf", "modules.conf", "pjsip.conf"),
    *("rtp.conf", "extensions.conf", "asterisk.conf"),
)
"""The files that are looked at."""

_MOST_NAMED: Final = 5
_ALIKE: Final = 0.6

_PRESENTATION: Final = re.compile(r"CALLERID\((?:[a-z]+-)?pres\b", re.IGNORECASE)
"""How a dialplan asks whether a caller withholds the number."""

# What Asterisk takes for a yes (main/utils.c, ast_true).
_TRUE: Final = frozenset({"yes", "true", "y", "t", "1", "on"})


def is_true(value: str) -> bool:
    """Return whether Asterisk reads this as yes."""
    return value.strip().lower() in _TRUE


@dataclass(frozen=True, slots=True)
class Said:
    """A statement of a file.

    Attributes:
        value: As it stands there.
        where: `http.conf:12`, or only the file.
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


_REQUEST_SESSIONS: Final = 51


def _at_least(number: int) -> Callable[[str], bool]:
    def fits(value: str) -> bool:
        text = value.strip()
        return text.isascii() and text.isdigit() and int(text) >= number

    return fits


def _is_false(value: str) -> bool:
    return not is_true(value)


def demands(username: str, media_sessions: int = 0) -> tuple[Demand, ...]:
    """Return all demands.

    Args:
        username: Of which user of ari.conf.
        media_sessions: How many connections of http.conf calls have beside our requests.
    """
    sessions = _REQUEST_SESSIONS + media_sessions
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
            Verdict.NOTE,
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
            _at_least(max(100, sessions)),
            f"sessionlimit = {max(200, 2 * sessions)}",
            "Asterisk closes further connections without a word, and the application has up to "
            f"{sessions}",
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
    detail = f"{found}: {demand.why}. Write `{demand.write}`."
    uses = EVERYTHING if demand.verdict is Verdict.FAILED else NOTHING
    return Finding(CONFIGURATION, demand.verdict, detail, uses)


@dataclass(frozen=True, slots=True)
class NeededContext:
    """A context in which calls go on, as a setting names it.

    Attributes:
        calls: Which calls need it; the beginning of a sentence.
        chosen: Somebody has set it, so it is in use.
        uses: What does not work without it.
    """

    setting: str
    context: str
    calls: str
    chosen: bool
    uses: frozenset[Use] = NOTHING

    def missing(self, who: str) -> Finding:
        """Return what to say when nobody has it."""
        say = warning if self.chosen else note
        return say(
            DIALPLAN,
            f"{who} no extension s in a context {self.context} ({self.setting}), so {self.calls} "
            "end there. asterisk-conf/production/extensions.conf has one to copy.",
            uses=self.uses,
            about=f"context {self.context}",
        )


def needed_contexts(settings: Settings) -> tuple[NeededContext, ...]:
    """Return all contexts that a dialplan needs."""
    chosen = settings.model_fields_set
    return (
        NeededContext(
            "AMD_CONTEXT",
            settings.amd_context,
            "calls with amd=true",
            "amd_context" in chosen,
            AMD,
        ),
        NeededContext(
            "TRANSFER_CONTEXT",
            settings.transfer_context,
            "calls that we have placed and that are transferred blindly",
            "transfer_context" in chosen,
        ),
    )


@dataclass(frozen=True, slots=True)
class Needs:
    """The settings of ours that Asterisk's must fit.

    Attributes:
        trunk: Its technology and name, where OUTBOUND_ENDPOINT tells.
        places_calls: Somebody has set OUTBOUND_ENDPOINT.
        transport: `MEDIA_TRANSPORT`.
    """

    username: str
    app: str
    calls: int
    ari_url: str
    amd_context: str
    contexts: tuple[NeededContext, ...]
    trunk: tuple[str, str] | None
    places_calls: bool
    transport: str = "audiosocket"
    workers: int = 1

    @property
    def media_sessions(self) -> int:
        """How many connections of http.conf there are beside the requests of one process: over a
        WebSocket one for each call, and those of a front and of more workers."""
        calls = 0 if self.transport == "audiosocket" else self.calls
        if self.workers == 1:
            return calls
        requests = (self.workers + 1) * (requests_at_once(self.workers) + 1)
        return calls + max(0, requests - _REQUEST_SESSIONS)

    @classmethod
    def of(cls, settings: Settings) -> Needs:
        """Take them from the settings."""
        return cls(
            settings.ari_username,
            settings.ari_app,
            settings.max_concurrent_calls,
            settings.ari_url,
            settings.amd_context,
            needed_contexts(settings),
            endpoint_of(settings.outbound_endpoint),
            "outbound_endpoint" in settings.model_fields_set,
            settings.media_transport,
            settings.workers,
        )


def judge_conf(
    files: Mapping[str, ConfFile], needs: Needs, *, other_dialplan: str = ""
) -> list[Finding]:
    """Compare files with what is needed.

    Args:
        files: By name; of `FILES`, those that there are.
        needs: What they have to fit.
        other_dialplan: A file in another language that hands calls to our application.
    """
    return [
        *(_failed(sentence) for conf in files.values() for sentence in conf.broken),
        *_dialplan(files.get("extensions.conf"), files.get("pjsip.conf"), needs, other_dialplan),
        *_single(files, needs),
        *_http(files.get("http.conf"), needs),
        *_ari(files.get("ari.conf"), needs),
        *_modules(files.get("modules.conf"), needs),
        *_rtp(files.get("rtp.conf"), needs),
        *_pjsip(files.get("pjsip.conf"), needs),
        *_withheld(files.get("pjsip.conf"), files.get("extensions.conf"), needs),
    ]


def _warning(detail: str, *, about: str = "") -> Finding:
    return warning(CONFIGURATION, detail, about=about)


def _failed(detail: str, *, about: str = "") -> Finding:
    return failed(CONFIGURATION, detail, about=about)


def _single(files: Mapping[str, ConfFile], needs: Needs) -> Iterator[Finding]:
    for demand in demands(needs.username, needs.media_sessions):
        conf = files.get(demand.file)
        section = None if conf is None else conf.first(demand.section)
        if section is None:
            # Without the user there is nothing to compare, and that is said by itself.
            if conf is None or demand.section == needs.username:
                continue
            entry = None
        else:
            entry = section.get(demand.key)
        finding = judge(demand, None if entry is None else Said(entry.value, entry.where))
        if finding is not None:
            yield finding


def _http(conf: ConfFile | None, needs: Needs) -> Iterator[Finding]:
    if conf is None:
        return
    general = conf.first("general") or Section("general", "http.conf", 1)
    if not is_true(general.value("enabled", "no")):
        yield _failed(
            f"{general.where}: the HTTP server is off, and ARI with it. Write `enabled = yes` in "
            "[general]."
        )
    address = general.get("bindaddr")
    if address is None:
        yield _failed(
            f"{general.where}: without an address there is no HTTP server. Write "
            "`bindaddr = 127.0.0.1` in [general]."
        )
    elif not is_loopback(address.value):
        yield _warning(
            f"{address.where} says bindaddr = {address.value}: ARI's password crosses the network "
            "in the clear. Write `bindaddr = 127.0.0.1`, and for an application elsewhere "
            "`tlsenable = yes` with a certificate; on a network that nobody else is on it may stay."
        )
    yield from _address(general, needs.ari_url)


def _address(general: Section, ari_url: str) -> Iterator[Finding]:
    """Judge whether ARI_URL leads to where http.conf puts ARI."""
    url = urlsplit(ari_url)
    prefix = general.get("prefix")
    bare = "" if prefix is None else prefix.value.strip("/")
    wanted = f"/{bare}" if bare else ""
    if prefix is not None and prefix.value != bare:
        yield _failed(
            f"{prefix.where} says prefix = {prefix.value}, and Asterisk adds a slash of its own. "
            f"Write `prefix = {bare}`."
        )
    # From elsewhere a proxy may lead here, with a path and a port of its own.
    if not is_loopback(url.hostname or ""):
        return
    if url.path.rstrip("/") != wanted:
        stands = (
            f"{prefix.where} says prefix = {prefix.value}"
            if wanted and prefix
            else f"{general.file} has no prefix"
        )
        right = url._replace(path=wanted).geturl()
        yield _failed(f"{stands}, and ARI_URL is {ari_url}. Write ARI_URL={right}.")
    port = general.value("bindport", "8088")
    # Over https the port is in tlsbindaddr.
    if url.scheme == "http" and str(url.port or 80) != port:
        entry = general.get("bindport")
        stands = f"{entry.where} says" if entry else f"{general.file} says nothing else than"
        yield _failed(
            f"{stands} bindport = {port}, and ARI_URL is {ari_url}. Write "
            f"ARI_URL={url._replace(netloc=f'{url.hostname}:{port}').geturl()}."
        )


def _ari(conf: ConfFile | None, needs: Needs) -> Iterator[Finding]:
    for first, again in _twice(conf):
        yield warning(
            CONFIGURATION,
            f"{again.where} has [{again.name}] once more, after {first.where}: newer Asterisks "
            "(22.10.1) take nothing of ari.conf then, and refuse every user. Make one section of "
            "them.",
            uses=EVERYTHING,
        )
    if conf is None or not needs.username:
        return
    general = conf.first("general")
    if general is not None and not is_true(general.value("enabled", "yes")):
        yield _failed(f"{general.where}: ARI is off. Write `enabled = yes` in [general].")
    user = conf.first(needs.username)
    if user is None or user.value("type").lower() != "user":
        yield _failed(
            f"ari.conf has no user {needs.username} (ARI_USERNAME). Write a section "
            f"[{needs.username}] with `type = user`, `read_only = no`, `password_format = crypt` "
            "and a password."
        )
    elif not user.value("password"):
        yield _failed(
            f"{user.where}: the user {needs.username} has no password, so Asterisk refuses it. "
            "Write a long random one, and the same to ARI_PASSWORD."
        )


def _twice(conf: ConfFile | None) -> Iterator[tuple[Section, Section]]:
    """Return sections of one name and type, of which Asterisk allows one: the first, the other."""
    found: dict[tuple[str, str], Section] = {}
    for section in () if conf is None else conf.sections:
        if not section.is_template:
            key = (section.name, section.value("type").lower())
            first = found.setdefault(key, section)
            if first is not section:
                yield first, section


def _modules(conf: ConfFile | None, needs: Needs) -> Iterator[Finding]:
    section = None if conf is None else conf.first("modules")
    if section is None:
        return
    loaded, kept_out = set(), {}
    for entry in section.entries:
        name = entry.value if entry.value.endswith(".so") else f"{entry.value}.so"
        match entry.key.lower():
            case "load" | "preload" | "require" | "preload-require":
                loaded.add(name)
            case "noload":
                kept_out[name] = entry
            case _:
                pass
    autoload = is_true(section.value("autoload", "no"))
    without = OF_STATES | (OF_AUDIOSOCKET if needs.transport == "websocket" else frozenset())
    needed = {name: why for name, why in {**REQUIRED, **USEFUL}.items() if name not in without}
    if needs.transport == "websocket":
        needed |= dict.fromkeys(NEEDED, "sound goes over it: MEDIA_TRANSPORT=websocket")
    for name, why in needed.items():
        say = _warning if name in USEFUL else _failed
        if name in kept_out:
            yield say(
                f"{kept_out[name].where} keeps {name} from being loaded ({why}). Take the line "
                "out.",
                about=f"module {name}",
            )
        elif not autoload and name not in loaded:
            yield say(
                f"{section.where}: nothing loads {name} ({why}). Write `load = {name}` in "
                "[modules].",
                about=f"module {name}",
            )


def _rtp(conf: ConfFile | None, needs: Needs) -> Iterator[Finding]:
    general = None if conf is None else conf.first("general")
    if general is None:
        return
    first, last = general.value("rtpstart", "5000"), general.value("rtpend", "31000")
    if not (first.isdigit() and last.isdigit()):
        return
    ports = int(last) - int(first) + 1
    if ports < 4 * needs.calls:
        yield _warning(
            f"{general.where}: {first} to {last} are {ports} ports. A caller takes two, one who is "
            f"being transferred four: {needs.calls} calls need {4 * needs.calls}. Write "
            f"`rtpend = {int(first) + max(4 * needs.calls, 1000)}` and open the firewall for it."
        )


def _endpoints(conf: ConfFile) -> list[Section]:
    return [
        section
        for section in conf.sections
        if not section.is_template and section.value("type").lower() == "endpoint"
    ]


def _pjsip(conf: ConfFile | None, needs: Needs) -> Iterator[Finding]:
    if conf is None:
        return
    for first, again in _twice(conf):
        if kind := again.value("type").lower():
            yield _failed(
                f"{again.where} has [{again.name}] of type = {kind} once more, after "
                f"{first.where}: Asterisk then takes no {kind} of pjsip.conf at all. Make one "
                "section of them."
            )
    endpoints = _endpoints(conf)
    match needs.trunk:
        case ("PJSIP", name) if name not in {section.name for section in endpoints}:
            say = warning if needs.places_calls else note
            yield say(
                CONFIGURATION,
                f"pjsip.conf has no endpoint {name} (OUTBOUND_ENDPOINT), so no calls can be "
                "placed, unless it is in a database or pjsip_wizard.conf. "
                "asterisk-conf/production/pjsip.conf has one to copy.",
                uses=CALLS_OUT,
                about=f"trunk PJSIP/{name}",
            )
        case _:
            pass
    endless = [s for s in endpoints if s.value("rtp_timeout", "0") in ("", "0")]
    if endless:
        named = _several([f"[{s.name}] ({s.where})" for s in endless])
        yield _warning(
            f"{named}: when such a phone vanishes without a word, its call goes on until "
            "CALL_TIMEOUT_SECONDS. Write `rtp_timeout = 30` and `rtp_timeout_hold = 300`."
        )


def _withheld(
    pjsip: ConfFile | None, extensions: ConfFile | None, needs: Needs
) -> Iterator[Finding]:
    """Say so where callers who withhold their numbers have them told to the agent."""
    if pjsip is None or extensions is None:
        return
    plan = Dialplan(extensions)
    ours = [hand_over.where for hand_over in plan.hand_overs() if hand_over.app == needs.app]
    trusted = [s for s in _endpoints(pjsip) if is_true(s.value("trust_id_inbound"))]
    # Where the dialplan looks at the mark at all, what it does then is its own affair.
    if ours and trusted and not plan.says(_PRESENTATION):
        named = _several([f"[{s.name}] ({s.where})" for s in trusted])
        yield warning(
            DIALPLAN,
            f"{named}: trust_id_inbound has the carrier tell withheld numbers too, and ARI gives "
            "them like any other: the agent, the call log and the webhooks have them. Before "
            f"{ours[0]} write the two lines with CALLERID that asterisk-conf/production/"
            "extensions.conf has before Stasis().",
        )


def _several(places: list[str]) -> str:
    more = "" if len(places) <= _MOST_NAMED else f" and {len(places) - _MOST_NAMED} more"
    return ", ".join(places[:_MOST_NAMED]) + more


def _dialplan(
    conf: ConfFile | None, pjsip: ConfFile | None, needs: Needs, other_dialplan: str
) -> Iterator[Finding]:
    if conf is None:
        return
    plan = Dialplan(conf, _entered(pjsip))
    # What is called with amd=true comes back by a Stasis() too, but nobody calls in there.
    calls_in = [h for h in plan.hand_overs() if h.extension.context != needs.amd_context]
    ours = [h for h in calls_in if h.app == needs.app]
    hidden = [
        each
        for each in plan.hidden()
        if each.hand_over.app == needs.app and each.hand_over.extension.context != needs.amd_context
    ]
    if ours:
        yield ok(DIALPLAN, f"{ours[0].where} hands calls to Stasis({needs.app})")
    elif other_dialplan:
        yield ok(DIALPLAN, f"{other_dialplan} hands calls to Stasis({needs.app})")
    elif not hidden:
        yield _no_hand_over(calls_in, plan, needs)
    works = bool(ours or other_dialplan)
    for each in hidden:
        say = failed if each.certain and not works else warning
        yield say(
            DIALPLAN,
            f"{each.hand_over.where} hands no call to Stasis({needs.app}): {each.why}.",
            uses=NOTHING if works else CALLS_IN,
        )
    lost = [hand_over.where for hand_over in ours if not plan.catches(hand_over)]
    if lost:
        yield warning(
            DIALPLAN,
            f"{_several(lost)}: after Stasis({needs.app}) nothing looks at STASISSTATUS or "
            "takes the caller, so callers are hung up on when the application is down. Write "
            '`same => n,GotoIf($["${STASISSTATUS}" = "FAILED"]?...)` with a place where a '
            "person answers.",
        )
    for needed in needs.contexts:
        if not plan.has(needed.context, "s"):
            yield needed.missing("extensions.conf has")


def _entered(pjsip: ConfFile | None) -> set[str]:
    """Return the contexts in which calls of telephones and trunks begin."""
    sections = () if pjsip is None else pjsip.sections
    return {e.value for s in sections for e in s.entries if e.key.lower() == "context"}


def _no_hand_over(calls_in: list[HandOver], plan: Dialplan, needs: Needs) -> Finding:
    """Return what to say where no call comes to us: what stands there instead, if it looks like
    us."""

    def likeness(hand_over: HandOver) -> float:
        said = hand_over.app or hand_over.text
        return difflib.SequenceMatcher(None, said.lower(), needs.app.lower()).ratio()

    if unclear := [h for h in calls_in if "${" in h.app]:
        return warning(
            DIALPLAN,
            f"{unclear[0].where} says {unclear[0].text}: only a call will tell whether that is "
            f"{needs.app} (ARI_APP).",
            uses=CALLS_IN,
        )
    closest = max(calls_in, key=likeness, default=None)
    if closest is not None and likeness(closest) > _ALIKE:
        other = f", or ARI_APP={closest.app}" if closest.app.strip() == closest.app != "" else ""
        return failed(
            DIALPLAN,
            f"{closest.where} says {closest.text}, and ARI_APP is {needs.app}: such calls never "
            f"reach the application. Write Stasis({needs.app}) there{other}.",
            uses=CALLS_IN,
        )
    stands = f"; {closest.where} says {closest.text}" if closest is not None else ""
    # Whoever only places calls needs none, and a switch may lead to a dialplan that is not seen.
    say = warning if needs.places_calls or plan.has_switch else failed
    return say(
        DIALPLAN,
        f"extensions.conf hands no call to Stasis({needs.app}) (ARI_APP){stands}. Add an extension "
        "that does, as docs/first-call.md shows, or asterisk-conf/production/extensions.conf.",
        uses=CALLS_IN,
    )


def judge_process_limit(soft_limit: int, calls: int) -> Finding | None:
    """Judge whether a running Asterisk may open enough files."""
    needed = 100 + FILES_PER_CALL * calls
    if soft_limit >= needed:
        return None
    return _warning(
        f"The running Asterisk may open {soft_limit} files; {calls} calls need about {needed}. "
        "Write `LimitNOFILE=65536` under [Service] in "
        "/etc/systemd/system/asterisk.service.d/limits.conf, then `systemctl daemon-reload` and "
        "restart it.",
        about="open files",
    )
