"""The course of a soak: warm up, find the capacity, run the mix among faults, look what is left."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import aiohttp

from benchmarks.processes import BenchmarkError
from benchmarks.soak.fit import Growth, growth
from benchmarks.soak.inject import Injector, Victims
from benchmarks.soak.ledger import Fate, Judged, count_fates
from benchmarks.soak.options import SHARE_OF_CAPACITY, SoakOptions
from benchmarks.soak.plan import CallPlan, Kind, mix
from benchmarks.soak.sampler import Sample, Sampler
from benchmarks.soak.schedule import FaultKind, PlannedFault, Window, schedule
from benchmarks.soak.stage import Stage, running_stage
from benchmarks.soak.tally import Tally
from benchmarks.soak.verdicts import Rest, Verdict, give_verdicts

RAMP = (10, 20, 30, 40, 50, 60, 80, 100, 120)
_RAMP_SECONDS, _RAMP_SETTLES_SECONDS = 10.0, 4.0
_LARGEST_GAP_P99_MS, _FULL_PERCENT = 25, 93.0
_CALLS_PER_SECOND = 5.0
_TICK_SECONDS = 0.2
_WARM_UP = (Kind.TALK, Kind.TOOL, Kind.WATCHED, Kind.PLACED)
_KEPT_RECORDINGS_SECONDS = 30.0
_OLDEST_FAULT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class RampStep:
    """What so many steady calls looked like."""

    calls: int
    gap_p99_ms: int
    machine_percent: float
    service_percent: float

    @property
    def holds(self) -> bool:
        """Whether this many calls are within what the machine carries."""
        return self.gap_p99_ms <= _LARGEST_GAP_P99_MS and self.machine_percent < _FULL_PERCENT

    def describe(self) -> str:
        """In a line."""
        return (
            f"gaps p99 {self.gap_p99_ms} ms, machine {self.machine_percent:.0f} %, service "
            f"{self.service_percent:.0f} % of a core"
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a soak found."""

    options: SoakOptions
    asterisk: str
    supervised: bool
    capacity: int
    calls: int
    """Kept up at once."""
    ramp: list[RampStep]
    began: float
    """When the mix began and ended, in monotonic seconds."""
    ended: float
    samples: list[Sample]
    tally: Tally
    judged: list[Judged]
    before: Rest
    after: Rest
    rss: Growth
    verdicts: list[Verdict]


class Watcher:
    """Is told what happens. This one keeps silent."""

    def say(self, text: str) -> None:
        """Something has begun or ended."""

    def sampled(self, sample: Sample) -> None:
        """A look was taken that is to be shown."""


async def run_soak(options: SoakOptions, watcher: Watcher) -> Outcome:
    """Run it.

    Raises:
        BenchmarkError: a program does not start, or ends when it must not.
        LabError: no Asterisk is to be had.
    """
    watcher.say("starting Asterisk, the agent, the service and the phones")
    async with running_stage(options) as stage:
        soak = _Soak(options, stage, watcher)
        async with soak.listening():
            return await soak.run()


class _Soak:
    def __init__(self, options: SoakOptions, stage: Stage, watcher: Watcher) -> None:
        self._options = options
        self._stage = stage
        self._watcher = watcher
        self._tally = Tally()
        self._sampler = Sampler(stage.service, stage.agent, stage.asterisk, stage.http)
        self._samples: list[Sample] = []
        self._log_read = 0
        self._fault = ""
        self._next_number = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Take what the phones tell."""

        async def listen() -> None:
            async for event in self._stage.callers.events():
                self._tally.take(event)

        self._listening = asyncio.create_task(listen(), name="listening")
        try:
            yield
        finally:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def run(self) -> Outcome:
        options, say = self._options, self._watcher.say
        say("warming up, and counting what there is at rest")
        await self._warm_up()
        await asyncio.sleep(options.settle_seconds)
        before = await self._rested(None, 10)
        ramp: list[RampStep] = []
        capacity = options.capacity
        if capacity is None:
            ramp = await self._ramp()
            capacity = max((step.calls for step in ramp if step.holds), default=0)
            if not capacity:
                raise BenchmarkError(
                    f"Not even {RAMP[0]} calls are carried well: {ramp[0].describe()}. "
                    "Let the machine become quiet, or say --capacity."
                )
        calls = max(1, round(capacity * SHARE_OF_CAPACITY))
        say(f"capacity {capacity} calls; {calls} calls at once for {options.minutes:g} minutes")
        began = time.monotonic()
        await self._mix(calls, began)
        ended = time.monotonic()
        say("no new calls; waiting for the last ones")
        await self._finish_calls()
        if "orphan" in options.plant:
            await self._stage.asterisk.ari("POST", "bridges/planted-orphan", type="mixing")
        after = await self._rested(before, options.rest_seconds)
        self._read_log()
        judged = self._tally.judged()
        rss = growth(_runs(self._samples, options.warm_up_seconds))
        return Outcome(
            options=options,
            asterisk=self._stage.asterisk.version,
            supervised=self._stage.service.is_supervised,
            capacity=capacity,
            calls=calls,
            ramp=ramp,
            began=began,
            ended=ended,
            samples=self._samples,
            tally=self._tally,
            judged=judged,
            before=before,
            after=after,
            rss=rss,
            verdicts=give_verdicts(judged, before, after, rss),
        )

    # --- stretches

    async def _warm_up(self) -> None:
        """One call of some kinds, so that what is made once is there before anything is counted."""
        for plan in self._plans(_WARM_UP, len(_WARM_UP)):
            await self._start(replace(plan, talk_seconds=3.0))
        await self._until(lambda: not self._tally.running, 60)

    async def _ramp(self) -> list[RampStep]:
        """Steady calls, more and more, until the phones hear it or the machine is full."""
        steps: list[RampStep] = []
        running = 0
        for calls in RAMP:
            for plan in self._plans((Kind.TALK,), calls - running):
                await self._start(replace(plan, talk_seconds=3600.0))
                await asyncio.sleep(1 / _CALLS_PER_SECOND)
            running = calls
            await asyncio.sleep(_RAMP_SETTLES_SECONDS)
            await self._sampler.look()
            began = time.monotonic()
            await asyncio.sleep(_RAMP_SECONDS - _RAMP_SETTLES_SECONDS)
            look = await self._sampler.look()
            gaps = self._tally.gaps(began, time.monotonic())
            if look is None:
                raise BenchmarkError("the service does not answer while its capacity is measured")
            step = RampStep(
                calls, gaps.percentile(99), round(look.machine_percent), round(look.cpu_percent)
            )
            steps.append(step)
            self._watcher.say(f"{calls} calls: {step.describe()}")
            if not step.holds:
                break
        await self._stage.callers.end_calls()
        await self._until(lambda: not self._tally.running, 30)
        return steps

    async def _mix(self, calls: int, began: float) -> None:
        options = self._options
        if "stranded" in options.plant:
            await self._start(self._plans((Kind.STRANDED,), 1)[0])
        plans = mix(options.seed, options.kinds, first=self._next_number)
        faults = schedule(
            options.seed,
            options.seconds,
            options.faults,
            quiet_seconds=min(options.quiet_seconds, options.seconds / 4),
        )
        injecting = asyncio.create_task(self._inject(faults, began), name="faults")
        sampling = asyncio.create_task(self._sample(began), name="samples")
        due = began
        try:
            while (now := time.monotonic()) < began + options.seconds:
                self._raise_if_ended(injecting, sampling)
                if self._tally.running < calls and now >= due:
                    await self._start(next(plans))
                    due = now + 1 / _CALLS_PER_SECOND
                await asyncio.sleep(_TICK_SECONDS / 2)
        finally:
            sampling.cancel()
            # A fault that is under way is mended first.
            injecting.cancel()
            await asyncio.gather(injecting, sampling, return_exceptions=True)

    async def _finish_calls(self) -> None:
        with contextlib.suppress(TimeoutError):
            await self._until(lambda: not self._tally.running, self._options.dead_air_seconds + 5)
        await self._stage.callers.end_calls()
        await self._until(lambda: not self._tally.running, 30)

    # --- beside the calls

    async def _inject(self, faults: list[PlannedFault], began: float) -> None:
        stage, tally = self._stage, self._tally
        victims = Victims(stage.asterisk, stage.ari, stage.agent, stage.service, stage.http)
        injector = Injector(victims, self._options.seed)
        for fault in faults:
            await asyncio.sleep(max(0.0, began + fault.at_s - time.monotonic()))
            if fault.kind is FaultKind.WORKER_KILLED and not stage.service.is_supervised:
                self._watcher.say(f"{fault.kind}: left out, nobody would start it again")
                continue
            self._watcher.say(f"fault: {fault.kind}, {fault.seconds:g} s")
            self._fault = fault.kind
            now = time.monotonic()
            # Until it is over nobody knows when that will be.
            tally.windows.append(Window(fault.kind, now, now + _OLDEST_FAULT_SECONDS))
            try:
                tally.windows[-1] = window = await injector.inject(fault)
            except asyncio.CancelledError:
                tally.windows[-1] = Window(fault.kind, now, time.monotonic(), "cut short")
                raise
            finally:
                self._fault = ""
            if window.note:
                self._watcher.say(f"{fault.kind} is over: {window.note}")

    async def _sample(self, began: float) -> None:
        say_at = began
        last = began
        while True:
            await asyncio.sleep(self._options.sample_seconds)
            self._read_log()
            await asyncio.to_thread(self._remove_old_recordings)
            look = await self._sampler.look()
            if look is None:
                continue
            fates = count_fates(self._tally.judged())
            gaps = self._tally.gaps(last, look.at)
            last = look.at
            sample = Sample(
                at_s=round(look.at - began, 2),
                fault=self._fault,
                calls=self._tally.running,
                ended=len(self._tally.results),
                stranded=fates[Fate.STRANDED],
                failed=fates[Fate.FAILED],
                worker_pid=look.pid,
                rss_mb=round(look.rss_mb, 3),
                fds=look.fds,
                tasks=look.scrape.tasks,
                blocks=look.scrape.allocated_blocks,
                lines=look.scrape.lines,
                service_calls=look.scrape.calls,
                gc_collections=look.scrape.gc_collections,
                gap_p99_ms=gaps.percentile(99),
                gap_max_ms=round(gaps.longest_ms, 1),
                cpu_percent=round(look.cpu_percent, 1),
                machine_percent=round(look.machine_percent, 1),
            )
            self._samples.append(sample)
            if look.at >= say_at:
                self._watcher.sampled(sample)
                say_at += self._options.say_seconds

    def _read_log(self) -> None:
        with self._stage.asterisk.log_path.open("rb") as log:
            log.seek(self._log_read)
            text = log.read()
        self._log_read += len(text)
        self._tally.take_log(text.decode(errors="replace"))

    def _remove_old_recordings(self) -> None:
        oldest = time.time() - _KEPT_RECORDINGS_SECONDS
        for path in self._stage.recordings.glob("*/*.wav"):
            if path.stat().st_mtime < oldest:
                path.unlink()

    # --- steps

    def _plans(self, kinds: tuple[Kind, ...], count: int) -> list[CallPlan]:
        plans = mix(self._options.seed, kinds, first=self._next_number)
        return [next(plans) for _ in range(count)]

    async def _start(self, plan: CallPlan) -> None:
        self._next_number = max(self._next_number, plan.number + 1)
        self._tally.started += 1
        await self._stage.callers.call(plan)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._raise_if_ended(self._listening)
                await asyncio.sleep(_TICK_SECONDS)

    def _raise_if_ended(self, *tasks: asyncio.Task[None]) -> None:
        for task in (self._listening, *tasks):
            if task.done():
                task.result()
                if task is self._listening:
                    raise BenchmarkError("the phones' process has ended")

    async def _rested(self, before: Rest | None, seconds: float) -> Rest:
        """What there is at rest: once it is no more than before, or after so long."""
        until = time.monotonic() + seconds
        while True:
            rest = None
            with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError, IndexError):
                rest = await self._sampler.rest()
            late = time.monotonic() > until
            if rest is not None and (late or before is None or not rest.exceeds(before)):
                return rest
            if late:
                raise BenchmarkError("the service does not answer at rest")
            await asyncio.sleep(1)


def _runs(samples: list[Sample], warm_up_seconds: float) -> list[list[tuple[float, float]]]:
    """Memory over time, for each worker, from after its warm-up."""
    by_pid: dict[int, list[tuple[float, float]]] = {}
    for sample in samples:
        by_pid.setdefault(sample.worker_pid, []).append((sample.at_s, sample.rss_mb))
    return [
        [point for point in run if point[0] >= run[0][0] + warm_up_seconds]
        for run in by_pid.values()
    ]
