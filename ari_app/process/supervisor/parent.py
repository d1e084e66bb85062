"""The parent process: forks the workers, watches them, and forks another one when one is lost.

It has no event loop, no thread and no connection, and waits for nothing but its workers and
signals, so there is little that could stop it. It also reaps the processes that it inherits as
process 1 of a container.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

import structlog

from ari_app.process.beat import seconds_to_beat
from ari_app.process.supervisor.policy import (
    FRONT,
    SPARE,
    Duty,
    Exit,
    Kill,
    Limits,
    Mode,
    Order,
    Standing,
    Start,
    Supervision,
    name_of_end,
)
from ari_app.process.supervisor.systemd import READY, STOPPING, tell_systemd


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
        pause = seconds_to_beat(self._loop.time())
        self._timer = self._loop.call_later(pause, self._beat)
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


def awaited(duty: Duty) -> Duty:
    """Wait, as the spare process, for the duty that a parent has for it.

    Raises:
        SystemExit: It is not wanted any more.
    """
    channel, told = duty.channel, b""
    channel.setblocking(True)
    # Byte by byte, for an order may follow that is the link's to read.
    while not told.endswith(b"\n"):
        if not (byte := channel.recv(1)):
            raise SystemExit(0)
        told += byte
    channel.setblocking(False)
    mode, restarts, number = told.decode().split()
    return Duty(Mode(mode), int(restarts), channel, int(number))


log = structlog.get_logger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CAUGHT = {*_STOP_SIGNALS, signal.SIGCHLD}


class _Child:
    """One place, and the processes that fill it one after the other.

    Attributes:
        number: Of the worker, or `FRONT`.
        supervision: Decides.
        channel: The line to the process that is there.
        pid: Its id; 0: there is none.
    """

    def __init__(self, number: int, supervision: Supervision) -> None:
        self.number = number
        self.supervision = supervision
        self.channel: socket.socket | None = None
        self.pid = 0

    @property
    def name(self) -> str:
        return "front" if self.number == FRONT else f"worker {self.number}"

    def tell(self, order: Order | None) -> None:
        if order is not None and self.channel is not None:
            # One that does not take it has ended, or is about to be found out.
            with contextlib.suppress(OSError):
                self.channel.send(order.value)


class Parent:
    """Keeps workers running until told to stop: see `run`.

    With several there is a front before them. The first worker alone is started first: what is
    wrong with the set-up is said once. The front goes last, for it shows what becomes of the
    others.

    SIGTERM, SIGINT and SIGHUP let the workers drain; a second one ends their calls. With several
    workers SIGHUP replaces them one after the other instead, each when its last call has ended, by
    the code that is on the disk; unless a terminal sends it, for that one has been closed. From
    then on the code of this process is an old one, and a spare process that has loaded the new one
    waits for the next place that is free: callers of a worker that is lost would wait for it.
    systemd is told when all of them serve, and when they are to stop.

    Args:
        limits: How patient it is.
        workers: How many there are to be.
    """

    def __init__(self, limits: Limits, workers: int = 1) -> None:
        self._limits = limits
        self._workers = workers
        self._poll = select.poll()
        self._children = [self._child(1)]
        self._complete = workers == 1
        self._stopping = self._told_ready = False
        self._code = 0
        self._afresh = False
        self._to_replace: list[int] = []
        self._replacing: tuple[_Child, int] | None = None
        # A front that is to go as soon as the one in its place serves.
        self._leaving: _Child | None = None
        # The line to it and its id; and whether there is to be one that is not there yet.
        self._spare: tuple[socket.socket, int] | None = None
        self._wants_spare = False

    def run(self) -> int | Duty:
        """Fork workers until all have ended for good. As `os.fork` it returns in each process.

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
            acted = False
            for child in tuple(self._children):
                match child.supervision.next_action(time.monotonic()):
                    case Start() as start:
                        acted = True
                        if (duty := self._start(child, start)) is not None:
                            return duty
                    case Kill():
                        acted = True
                        log.error(
                            "worker_stalled",
                            pid=child.pid,
                            place=child.name,
                            seconds=self._limits.stall,
                        )
                        os.kill(child.pid, signal.SIGKILL)
                    case Exit(code):
                        acted = True
                        self._finished(child, code)
                    case None:
                        pass
            if not self._children:
                return self._code
            self._arrange()
            if (duty := self._keep_spare()) is not None:
                return duty
            if not acted:
                self._wait()

    def _wait(self) -> None:
        deadlines = [child.supervision.deadline for child in self._children]
        soonest = min((each for each in deadlines if each is not None), default=None)
        timeout = None
        if soonest is not None:
            timeout = max(0.0, (soonest - time.monotonic()) * 1000)
        ready = {number for number, _ in self._poll.poll(timeout)}
        for child in self._children:
            if child.channel is not None and child.channel.fileno() in ready:
                self._listen(child)
        if self._signals.fileno() in ready:
            self._take_signals()

    # --- several of them

    def _child(self, number: int, mode: Mode = Mode.FIRST) -> _Child:
        return _Child(
            number,
            Supervision(
                self._limits,
                time.monotonic(),
                stays=self._workers > 1,
                leaves_calls=number != FRONT,
                mode=mode,
            ),
        )

    def _of(self, number: int) -> _Child | None:
        """Return the place of this number that stays; None: there is none any more."""
        return next(
            (
                child
                for child in self._children
                if child.number == number and not self._leaves(child)
            ),
            None,
        )

    def _leaves(self, child: _Child) -> bool:
        """Return whether another front is there, or comes, in the place of this one."""
        # Once told to end it may go on for minutes, for requests that wait.
        told = child.number == FRONT and child.supervision.stopping
        return child is self._leaving or (told and not self._stopping)

    def _arrange(self) -> None:
        """Look at what concerns several of them."""
        first = self._of(1)
        if not self._complete and not self._stopping and first and first.supervision.serving:
            self._complete = True
            numbers = [*range(2, self._workers + 1), FRONT]
            self._children += [self._child(number) for number in numbers]
        if not self._told_ready and self._complete and not self._stopping:
            self._told_ready = all(child.supervision.serving for child in self._children)
            if self._told_ready:
                tell_systemd(READY)
        front = self._of(FRONT)
        if front is not None and front.supervision.replaced and not self._stopping:
            # Another instance has the application of the dialplan.
            self._stop()
        if all(child.number == FRONT for child in self._children):
            # One that is leaving, too: the one in its place may not have come to serve.
            for child in self._children:
                self._end(child)
        if not self._stopping:
            self._replace()

    def _replace(self) -> None:
        """Replace the next one, once the one before serves."""
        if self._replacing is not None:
            child, pid = self._replacing
            if child.pid in (0, pid) or not child.supervision.serving:
                return
            self._replacing = None
            if self._leaving is not None:
                self._end(self._leaving)
            if not self._to_replace:
                log.info("workers_replaced")
        elif self._to_replace and self._complete:
            number = self._to_replace.pop(0)
            if (old := self._of(number)) is None:
                return
            if number == FRONT:
                # Arrivals wait for none: the new one takes the application over from the old.
                self._leaving = old
                # Should it not start, the old one serves on.
                new = self._child(FRONT, Mode.AGAIN)
                self._children.append(new)
                self._replacing = new, 0
            else:
                self._replacing = old, old.pid
                old.tell(Order.DRAIN)
            log.info("worker_is_replaced", pid=old.pid, place=old.name)

    def _end(self, front: _Child) -> None:
        """End a front; there are no calls in it."""
        if not front.supervision.stopping:
            front.supervision.stop(time.monotonic())
            front.tell(Order.END)

    def _finished(self, child: _Child, code: int) -> None:
        self._children.remove(child)
        if self._leaves(child):
            if child is self._leaving:
                self._leaving = None
            return
        if self._replacing is not None and self._replacing[0] is child:
            self._replacing = None
        self._code = self._code or code
        if code and not self._stopping and self._children and not child.supervision.replaced:
            # Something is wrong that no time mends: it has never served.
            self._stop()
            self._stop()

    # --- a worker

    def _start(self, child: _Child, start: Start) -> Duty | None:
        place = {"place": child.name} if self._workers > 1 else {}
        started: Duty | tuple[socket.socket, int] | None = self._take_spare(child, start)
        if started is None:
            try:
                started = self._fork(child.number, start)
            except OSError as error:
                # Not even that ends the parent: the calls of all others would end with it.
                log.error("worker_not_started", error=error.strerror, **place)
                child.supervision.not_started(time.monotonic())
                return None
        if isinstance(started, Duty):
            return started
        child.channel, child.pid = started
        if self._stopping and child.number == FRONT:
            child.tell(Order.DRAIN)
        self._poll.register(child.channel, select.POLLIN)
        child.supervision.started(time.monotonic())
        log.info(
            "worker_started",
            pid=child.pid,
            mode=start.mode.value,
            restarts=start.restarts,
            **place,
        )
        return None

    def _fork(self, number: int, start: Start) -> Duty | tuple[socket.socket, int]:
        """Fork a process for a place: the line to it and its id, or, in it, its duty.

        Raises:
            OSError: The system has no room for one.
        """
        ours, its = socket.socketpair()
        ours.setblocking(False)
        its.setblocking(False)
        # What is alive now is shared for good: no collection of a worker's needs to touch it.
        gc.collect()
        gc.freeze()
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
        try:
            pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
            ours.close()
            its.close()
            raise
        if pid == 0:
            ours.close()
            for each in self._children:
                if each.channel is not None:
                    each.channel.close()
            self._forget_spare()
            os.setsid()
            return Duty(start.mode, start.restarts, its, number, self._afresh)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        its.close()
        return ours, pid

    # --- the spare process

    def _keep_spare(self) -> Duty | None:
        """See to it that there is one, where one is wanted; in it, its duty."""
        # To load the code takes a core for seconds, in which no place waits for its process.
        if not self._wants_spare or not all(each.supervision.serving for each in self._children):
            return None
        self._wants_spare = False
        # It does without one.
        with contextlib.suppress(OSError):
            started = self._fork(SPARE, Start(Mode.AGAIN, 0))
            if isinstance(started, Duty):
                return started
            self._spare = started
            log.info("spare_started", pid=started[1])
        return None

    def _take_spare(self, child: _Child, start: Start) -> tuple[socket.socket, int] | None:
        """Give the spare process a place; None: there is none."""
        self._wants_spare = self._afresh and not self._stopping
        if self._spare is None:
            return None
        spare, self._spare = self._spare, None
        try:
            spare[0].send(f"{start.mode.value} {start.restarts} {child.number}\n".encode())
        except OSError:
            spare[0].close()
            return None
        return spare

    def _end_spare(self) -> None:
        """End it: its code is an old one, or nobody is started any more."""
        if self._spare is not None:
            # It has nothing to lose, and may be busy loading for seconds, with our ports open.
            os.kill(self._spare[1], signal.SIGKILL)
        self._forget_spare()

    def _forget_spare(self) -> None:
        self._wants_spare = False
        if self._spare is not None:
            self._spare[0].close()
            self._spare = None

    def _listen(self, child: _Child) -> None:
        channel = child.channel
        assert channel is not None
        try:
            words = channel.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            words = b""
        now = time.monotonic()
        if words:
            child.supervision.beat(Standing(words[-1:]), now)
        else:
            self._hang_up(child)
            child.supervision.closed(now)

    def _hang_up(self, child: _Child) -> None:
        channel, child.channel = child.channel, None
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
                log.info("signal_received", signal=number.name)
                if number == signal.SIGHUP and self._workers > 1 and not _has_terminal():
                    self._replace_all()
                else:
                    self._stop()
        if signal.SIGCHLD in numbers:
            self._reap()

    def _replace_all(self) -> None:
        if not self._stopping:
            self._afresh = True
            self._end_spare()
            self._wants_spare = True
            self._to_replace = [*range(1, self._workers + 1), FRONT]

    def _stop(self) -> None:
        self._stopping, now = True, time.monotonic()
        self._end_spare()
        tell_systemd(STOPPING)
        for child in self._children:
            if child.number == FRONT:
                # It shows what becomes of the calls until the last worker has gone.
                child.tell(Order.DRAIN)
            else:
                child.tell(child.supervision.stop(now))

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (reaped := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                pid, status = reaped
                if self._spare is not None and pid == self._spare[1]:
                    log.warning(
                        "spare_died", pid=pid, **name_of_end(os.waitstatus_to_exitcode(status))
                    )
                    self._forget_spare()
                for child in self._children:
                    if pid == child.pid:
                        self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, code: int) -> None:
        if child.channel is not None:
            self._listen(child)
        self._hang_up(child)
        now = time.monotonic()
        supervision, pid, child.pid = child.supervision, child.pid, 0
        place = {"place": child.name} if self._workers > 1 else {}
        if supervision.ended(code, now):
            log.error("worker_died", pid=pid, **name_of_end(code), **place)
        if (wait := supervision.retry_at - now) > 0:
            log.warning("worker_restart_waits", seconds=round(wait, 1), **place)


def unblock_signals() -> None:
    """Let the stop signals through, once a worker has set its handlers."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)


def _has_terminal() -> bool:
    return any(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _nothing(number: int, frame: FrameType | None) -> None:
    """Ignore a signal: the wake-up socket tells."""
