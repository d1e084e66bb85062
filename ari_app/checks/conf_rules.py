"""What Asterisk's files as a whole have to say for calls to work. Pure.

Single settings are in :mod:`ari_app.checks.demands`; `asterisk-conf/production` fits both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ari_app.addresses import is_loopback
from ari_app.checks import modules
from ari_app.checks.asterisk_side import FILES_PER_CALL, endpoint_of
from ari_app.checks.conf_file import ConfFile, Section
from ari_app.checks.demands import CONFIGURATION, Said, demands, is_true, judge
from ari_app.checks.dialplan import Dialplan
from ari_app.checks.finding import Finding, failed, warning
from ari_app.settings import Settings

FILES: Final = (
    *("ari.conf", "http.conf", "modules.conf", "pjsip.conf"),
    *("rtp.conf", "extensions.conf", "asterisk.conf"),
)
"""The files that are looked at."""

_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Needs:
    """What of our settings Asterisk's have to fit."""

    username: str
    app: str
    calls: int
    amd_context: str
    transfer_context: str
    trunk: tuple[str, str] | None

    @classmethod
    def of(cls, settings: Settings) -> Needs:
        """Take them from the settings."""
        return cls(
            settings.ari_username,
            settings.ari_app,
            settings.max_concurrent_calls,
            settings.amd_context,
            settings.transfer_context,
            endpoint_of(settings.outbound_endpoint),
        )


def judge_conf(files: Mapping[str, ConfFile], needs: Needs) -> list[Finding]:
    """Compare files with what is needed.

    Args:
        files: By name; of `FILES`, those that there are.
        needs: What they have to fit.
    """
    return [
        *_single(files, needs),
        *_http(files.get("http.conf")),
        *_ari(files.get("ari.conf"), needs),
        *_modules(files.get("modules.conf")),
        *_rtp(files.get("rtp.conf"), needs),
        *_pjsip(files.get("pjsip.conf"), needs),
        *_dialplan(files.get("extensions.conf"), needs),
    ]


def _warning(detail: str) -> Finding:
    return warning(CONFIGURATION, detail)


def _failed(detail: str) -> Finding:
    return failed(CONFIGURATION, detail)


def _single(files: Mapping[str, ConfFile], needs: Needs) -> Iterator[Finding]:
    for demand in demands(needs.username):
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


def _http(conf: ConfFile | None) -> Iterator[Finding]:
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


def _ari(conf: ConfFile | None, needs: Needs) -> Iterator[Finding]:
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


def _modules(conf: ConfFile | None) -> Iterator[Finding]:
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
    for name, why in {**modules.REQUIRED, **modules.USEFUL}.items():
        say = _failed if name in modules.REQUIRED else _warning
        if name in kept_out:
            yield say(
                f"{kept_out[name].where} keeps {name} from being loaded ({why}). Take the line out."
            )
        elif not autoload and name not in loaded:
            yield say(
                f"{section.where}: nothing loads {name} ({why}). Write `load = {name}` in "
                "[modules]."
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


def _pjsip(conf: ConfFile | None, needs: Needs) -> Iterator[Finding]:
    if conf is None:
        return
    endpoints = [
        section
        for section in conf.sections
        if not section.is_template and section.value("type").lower() == "endpoint"
    ]
    match needs.trunk:
        case ("PJSIP", name) if name not in {section.name for section in endpoints}:
            yield _warning(
                f"pjsip.conf has no endpoint {name} (OUTBOUND_ENDPOINT), so no calls can be "
                "placed, unless it is in a database or pjsip_wizard.conf. "
                "asterisk-conf/production/pjsip.conf has one to copy."
            )
        case _:
            pass
    endless = [s for s in endpoints if s.value("rtp_timeout", "0") in ("", "0")]
    if endless:
        named = ", ".join(f"[{s.name}] ({s.where})" for s in endless[:_MOST_NAMED])
        more = "" if len(endless) <= _MOST_NAMED else f" and {len(endless) - _MOST_NAMED} more"
        yield _warning(
            f"{named}{more}: when such a phone vanishes without a word, its call goes on until "
            "CALL_TIMEOUT_SECONDS. Write `rtp_timeout = 30` and `rtp_timeout_hold = 300`."
        )


def _dialplan(conf: ConfFile | None, needs: Needs) -> Iterator[Finding]:
    if conf is None:
        return
    plan = Dialplan(conf)
    hand_overs = plan.hand_overs(needs.app)
    if not hand_overs:
        yield _warning(
            f"extensions.conf hands no call to Stasis({needs.app}) (ARI_APP). If no other dialplan "
            "(AEL, Lua, a database) does, add it as asterisk-conf/production/extensions.conf has "
            "it."
        )
    for extension, place in hand_overs:
        # Whom we call is not to land in a queue when the application goes away.
        if extension.context != needs.amd_context and not plan.looks_after(extension, place):
            yield _warning(
                f"{extension.steps[place].where}: nothing after Stasis({needs.app}) looks at "
                "STASISSTATUS, so callers are hung up on when the application is down. Write "
                '`same => n,GotoIf($["${STASISSTATUS}" = "FAILED"]?...)` with a place where a '
                "person answers."
            )
    for setting, context in (
        ("AMD_CONTEXT", needs.amd_context),
        ("TRANSFER_CONTEXT", needs.transfer_context),
    ):
        if not plan.has(context, "s"):
            yield _warning(
                f"extensions.conf has no extension s in a context [{context}] ({setting}). Copy it "
                "from asterisk-conf/production/extensions.conf, unless you have no use for it."
            )


def judge_process_limit(soft_limit: int, calls: int) -> Finding | None:
    """Whether a running Asterisk may open enough files."""
    needed = 100 + FILES_PER_CALL * calls
    if soft_limit >= needed:
        return None
    return _warning(
        f"The running Asterisk may open {soft_limit} files; {calls} calls need about {needed}. "
        "Write `LimitNOFILE=65536` under [Service] in "
        "/etc/systemd/system/asterisk.service.d/limits.conf, then `systemctl daemon-reload` and "
        "restart it."
    )
