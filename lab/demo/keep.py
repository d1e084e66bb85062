"""Waiting for the person at the terminal."""

from __future__ import annotations

import asyncio
import signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def until_told_to_stop() -> None:
    """Wait for Ctrl-C or a SIGTERM, which then ends nothing but the wait.

    Only for an event loop of the main thread, where signals are delivered.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
