from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from ari_app.line.asterisk.names import BridgeName, Owner, bridge_name


def ourselves() -> Owner:
    owner = BridgeName.parse(bridge_name("sip-1")).owner
    assert owner is not None
    return owner


def test_a_name_tells_caller_and_process() -> None:
    found = BridgeName.parse(bridge_name("1795399717.2"))
    assert found.caller == "1795399717.2"
    assert found.owner == ourselves()
    assert ourselves().pid == os.getpid()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "voice-agent 1959f7a9",
        "sip-1 served-by ",
        "sip-1 served-by here.1",
        "sip-1 served-by here.one.2",
        "sip-1 served-by here.1.-2",
        "sip-1 served-by here.1.\u0662",
        "sip-1 served-by here.1.2.3",
        "sip-1 served-by here.1." + "9" * 5000,
    ],
)
def test_other_names_tell_nothing(text: str) -> None:
    assert BridgeName.parse(text) == BridgeName()


def test_one_that_lives_is_not_gone() -> None:
    assert not ourselves().is_gone


def test_one_that_has_ended_is_gone_also_before_it_is_reaped() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    began = int(_stat(child.pid)[19])
    owner = replace(ourselves(), pid=child.pid, began=began)
    gone = [owner.is_gone]
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    gone.append(owner.is_gone)
    child.communicate()
    gone.append(owner.is_gone)
    assert gone == [False, True, True]


def test_another_process_with_the_same_id_is_not_it() -> None:
    assert replace(ourselves(), began=1).is_gone


def test_of_one_elsewhere_nothing_is_known() -> None:
    assert not replace(ourselves(), place="another-machine", began=1).is_gone


def test_of_somebody_elses_process_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert not replace(ourselves(), began=1).is_gone


def test_an_id_that_no_process_can_have() -> None:
    assert not replace(ourselves(), pid=10**18).is_gone


def _stat(pid: int) -> list[str]:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()
