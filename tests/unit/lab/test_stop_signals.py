from __future__ import annotations

import os
import signal

import pytest

from lab.stop_signals import stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_sets_the_event_and_does_nothing_else(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_signals() as stop:
        os.kill(os.getpid(), number)
        await stop.wait()
    assert signal.getsignal(number) is before
