"""What is done to the machines, and what callers hear meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import aiohttp

from lab.asterisk import LabAsterisk
from lab.softphone import Call, CallFailed
from lab.softphone.sounds import level_dbfs, tone_dbfs
from tests.cluster.world import AGENT_HZ, MACHINES, World, ask
from tests.e2e.harness import HUMAN_HZ
from tests.waiting import until

_LOUD: Final = -40.0
_LAST_PACKETS: Final = 10
_FRESH_SECONDS: Final = 0.5
_ANSWER_SECONDS: Final = 12.0
_UPGRADE_SECONDS: Final = 90.0


def hears(call: Call) -> str:
    """Return what a caller hears now: `agent`, `dialplan`, `nothing`; or that it is `over`."""
    if not call.is_up:
        return "over"
    last = call.ear.arrivals[-_LAST_PACKETS:]
    if last and time.monotonic() - last[-1].at < _FRESH_SECONDS:
        pcm = b"".join(each.pcm for each in last)
        for what, hz in (("agent", AGENT_HZ), ("dialplan", HUMAN_HZ)):
            if tone_dbfs(pcm, hz) > _LOUD:
                return what
    return "nothing"


def hole(call: Call, since: float) -> float:
    """Return for how long a caller heard nothing in one piece, in seconds."""
    arrivals = [each for each in call.ear.arrivals if each.at >= since]
    times = [each.at for each in arrivals if level_dbfs(each.pcm) > _LOUD]
    since = max(since, call.ear.arrivals[0].at if call.ear.arrivals else since)
    times = [since, *times, time.monotonic()]
    return max(later - earlier for earlier, later in pairwise(times))


def number(asterisk: LabAsterisk, extension: str = "100") -> str:
    return f"sip:{extension}@{asterisk.sip_host}:{asterisk.sip_port}"


@dataclass(slots=True)
class Try:
    """One of those who call one after another."""

    began: float
    heard: str = "nothing"
    after: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """What was seen of one scene. Times are seconds.

    Attributes:
        broken: What is not as promised.
    """

    name: str
    calls: int
    stranded: int
    fell: int
    hole: float
    hole_of_fallen: float
    tried: int
    refused: int
    refused_for: float
    slowest: float
    broken: tuple[str, ...]


@dataclass(slots=True)
class Callers:
    """Those who talk, and those who call one after another at each Asterisk."""

    world: World
    wanted: dict[str, int]
    talking: list[Call] = field(default_factory=list)
    tries: list[Try] = field(default_factory=list)
    with_agent: int = 0
    answers: list[tuple[float, bool]] = field(default_factory=list)
    over: bool = False
    _at: dict[str, str] = field(default_factory=dict)

    async def fill(self) -> None:
        """Have as many talk as shall."""
        await self.hang_up([call for call in self.talking if hears(call) != "agent"])
        await self._place_lacking()

    async def renew(self, count: int) -> None:
        """Let those who have talked longest hang up, and others come in their place."""
        going = self.talking[:count]
        with contextlib.suppress(TimeoutError):
            # Who is between two sounds at this moment has lost nobody.
            await until(lambda: all(hears(call) == "agent" for call in going), 3)
        heard = [hears(call) for call in going]
        assert heard == ["agent"] * len(going), f"callers lost their agent: {heard}"
        await self.hang_up(going)
        await self._place_lacking()

    async def settle(self) -> None:
        """Let those who came while all others did be over: that slows them down, and is no part of
        what is done next."""
        enough = len(self.tries) + 2 * len(self.wanted)
        await until(lambda: len(self.tries) >= enough)

    async def _place_lacking(self) -> None:
        for name, count in self.wanted.items():
            asterisk = self.world.asterisks[name]
            while (lacking := count - self._count(name)) > 0:
                placed = [self._place(name, asterisk) for _ in range(min(lacking, 5))]
                await asyncio.gather(*placed)

    def _count(self, name: str) -> int:
        return sum(self._at[call.id] == name for call in self.talking)

    async def _place(self, name: str, asterisk: LabAsterisk) -> None:
        call = await self.world.phone.call(number(asterisk), timeout=20)
        await until(lambda: hears(call) == "agent", 20)
        self._at[call.id] = name
        self.talking.append(call)
        self.with_agent += 1

    async def hang_up(self, calls: list[Call]) -> None:
        await asyncio.gather(*(call.hang_up() for call in calls if call.is_up))
        self.talking = [call for call in self.talking if call not in calls]

    async def call_again_and_again(self, asterisk: LabAsterisk) -> None:
        """Be one caller after another, until it is over: nobody is left in a call then."""
        while not self.over:
            this = Try(time.monotonic())
            with contextlib.suppress(CallFailed):
                call = await self.world.phone.call(number(asterisk), timeout=_ANSWER_SECONDS)
                with contextlib.suppress(TimeoutError):
                    await until(lambda: hears(call) != "nothing", _ANSWER_SECONDS)  # noqa: B023
                this.heard = hears(call)
                await call.hang_up()
            this.after = time.monotonic() - this.began
            self.with_agent += this.heard == "agent"
            self.tries.append(this)
            await asyncio.sleep(0.1)

    async def ask_again_and_again(self) -> None:
        """Ask for the calls through the balancer, until it is over."""
        while not self.over:
            answered = False
            began = time.monotonic()
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                answered = (await ask("GET", f"{self.world.balancer}/sessions"))[0] == 200
            self.answers.append((began, answered))
            await asyncio.sleep(0.2)


Act = Callable[[World, Callers], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing that is done.

    Attributes:
        act: Does it, and waits until it is over; the callers are looked at then.
        after: Puts things right again.
        may_fall: Callers may go on in the dialplan.
        may_refuse: New ones may, too.
    """

    name: str
    act: Act
    after: Act | None = None
    may_fall: bool = False
    may_refuse: bool = False


async def play(scene: Scene, world: World, callers: Callers) -> Row:
    """Carry out a scene."""
    await callers.fill()
    await callers.settle()
    began = time.monotonic()
    broken: list[str] = []
    try:
        await scene.act(world, callers)
    except (AssertionError, TimeoutError) as error:
        broken.append(str(error) or "something did not come true in time")
    calls = [call for call in callers.talking if call.ended_at is None or call.ended_at > began]
    # Who is between two sounds at this moment is not stranded.
    stranded = [call for call in calls if hears(call) == "nothing"]
    with contextlib.suppress(TimeoutError):
        await until(lambda: all(hears(call) != "nothing" for call in stranded), 3)
    heard = {call.id: hears(call) for call in calls}
    holes: dict[str, float] = {"agent": 0.0, "dialplan": 0.0}
    for call in calls:
        if (what := heard[call.id]) in holes:
            holes[what] = max(holes[what], hole(call, began))
        await asyncio.sleep(0)
    fell = sum(what in ("dialplan", "over") for what in heard.values())
    lost = sum(what == "nothing" for what in heard.values())
    tries = [each for each in callers.tries if each.began + each.after > began]
    refused = [each for each in tries if each.heard != "agent"]
    lost_tries = [each for each in tries if each.heard == "nothing"]
    refused_for = 0.0
    if refused:
        later = [each.began for each in tries if each.began > refused[-1].began]
        refused_for = (later[0] if later else time.monotonic()) - max(began, refused[0].began)
    slowest = max((each.after for each in tries if each.heard == "agent"), default=0.0)
    if lost or lost_tries:
        broken.append("callers are stranded")
    if fell and not scene.may_fall:
        broken.append("callers lost their agent")
    if refused and not scene.may_refuse:
        broken.append("new callers were refused")
    if scene.after is not None:
        await scene.after(world, callers)
    return Row(
        scene.name,
        len(calls),
        lost + len(lost_tries),
        fell,
        holes["agent"],
        holes["dialplan"],
        len(tries),
        len(refused),
        refused_for,
        slowest,
        tuple(broken),
    )


# --- what is done


def one_front(world: World) -> None:
    """Each Asterisk has one front, and not two."""
    for asterisk in set(MACHINES.values()):
        its = [world.machines[name] for name, at in MACHINES.items() if at == asterisk]
        fronts = [each.name for each in its if not each.has_ended and each.is_front]
        assert len(fronts) == 1, f"fronts of {asterisk}: {fronts}"


async def kill_worker(world: World, callers: Callers) -> None:
    front = world.front("a1")
    assert front is not None
    world.other(front).kill("worker 1")
    await asyncio.sleep(4)


async def kill_front(world: World, callers: Callers) -> None:
    front = world.front("a1")
    assert front is not None
    front.kill("front")
    await asyncio.sleep(5)
    one_front(world)


async def lose_store(world: World, callers: Callers) -> None:
    fronts = [world.front("a1"), world.front("a2")]
    world.network.cut("valkey")
    await asyncio.sleep(10)
    world.network.mend("valkey")
    await asyncio.sleep(4)
    assert fronts == [world.front("a1"), world.front("a2")], "the fronts have changed"
    one_front(world)


async def part_from_store(world: World, callers: Callers) -> None:
    front = world.front("a1")
    assert front is not None
    world.network.part(front.name, "valkey")
    await asyncio.sleep(6)
    world.network.unite(front.name, "valkey")
    await asyncio.sleep(3)
    one_front(world)


async def drain(world: World, callers: Callers) -> None:
    front = world.front("a1")
    assert front is not None
    front.signal(signal.SIGTERM)
    await asyncio.sleep(4)
    assert not front.has_ended, "it did not wait for its calls"
    assert world.front("a1") is world.other(front), "the other is not the front"


async def end_of_drain(world: World, callers: Callers) -> None:
    """Let the drained one's calls end, and with them itself; start it again."""
    await callers.hang_up(list(callers.talking))
    async with asyncio.timeout(30):
        for machine in world.machines.values():
            front = world.front(MACHINES[machine.name])
            if front is not machine and machine.said("draining"):
                await until(lambda: machine.has_ended, 20)  # noqa: B023
                await machine.lose_power()
                await machine.start()


async def upgrade(world: World, callers: Callers) -> None:
    """Replace all processes; a worker goes with its last call, so callers come and go."""
    machines = world.machines.values()
    before = {machine.name: machine.pids() for machine in machines}
    for machine in machines:
        machine.signal(signal.SIGHUP)
    async with asyncio.timeout(_UPGRADE_SECONDS):
        while not all(machine.said("workers_replaced") for machine in machines):
            await callers.renew(len(callers.talking) // 4)
            await asyncio.sleep(0.5)
    for machine in machines:
        old, new = before[machine.name], machine.pids()
        assert old.keys() == new.keys(), f"{machine.name} has {new}, had {old}"
        assert not set(old.values()) & set(new.values()), f"{machine.name} keeps some of {old}"
    # While the application is handed over, nobody has the lease.
    await until(lambda: world.front("a1") and world.front("a2"), 5)
    await asyncio.sleep(1)
    one_front(world)


_off: list[str] = []


async def lose_power(world: World, callers: Callers) -> None:
    front = world.front("a1")
    assert front is not None
    _off.append(front.name)
    world.network.cut(front.name)
    await front.lose_power()
    await asyncio.sleep(2)  # nobody hears it at once
    async with asyncio.timeout(20):
        while any(hears(call) == "nothing" for call in callers.talking):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    one_front(world)


async def power_again(world: World, callers: Callers) -> None:
    name = _off.pop()
    world.network.mend(name)
    await world.machines[name].start()


async def delete_elsewhere(world: World) -> None:
    """Record a call; hear it, and delete it, at a machine that has not had it."""
    asterisk = world.asterisks["a1"]
    call = await world.phone.call(number(asterisk, "107"), timeout=20)
    await until(lambda: hears(call) == "agent", 20)
    sessions = json.loads((await world.machines["m3"].ask("GET", "/sessions"))[1])["sessions"]
    here = [each for each in sessions if not each["ended_at"]]
    await asyncio.sleep(1)
    await call.hang_up()
    names = {each["session_id"] for each in here}

    def found() -> list[str]:
        return [
            machine.name
            for machine in world.machines.values()
            for path in (machine.folder / "recordings").rglob("*")
            if path.is_file() and any(name in str(path) for name in names)
        ]

    await until(found)
    has = found()[0]
    other = next(name for name in ("m1", "m2") if name != has)
    [session] = [
        name
        for name in names
        if any(name in str(path) for path in (world.machines[has].folder / "recordings").rglob("*"))
    ]
    async with asyncio.timeout(15):
        recording = f"/calls/{session}/recording"
        while (await world.machines[other].ask("HEAD", recording))[0] != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        while (await world.machines[other].ask("DELETE", f"/calls/{session}"))[0] not in (200, 204):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await until(lambda: not found(), 10)


async def all_kept(world: World, count: int) -> int:
    """Wait until the database has so many calls that have ended; how many it has."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while world.rows("ended_at IS NOT NULL") < count:  # noqa: ASYNC110
                await asyncio.sleep(0.5)
    return world.rows("ended_at IS NOT NULL")


async def left_in(asterisk: LabAsterisk) -> list[str]:
    """Return what is left in an Asterisk when nobody calls any more."""
    with contextlib.suppress(Exception):
        await asterisk.wait_until_empty(5)
    names = [channel["name"] for channel in await asterisk.channels()]
    return names + [bridge["id"] for bridge in await asterisk.bridges()]


SCENES: Final = (
    Scene("a worker is killed", kill_worker),
    Scene("a front is killed", kill_front, may_refuse=True),
    Scene("Valkey is cut off for 10 s", lose_store),
    Scene("a front is cut off from Valkey", part_from_store, may_refuse=True),
    Scene("a machine drains", drain, end_of_drain),
    Scene("all are upgraded", upgrade),
    Scene("a machine loses its power", lose_power, power_again, may_fall=True, may_refuse=True),
)
