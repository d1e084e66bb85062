from __future__ import annotations

import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ari_app.line.asterisk.ari.events import parse_event
from ari_app.line.asterisk.ari.resources import SUBSCRIBE
from ari_app.line.interface import Result
from ari_app.line.results import result_of
from ari_app.records.record import CallRecord
from tests.unit.call.stage import Stage
from tests.unit.line.asterisk.ari.samples import channel, event


@pytest.mark.parametrize(
    ("cause", "sip_code", "rang", "result"),
    [
        (17, 486, True, Result.BUSY),
        (17, 600, False, Result.BUSY),
        (21, 603, True, Result.REJECTED),
        (21, 403, False, Result.REJECTED),
        (1, 404, False, Result.INVALID_NUMBER),
        (28, 484, False, Result.INVALID_NUMBER),
        (19, 480, True, Result.NO_ANSWER),
        (19, 480, False, Result.UNREACHABLE),
        (18, 408, True, Result.NO_ANSWER),
        (18, 408, False, Result.UNREACHABLE),
        (127, 487, False, Result.NO_ANSWER),
        (34, 503, False, Result.UNREACHABLE),
        (58, 488, False, Result.FAILED),
    ],
)
def test_the_sip_status_says_most(cause: int, sip_code: int, rang: bool, result: Result) -> None:
    assert result_of(cause, sip_code, rang=rang) is result


@pytest.mark.parametrize("sip_code", [None, 0])
@pytest.mark.parametrize(
    ("cause", "rang", "result"),
    [
        (17, True, Result.BUSY),
        (21, True, Result.REJECTED),
        (1, False, Result.INVALID_NUMBER),
        (28, False, Result.INVALID_NUMBER),
        (19, True, Result.NO_ANSWER),
        (19, False, Result.UNREACHABLE),
        (102, False, Result.UNREACHABLE),
        (3, False, Result.UNREACHABLE),
        (20, False, Result.UNREACHABLE),
        (16, True, Result.FAILED),
        (0, False, Result.FAILED),
        (None, False, Result.FAILED),
    ],
)
def test_without_it_the_cause_does(
    sip_code: int | None, cause: int | None, rang: bool, result: Result
) -> None:
    assert result_of(cause, sip_code, rang=rang) is result


def test_a_status_that_says_nothing_leaves_it_to_the_cause() -> None:
    assert result_of(17, 500, rang=True) is Result.BUSY


@given(st.none() | st.integers(0, 127), st.none() | st.integers(0, 699), st.booleans(), st.text())
def test_a_call_that_was_not_answered_never_counts_as_answered(
    cause: int | None, sip_code: int | None, rang: bool, status: str
) -> None:
    result = result_of(cause, sip_code, rang=rang, dial_status=status)
    assert result is not Result.ANSWERED


# --- behind a Local channel


class Route:
    """A call that we place by a Local channel, whose other half runs a dialplan."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.session = stage.place()
        self.ours = self.session.call_id
        self.name = "Local/1@out-00000001;1"

    def tell(self, kind: str, **content: object) -> None:
        self.stage.gateway.handle(parse_event(orjson.dumps(event(kind, **content))))

    def dials(self, status: str, peer: str = "trunk-1") -> None:
        """The dialplan's Dial() reports."""
        other_half = channel(f"{self.ours};2")
        self.tell("Dial", caller=other_half, peer=channel(peer), dialstatus=status)

    def ends(self, peer: str = "trunk-1", **why: object) -> None:
        self.tell("ChannelDestroyed", channel=channel(peer), cause_txt="", **why)

    async def over(self, said: str, cause: int = 0) -> CallRecord:
        """The dialplan says something to our half, which then ends."""
        self.tell("Dial", peer=channel(self.ours, name=self.name), dialstatus=said)
        self.ends(self.ours, cause=cause)
        await self.session.ended.wait()
        return self.session.record


async def test_the_trunk_is_that_of_the_last_channel_that_the_dialplan_called(stage: Stage) -> None:
    route = Route(stage)
    for name in (
        "PJSIP/first-0000000a",
        "Local/+493023125001@out-00000001;1",
        "PJSIP/2nd-0000000b",
    ):
        other_half = channel(f"{route.ours};2")
        route.tell("Dial", caller=other_half, peer=channel("p", name=name), dialstatus="")
    assert (await route.over("BUSY")).trunk == "PJSIP/2nd"


async def test_the_trunk_is_that_of_our_own_channel_where_we_dial_it_ourselves(
    stage: Stage,
) -> None:
    route = Route(stage)
    route.name = "PJSIP/my-trunk-0000002a"
    assert (await route.over("BUSY")).trunk == "PJSIP/my-trunk"


@pytest.mark.parametrize("rang", [True, False])
@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("BUSY", "busy"),
        ("NOANSWER", "no_answer"),
        ("CONGESTION", "unreachable"),
        ("CHANUNAVAIL", "unreachable"),
    ],
)
async def test_what_the_dialplan_says_of_the_callee_counts(
    stage: Stage, status: str, result: str, rang: bool
) -> None:
    route = Route(stage)
    if rang:
        route.tell("Dial", peer=channel(route.ours), dialstatus="RINGING")
    session = await route.over(status)
    assert session.result == (result if rang or result != "no_answer" else "unreachable")


async def test_the_dial_behind_it_counts_more(stage: Stage) -> None:
    route = Route(stage)
    for status in ("", "PROCEEDING", "CHANUNAVAIL"):
        route.dials(status, "trunk-1")
    for status in ("", "PROCEEDING", "BUSY"):
        route.dials(status, "trunk-2")
    assert (await route.over("CONGESTION")).result == "busy"


async def test_why_the_callees_channel_ended_counts_most(stage: Stage) -> None:
    route = Route(stage)
    route.dials("")
    await stage.settle()
    (asked,) = stage.asterisk.requests(SUBSCRIBE)
    assert asked.parameters == {"eventSource": "channel:trunk-1"}
    route.dials("NOANSWER")
    route.ends(cause=1, tech_cause=404)
    session = await route.over("CONGESTION")
    assert session.result == "invalid_number"
    assert (session.hangup_cause, session.sip_code) == (1, 404)


async def test_why_the_callees_channel_ended_may_be_told_after_the_end_of_ours(
    stage: Stage,
) -> None:
    route = Route(stage)
    route.dials("")
    await stage.settle()
    route.dials("NOANSWER")
    ended = asyncio.create_task(route.over("BUSY"))
    await asyncio.sleep(0.1)
    route.ends(cause=21, tech_cause=603)
    assert (await ended).result == "rejected"


async def test_the_end_of_a_callees_channel_that_nobody_tells_is_not_waited_for(
    stage: Stage,
) -> None:
    route = Route(stage)
    route.dials("")
    route.dials("CHANUNAVAIL")
    began = asyncio.get_running_loop().time()
    assert (await route.over("CONGESTION")).result == "unreachable"
    assert asyncio.get_running_loop().time() - began < 0.5


@pytest.mark.parametrize("cause", [0, 16, 31])
async def test_a_cause_that_says_nothing_leaves_it_to_the_dial(stage: Stage, cause: int) -> None:
    route = Route(stage)
    route.dials("")
    route.tell("Dial", peer=channel(route.ours), dialstatus="RINGING")
    route.dials("NOANSWER")
    route.ends(cause=16)
    assert (await route.over("NOANSWER", cause=cause)).result == "no_answer"


async def test_what_our_own_channel_says_comes_first(stage: Stage) -> None:
    route = Route(stage)
    route.dials("")
    route.dials("NOANSWER")
    assert (await route.over("NOANSWER", cause=21)).result == "rejected"


async def test_the_dials_of_others_are_none_of_ours(stage: Stage) -> None:
    route = Route(stage)
    route.tell("Dial", caller=channel("other;2"), peer=channel("trunk-1"), dialstatus="BUSY")
    route.tell("Dial", caller=channel(""), peer=channel("trunk-1"), dialstatus="")
    assert (await route.over("")).result == "failed"
    assert stage.asterisk.requests(SUBSCRIBE) == []
