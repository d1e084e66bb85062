"""Requests that wait for Asterisk, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from ari_app.line.asterisk.ari.errors import (
    AriError,
    AriNotFound,
    AriServerError,
    AriTimeout,
    AriUnavailable,
    AriUnreached,
)
from ari_app.line.asterisk.ari.operation import Operation
from ari_app.line.asterisk.ari.resources import DESTROY_BRIDGE, EXTERNAL_MEDIA, GET_CHANNEL
from ari_app.line.asterisk.ari.rest import Errand, Link, Persistent


class Asterisk:
    """Answers nothing, or with one answer."""

    def __init__(self, answer: AriError | None = None, seconds: float = 0.0) -> None:
        self.answer, self.seconds = answer, seconds
        self.asked = 0

    async def call(self, operation: Operation[Any], ids: Any, given: Any, deadline: float) -> Any:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        if self.answer is not None:
            raise self.answer
        return "done"


def now() -> float:
    return asyncio.get_running_loop().time()


async def ask(sender: Persistent) -> str:
    return cast(str, await sender.call(DESTROY_BRIDGE, ("b",), {}, 5.0))


@pytest.mark.parametrize("answer", [AriNotFound("gone"), AriServerError("failed")], ids=repr)
async def test_what_asterisk_says_is_not_asked_for_again(answer: AriError) -> None:
    asterisk = Asterisk(answer)
    with pytest.raises(type(answer)):
        await ask(Persistent(asterisk, Link()))
    assert asterisk.asked == 1


@pytest.mark.parametrize("trouble", [AriUnavailable("refused"), AriTimeout("silent")], ids=repr)
async def test_while_events_arrive_there_are_ten_seconds_for_all_requests(
    trouble: AriError,
) -> None:
    asterisk, began = Asterisk(trouble), now()
    sender = Persistent(asterisk, Link())
    with pytest.raises(AriUnavailable):
        await ask(sender)
    assert 10 <= now() - began <= 12
    asked = asterisk.asked
    with pytest.raises(AriUnavailable):
        await ask(sender)
    assert asterisk.asked == asked, "the next one finds no patience left"


async def test_in_an_outage_there_is_no_limit_and_its_end_counts_at_once() -> None:
    asterisk, link = Asterisk(AriUnavailable("refused")), Link()
    link.set(False)
    asking = asyncio.create_task(ask(Persistent(asterisk, link)))
    with capture_logs() as logs:
        await asyncio.sleep(3600)
    assert not asking.done()
    assert 1800 <= asterisk.asked <= 1900, "every two seconds, for events may come back last"
    assert [entry["event"] for entry in logs] == ["ari_request_waits"], "told once"
    asterisk.answer = None
    back = now()
    link.set(True)
    assert await asking == "done"
    assert now() == back


async def test_an_outage_gives_the_patience_back() -> None:
    asterisk, link = Asterisk(AriTimeout("silent"), seconds=5.0), Link()
    asking = asyncio.create_task(ask(Persistent(asterisk, link)))
    await asyncio.sleep(9)
    link.set(False)  # only now the event socket's ping has found out
    await asyncio.sleep(60)
    link.set(True)
    await asyncio.sleep(9)
    assert not asking.done()
    with pytest.raises(AriUnavailable):
        await asking


async def test_an_outage_between_two_failures_counts_too() -> None:
    asterisk, link = Asterisk(AriTimeout("silent"), seconds=5.0), Link()
    asking = asyncio.create_task(ask(Persistent(asterisk, link)))
    await asyncio.sleep(9)
    link.set(False)
    link.set(True)
    await asyncio.sleep(8)
    assert not asking.done()
    with pytest.raises(AriUnavailable):
        await asking


async def test_whoever_gives_up_ends_all_waiting() -> None:
    asterisk, link = Asterisk(AriUnavailable("refused")), Link()
    link.set(False)
    sender, another = Persistent(asterisk, link), Persistent(asterisk, link)
    asking = [asyncio.create_task(ask(each)) for each in (sender, another)]
    await asyncio.sleep(100)
    link.abandon()
    for each in asking:
        with pytest.raises(AriUnavailable):
            await each
    asked = asterisk.asked
    with pytest.raises(AriUnavailable):
        await ask(Persistent(asterisk, link))
    assert asterisk.asked == asked


async def test_what_nobody_wants_any_more_is_not_repeated() -> None:
    asterisk, link, errand = Asterisk(AriUnavailable("refused")), Link(), Errand()
    link.set(False)
    asking = asyncio.create_task(ask(Persistent(asterisk, link, errand)))
    await asyncio.sleep(100)
    dropped = now()
    errand.drop()
    with pytest.raises(AriUnavailable):
        await asking
    assert now() == dropped
    asked = asterisk.asked
    with pytest.raises(AriUnavailable):
        await ask(Persistent(asterisk, link, errand))
    assert asterisk.asked == asked


async def test_what_is_under_way_is_waited_for_though_nobody_wants_it_any_more() -> None:
    asterisk, errand = Asterisk(seconds=3.0), Errand()
    asking = asyncio.create_task(ask(Persistent(asterisk, Link(), errand)))
    await asyncio.sleep(1)
    errand.drop()
    assert await asking == "done"


async def test_what_needs_events_waits_for_them() -> None:
    asterisk, link = Asterisk(), Link()
    link.set(False)
    sender = Persistent(asterisk, link)
    asking = asyncio.create_task(sender.call(EXTERNAL_MEDIA, (), {"channelId": "m"}, 5.0))
    await asyncio.sleep(100)
    assert asterisk.asked == 0
    link.set(True)
    await asking
    assert asterisk.asked == 1


class Maker:
    """Loses the answer to the first request to make something, and refuses to make it again."""

    def __init__(self, lost: AriError, there: bool) -> None:
        self.lost, self.there = lost, there
        self.asked: list[tuple[Operation[Any], tuple[str, ...]]] = []

    async def call(self, operation: Operation[Any], ids: Any, given: Any, deadline: float) -> Any:
        self.asked.append((operation, ids))
        if operation is EXTERNAL_MEDIA:
            raise self.lost if len(self.asked) == 1 else AriServerError("there is one")
        if not self.there:
            raise AriNotFound("no")
        return "found"


async def make(maker: Maker) -> str:
    sender = Persistent(maker, Link())
    return cast(str, await sender.call(EXTERNAL_MEDIA, (), {"channelId": "m"}, 5.0))


async def test_what_an_attempt_made_whose_answer_was_lost_is_found_by_its_name() -> None:
    maker = Maker(AriTimeout("silent"), there=True)
    assert await make(maker) == "found"
    assert maker.asked[-1] == (GET_CHANNEL, ("m",))


@pytest.mark.parametrize(
    ("lost", "there"), [(AriTimeout("silent"), False), (AriUnreached("refused"), True)], ids=repr
)
async def test_what_no_attempt_can_have_made_is_refused(lost: AriError, there: bool) -> None:
    maker = Maker(lost, there)
    with pytest.raises(AriServerError):
        await make(maker)
