"""A media channel of chan_websocket that breaks: another takes its place, and the call goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from ari_app.call.states import State
from ari_app.line.asterisk.ari.errors import AriUnavailable, AriUnreached
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.media import Media
from ari_app.line.asterisk.websocket_media import WebSocketMedia
from ari_app.line.interface import Outcome, Status
from lab.load.media_socket import CAUSE_BROKEN
from tests.session_view import Session
from tests.unit.call.fake_ari import (
    ADD_CHANNEL,
    EXTERNAL_MEDIA,
    HANGUP,
    NOW,
    Moment,
    never,
    status,
)
from tests.unit.call.stage import Stage
from tests.waiting import until

LOST = ("line_peer_closed", "media_channel_gone")
"""Asterisk tells it by an event, and the connection by itself."""


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage(transport="websocket") as stage:
        yield stage


async def renewed(stage: Stage, session: Session, before: str) -> None:
    await until(lambda: session.media_id != before)
    await until(
        lambda: session.media_id in stage.asterisk.world.bridges[session.bridge_id].channels
    )


async def test_the_call_goes_on_and_the_agent_notices_nothing(stage: Stage) -> None:
    session = await stage.talk()
    agent, first = stage.agent(), session.media_id
    stage.socket(session).breaks()
    with capture_logs() as logs:
        await renewed(stage, session, first)
        await asyncio.sleep(0.5)
    assert session.media_id.startswith(first)
    assert (session.state, stage.agents.conversations) == (State.TALKING, [agent])
    assert [entry["event"] for entry in logs].count("media_renewed") == 1
    assert first not in stage.asterisk.world.channels
    assert stage.socket(session).heard, "sound flows again"
    stage.asterisk.hang_up(session.call_id)
    await session.ended.wait()
    assert session.end_reason == "caller_hung_up"


async def test_a_break_that_asterisk_tells_first(stage: Stage) -> None:
    session = await stage.talk()
    first = session.media_id
    # The network has lost our end of it: only Asterisk knows.
    stage.socket(session).channel.socket = None
    stage.asterisk._tell(stage.asterisk.world.channel_ends(first, NOW, CAUSE_BROKEN))
    await renewed(stage, session, first)
    assert session.state is State.TALKING


async def test_a_channel_that_was_hung_up_is_not_replaced(stage: Stage) -> None:
    session = await stage.talk()
    stage.asterisk._tell(stage.asterisk.world.channel_ends(session.media_id, NOW))
    await session.ended.wait()
    assert session.outcome == Outcome(Status.FAILED, "media_channel_gone")


async def test_a_channel_whose_end_is_told_before_its_connection_has_ended(stage: Stage) -> None:
    session = await stage.talk()
    media = session.line._media._transport
    assert isinstance(media, WebSocketMedia)
    assert media._socket is not None
    # A close frame has come, and the end of the connection has not.
    media._socket.data_received(b"\x88\x02\x03\xe8")
    stage.socket(session).channel.socket = None
    stage.asterisk._tell(stage.asterisk.world.channel_ends(session.media_id, NOW))
    with capture_logs() as logs:
        await session.ended.wait()
    assert [entry for entry in logs if entry["log_level"] == "error"] == []
    assert stage.left_behind() == [], "the caller is in the dialplan"


class Faulty:
    """A way of sound that fails at its end; compiled, one cannot be made to by a test."""

    def __init__(self, media: Media | None) -> None:
        self._media = media

    def __getattr__(self, name: str) -> Any:
        return getattr(self._media, name)

    async def heard_out(self) -> None:
        raise RuntimeError("a fault of ours")


async def test_sound_that_cannot_be_ended_keeps_no_caller(stage: Stage) -> None:
    session = await stage.talk()
    media = session.line._media
    media._transport = Faulty(media._transport)
    with capture_logs() as logs:
        stage.agent().closes()
        await session.ended.wait()
    assert "release_part_failed" in [entry["event"] for entry in logs]
    assert stage.left_behind() == [], "the caller is in the dialplan"


async def test_an_end_of_which_no_cause_comes(stage: Stage) -> None:
    session = await stage.talk()
    stage.asterisk.withheld.add("ChannelDestroyed of media")
    stage.asterisk._tell(stage.asterisk.world.channel_ends(session.media_id, NOW))
    await asyncio.sleep(0.2)
    assert session.state is State.TALKING
    await session.ended.wait()
    assert session.outcome == Outcome(Status.FAILED, "media_channel_gone")


async def test_one_that_breaks_again_at_once_is_given_up(stage: Stage) -> None:
    session = await stage.talk()
    first = session.media_id
    stage.socket(session).breaks()
    await renewed(stage, session, first)
    await asyncio.sleep(0.1)
    stage.socket(session).breaks()
    await session.ended.wait()
    assert session.end_reason in LOST


async def test_one_that_breaks_again_later_is_replaced_again(stage: Stage) -> None:
    session = await stage.talk()
    for _ in range(3):
        before = session.media_id
        await asyncio.sleep(5)
        stage.socket(session).breaks()
        await renewed(stage, session, before)
    assert session.state is State.TALKING


def unreached() -> None:
    raise AriUnreached("refused")


FAILURES: dict[str, tuple[Operation[Any], Moment]] = {
    "refused": (EXTERNAL_MEDIA, unreached),
    "failed": (EXTERNAL_MEDIA, status(500)),
    "no answer": (EXTERNAL_MEDIA, never),
    "not joined": (ADD_CHANNEL, status(422)),
    "join without answer": (ADD_CHANNEL, never),
}


@pytest.mark.parametrize("how", FAILURES)
async def test_what_cannot_be_replaced_ends_the_call(stage: Stage, how: str) -> None:
    session = await stage.talk()
    operation, moment = FAILURES[how]
    stage.asterisk.before[operation] = moment
    loop = asyncio.get_running_loop()
    stage.socket(session).breaks()
    began = loop.time()
    await until(lambda: session.state not in (State.TALKING,))
    assert loop.time() - began < 1.1
    assert session.record.end_reason in LOST
    stage.asterisk.before.clear()
    await session.ended.wait()


@pytest.mark.parametrize("moment", [EXTERNAL_MEDIA, ADD_CHANNEL])
async def test_a_caller_who_hangs_up_meanwhile_leaves_nothing(
    stage: Stage, moment: Operation[Any]
) -> None:
    session = await stage.talk()
    call_id = session.call_id
    stage.asterisk.after[moment] = lambda: stage.asterisk.hang_up(call_id)
    stage.socket(session).breaks()
    await session.ended.wait()
    stage.asterisk.after.clear()
    assert session.end_reason == "caller_hung_up"
    await until(lambda: not stage.left_behind())


async def test_a_sweep_meanwhile_ends_nothing(stage: Stage) -> None:
    session = await stage.talk()
    before = session.media_id
    stage.asterisk.withheld.add("StasisStart of media")
    stage.socket(session).breaks()
    await until(lambda: session.media_id != before)
    await stage.sweep()
    assert session.state is State.TALKING
    stage.asterisk.withheld.clear()


async def test_a_channel_whose_answer_was_lost_is_left_for_another(stage: Stage) -> None:
    lost: list[bool] = []

    def lose() -> None:
        if not lost:
            lost.append(True)
            raise AriUnavailable("cut")

    stage.asterisk.after[EXTERNAL_MEDIA] = lose
    session = await stage.talk()
    first, second = stage.asterisk.sockets
    assert session.media_id == second
    assert [first] in [list(seen.ids) for seen in stage.asterisk.requests(HANGUP)]
    assert stage.asterisk.sockets[first].over
