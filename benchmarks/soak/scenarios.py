"""One call from its phone's side: what the caller does, and whether somebody was there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import aiohttp

from benchmarks.marked import sweep
from benchmarks.soak import world
from benchmarks.soak.hearing import Hearing
from benchmarks.soak.ledger import CallResult
from benchmarks.soak.plan import CallPlan, Kind
from benchmarks.soak.service_api import ApiError, ServiceApi
from lab.softphone import Call, Phone
from lab.softphone.ear import Arrival
from lab.softphone.errors import CallFailed, CallOver, SoftphoneError

_SPEECH = sweep(1.0, 8000).tobytes()
_POLL_SECONDS = 0.1
_QUIET_SECONDS = 0.4
_ANSWER_SECONDS = 10.0
_INTERRUPTS_AFTER_SECONDS = 1.5
_HELD_SECONDS = 3.0
_ENDED_SECONDS = 60.0
_RING_SECONDS = 3
_VANISHED_SECONDS = 120.0
"""Asterisk gives a silent phone up after a minute (`rtp_timeout`)."""
_RING_TIMEOUT_SECONDS = 10.0


class NotAsPlanned(Exception):
    """The call went on, but not as its plan has it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a scenario works with."""

    api: ServiceApi
    dial: Callable[[Phone, str, str], Awaitable[Call]]
    """Call an extension: `dial(phone, extension, codec)`."""
    called: Callable[[str], Awaitable[Call]]
    """Wait for the call that comes in for a number."""
    on_gap: Callable[[float, float], None]
    """Told when a packet came, and how many ms after the one before."""
    dead_air_seconds: float
    """A caller who hears nothing for so long has been left alone."""


class Scenario:
    """One plan being carried out. `run` never raises but when it is cancelled."""

    def __init__(self, plan: CallPlan, around: Surroundings) -> None:
        self.plan = plan
        self._around = around
        self._call: Call | None = None
        self._hearing = Hearing(time.monotonic())
        self._started_at = time.monotonic()
        self._stranded = ""
        self._told_to_end = False

    async def end(self) -> None:
        """Hang up now, which is no failure of the plan."""
        self._told_to_end = True
        if self._call is not None:
            await self._hang_up(self._call)

    async def run(self) -> CallResult:
        """Make the call, hold the conversation, end it; how it went."""
        failed = ""
        async with contextlib.AsyncExitStack() as stack:
            try:
                await self._make(stack)
                failed = await self._guarded()
            except (CallFailed, SoftphoneError, ApiError, TimeoutError, OSError) as error:
                failed = str(error) or type(error).__name__
            except aiohttp.ClientError as error:
                failed = f"HTTP: {error}"
            finally:
                if self._call is not None:
                    await self._hang_up(self._call)
        return self._result("" if self._told_to_end else failed)

    # --- the frame

    async def _make(self, stack: contextlib.AsyncExitStack) -> None:
        plan, around = self.plan, self._around
        match plan.kind:
            case Kind.PLACED | Kind.PLACED_BUSY | Kind.PLACED_UNANSWERED:
                number = world.called_number(plan)
                coming = asyncio.ensure_future(around.called(number))
                try:
                    await around.api.post(
                        "/webhook/initiate-call",
                        called_number=number,
                        caller_number=plan.name,
                        agent_id=world.agent_id(plan),
                        ring_timeout_seconds=_RING_SECONDS,
                    )
                    call = await asyncio.wait_for(coming, _RING_TIMEOUT_SECONDS)
                finally:
                    coming.cancel()
            case _:
                phone = await stack.enter_async_context(Phone(username=plan.name))
                call = await around.dial(phone, world.extension(plan), plan.codec)
        self._call = call
        tell_phone = call.stream.on_packet

        def on_packet(arrival: Arrival | None) -> None:
            if tell_phone is not None:
                tell_phone(arrival)
            if arrival is not None and (gap_ms := self._hearing.hear(arrival)) is not None:
                around.on_gap(arrival.at, gap_ms)

        call.stream.on_packet = on_packet

    async def _guarded(self) -> str:
        """Carry the plan out while somebody watches for dead air; why it failed, if it did."""
        if self._told_to_end:
            return ""
        plan = asyncio.create_task(self._carry_out(), name=self.plan.name)
        watch = asyncio.create_task(self._watch_for_dead_air(), name=f"{self.plan.name} watch")
        try:
            await asyncio.wait({plan, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not plan.done():
                return ""
            try:
                plan.result()
            except CallOver:
                return "the call ended before its plan"
            except NotAsPlanned as problem:
                return str(problem)
            return ""
        finally:
            self._hearing.counting = False
            for task in (plan, watch):
                task.cancel()
            await asyncio.gather(plan, watch, return_exceptions=True)

    async def _watch_for_dead_air(self) -> None:
        while True:
            await asyncio.sleep(1)
            silent = self._hearing.silent_for(time.monotonic())
            if self.plan.kind is not Kind.VANISHES and silent > self._around.dead_air_seconds:
                self._stranded = f"nothing to be heard for {silent:.0f} s"
                return

    async def _hang_up(self, call: Call) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(call.hang_up(), 5)

    def _result(self, failed: str) -> CallResult:
        plan, call = self.plan, self._call
        now = time.monotonic()
        result = CallResult(
            plan.number, plan.kind, self._started_at, now, stranded=self._stranded, failed=failed
        )
        if call is None:
            return result
        stats = call.stats()
        return replace(
            result,
            ended_at=call.ended_at or now,
            answered=call.answered_at is not None,
            heard=self._hearing.first_sound_at is not None,
            ended_by=call.ending.by if call.ending else "network",
            packets=stats.packets,
            lost=stats.lost,
        )

    @property
    def _up(self) -> Call:
        assert self._call is not None
        return self._call

    # --- the plans

    async def _carry_out(self) -> None:
        plan, call = self.plan, self._up
        match plan.kind:
            case Kind.PLACED_BUSY:
                call.reject(486)
                await self._wait_for_result("busy")
                return
            case Kind.PLACED_UNANSWERED:
                await asyncio.wait_for(call.ended, _RING_SECONDS + _ANSWER_SECONDS)
                await self._wait_for_result("no_answer")
                return
            case Kind.HANGS_UP_EARLY:
                await asyncio.sleep(plan.early_seconds)
                return
            case Kind.PLACED:
                await asyncio.sleep(0.3)
                await call.answer()
            case Kind.WAITING:
                await self._name_the_agent()
            case _:
                pass
        await call.answered()
        await self._greeting()
        match plan.kind:
            case Kind.AGENT_ENDS | Kind.BLIND | Kind.ATTENDED | Kind.AGENT_DROPS:
                await self._until_the_end()
            case Kind.BARGE_IN:
                await self._interrupt()
            case Kind.DIGITS:
                await self._press_keys()
            case Kind.HOLD:
                await self._be_held()
            case Kind.WATCHED:
                await self._be_watched()
            case Kind.VANISHES:
                self._hearing.counting = False
                call.mute_rtp(True)
                await asyncio.wait_for(call.ended, _VANISHED_SECONDS)
            case _:
                await self._talk()

    async def _greeting(self) -> None:
        while self._hearing.first_sound_at is None:
            await self._pause()
        self._hearing.counting = True
        await self._quiet()

    async def _talk(self) -> None:
        until = time.monotonic() + self.plan.talk_seconds
        while time.monotonic() < until:
            await self._turn()

    async def _turn(self) -> None:
        """Say something and listen to all of the answer."""
        await self._up.play(_SPEECH)
        await self._answer()
        await self._quiet()

    async def _until_the_end(self) -> None:
        """Go on until the far end ends it."""
        until = time.monotonic() + _ENDED_SECONDS
        while not self._is_over:
            if time.monotonic() > until:
                raise NotAsPlanned(f"not ended within {_ENDED_SECONDS:g} s")
            with contextlib.suppress(CallOver):
                await self._up.play(_SPEECH)
                # What follows the agent may be anything, and nothing for a moment.
                self._hearing.counting = self.plan.kind is Kind.AGENT_ENDS
                await self._answer()
                await self._quiet()

    async def _interrupt(self) -> None:
        for _ in range(2):
            await self._up.play(_SPEECH)
            await self._answer()
            await asyncio.sleep(_INTERRUPTS_AFTER_SECONDS)
            await self._up.play(_SPEECH)
            await self._answer()
            await self._quiet()

    async def _press_keys(self) -> None:
        await self._up.send_digits("42#")
        await self._answer()
        try:
            heard = await self._up.wait_for_digits(3, _ANSWER_SECONDS)
        except TimeoutError:
            raise NotAsPlanned(f"heard the keys {self._up.digits!r}") from None
        if heard != "12#":
            raise NotAsPlanned(f"heard the keys {heard!r}")
        await self._quiet()
        await self._turn()

    async def _be_held(self) -> None:
        await self._turn()
        session = await self._session()
        self._hearing.counting = False
        await self._post(f"/sessions/{session}/hold")
        await asyncio.sleep(_HELD_SECONDS)
        await self._post(f"/sessions/{session}/unhold")
        await asyncio.sleep(0.5)
        self._hearing.counting = True
        await self._quiet()
        await self._turn()

    async def _be_watched(self) -> None:
        session = await self._session()
        watching = asyncio.create_task(self._around.api.follow(session))
        try:
            await self._talk()
            self._hearing.counting = False
            await self._up.hang_up()
            last = await asyncio.wait_for(watching, _ANSWER_SECONDS)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NotAsPlanned(f"the events: {error or type(error).__name__}") from None
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        if last != "ended":
            raise NotAsPlanned(f"the last event is {last!r}")

    async def _name_the_agent(self) -> None:
        name = self.plan.name
        try:
            session = await self._around.api.wait_for(
                name, lambda session: session["state"] == "waiting", _ANSWER_SECONDS
            )
        except ApiError as error:
            raise NotAsPlanned(str(error)) from None
        await asyncio.sleep(1)
        await self._post(
            "/webhook/initiate-call",
            call_id=session["channel_id"],
            agent_id=world.agent_id(self.plan),
        )

    # --- steps

    async def _answer(self) -> None:
        """Wait for sound that comes after now."""
        spoken_at = time.monotonic()
        while self._hearing.last_sound_at < spoken_at:
            if time.monotonic() - spoken_at > _ANSWER_SECONDS:
                raise NotAsPlanned(f"no answer within {_ANSWER_SECONDS:g} s")
            await self._pause()

    async def _quiet(self) -> None:
        while self._hearing.silent_for(time.monotonic()) < _QUIET_SECONDS:
            await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(_POLL_SECONDS)
        if self._is_over:
            raise CallOver("the call has ended")

    @property
    def _is_over(self) -> bool:
        return self._up.ending is not None

    async def _session(self) -> str:
        found = await self._around.api.session(self.plan.name)
        if found is None:
            raise NotAsPlanned("the service has no session of this caller")
        return str(found["session_id"])

    async def _post(self, path: str, **body: str) -> None:
        try:
            await self._around.api.post(path, **body)
        except ApiError as error:
            raise NotAsPlanned(str(error)) from None

    async def _wait_for_result(self, wanted: str) -> None:
        def ended(session: dict[str, object]) -> bool:
            return session["status"] == "ended"

        try:
            session = await self._around.api.wait_for(self.plan.name, ended, _ANSWER_SECONDS)
        except ApiError as error:
            raise NotAsPlanned(str(error)) from None
        if session["result"] != wanted:
            raise NotAsPlanned(f"the result is {session['result']}, not {wanted}")
