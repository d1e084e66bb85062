from __future__ import annotations

import pytest

from benchmarks.soak.ledger import (
    CallResult,
    Fate,
    Landing,
    judge,
    parse_landings,
)
from benchmarks.soak.plan import Kind
from benchmarks.soak.schedule import FaultKind, Window
from benchmarks.soak.tally import Tally

HUMAN = Landing("human", "SUCCESS", "FAILED", "lost")
BYE = Landing("bye", "SUCCESS", "COMPLETED", "agent_ended")


def result(kind: Kind = Kind.TALK, by: str = "us", **changes: object) -> CallResult:
    plain = CallResult(1, kind, 100.0, 120.0, answered=True, heard=True, ended_by=by)
    return CallResult.from_json({**plain.to_json(), **changes})


def fate(call: CallResult, landing: Landing | None = None, *windows: Window) -> Fate:
    (judged,) = judge([call], {} if landing is None else {call.name: landing}, windows)
    assert bool(judged.why) is (judged.fate is not Fate.AS_PLANNED)
    return judged.fate


def test_calls_that_go_as_planned() -> None:
    assert fate(result()) is Fate.AS_PLANNED
    assert fate(result(Kind.AGENT_ENDS, "far"), BYE) is Fate.AS_PLANNED
    assert fate(result(Kind.PLACED_UNANSWERED, "far", answered=False)) is Fate.AS_PLANNED
    assert fate(result(Kind.AGENT_DROPS, "far"), HUMAN) is Fate.AS_PLANNED


def test_a_caller_who_hears_nothing_is_stranded() -> None:
    assert fate(result(stranded="nothing to be heard for 25 s")) is Fate.STRANDED


def test_a_caller_who_is_hung_up_on_is_stranded_without_the_dialplan() -> None:
    assert fate(result(by="far")) is Fate.STRANDED
    assert fate(result(by="far"), HUMAN) is Fate.FAILED
    assert fate(result(Kind.VANISHES, "far")) is Fate.AS_PLANNED


def test_asterisk_itself_may_end_calls_when_it_is_killed() -> None:
    killed = Window(FaultKind.ASTERISK_RESTARTED, 110, 115)
    assert fate(result(by="far", failed="the call ended"), None, killed) is Fate.DISTURBED
    assert fate(result(by="far"), None, Window(FaultKind.ARI_CUT, 110, 115)) is Fate.STRANDED
    silent = result(stranded="nothing to be heard for 25 s")
    unanswered = result(stranded=silent.stranded, answered=False, heard=False)
    assert fate(unanswered, None, killed) is Fate.DISTURBED
    assert fate(unanswered) is Fate.STRANDED
    assert fate(silent, None, killed) is Fate.STRANDED


def test_a_failure_is_a_fault_s_doing_only_while_there_is_one() -> None:
    failed = result(failed="no answer within 10 s")
    assert fate(failed) is Fate.FAILED
    assert fate(failed, None, Window(FaultKind.AGENT_STOPPED, 115, 121)) is Fate.DISTURBED
    assert fate(failed, None, Window(FaultKind.AGENT_STOPPED, 50, 55)) is Fate.FAILED


def test_landing_as_failed_is_no_plan() -> None:
    assert fate(result(by="us"), HUMAN) is Fate.FAILED


LOG = (
    "[2026-01-01 10:00:00.000] NOTICE[7]: Ext. s:5 @ soak-landing: landed=human caller=soak17 "
    "stasis=SUCCESS agent=FAILED reason=lost\n"
    "    -- Executing [s@soak-landing:9] Log(PJSIP/lab-1, NOTICE,landed=bye "
    "caller=soak18 stasis=SUCCESS agent=COMPLETED reason=agent_ended)\n"
    "    -- Added step Log(NOTICE,landed=bye caller=${CALLERID(num)} stasis= agent= reason=)\n"
    "    landed=human caller=soak19 stasis=FAILED agent= reason=\n"
)


def test_landings_are_found_in_the_log() -> None:
    found = dict(parse_landings(LOG))
    assert found["soak17"] == HUMAN
    assert found["soak18"].where == "bye"
    assert found["soak19"] == Landing("human", "FAILED", "", "")
    assert len(found) == 3


@pytest.mark.parametrize("cut", range(0, len(LOG), 7))
def test_the_log_may_come_in_pieces(cut: int) -> None:
    tally = Tally()
    tally.take_log(LOG[:cut])
    tally.take_log(LOG[cut:])
    assert tally.landings == dict(parse_landings(LOG))


def test_a_tally_counts_what_runs_and_splits_the_gaps() -> None:
    tally = Tally()
    tally.started = 2
    tally.take({"event": "ended", "result": result().to_json()})
    assert tally.running == 1
    for second in range(1, 31):
        gaps = {"counts": {str(20 + second): 1}, "longest_ms": 20.0 + second}
        tally.take({"event": "second", "at": float(second), "gaps": gaps})
    tally.windows.append(Window("ari_cut", 9.5, 12.0))
    quiet, disturbed = tally.gaps_by_quiet(0, 30)
    assert sorted(quiet.counts) == [*range(21, 30), *range(44, 51)]
    assert sorted(disturbed.counts) == list(range(30, 44))
    assert tally.gaps(5, 7).packets == 2
    with pytest.raises(ValueError, match="not understood"):
        tally.take({"event": "music"})
