from __future__ import annotations

import pytest

from ari_app.call.amd import AmdRules, OnMachine
from ari_app.call.plan import CallPolicy
from ari_app.line.interface import Screened
from ari_app.patterns import LinearPattern
from ari_app.settings import load_settings


def test_the_target_of_a_transfer_may_have_a_pattern_of_its_own() -> None:
    policy = CallPolicy(target_pattern=LinearPattern("[0-9]{3}"))
    assert policy.target("200") == "200"
    with pytest.raises(ValueError, match="international"):
        policy.number("200")


@pytest.mark.parametrize("spelling", ["+1 (555) 010-0199", "\u202d+1\u00a0555/010.0199\u202c\n"])
def test_a_target_is_written_as_any_number(spelling: str) -> None:
    policy = CallPolicy()
    assert policy.number(spelling) == policy.target(spelling) == "+15550100199"
    assert policy.blind_target(spelling) == "+15550100199"
    extensions = CallPolicy(target_pattern=LinearPattern("1[0-9]{3}"))
    assert extensions.target(" 10-01") == "1001"
    assert extensions.blind_target("1 001\t") == "1001"


@pytest.mark.parametrize("number", ["1", "+49301&2", "${X}"])
def test_nothing_else_is_dialled(number: str) -> None:
    for dial in (CallPolicy().number, CallPolicy().target):
        with pytest.raises(ValueError, match="number"):
            dial(number)


def test_a_refusal_names_the_setting_that_may_allow_it() -> None:
    strict = CallPolicy(
        number_pattern=LinearPattern("0"),
        target_pattern=LinearPattern("1"),
        supervisor_pattern=LinearPattern("2"),
    )
    for policy in (CallPolicy(), CallPolicy(number_pattern=LinearPattern("0")), strict):
        for check, setting in (
            (policy.number, "NUMBER_PATTERN"),
            (policy.target, "TRANSFER_PATTERN"),
            (policy.supervisor, "TAKE_OVER_PATTERN"),
        ):
            with pytest.raises(ValueError, match=f" {setting}( may allow others)?[.]$"):
                check("2001")
    with pytest.raises(ValueError, match=r"for transfers: see TRANSFER_PATTERN[.]$"):
        strict.blind_target("2001")
    assert strict.supervisor("2") == CallPolicy(target_pattern=LinearPattern("2")).supervisor("2")


@pytest.mark.parametrize(
    ("status", "cause", "action"),
    [
        ("MACHINE", "LONGGREETING-2000-2000", OnMachine.HANG_UP),
        ("MACHINE", "MAXWORDS-5-4", OnMachine.HANG_UP),
        ("MACHINE", "MAXWORDLENGTH-5000", OnMachine.HANG_UP),
        ("machine", "", OnMachine.HANG_UP),
        ("MACHINE", "INITIALSILENCE-2000-2000", OnMachine.TALK),
        ("HUMAN", "HUMAN-1000-1000", OnMachine.TALK),
        ("NOTSURE", "TOOLONG-4920", OnMachine.TALK),
        ("HANGUP", "", OnMachine.TALK),
        ("", "", OnMachine.TALK),
    ],
)
def test_only_who_speaks_like_a_machine_is_treated_as_one(
    status: str, cause: str, action: OnMachine
) -> None:
    assert AmdRules(machine=OnMachine.HANG_UP).decide(Screened(status, cause)) is action


def test_with_whom_nothing_is_known_of_the_agent_talks() -> None:
    rules = AmdRules(machine=OnMachine.HANG_UP, notsure=OnMachine.HANG_UP)
    assert rules.decide(None) is OnMachine.TALK


@pytest.mark.parametrize(
    ("status", "cause", "action"),
    [
        ("MACHINE", "MAXWORDS-5-4", OnMachine.TALK),
        ("MACHINE", "INITIALSILENCE-2000-2000", OnMachine.HANG_UP),
        ("NOTSURE", "TOOLONG-4920", OnMachine.LEAVE_MESSAGE),
    ],
)
def test_the_others_have_settings_of_their_own(status: str, cause: str, action: OnMachine) -> None:
    policy = load_settings(
        None, amd_on_words="talk", amd_on_silence="hang_up", amd_on_notsure="leave_message"
    ).call_policy()
    assert policy.amd.decide(Screened(status, cause)) is action
