"""Asterisk's files: those that are recommended fit, and each thing that is wrong is named."""

from __future__ import annotations

import os
import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.checks.conf import check_conf
from ari_app.checks.conf_file import parse_conf
from ari_app.checks.conf_rules import FILES, Needs, judge_conf, judge_process_limit
from ari_app.checks.dialplan import Dialplan
from ari_app.checks.finding import Finding, Use, Verdict, what_works
from ari_app.settings import load_settings
from lab.asterisk.config import template_dir

SETTINGS = load_settings(None, ari_username="voice-agent")
NEEDS = Needs.of(SETTINGS)


def production() -> dict[str, str]:
    return {name: (template_dir() / "production" / name).read_text() for name in FILES}


def judged(files: dict[str, str], needs: Needs = NEEDS) -> list[Finding]:
    confs = {name: parse_conf(name, text, lambda pattern: ()) for name, text in files.items()}
    return judge_conf(confs, needs)


def test_what_is_recommended_fits() -> None:
    (finding,) = judged(production())
    assert finding.verdict is Verdict.OK
    assert "hands calls to Stasis(voice-agent)" in finding.detail


def test_withheld_numbers_are_no_matter_where_no_trunk_tells_them() -> None:
    files = production()
    files["pjsip.conf"] = files["pjsip.conf"].replace("trust_id_inbound = yes", "")
    files["extensions.conf"] = files["extensions.conf"].replace("num-pres", "num")
    assert [finding.verdict for finding in judged(files)] == [Verdict.OK]


def test_without_any_file_there_is_nothing_to_say() -> None:
    assert judged({}) == []


BROKEN = [
    ("ari.conf", "read_only = no", "read_only = yes", "failed", ["ari.conf:", "read_only = no`"]),
    (
        "ari.conf",
        "password_format = crypt",
        "password_format = plain",
        "note",
        ["says password_format = plain", "Put its hash"],
    ),
    ("ari.conf", "password_format = crypt", "", "note", ["has no password_format"]),
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
    (
        "ari.conf",
        "password = PUT-THE-HASH-HERE",
        "password =",
        "failed",
        ["ari.conf:", "the user voice-agent has no password", "ARI_PASSWORD"],
    ),
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
    (
        "http.conf",
        "[general]",
        "[general](+)",
        "failed",
        ["http.conf:", "no section general before it"],
    ),
    (
        "http.conf",
        "sessionlimit = 200",
        "prefix = /pbx",
        "failed",
        ["says prefix = /pbx", "Write `prefix = pbx`"],
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
    ("pjsip.conf", "[trunk](trunk-basics)", "[x](trunk-basics)", "note", ["no endpoint trunk"]),
    (
        "pjsip.conf",
        "rtp_timeout = 30",
        "",
        "warning",
        ["[trunk] (pjsip.conf:", "[1001] (", "`rtp_timeout = 30`"],
    ),
    (
        "extensions.conf",
        "CALLERID(num-pres)",
        "CALLERID(num)",
        "warning",
        [
            "[trunk] (pjsip.conf:",
            "[trunk-by-address] (",
            "withheld numbers",
            "Before extensions.conf:",
        ],
    ),
    ("extensions.conf", "[voice-agent-amd]", "[amd]", "note", ["(AMD_CONTEXT)"]),
    ("extensions.conf", "[voice-agent-after]", "[after]", "note", ["(TRANSFER_CONTEXT)"]),
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
    assert told[0].what == ("Dialplan" if name == "extensions.conf" else "Configuration")
    assert told[0].detail.endswith(".")


@pytest.mark.parametrize(
    ("stands", "verdict", "words"),
    [
        (
            "Stasis(voiceagent,a=b)",
            "failed",
            ["x.conf:2 says Stasis(voiceagent,a=b)", "ARI_APP=voiceagent"],
        ),
        ("Stasis( voice-agent)", "failed", ["x.conf:2 says Stasis( voice-agent)"]),
        ("Stasis (voice-agent)", "failed", ["x.conf:2 says Stasis (voice-agent)"]),
        ("Stasis('voice-agent')", "failed", ["x.conf:2 says"]),
        ("NoOp(was Stasis(voice-agent))", "failed", ["hands no call to Stasis(voice-agent)"]),
        ("Stasis(ivr)", "failed", ["hands no call", "x.conf:2 says Stasis(ivr)"]),
        ("Stasis(${WHICH})", "warning", ["only a call will tell"]),
        ("Dial(PJSIP/1)", "failed", ["hands no call to Stasis(voice-agent)"]),
        ('Stasis("voice-agent",tier=gold)', "ok", ["x.conf:2 hands calls"]),
        ("Stasis(voice\\-agent)", "ok", ["x.conf:2 hands calls"]),
        ("ExecIf($[1]?Stasis(voice-agent,a=b))", "ok", ["x.conf:2 hands calls"]),
    ],
)
def test_whom_the_dialplan_hands_calls_to(stands: str, verdict: str, words: list[str]) -> None:
    finding, *_ = judge_dialplan(f"[in]\nexten => 1,1,{stands}\n same => n,Dial(PJSIP/1)\n")
    assert (finding.what, finding.verdict) == ("Dialplan", verdict)
    assert all(word in finding.detail for word in words), finding.detail
    assert (Use.CALLS_IN in finding.uses) is (verdict != "ok")


def judge_dialplan(text: str, **changes: object) -> list[Finding]:
    needs = Needs.of(load_settings(None, ari_username="voice-agent", **changes))
    conf = parse_conf("x.conf", text, lambda pattern: ())
    return judge_conf({"extensions.conf": conf}, needs)


def test_what_comes_back_from_amd_is_no_call_in() -> None:
    finding, *_ = judge_dialplan("[voice-agent-amd]\nexten => s,1,Stasis(voice-agent)\n")
    assert finding.verdict is Verdict.FAILED


def test_whoever_only_places_calls_needs_no_hand_over() -> None:
    finding, *_ = judge_dialplan("", outbound_endpoint="PJSIP/{number}@mine")
    assert finding.verdict is Verdict.WARNING


@pytest.mark.parametrize(
    ("http", "url", "right"),
    [
        ("", "http://127.0.0.1:8088", ""),
        ("prefix = pbx", "http://127.0.0.1:8088/pbx", ""),
        ("prefix = pbx", "http://127.0.0.1:8088", "http://127.0.0.1:8088/pbx"),
        ("", "http://127.0.0.1:8088/ari", "http://127.0.0.1:8088"),
        ("bindport = 8090", "http://localhost:8088", "http://localhost:8090"),
        ("bindport = 8090", "http://gateway.example:80/asterisk", ""),
        ("", "https://127.0.0.1:8089", ""),
    ],
)
def test_the_address_leads_to_where_ari_is(http: str, url: str, right: str) -> None:
    text = f"[general]\nenabled = yes\nbindaddr = 127.0.0.1\n{http}\n"
    needs = Needs.of(load_settings(None, ari_url=url))
    found = judge_conf({"http.conf": parse_conf("http.conf", text, lambda pattern: ())}, needs)
    assert [f.verdict for f in found] == [Verdict.FAILED] * bool(right)
    assert all(f.detail.endswith(f"Write ARI_URL={right}.") for f in found), found


def test_many_endpoints_without_a_timeout_are_not_all_named() -> None:
    text = "".join(f"[{n}]\ntype = endpoint\n" for n in ("trunk", *range(8)))
    (finding,) = judged({"pjsip.conf": text})
    assert "[3] (pjsip.conf:9) and 4 more: " in finding.detail


@pytest.mark.parametrize(
    ("after", "caught"),
    [
        ('GotoIf($["${STASISSTATUS}" = "FAILED"]?1)', True),
        ("Goto(there,s,1)", True),
        ("Gosub(there,s,1(a,b))", True),
        ("Goto(${WHERE},s,1)", True),
        ("Goto(of-another-file,s,1)", True),
        ("Goto(menu,7,1)", True),
        ("Goto(person)", True),
        ("Queue(support)", True),
        ("AGI(menu.py)", True),
        ("Macro(person)", True),
        ('GotoIf($["${AGENT_STATUS}" = "COMPLETED"]?bye:person)', True),
        ('ExecIf($["${X}" = "1"]?Hangup())\n same => n,Dial(PJSIP/1)', True),
        ('GotoIf($["${AGENT_STATUS}" = "TRANSFER"]?person)', False),
        ("Goto(elsewhere,s,1)", False),
        ("Goto(menu,6,1)", False),
        ("Goto(in,5,begin)", False),
        ("Goto(round,s,1)", False),
        ("Set(X=Queue(support))", False),
        ("Hangup()", False),
        ("Congestion(10)", False),
    ],
)
def test_where_a_caller_goes_on(after: str, caught: bool) -> None:
    conf = parse_conf(
        "extensions.conf",
        f"""
[globals]
APP = bot
[in]
exten => _X.,1(begin),Answer()
exten => _X.,n,Stasis(${{APP}},a=b)
 same => n,{after}
 same => n(bye),Hangup()
 same => n(person),Dial(PJSIP/1)
[there]
exten => s,1,NoOp(${{STASISSTATUS}})
[elsewhere]
exten => s,1,NoOp()
[menu]
include => numbers
[numbers]
exten => _[7-9],1,Background(menu)
[macro-person]
exten => s,1,Dial(PJSIP/1)
[round]
exten => s,1,Goto(in,5555,1)
""",
        lambda pattern: (),
    )
    plan = Dialplan(conf)
    (hand_over,) = plan.hand_overs()
    assert (hand_over.app, hand_over.where) == ("bot", "extensions.conf:6")
    assert plan.catches(hand_over) is caught
    assert plan.has("there", "s")
    assert not plan.has("in", "s")


_WORDS = st.sampled_from(
    [
        *'(){}[]"\\?:,;$ 1n\n',
        *("exten => ", "same => ", "include => a", "[a]", "_[9-1]X", "voice-agent"),
        *("Goto", "GotoIf", "ExecIf", "Stasis", "Hangup", "${X}", "${AGENT_STATUS} = "),
    ]
)


@given(st.lists(_WORDS).map("".join))
def test_any_dialplan_can_be_read(text: str) -> None:
    text = f"[in]\nexten => 1,1,Stasis(voice-agent)\n same => n,Goto(a,7,1)\n{text}"
    plan = Dialplan(parse_conf("extensions.conf", text, lambda pattern: ()))
    assert any(plan.catches(hand_over) in (True, False) for hand_over in plan.hand_overs())


def test_callers_who_would_be_hung_up_on_are_named() -> None:
    text = "[in]\nexten => 1,1,Stasis(voice-agent)\n same => n,Hangup()\n"
    told = [f.detail for f in judge_dialplan(text) if f.verdict is Verdict.WARNING]
    assert len(told) == 1
    assert told[0].startswith("x.conf:2: after Stasis(voice-agent) nothing looks at STASISSTATUS")


ROUTING = "[routing]\nexten => 8390,1,Stasis(voice-agent)\n same => n,Dial(PJSIP/1)\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        # What Asterisk 22.10.1 does with each was tried.
        (
            f"[routing]\nexten => 8390,1,VoiceMailMain()\n{ROUTING}",
            (
                Verdict.FAILED,
                "x.conf:4 hands no call to Stasis(voice-agent): x.conf:2 has priority 1 of 8390 in "
                "[routing] already, and Asterisk leaves a second one out. Give it a number that is "
                "free.",
            ),
        ),
        (
            f"[routing]\nexten => 8390,1,VoiceMailMain()\n exten => 7,1,Stasis(voice-agent)\n"
            f" same => n,Dial(PJSIP/1)\n{ROUTING}",
            (Verdict.WARNING, "x.conf:6 hands no call"),
        ),
        (
            f"{ROUTING}[default]\ninclude => other\ninclude => routing\n[other]\n"
            "exten => _8XXX,1,Dial(PJSIP/2)\n",
            (
                Verdict.WARNING,
                "x.conf:2 hands no call to Stasis(voice-agent): where [routing] is included, _8XXX "
                "of [other] (x.conf:8) comes before it and takes the calls to 8390.",
            ),
        ),
        (
            f"{ROUTING}[default]\ninclude => routing\nexten => _X.,1,Dial(PJSIP/2)\n",
            (Verdict.WARNING, "_X. of [default] (x.conf:6) comes before it"),
        ),
        (f"{ROUTING}[default]\ninclude => routing\n[routing]\nexten => 8390,1,Hangup()\n", None),
        (
            f"{ROUTING}[default]\ninclude => routing\ninclude => other\n[other]\n"
            "exten => _8XXX,1,Dial(PJSIP/2)\n",
            None,
        ),
        # Priorities as Asterisk counts them: 1, 4, 5, and from a label on nobody knows.
        (
            "[a]\nexten => 1,1,NoOp()\n same => n+2(x),NoOp()\n same => n,NoOp()\n"
            " same => 3,Stasis(voice-agent)\n same => x+1,NoOp()\n same => n,NoOp()\n"
            " same => 6,Dial(PJSIP/1)\n",
            None,
        ),
        (
            "[a]\nexten => 1,1,NoOp()\n same => n+2(x),NoOp()\n same => 4,Stasis(voice-agent)\n",
            (Verdict.FAILED, "x.conf:4 hands no call to Stasis(voice-agent): x.conf:3 has"),
        ),
        # A slip of the pen in the number, and an extension that begins with n.
        (
            "[a]\nexten => 8500,1,Answer()\nexten => 8501,n,Stasis(voice-agent)\n"
            " same => n,Dial(PJSIP/1)\n",
            (
                Verdict.WARNING,
                "x.conf:3 hands no call to Stasis(voice-agent): 8501 in [a] has no priority 1, so "
                "nobody can dial it. Begin it with `exten => 8501,1,`.",
            ),
        ),
        (
            "[a]\nexten => 1,n,Stasis(voice-agent)\n same => n,Dial(PJSIP/1)\n",
            (Verdict.WARNING, "1 in [a] has no priority 1"),
        ),
        (
            "[a]\nexten => 1,2,Stasis(voice-agent)\n same => n,Dial(PJSIP/1)\n[b]\n"
            "exten => 1,1,NoOp()\n",
            None,
        ),
        # At other times it comes through.
        (
            f"{ROUTING}[default]\ninclude => other,9:00-17:00,mon-fri,*,*\ninclude => routing\n"
            "[other]\nexten => _8XXX,1,Dial(PJSIP/2)\n",
            None,
        ),
        (
            f"{ROUTING}[default]\ninclude => routing,9:00-17:00,mon-fri,*,*\ninclude => other\n"
            "[other]\nexten => _8XXX,1,Dial(PJSIP/2)\n",
            None,
        ),
        # Calls come in by another way, too.
        (f"{ROUTING}[default]\ninclude => routing\nexten => _X.,1,Goto(routing,8390,1)\n", None),
        (f"{ROUTING}[a]\ninclude => b\n[b]\ninclude => a\ninclude => routing\n", None),
    ],
)
def test_a_number_that_others_take_before(text: str, told: tuple[Verdict, str] | None) -> None:
    found = judge_dialplan(text)
    about = [each for each in found if "hands no call" in each.detail]
    if told is None:
        assert about == []
        assert found[0].verdict is Verdict.OK
    else:
        (finding,) = about
        assert (finding.verdict, told[1] in finding.detail) == (told[0], True)
        assert (Use.CALLS_IN in finding.uses) is all(
            each.verdict is not Verdict.OK for each in found
        )


def test_a_context_that_telephones_call_in_is_not_hidden_where_it_is_included() -> None:
    text = f"{ROUTING}[default]\ninclude => routing\nexten => _X.,1,Dial(PJSIP/2)\n"
    phone = "[1001]\ntype = endpoint\ncontext = routing\nrtp_timeout = 30\n"
    found = judged({"extensions.conf": text, "pjsip.conf": phone})
    assert not any("hands no call" in each.detail for each in found)


@pytest.mark.parametrize("page", ["dialers.md", "vicidial.md", "freepbx.md"])
def test_nothing_is_to_be_said_of_a_documented_dialplan(page: str) -> None:
    text = (template_dir().parent / "docs" / page).read_text(encoding="utf-8")
    dialplan = "\n".join(re.findall(r"^```asterisk\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    verdicts = [each.verdict for each in judged({"extensions.conf": dialplan})]
    assert set(verdicts) <= {Verdict.OK, Verdict.NOTE}
    assert Verdict.OK in verdicts


# --- read from a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in production().items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o640)
    return tmp_path


def test_a_folder_that_is_as_it_should_be(folder: Path) -> None:
    *_, finding = found = check_conf(folder, SETTINGS)
    assert {each.verdict for each in found} == {Verdict.OK}
    assert f"the 7 files in {folder} say what they should" in finding.detail


def test_there_is_no_such_folder(tmp_path: Path) -> None:
    (finding,) = check_conf(tmp_path / "none", SETTINGS)
    assert finding.verdict is Verdict.FAILED
    assert "--conf" in finding.detail


def test_a_file_is_missing_or_cannot_be_read(folder: Path) -> None:
    (folder / "rtp.conf").unlink()
    (folder / "http.conf").unlink()
    (folder / "http.conf").mkdir()
    _, unreadable, missing = (finding.detail for finding in check_conf(folder, SETTINGS))
    assert unreadable.startswith(f"{folder / 'http.conf'} cannot be read: Is a directory. Run")
    assert missing.startswith(f"There is no {folder / 'rtp.conf'}. asterisk-conf/production/rtp")


def test_a_folder_that_cannot_be_looked_into(tmp_path: Path, unseen: str) -> None:
    folder = tmp_path / unseen
    found = [finding.detail for finding in check_conf(folder, SETTINGS)]
    for name in FILES:
        assert f"{folder / name} cannot be read: File name too long. Run this as root" in " ".join(
            found
        )


def test_telephones_of_chan_sip_need_no_pjsip(folder: Path) -> None:
    (folder / "pjsip.conf").unlink()
    (folder / "sip.conf").write_text("[general]\n")
    assert {each.verdict for each in check_conf(folder, SETTINGS)} == {Verdict.OK}


def test_what_others_have_told_is_not_told_again(folder: Path) -> None:
    (folder / "extensions.conf").write_text("[in]\nexten => 1,1,Stasis(voice-agent)\n")
    told = {"context voice-agent-amd"}
    texts = " ".join(finding.detail for finding in check_conf(folder, SETTINGS, told))
    assert "AMD_CONTEXT" not in texts
    assert "TRANSFER_CONTEXT" in texts


def test_a_dialplan_in_another_language(folder: Path) -> None:
    (folder / "extensions.conf").write_text("[general]\n")
    (folder / "extensions.ael").write_text("context in { 1 => { Stasis(voice-agent); } }\n")
    finding, *_ = check_conf(folder, SETTINGS)
    assert (finding.verdict, finding.detail) == (
        Verdict.OK,
        "extensions.ael hands calls to Stasis(voice-agent)",
    )


def test_a_dialplan_that_cannot_be_read_leaves_calls_in_open(folder: Path) -> None:
    (folder / "extensions.conf").unlink()
    assert "Calls in: not sure, see Configuration." in what_works(check_conf(folder, SETTINGS))


def test_a_file_of_passwords_that_everybody_can_read(folder: Path, open_folder: Path) -> None:
    for file in folder.iterdir():
        (open_folder / file.name).write_text(file.read_text())
    for mode, told in ((0o644, True), (0o640, False)):
        (open_folder / "ari.conf").chmod(mode)
        found = " ".join(finding.detail for finding in check_conf(open_folder, SETTINGS))
        assert (f"may read {open_folder / 'ari.conf'}" in found) is told


def test_the_file_that_has_the_password_is_the_one_that_nobody_else_may_read(
    folder: Path, open_folder: Path
) -> None:
    for file in folder.iterdir():
        (open_folder / file.name).write_text(file.read_text())
    text = (folder / "ari.conf").read_text()
    head, name, users = text.partition("[voice-agent]")
    assert name
    (open_folder / "ari.conf").write_text(f"{head}\n#include ari_additional.conf\n")
    (open_folder / "ari_additional.conf").write_text(name + users)
    (open_folder / "ari.conf").chmod(0o644)
    for mode, told in ((0o644, True), (0o640, False)):
        (open_folder / "ari_additional.conf").chmod(mode)
        found = " ".join(finding.detail for finding in check_conf(open_folder, SETTINGS))
        assert (f"may read {open_folder / 'ari_additional.conf'}" in found) is told
        assert f"may read {open_folder / 'ari.conf'}" not in found


FREEPBX = ";---;\n; Do NOT edit this file as it is auto-generated by FreePBX. All modifications ;\n"
VICIDIAL = "; WARNING- THIS FILE IS AUTO-GENERATED BY VICIDIAL, ANY EDITS YOU MAKE WILL BE LOST\n"


@pytest.mark.parametrize(
    ("head", "stands", "told"),
    [
        (FREEPBX, "allowed_origins=*\n", "FreePBX writes ari_general_additional.conf: "),
        (VICIDIAL, "allowed_origins=*\n", "VICIDIAL writes ari_general_additional.conf: "),
        (FREEPBX, "allowed_origins=\n", None),
        ("", "allowed_origins=*\n", None),
    ],
    ids=["FreePBX", "VICIdial", "as it should be", "own"],
)
def test_a_file_that_a_program_writes_anew_is_named(
    folder: Path, head: str, stands: str, told: str | None
) -> None:
    text = (folder / "ari.conf").read_text()
    assert text.count("\n[general]\n") == 1
    general = "\n[general]\n#include ari_general_additional.conf\n"
    (folder / "ari.conf").write_text(text.replace("\n[general]\n", general))
    (folder / "ari_general_additional.conf").write_text(head + stands)
    found = [finding.detail for finding in check_conf(folder, SETTINGS)]
    assert any("allowed_origins = *" in each for each in found) is ("*" in stands)
    notes = [each for each in found if " writes " in each]
    assert [each.startswith(told) for each in notes] == [True] if told else notes == []


def test_included_files_are_read_and_named(folder: Path, tmp_path: Path) -> None:
    (folder / "http.d").mkdir()
    (folder / "http.d/mine.conf").write_text("sessionlimit = 5\n")
    (folder / "http.d/.#mine.conf").write_text("sessionlimit = 6\n")
    outside = tmp_path / "outside.conf"
    outside.write_text("session_keep_alive = 5\n")
    with (folder / "http.conf").open("a") as file:
        file.write(f'#include "http.d/*.conf"\n#include "{outside}"\n#include "none.conf"\n')
    told = " ".join(finding.detail for finding in check_conf(folder, SETTINGS))
    assert "http.d/mine.conf:1 says sessionlimit = 5" in told
    assert "outside.conf:1 says session_keep_alive = 5" in told
    assert "http.conf:" in told and 'says #include "none.conf", and there is no such file' in told


def test_braces_in_an_include_are_read_as_asterisk_reads_them(folder: Path) -> None:
    for name, key in (("a", "sessionlimit"), ("b", "session_keep_alive"), ("c", "bindaddr")):
        (folder / f"{name}.conf").write_text(f"{key} = 5\n")
    with (folder / "http.conf").open("a") as file:
        file.write("#include {b,none,a}.conf\n#include {none,nor*this}.conf\n")
    told = " ".join(finding.detail for finding in check_conf(folder, SETTINGS))
    assert "a.conf:1 says sessionlimit = 5" in told
    assert "b.conf:1 says session_keep_alive = 5" in told
    assert "says #include {none,nor*this}.conf, and there is no such file" in told


def test_an_include_from_a_folder_that_cannot_be_looked_into_is_not_called_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "secret").mkdir()
    # Whoever tests may be root, who looks into all of them.
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path).name != "secret" and access(path, mode)
    )
    with (folder / "http.conf").open("a") as file:
        file.write("#include secret/*.conf\n")
    told = " ".join(finding.detail for finding in check_conf(folder, SETTINGS))
    assert f"{folder / 'secret'} cannot be read: permission denied." in told
    assert "no such file" not in told


def test_a_user_who_is_written_twice() -> None:
    files = production()
    files["ari.conf"] += "[voice-agent]\ntype = user\npassword = another\n"
    (finding,) = (each for each in judged(files) if "once more" in each.detail)
    assert finding.verdict is Verdict.WARNING
    assert "ari.conf:" in finding.detail
    assert "take nothing of ari.conf then" in finding.detail
    assert what_works([finding]).startswith("Calls in: not sure")


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("[trunk]\ntype = endpoint\n", True),
        ("[trunk](+)\nallow = g722\n", False),
        ("[trunk](!)\ntype = endpoint\n", False),
        ("[trunk]\ntype = phoneprov\n", False),
    ],
)
def test_an_object_that_pjsip_has_twice(added: str, told: bool) -> None:
    files = production()
    files["pjsip.conf"] += added
    found = [each for each in judged(files) if "once more" in each.detail]
    assert [each.verdict for each in found] == [Verdict.FAILED] * told
    assert all("takes no endpoint of pjsip.conf at all" in each.detail for each in found)


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


def test_a_set_up_by_the_page_leaves_nothing_to_look_into(tmp_path: Path) -> None:
    """docs/first-call.md to the letter, on files as a package brings them."""
    page = (template_dir().parent / "docs/first-call.md").read_text()
    section = page.partition("## With your Asterisk")[2]
    for name in ("http.conf", "ari.conf"):
        added = re.search(rf"cat >> /etc/asterisk/{name} <<END\n(.*?)\n *END", section, re.DOTALL)
        assert added is not None
        (tmp_path / name).write_text("[general]\n" + textwrap.dedent(added[1]))
    dialplan = re.search(r"```asterisk\n(.*?)```", section, re.DOTALL)
    assert dialplan is not None
    (tmp_path / "extensions.conf").write_text(textwrap.dedent(dialplan[1]))
    (tmp_path / "modules.conf").write_text("[modules]\nautoload = yes\n")
    for name in ("pjsip.conf", "rtp.conf", "asterisk.conf"):
        (tmp_path / name).touch()
    found = check_conf(tmp_path, SETTINGS)
    assert {finding.verdict for finding in found} == {Verdict.OK, Verdict.NOTE}, found
    assert what_works(found).startswith("Calls in: yes. Calls out: not set up")
