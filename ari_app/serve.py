"""The command `ari-app serve`: a parent that supervises, and workers that serve."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import structlog
import uvloop

from ari_app.bridge import VoiceBridge
from ari_app.checks import (
    Finding,
    Verdict,
    check_agent_key,
    check_asterisk,
    check_descriptors,
    check_dialer,
    check_dialer_service,
    check_microphone,
    check_open_log,
    check_settings,
    check_twilio_account,
)
from ari_app.clients import ari_client
from ari_app.errors import ConfigError
from ari_app.line.asterisk.cleanup import GIVE_BACK_SECONDS, Mender
from ari_app.line.microphone import MicrophoneGateway
from ari_app.process.limits import raise_limit
from ari_app.process.logs import set_up_logging
from ari_app.process.network import page_url
from ari_app.process.supervisor import Duty, Limits, Mode, Order, Parent, ParentLink, Standing
from ari_app.process.supervisor.parent import unblock_signals
from ari_app.settings import Settings

log = structlog.get_logger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def supervise(settings: Settings, *, wait: bool = False) -> int:
    """Serve under a parent until told to stop; returns in the parent and in each worker.

    Args:
        settings: What it is told from outside.
        wait: An Asterisk that does not answer yet is waited for.

    Returns:
        The exit code of this process.

    Raises:
        ConfigError: In the first worker: something that no call could be served without is missing.
    """
    if settings.database_url:
        # It takes as long as the rest of the program, and a worker that takes another's place has
        # callers waiting: read once, it is there in all of them.
        import ari_app.records.store.keeper  # noqa: F401

    log_as = (settings.log_level, settings.log_format, settings.log_numbers)
    set_up_logging(*log_as, in_thread=False)
    duty = Parent(Limits(stall=settings.worker_stall_seconds)).run()
    if isinstance(duty, int):
        return duty
    set_up_logging(*log_as)
    _call_ourselves("ari-app-worker")
    work = mend(settings, duty) if duty.mode is Mode.MEND else serve(settings, duty, wait=wait)
    return _run(work, duty.mode)


def _run(work: Coroutine[Any, Any, None], mode: Mode) -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(work)
    except ConfigError as error:
        if mode is Mode.FIRST:
            raise
        log.error("worker_cannot_serve", error=str(error))
        return 2
    return 0


async def serve(settings: Settings, duty: Duty | None = None, *, wait: bool = False) -> None:
    """Take calls until SIGTERM or SIGINT.

    Alone, the first signal lets running calls finish and the second ends them. Under a parent every
    signal lets them finish, for whoever stops a service may tell each of its processes; what ends
    them is an order of the parent's.

    Args:
        settings: What it is told from outside.
        duty: What the parent wants; None: there is none.
        wait: An Asterisk that does not answer yet is waited for.

    Raises:
        ConfigError: Something that no call could be served without is missing.
    """
    raise_limit()
    first = duty is None or duty.mode is Mode.FIRST
    with contextlib.ExitStack() as stack:
        link: ParentLink | None = None

        def replaced() -> None:
            if link is not None:
                link.stand(Standing.REPLACED)

        bridge = VoiceBridge(settings, on_replaced=replaced)
        stack.enter_context(_signals(bridge.stop if duty is None else bridge.drain))
        if duty is not None:
            bridge.metrics.restarts.inc(duty.restarts)
            link = stack.enter_context(_linked(duty, bridge))
        async with bridge, contextlib.AsyncExitStack() as beside:
            if wait and first and not await bridge.asterisk_answers():
                return
            if first:
                await _check_line(bridge, fatal=True)
            await bridge.mend(expected=not first)
            if first:
                await _check_agent(bridge, fatal=True)
            else:
                # What is wrong ends nothing now, and callers do not wait until it is known.
                beside.push_async_callback(_cancel, asyncio.create_task(_check_again(bridge)))
            log.info(
                "serving",
                **_way_in(bridge),
                api="{}:{}".format(*bridge.api_address),
                page=settings.api_public_url or page_url(*bridge.api_address),
            )
            if link is not None:
                link.stand(Standing.SERVING)
            await bridge.run()
        log.info("stopped")


async def mend(settings: Settings, duty: Duty) -> None:
    """Give back what a worker has left that was lost while it was to end.

    Nobody comes after it, so it takes as long as that worker might have taken; the stop signals
    stay blocked meanwhile.
    """
    if not settings.has_asterisk:
        return  # nothing else outlives its process
    with ParentLink(duty.channel, lambda order: None, lambda: None):
        async with ari_client(settings) as ari:
            await Mender(ari, settings.ari_app, settings.amd_context).mend(
                expected=True, patience=GIVE_BACK_SECONDS
            )


def _way_in(bridge: VoiceBridge) -> dict[str, str]:
    settings = bridge.settings
    told = {"ways_in": ",".join(settings.ways_in)}
    if "local" in settings.ways_in:
        told["sound"] = settings.local_audio_device or "this machine's"
    if "twilio" in settings.ways_in:
        told["twilio"] = settings.api_public_url or ""
    if settings.has_asterisk:
        told["app"] = settings.ari_app
        told["media_transport"] = settings.media_transport
    if settings.has_audiosocket:
        told["audiosocket"] = "{}:{}".format(*bridge.audiosocket_address)
    return told


async def _check_line(bridge: VoiceBridge, *, fatal: bool) -> None:
    settings = bridge.settings
    found = [*check_settings(settings), check_descriptors(settings)]
    if (microphone := bridge.way_in(MicrophoneGateway)) is not None:
        found.append(await check_microphone(microphone.card))
    if "custom" in settings.ways_in:
        found += [check_dialer(settings), *await check_dialer_service(settings)]
    if "twilio" in settings.ways_in:
        found.append(await check_twilio_account(settings))
    if bridge.call_log is not None:
        found += await check_open_log(bridge.call_log)
    if settings.has_asterisk:
        found += await check_asterisk(bridge.ari, settings)
    _judge(found, fatal=fatal)


async def _check_agent(bridge: VoiceBridge, *, fatal: bool) -> None:
    _judge([await check_agent_key(bridge.agents, bridge.settings)], fatal=fatal)


async def _check_again(bridge: VoiceBridge) -> None:
    await _check_line(bridge, fatal=False)
    await _check_agent(bridge, fatal=False)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def _linked(duty: Duty, bridge: VoiceBridge) -> Iterator[ParentLink]:
    """Link with the parent. Should it be lost, the running calls are finished, and the ports are
    left to whoever is started next."""

    def ordered(order: Order) -> None:
        match order:
            case Order.DRAIN:
                bridge.drain()
            case Order.END:
                bridge.end_calls()

    def orphaned() -> None:
        log.error("parent_lost")
        bridge.drain()
        bridge.leave_ports()

    with ParentLink(duty.channel, ordered, orphaned) as link:
        yield link


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        log.info("signal_received", signal=number.name)
        stop()

    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, received, number)
    unblock_signals()
    try:
        yield
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)


def _judge(findings: list[Finding], *, fatal: bool) -> None:
    for finding in findings:
        if finding.verdict is Verdict.FAILED and fatal and not finding.may_pass:
            raise ConfigError(finding.detail)
        if finding.verdict in (Verdict.WARNING, Verdict.FAILED):
            log.warning("check", what=finding.what, found=finding.detail)


def _call_ourselves(name: str) -> None:
    """Show another name in `ps` and `top`, where the kernel lets us."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name[:15])
