from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from structlog.testing import capture_logs

from ari_app.line.asterisk.ari.client import Client
from ari_app.line.asterisk.ari.errors import AriNotFound, AriServerError, AriUnavailable
from ari_app.line.asterisk.ari.models import Application, Bridge, Channel
from ari_app.line.asterisk.cleanup import LOST, Mender, Sweeper
from ari_app.line.asterisk.line import AsteriskLine
from ari_app.line.asterisk.names import BridgeName, Owner, bridge_name
from ari_app.line.asterisk.reconcile import Held
from ari_app.process.loop import cancelled
from tests.unit.call.stage import now
from tests.unit.line.asterisk.test_reconcile import APP, channel, held

ELSEWHERE = Owner("another-machine", 1, 2)


def bridge(
    session: str, *members: str, caller: str = "", owner: Owner | None = ELSEWHERE
) -> Bridge:
    name = str(BridgeName(caller, owner)) if caller else "as somebody likes"
    return Bridge(id=f"{APP}-bridge-{session}", channels=members, name=name)


@dataclass
class FakeAri:
    """What a mender asks of Asterisk; it is `channels`, `bridges` and `applications` at once."""

    there: list[Channel] = field(default_factory=list)
    joined: list[Bridge] = field(default_factory=list)
    told: dict[str, dict[str, str]] = field(default_factory=dict)
    hung_up: set[str] = field(default_factory=set)
    looks: list[float] = field(default_factory=list)
    listed: bool = True
    fails: bool = False
    obscure: frozenset[str] = frozenset()
    late: list[Channel] = field(default_factory=list)
    followed: frozenset[str] = frozenset()

    @property
    def client(self) -> Client:
        return cast(Client, _Client(self))

    def describe(self, channel: Channel) -> Channel:
        if channel.id in self.obscure:
            raise AriServerError("it cannot be put into words", method="", path="")
        return channel

    def leave(self, channel_id: str) -> None:
        if channel_id not in {c.id for c in self.there}:
            raise AriNotFound("gone", method="", path="")
        self.there = [c for c in self.there if c.id != channel_id]


class _Client:
    def __init__(self, ari: FakeAri) -> None:
        self.channels = _Channels(ari)
        self.bridges = _Bridges(ari)
        self.applications = _Applications(ari)
        self.app = APP
        self.link = None


@dataclass
class _Channels:
    ari: FakeAri

    async def list(self) -> tuple[Channel, ...]:
        self.ari.looks.append(now())
        if self.ari.fails:
            raise AriUnavailable("no", method="", path="")
        return tuple(self.ari.describe(channel) for channel in self.ari.there)

    async def get(self, channel_id: str) -> Channel:
        for each in self.ari.there:
            if each.id == channel_id:
                return self.ari.describe(each)
        raise AriNotFound("gone", method="", path="")

    async def hangup(self, channel_id: str) -> None:
        self.ari.leave(channel_id)
        self.ari.hung_up.add(channel_id)

    async def set_channel_var(self, channel_id: str, name: str, value: str) -> None:
        self.ari.told.setdefault(channel_id, {})[name.removeprefix("__")] = value

    async def continue_in_dialplan(
        self, channel_id: str, *, context: str | None = None, extension: str | None = None
    ) -> None:
        self.ari.leave(channel_id)
        # What was still being made when the worker died comes to light only now.
        self.ari.there += self.ari.late
        self.ari.late = []


@dataclass
class _Bridges:
    ari: FakeAri

    async def list(self) -> tuple[Bridge, ...]:
        return tuple(self.ari.joined)

    async def destroy(self, bridge_id: str) -> None:
        self.ari.joined = [b for b in self.ari.joined if b.id != bridge_id]


@dataclass
class _Applications:
    ari: FakeAri

    async def get(self, name: str) -> Application:
        if not self.ari.listed:
            raise AriNotFound("no such application", method="", path="")
        inside = {c.id for c in self.ari.there if c.dialplan.app_name == "Stasis"}
        return Application(name=name, channel_ids=tuple(inside | self.ari.followed))


def mender(ari: FakeAri) -> Mender:
    return Mender(ari.client, APP, "amd")


async def test_one_clean_look_is_enough_when_nobody_was_lost() -> None:
    ari = FakeAri([channel("sip-x", data="another,a=b")], [Bridge(id="somebody-elses")])
    ari.listed = False
    await mender(ari).mend()
    assert len(ari.looks) == 1
    assert len(ari.there) == len(ari.joined) == 1


async def test_after_a_loss_two_clean_looks_are_wanted() -> None:
    ari = FakeAri()
    await mender(ari).mend(expected=True)
    assert [at - ari.looks[0] for at in ari.looks] == pytest.approx([0, 0.2])


@pytest.mark.parametrize("listed", [True, False])
async def test_calls_of_a_lost_process_in_every_state(listed: bool) -> None:
    ari = FakeAri(
        [
            channel("talking"),
            channel("holding"),
            channel("waiting", data="app,wait=30"),
            channel("connecting", state="Ring"),
            channel("app-out-a"),
            channel("app-out-b", state="Down", runs="AppDial2"),
            channel("app-out-c", runs="AMD", context="amd"),
            channel("app-out-passed-on", runs="Queue", context="support"),
            channel("app-target-holding.1", state="Ringing", runs="AppDial2"),
            channel("app-media-unbridged"),
            channel("somebody", runs="Dial"),
        ],
        [
            bridge("t", "talking", caller="talking"),
            bridge("holding", caller="holding"),
            bridge("connecting", caller="connecting"),
            bridge("a", "app-out-a", caller="app-out-a"),
            Bridge(id="somebody-elses", name="somebody"),
        ],
        listed=listed,
    )
    await mender(ari).mend(expected=True)
    assert {c.id for c in ari.there} == {"app-out-passed-on", "somebody"}
    assert [b.id for b in ari.joined] == ["somebody-elses"]
    assert ari.hung_up == {
        "app-out-a",
        "app-out-b",
        "app-out-c",
        "app-target-holding.1",
        "app-media-unbridged",
    }
    assert {caller: told["AGENT_SESSION_ID"] for caller, told in ari.told.items()} == {
        "talking": "t",
        "holding": "holding",
        "waiting": "",
        "connecting": "connecting",
    }
    for told in ari.told.values():
        assert (told["AGENT_STATUS"], told["AGENT_REASON"]) == ("FAILED", "worker_lost")


async def test_one_that_asterisk_cannot_describe_hides_nobody() -> None:
    ari = FakeAri(
        [
            channel("odd"),
            channel("odd-and-talking"),
            channel("talking"),
            channel("somebody-odd", runs="Queue"),
            channel("served"),
            channel("app-media-served"),
        ],
        [
            bridge("t", "talking", caller="talking"),
            bridge("o", "odd-and-talking", caller="odd-and-talking"),
            bridge("served", "app-media-served", caller="served"),
        ],
        obscure=frozenset({"odd", "odd-and-talking", "somebody-odd"}),
    )
    await mender(ari).mend(expected=True)
    assert {c.id for c in ari.there} == {"somebody-odd", "served", "app-media-served"}
    assert {who: told["AGENT_SESSION_ID"] for who, told in ari.told.items()} == {
        "odd": "",
        "odd-and-talking": "o",
        "talking": "t",
    }


async def test_what_another_process_serves_is_left_alone() -> None:
    ari = FakeAri(
        [
            channel("talking"),
            channel("app-media-a"),
            channel("holding"),
            channel("app-media-b"),
            channel("consulting"),
            channel("app-media-c"),
            channel("app-target-c.1", state="Ringing"),
            channel("together"),
            channel("app-target-d.2"),
        ],
        [
            bridge("a", "talking", "app-media-a", caller="talking"),
            bridge("b", "app-media-b", caller="holding"),
            bridge("c", "app-media-c", caller="consulting"),
            bridge("d", "together", "app-target-d.2", caller="together"),
        ],
    )
    await mender(ari).mend(expected=True)
    assert len(ari.there) == 9 and len(ari.joined) == 4
    found = await mender(ari).look(())
    assert found.elsewhere == {c.id for c in ari.there}
    assert found.handed_over == {"d"}


async def test_media_of_a_process_that_has_ended_is_no_sign_of_life() -> None:
    gone = replace(BridgeName.parse(bridge_name("a")).owner or ELSEWHERE, began=1)
    ari = FakeAri(
        [channel("holding"), channel("app-media-a")],
        [bridge("a", "app-media-a", caller="holding", owner=gone)],
    )
    await mender(ari).mend(expected=True)
    assert ari.there == [] and ari.joined == []
    assert ari.told["holding"]["AGENT_SESSION_ID"] == "a"


async def test_a_process_is_looked_for_once_however_many_calls_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, signal: asked.append(pid))
    ourselves = BridgeName.parse(bridge_name("a")).owner
    ari = FakeAri(joined=[bridge(str(n), caller=f"caller-{n}", owner=ourselves) for n in range(20)])
    await mender(ari).look(())
    assert asked == [os.getpid()]


async def test_it_looks_until_nothing_comes_to_light_any_more() -> None:
    ari = FakeAri([channel("a")], late=[channel("app-media-late")])
    await mender(ari).mend()
    assert ari.there == []
    assert [at - ari.looks[0] for at in ari.looks] == pytest.approx([0, 0.2, 0.4, 0.6])


async def test_what_does_not_go_is_not_waited_for_for_ever() -> None:
    ari = FakeAri(joined=[bridge("stuck")])

    async def refuse(bridge_id: str) -> None:
        raise AriUnavailable("no", method="", path="")

    client = ari.client
    client.bridges.destroy = refuse  # type: ignore[method-assign]
    await Mender(client, APP, "amd").mend()
    assert ari.looks[-1] - ari.looks[0] == pytest.approx(3.0, abs=0.25)


async def test_an_asterisk_that_does_not_answer_is_left_to_the_sweep() -> None:
    ari = FakeAri(fails=True)
    with capture_logs() as logs:
        await mender(ari).mend(expected=True)
    assert [entry["event"] for entry in logs] == ["mending_failed"]


async def test_mending_waits_for_asterisk_where_nobody_comes_after_it() -> None:
    ari = FakeAri([channel("a")], fails=True)
    mending = asyncio.create_task(mender(ari).mend(expected=True, patience=22))
    await asyncio.sleep(15)
    assert len(ari.looks) > 50
    ari.fails = False
    await asyncio.wait_for(mending, 1)
    assert ari.there == []
    ari.fails = True
    began = now()
    await mender(ari).mend(expected=True, patience=22)
    assert now() - began == pytest.approx(22, abs=0.25)


async def test_whose_target_has_hung_up_was_transferred() -> None:
    ari = FakeAri([channel("a"), channel("b")], [bridge("a", "a"), bridge("b", "b")])
    found = await mender(ari).look(())
    await mender(ari).give_back(found, LOST, {"a"})
    assert {caller: told["AGENT_STATUS"] for caller, told in ari.told.items()} == {
        "a": "COMPLETED",
        "b": "FAILED",
    }
    assert ari.told["a"]["AGENT_REASON"] == "transferred"


async def test_one_who_has_just_come_is_no_stray() -> None:
    ari = FakeAri([channel("a"), channel("b")])
    line = Held("a", "a", "app-media-", "app-bridge-", caller_expected=True, media_expected=False)
    found = await mender(ari).look([line])
    assert not found.callers_gone
    assert found.stray_callers == {"b"}


@pytest.mark.parametrize("state", ["Ring", "Up"])
async def test_whom_a_local_channel_has_called_is_no_stray(state: str) -> None:
    # Asterisk names them in our application, for we are told what becomes of them.
    ari = FakeAri(
        [
            channel("app-out-a"),
            channel("app-out-a;2", state=state, runs="Dial"),
            channel("callee", runs="AppDial"),
            channel("app-media-a"),
            channel("app-target-a.1"),
            channel("app-target-a.1;2", state=state, runs="Dial"),
            channel("supervisor", runs="AppDial"),
        ],
        [bridge("a", "app-out-a", "app-media-a", "app-target-a.1", caller="app-out-a")],
        followed=frozenset({"app-out-a;2", "callee", "app-target-a.1;2", "supervisor"}),
    )
    line = Held("a", "app-out-a", "app-media-a", "app-bridge-a", True, True, "app-target-a.1", True)
    found = await mender(ari).look([line])
    assert not found.strays
    assert not found.strangers
    assert not (await mender(ari).look(())).strays, "another process serves it"


# --- sweeping


@dataclass(eq=False)
class FakeLine:
    """What a sweeper asks of a line; it writes down what it is told."""

    held: Held
    closing: bool = False
    told: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.held.caller

    def gone(self) -> None:
        self.told.append("caller")

    def media_gone(self) -> None:
        self.told.append("media")

    def target_gone(self, hangup_cause: int | None, sip_code: int | None) -> None:
        self.told.append("target")


def line(name: str) -> FakeLine:
    return FakeLine(replace(held(name), line_id=f"sip-{name}"))


def sweeper(ari: FakeAri, *lines: FakeLine) -> Sweeper:
    by_channel = {name: line for line in lines for name in (line.id, line.held.media)}
    return Sweeper(
        mender(ari), ari.client, cast(Mapping[str, AsteriskLine], by_channel), lambda event: None
    )


async def test_lines_are_told_what_they_have_lost() -> None:
    ari = FakeAri([channel("sip-b"), channel("sip-c"), channel("app-media-c")])
    a, b, c = map(line, "abc")
    await sweeper(ari, a, b, c).reconcile()
    assert (a.told, b.told, c.told) == (["caller", "media"], ["media"], [])


async def test_while_lines_are_told_of_many_callers_gone_the_loop_turns() -> None:
    turns: list[int] = [0]

    async def turn() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    class Noting(FakeLine):
        def gone(self) -> None:
            super().gone()
            gone_in.append(turns[0])

    gone_in: list[int] = []
    lines = [Noting(replace(held(name), line_id=f"sip-{name}")) for name in "abc"]
    turning = asyncio.create_task(turn())
    await sweeper(FakeAri([]), *lines).reconcile()
    await cancelled(turning)
    assert len(set(gone_in)) == 3, "the frames of the others wait in each turn"


async def test_of_two_lines_to_one_caller_neither_is_a_stray() -> None:
    ari = FakeAri(
        [channel("sip-a"), channel("app-media-old"), channel("app-media-a")],
        [bridge("old"), bridge("a", "sip-a", "app-media-a", caller="sip-a")],
    )
    old = Held("sip-a", "sip-a", "app-media-old", "app-bridge-old", False, False)
    last, new = FakeLine(old, closing=True), line("a")
    for lines in ((last, new), (new, last)):
        await sweeper(ari, *lines).reconcile()
        assert len(ari.there) == 3 and len(ari.joined) == 2
    assert last.told == new.told == []
