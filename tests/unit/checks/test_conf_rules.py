"""Asterisk's files: those that are recommended fit, and each thing that is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from ari_app.checks import Finding, Verdict, check_conf
from ari_app.checks.conf_file import parse_conf
from ari_app.checks.conf_rules import FILES, Needs, judge_conf, judge_process_limit
from ari_app.checks.dialplan import Dialplan
from ari_app.settings import load_settings
from lab.asterisk.config import template_dir

NEEDS = Needs(
    "voice-agent", "voice-agent", 10, "voice-agent-amd", "voice-agent-after", ("PJSIP", "trunk")
)


def production() -> dict[str, str]:
    return {name: (template_dir() / "production" / name).read_text() for name in FILES}


def judged(files: dict[str, str], needs: Needs = NEEDS) -> list[Finding]:
    confs = {name: parse_conf(name, text, lambda pattern: ()) for name, text in files.items()}
    return judge_conf(confs, needs)


def test_what_is_recommended_fits() -> None:
    assert judged(production()) == []


def test_without_any_file_there_is_nothing_to_say() -> None:
    assert judged({}) == []


BROKEN = [
    ("ari.conf", "read_only = no", "read_only = yes", "failed", ["ari.conf:", "read_only = no`"]),
    (
        "ari.conf",
        "password_format = crypt",
        "password_format = plain",
        "warning",
        ["says password_format = plain", "Put its hash"],
    ),
    ("ari.conf", "password_format = crypt", "", "warning", ["has no password_format"]),
    ("ari.conf", "websocket_write_timeout = 1000", "", "warning", ["closes the event socket"]),
    (
        "ari.conf",
        "websocket_write_timeout = 1000",
        "websocket_write_timeout = 200",
        "warning",
        ["Write `websocket_write_timeout = 1000`"],
    ),
    ("ari.conf", ";allowed_origins =", "allowed_origins = *", "warning", ["every web page"]),
    ("ari.conf", "enabled = yes", "enabled = no", "failed", ["ARI is off", "enabled = yes"]),
    ("ari.conf", "[voice-agent]", "[somebody]", "failed", ["no user voice-agent", "type = user"]),
    ("ari.conf", "type = user", "type = other", "failed", ["no user voice-agent"]),
    ("http.conf", "enabled = yes", "enabled = no", "failed", ["HTTP server is off"]),
    ("http.conf", "bindaddr = 127.0.0.1", "", "failed", ["Write `bindaddr = 127.0.0.1`"]),
    (
        "http.conf",
        "bindaddr = 127.0.0.1",
        "bindaddr = 0.0.0.0",
        "warning",
        ["http.conf:8", "in the clear", "tlsenable = yes"],
    ),
    ("http.conf", "sessionlimit = 200", "sessionlimit = 20", "warning", ["sessionlimit = 200`"]),
    ("http.conf", "session_keep_alive = 15000", "session_keep_alive = 1000", "warning", ["10 s"]),
    ("rtp.conf", "strictrtp = yes", "strictrtp = no", "warning", ["guesses a port"]),
    ("rtp.conf", "rtpend = 20000", "rtpend = 10019", "warning", ["20 ports", "10 calls need 40"]),
    (
        "asterisk.conf",
        "live_dangerously = no",
        "live_dangerously = yes",
        "warning",
        ["SHELL()"],
    ),
    ("modules.conf", "load = res_ari.so", "", "failed", ["Write `load = res_ari.so`"]),
    ("modules.conf", "load = app_amd.so", "", "warning", ["Write `load = app_amd.so`"]),
    (
        "modules.conf",
        "autoload = no",
        "autoload = yes\nnoload = chan_audiosocket",
        "failed",
        ["modules.conf:", "keeps chan_audiosocket.so from being loaded", "Take the line out"],
    ),
    ("pjsip.conf", "[trunk](trunk-basics)", "[x](trunk-basics)", "warning", ["no endpoint trunk"]),
    (
        "pjsip.conf",
        "rtp_timeout = 30",
        "",
        "warning",
        ["[trunk] (pjsip.conf:", "[1001] (", "`rtp_timeout = 30`"],
    ),
    (
        "extensions.conf",
        "${STASISSTATUS}",
        "${OTHER}",
        "warning",
        ["extensions.conf:", "hung up on when the application is down", "GotoIf"],
    ),
    ("extensions.conf", "[voice-agent-amd]", "[amd]", "warning", ["(AMD_CONTEXT)"]),
    ("extensions.conf", "[voice-agent-after]", "[after]", "warning", ["(TRANSFER_CONTEXT)"]),
]


@pytest.mark.parametrize(("name", "right", "wrong", "verdict", "words"), BROKEN, ids=str)
def test_what_is_wrong_is_named(
    name: str, right: str, wrong: str, verdict: str, words: list[str]
) -> None:
    files = production()
    assert right in files[name]
    files[name] = files[name].replace(right, wrong)
    findings = judged(files)
    told = [finding for finding in findings if all(word in finding.detail for word in words)]
    assert told, findings
    assert told[0].verdict.value == verdict
    assert told[0].what == "Configuration"
    assert told[0].detail.endswith(".")


def test_a_dialplan_that_hands_nothing_over() -> None:
    files = production()
    files["extensions.conf"] = files["extensions.conf"].replace("Stasis(voice-agent", "NoOp(")
    (finding,) = judged(files)
    assert "hands no call to Stasis(voice-agent)" in finding.detail


def test_many_endpoints_without_a_timeout_are_not_all_named() -> None:
    text = "".join(f"[{n}]\ntype = endpoint\n" for n in ("trunk", *range(8)))
    (finding,) = judged({"pjsip.conf": text})
    assert "[3] (pjsip.conf:9) and 4 more: " in finding.detail


@pytest.mark.parametrize(
    ("after", "looked_after"),
    [
        ('GotoIf($["${STASISSTATUS}" = "FAILED"]?1)', True),
        ("Goto(there,s,1)", True),
        ("Gosub(there,s,1)", True),
        ("Goto(${WHERE},s,1)", True),
        ("Goto(elsewhere,s,1)", False),
        ("Goto(round,s,1)", False),
        ("Hangup()", False),
    ],
)
def test_where_a_call_goes_on(after: str, looked_after: bool) -> None:
    conf = parse_conf(
        "extensions.conf",
        f"""
[globals]
APP = bot
[in]
exten => _X.,1(begin),Answer()
 same => n,Stasis(${{APP}},a=b)
 same => n,{after}
[there]
exten => s,1,NoOp(${{STASISSTATUS}})
[elsewhere]
exten => s,1,NoOp()
[round]
exten => s,1,Goto(in,s,1)
""",
        lambda pattern: (),
    )
    plan = Dialplan(conf)
    ((extension, place),) = plan.hand_overs("bot")
    assert (extension.context, extension.pattern, place) == ("in", "_X.", 1)
    assert extension.steps[place].where == "extensions.conf:6"
    assert plan.looks_after(extension, place) is looked_after
    assert plan.has("there", "s")
    assert not plan.has("in", "s")


# --- read from a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in production().items():
        (tmp_path / name).write_text(text)
    return tmp_path


SETTINGS = load_settings(None, ari_username="voice-agent")


def test_a_folder_that_is_as_it_should_be(folder: Path) -> None:
    (finding,) = check_conf(folder, SETTINGS)
    assert finding.verdict is Verdict.OK
    assert f"the 7 files in {folder} say what they should" in finding.detail


def test_there_is_no_such_folder(tmp_path: Path) -> None:
    (finding,) = check_conf(tmp_path / "none", SETTINGS)
    assert finding.verdict is Verdict.FAILED
    assert "--conf" in finding.detail


def test_a_file_is_missing_or_cannot_be_read(folder: Path) -> None:
    (folder / "rtp.conf").unlink()
    (folder / "http.conf").unlink()
    (folder / "http.conf").mkdir()
    unreadable, missing = (finding.detail for finding in check_conf(folder, SETTINGS))
    assert unreadable.startswith(f"{folder / 'http.conf'} cannot be read: Is a directory. Run")
    assert missing.startswith(f"There is no {folder / 'rtp.conf'}. asterisk-conf/production/rtp")


def test_included_files_are_read_and_named(folder: Path, tmp_path: Path) -> None:
    (folder / "http.d").mkdir()
    (folder / "http.d/mine.conf").write_text("sessionlimit = 5\n")
    outside = tmp_path / "outside.conf"
    outside.write_text("session_keep_alive = 5\n")
    with (folder / "http.conf").open("a") as file:
        file.write(f'#include "http.d/*.conf"\n#include "{outside}"\n#include "none.conf"\n')
    told = " ".join(finding.detail for finding in check_conf(folder, SETTINGS))
    assert "http.d/mine.conf:1 says sessionlimit = 5" in told
    assert "outside.conf:1 says session_keep_alive = 5" in told


def test_the_running_asterisks_own_limit(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "asterisk.pid").write_text(f"{Path('/proc/self').resolve().name}\n")
    with (folder / "asterisk.conf").open("a") as file:
        file.write(f"[directories]\nastrundir => {run}\n")
    many = load_settings(None, ari_username="voice-agent", max_concurrent_calls=10_000)
    found = [f for f in check_conf(folder, many) if "The running Asterisk" in f.detail]
    soft = int(Path("/proc/self/limits").read_text().split("Max open files")[1].split()[0])
    assert bool(found) is (soft < 120_100)


def test_a_limit_of_open_files() -> None:
    assert judge_process_limit(1024, 10) is None
    finding = judge_process_limit(1024, 100)
    assert finding is not None
    assert "1024 files; 100 calls need about 1300" in finding.detail
    assert "LimitNOFILE=65536" in finding.detail
