"""A parent whose workers behave as named, one after the other, the last again and again.

`python -m tests.unit.process.supervisor.fake_workers NAME...`; `FAKE_WORKERS` says how many there
are at once, 1 by default, `FAKE_FRONT` how a front behaves that is loaded afresh,
`FAKE_REQUESTS` a file with which a front does not end until it has gone, and
`FAKE_FORKS` how often the parent can fork before the system has no process for it, three times.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import time
from pathlib import Path

from ari_app.process.logs import set_up_logging
from ari_app.process.supervisor import (
    FRONT,
    SPARE,
    Duty,
    Limits,
    Mode,
    Order,
    Parent,
    ParentLink,
    Standing,
    awaited,
)
from ari_app.process.supervisor.parent import unblock_signals

STALLS = ("stop", "spin", "linger")


async def work(duty: Duty, behaviour: str) -> int:
    """Beat, do as named, and take orders."""
    done = asyncio.Event()
    # One of several has no calls to wait for; a front waits for the others.
    ending = {Order.END} if "FAKE_WORKERS" not in os.environ or not duty.number else set(Order)
    link = ParentLink(duty.channel, lambda order: obey(order, done, ending), done.set)
    with link:
        if behaviour == "refuse":
            return 2
        if behaviour == "slow":
            await asyncio.sleep(0.5)
        if behaviour == "never":
            await done.wait()
            return 0
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        unblock_signals()
        place = f" {duty.number}" if "FAKE_WORKERS" in os.environ else ""
        sys.stdout.write(f"{duty.mode.value} {os.getpid()}{place}\n")
        sys.stdout.flush()
        # Not before the line: another may then be told to end, and says so.
        link.stand(Standing.REPLACED if behaviour == "replaced" else Standing.SERVING)
        match behaviour:
            case "die" | "replaced":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "spin":
                while True:
                    pass
            case "fail":
                return 3
            case "linger":
                pass
            case _:
                await done.wait()
                if duty.number == FRONT and "FAKE_REQUESTS" in os.environ:
                    # The next one has its application.
                    link.stand(Standing.REPLACED)
                    await asyncio.to_thread(until_none_waits)
    if behaviour == "linger":
        time.sleep(60)  # noqa: ASYNC251
    return 0


def until_none_waits() -> None:
    """Wait for whoever asks a front."""
    while Path(os.environ["FAKE_REQUESTS"]).exists():
        time.sleep(0.01)


def obey(order: Order, done: asyncio.Event, ending: set[Order]) -> None:
    sys.stdout.write(f"{order.name}\n")
    sys.stdout.flush()
    if order in ending:
        done.set()


def forks(times: int) -> None:
    """Let `os.fork` fail three times, after so many."""
    fork, left = os.fork, [True] * times + [False] * 3

    def fork_or_fail() -> int:
        if left and not left.pop(0):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return fork()

    os.fork = fork_or_fail


def main(behaviours: list[str]) -> int:
    """The exit code of whichever process this is in the end."""
    set_up_logging("INFO", "json", in_thread=False)
    if times := os.environ.get("FAKE_FORKS"):
        forks(int(times))
    # Only what is to be killed is killed soon: others may be slow, for the machine may be busy.
    patience = 1.0 if behaviours[0] in STALLS else 60.0
    limits = Limits(stall=patience, start=60.0, end=patience, back_off=0.05, most_back_off=0.2)
    duty = Parent(limits, int(os.environ.get("FAKE_WORKERS", "1"))).run()
    if isinstance(duty, int):
        return duty
    afresh = duty.afresh
    if duty.number == SPARE:
        duty = awaited(duty)
    if duty.mode is Mode.MEND:
        sys.stdout.write("mend\n")
        return 0
    behaviour = behaviours[min(duty.restarts, len(behaviours) - 1)]
    if duty.number == FRONT and afresh:
        behaviour = os.environ.get("FAKE_FRONT", behaviour)
    return asyncio.run(work(duty, behaviour))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
