from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from structlog.testing import capture_logs

from ari_app.ari import (
    Application,
    AriNotFound,
    AriUnavailable,
    Bridge,
    Channel,
    Client,
    DialplanCEP,
)
from ari_app.call.mending import LOST, Mender
from ari_app.call.owner import BridgeName, Owner, bridge_name
from tests.unit.call.stage import now

APP = "app"


def channel(
    channel_id: str, *, state: str = "Up", runs: str = "Stasis", data: str = APP, context: str = ""
) -> Channel:
    place = DialplanCEP(context=context, app_name=runs, app_data=data)
    return Channel(id=channel_id, name=channel_id, state=state, dialplan=place)


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
    late: list[Channel] = field(default_factory=list)

    @property
    def client(self) -> Client:
        return cast(Client, _Client(self))

    def leave(self, channel_id: str) -> None:
        if channel_id not in {c.id for c in self.there}:
            raise AriNotFound("gone", method="", path="")
        self.there = [c for c in self.there if c.id != channel_id]


class _Client:
    def __init__(self, ari: FakeAri) -> None:
        self.channels = _Channels(ari)
        self.bridges = _Bridges(ari)
        self.applications = _Applications(ari)


@dataclass
class _Channels:
    ari: FakeAri

    async def list(self) -> tuple[Channel, ...]:
        self.ari.looks.append(now())
        if self.ari.fails:
            raise AriUnavailable("no", method="", path="")
        return tuple(self.ari.there)

    async def hangup(self, channel_id: str) -> None:
        self.ari.leave(channel_id)
        self.ari.hung_up.add(channel_id)

    async def set_channel_var(self, channel_id: str, name: str, value: str) -> None:
        self.ari.told.setdefault(channel_id, {})[name] = value

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
        return Application(
            name=name,
            channel_ids=tuple(c.id for c in self.ari.there if c.dialplan.app_name == "Stasis"),
        )


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
    found = await mender(ari).look((), frozenset())
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


async def test_whose_target_has_hung_up_was_transferred() -> None:
    ari = FakeAri([channel("a"), channel("b")], [bridge("a", "a"), bridge("b", "b")])
    found = await mender(ari).look((), frozenset())
    await mender(ari).give_back(found, LOST, {"a"})
    assert {caller: told["AGENT_STATUS"] for caller, told in ari.told.items()} == {
        "a": "COMPLETED",
        "b": "FAILED",
    }
    assert ari.told["a"]["AGENT_REASON"] == "transferred"


async def test_one_who_is_arriving_is_no_stray() -> None:
    ari = FakeAri([channel("a"), channel("b")])
    found = await mender(ari).look((), frozenset({"a"}))
    assert found.stray_callers == {"b"}
