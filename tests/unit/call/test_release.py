from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from ari_app.line.asterisk.ari.errors import AriNotFound
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.channels import give_back_caller, quietly
from ari_app.line.asterisk.names import bridge_id, media_channel_id
from ari_app.line.interface import Outcome, Status
from tests.unit.call.fake_ari import (
    CONTINUE,
    SET_VARIABLE,
    FakeAsterisk,
    FakeClient,
    Moment,
    never,
    status,
)

DONE = Outcome(Status.COMPLETED, "agent_ended")
TRANSFER = Outcome(Status.TRANSFER, "agent_transfer", transfer_to="support")


@pytest.fixture
async def asterisk() -> AsyncIterator[FakeAsterisk]:
    asterisk = FakeAsterisk()
    asterisk.enter("sip-1")
    yield asterisk
    await asterisk.close()


def test_what_is_ours_is_known_by_its_name() -> None:
    assert media_channel_id("app", "5") == "app-media-5"
    assert bridge_id("app", "5") == "app-bridge-5"
    assert media_channel_id("app", "5").startswith(media_channel_id("app", ""))


async def test_a_caller_goes_on_and_the_dialplan_knows_why(asterisk: FakeAsterisk) -> None:
    left = await give_back_caller(
        FakeClient(asterisk), "sip-1", TRANSFER, session_id="s", conversation_id="c"
    )
    assert left
    (landed,) = asterisk.landed
    assert landed.variables == {
        "AGENT_STATUS": "TRANSFER",
        "AGENT_REASON": "agent_transfer",
        "AGENT_SESSION_ID": "s",
        "AGENT_CONVERSATION_ID": "c",
        "AGENT_TRANSFER_TO": "support",
    }


async def test_variables_are_always_set_so_that_none_of_an_earlier_call_is_left(
    asterisk: FakeAsterisk,
) -> None:
    await give_back_caller(FakeClient(asterisk), "sip-1", DONE)
    (landed,) = asterisk.landed
    assert landed.variables == {
        "AGENT_STATUS": "COMPLETED",
        "AGENT_REASON": "agent_ended",
        "AGENT_SESSION_ID": "",
        "AGENT_CONVERSATION_ID": "",
    }


async def test_who_has_hung_up_has_left(asterisk: FakeAsterisk) -> None:
    asterisk.hang_up("sip-1")
    with capture_logs() as logs:
        assert await give_back_caller(FakeClient(asterisk), "sip-1", DONE)
    assert logs == []
    assert not asterisk.requests(CONTINUE)


@pytest.mark.parametrize(
    "failure", [status(400), status(500), status(503)], ids=["400", "500", "503"]
)
async def test_going_on_without_a_variable_is_better_than_not_going_on(
    asterisk: FakeAsterisk, failure: Moment
) -> None:
    asterisk.before[SET_VARIABLE] = failure
    with capture_logs() as logs:
        assert await give_back_caller(FakeClient(asterisk), "sip-1", DONE)
    assert asterisk.landed[0].variables == {}
    assert [entry["variable"] for entry in logs] == [
        "AGENT_STATUS",
        "AGENT_REASON",
        "__AGENT_SESSION_ID",
        "AGENT_CONVERSATION_ID",
    ]


async def test_a_caller_who_cannot_be_sent_on_is_reported(asterisk: FakeAsterisk) -> None:
    asterisk.before[CONTINUE] = status(500)
    with capture_logs() as logs:
        assert not await give_back_caller(FakeClient(asterisk), "sip-1", DONE)
    assert len(asterisk.requests(CONTINUE)) == 2
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "caller_not_released"
    ]


async def test_who_left_though_the_answer_was_lost_has_left(asterisk: FakeAsterisk) -> None:
    asterisk.after[CONTINUE] = never
    with capture_logs() as logs:
        assert await give_back_caller(FakeClient(asterisk), "sip-1", DONE)
    assert len(asterisk.landed) == 1
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


@pytest.mark.parametrize("operation", [SET_VARIABLE, CONTINUE], ids=str)
async def test_who_is_in_the_dialplan_already_has_left(
    asterisk: FakeAsterisk, operation: Operation[None]
) -> None:
    def leave() -> None:
        asterisk.world.channels["sip-1"].in_stasis = False

    asterisk.before[operation] = leave
    with capture_logs() as logs:
        assert await give_back_caller(FakeClient(asterisk), "sip-1", DONE)
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


class Requests:
    """Requests that fail one after the other."""

    def __init__(self, *failures: Exception | None) -> None:
        self._failures = list(failures)
        self.made = 0

    async def __call__(self) -> None:
        await asyncio.sleep(0)
        self.made += 1
        failure = self._failures.pop(0)
        if failure is not None:
            raise failure


def failing(code: int) -> Exception:
    try:
        status(code)()
    except Exception as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("failures", "attempts", "gone", "made"),
    [
        ([None], 1, True, 1),
        ([AriNotFound("gone")], 1, True, 1),
        ([failing(500)], 1, False, 1),
        ([failing(500), None], 2, True, 2),
        ([failing(500), AriNotFound("gone")], 2, True, 2),
        ([failing(500), failing(409)], 2, False, 2),
    ],
)
async def test_removing_quietly(
    failures: list[Exception | None], attempts: int, gone: bool, made: int
) -> None:
    requests = Requests(*failures)
    assert await quietly(requests, attempts=attempts) is gone
    assert requests.made == made


async def test_a_failure_that_is_ours_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        await quietly(Requests(ZeroDivisionError()))
