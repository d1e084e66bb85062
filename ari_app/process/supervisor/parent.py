"""The parent process: forks the worker, watches it, and forks another one when it is lost.

It has no event loop, no thread and no connection, and waits for nothing but its worker and signals,
so there is little that could stop it. It also reaps the processes that it inherits as process 1 of
a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import structlog

from ari_app.process.supervisor.policy import (
    BEAT_SECONDS,
    Duty,
    Exit,
    Kill,
    Limits,
    Order,
    Standing,
    Start,
    Supervision,
    name_of_end,
)


class ParentLink:
    """Tells the parent that the loop turns, and takes its orders.

    The beat comes from the loop itself: it fails exactly when calls are no longer served.

    Args:
        channel: The line, not blocking; closed with the link.
        on_order: Called with what the parent wants.
        on_orphaned: Called once, when the parent is gone.

    Attributes:
        standing: What the beats say.
    """

    def __init__(
        self,
        channel: socket.socket,
        on_order: Callable[[Order], None],
        on_orphaned: Callable[[], None],
    ) -> None:
        self.standing = Standing.STARTING
        self._channel = channel
        self._on_order = on_order
        self._on_orphaned = on_orphaned
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> ParentLink:
        self._loop.add_reader(self._channel.fileno(), self._readable)
        self._beat()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._hang_up()

    def stand(self, standing: Standing) -> None:
        """Say at once how the worker stands, and with every beat from now on."""
        self.standing = standing
        self._send()

    def _beat(self) -> None:
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)
        self._send()

    def _send(self) -> None:
        # A parent that is stopped does not read, one that is gone is found by the reader.
        with contextlib.suppress(OSError):
            self._channel.send(self.standing.value)

    def _readable(self) -> None:
        try:
            words = self._channel.recv(64)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        if not words:
            self._hang_up()
            self._on_orphaned()
            return
        for word in words:
            self._on_order(Order(bytes([word])))

    def _hang_up(self) -> None:
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()


log = structlog.get_logger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CAUGHT = {*_STOP_SIGNALS, signal.SIGCHLD}


class Parent:
    """Keeps a worker running until told to stop: see `run`.

    SIGTERM, SIGINT and SIGHUP let the worker drain; a second one ends its calls.

    Args:
        limits: How patient it is.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._supervision = Supervision(limits, time.monotonic())
        self._poll = select.poll()
        self._channel: socket.socket | None = None
        self._pid = 0

    def run(self) -> int | Duty:
        """Fork workers until one has ended for good. As `os.fork` it returns in each process.

        Everything that workers use should have been imported before: they share it, and start in
        milliseconds.

        Returns:
            In the parent the exit code, in a worker what it is to do. A worker has a session of its
            own, so that Ctrl-C reaches the parent alone, and the stop signals are blocked in it
            until it unblocks them (`unblock_signals`).
        """
        self._signals, wake_up = socket.socketpair()
        self._signals.setblocking(False)
        wake_up.setblocking(False)
        self._poll.register(self._signals, select.POLLIN)
        handlers = {number: signal.getsignal(number) for number in _CAUGHT}
        # A SIGHUP that is ignored (nohup) stays so.
        for number in _CAUGHT:
            if number == signal.SIGCHLD or handlers[number] is not signal.SIG_IGN:
                signal.signal(number, _nothing)
        woken_before = signal.set_wakeup_fd(wake_up.fileno(), warn_on_full_buffer=False)
        try:
            return self._keep_running()
        finally:
            signal.set_wakeup_fd(woken_before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            wake_up.close()
            self._signals.close()

    def _keep_running(self) -> int | Duty:
        while True:
            match self._supervision.next_action(time.monotonic()):
                case Start() as start:
                    if (duty := self._fork(start)) is not None:
                        return duty
                case Kill():
                    log.error("worker_stalled", pid=self._pid, seconds=self._limits.stall)
                    os.kill(self._pid, signal.SIGKILL)
                case Exit(code):
                    return code
                case None:
                    self._wait()

    def _wait(self) -> None:
        deadline = self._supervision.deadline
        timeout = None
        if deadline is not None:
            timeout = max(0.0, (deadline - time.monotonic()) * 1000)
        ready = {number for number, _ in self._poll.poll(timeout)}
        if self._channel is not None and self._channel.fileno() in ready:
            self._listen(self._channel)
        if self._signals.fileno() in ready:
            self._take_signals()

    # --- the worker

    def _fork(self, start: Start) -> Duty | None:
        ours, its = socket.socketpair()
        ours.setblocking(False)
        its.setblocking(False)
        # What is alive now is shared for good: no collection of a worker's needs to touch it.
        gc.collect()
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        pid = os.fork()
        if pid == 0:
            ours.close()
            if self._channel is not None:
                self._channel.close()
            os.setsid()
            return Duty(start.mode, start.restarts, its)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        its.close()
        self._channel, self._pid = ours, pid
        self._poll.register(ours, select.POLLIN)
        self._supervision.started(time.monotonic())
        log.info("worker_started", pid=pid, mode=start.mode.value, restarts=start.restarts)
        return None

    def _listen(self, channel: socket.socket) -> None:
        try:
            words = channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        now = time.monotonic()
        if words:
            self._supervision.beat(Standing(words[-1:]), now)
        else:
            self._hang_up()
            self._supervision.closed(now)

    def _hang_up(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            self._poll.unregister(channel)
            channel.close()

    # --- signals

    def _take_signals(self) -> None:
        numbers: set[int] = set()
        with contextlib.suppress(BlockingIOError):
            while received := self._signals.recv(64):
                numbers.update(received)
        for number in _STOP_SIGNALS:
            if number in numbers:
                self._stop(number)
        if signal.SIGCHLD in numbers:
            self._reap()

    def _stop(self, number: signal.Signals) -> None:
        log.info("signal_received", signal=number.name)
        order = self._supervision.stop(time.monotonic())
        if order is not None and self._channel is not None:
            # One that does not take it has ended, or is about to be found out.
            with contextlib.suppress(OSError):
                self._channel.send(order.value)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = reaped
                if pid == self._pid:
                    self._ended(os.waitstatus_to_exitcode(status))

    def _ended(self, code: int) -> None:
        if self._channel is not None:
            self._listen(self._channel)
        self._hang_up()
        now = time.monotonic()
        supervision, pid, self._pid = self._supervision, self._pid, 0
        if supervision.ended(code, now):
            log.error("worker_died", pid=pid, **name_of_end(code))
        if (wait := supervision.retry_at - now) > 0:
            log.warning("worker_restart_waits", seconds=round(wait, 1))


def unblock_signals() -> None:
    """Let the stop signals through, once a worker has set its handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def _nothing(number: int, frame: FrameType | None) -> None:
    """Ignore a signal: the wake-up socket tells."""
