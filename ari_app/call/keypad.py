"""The keys that a caller presses, on their way to the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ari_app.call.digits import DigitCollector
from ari_app.call.policy import CallPolicy


class Keypad:
    """Collects one call's keys.

    Args:
        policy: How they are collected.
        on_entry: Gets each complete entry.
    """

    def __init__(self, policy: CallPolicy, on_entry: Callable[[str], None]) -> None:
        self._collector = DigitCollector(
            policy.digit_mode,
            inter_digit_timeout=policy.digit_timeout_seconds,
            terminator=policy.digit_terminator,
            max_digits=policy.max_digits,
        )
        self._on_entry = on_entry
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def press(self, digit: str) -> None:
        """Take a key."""
        self._hand_over(self._collector.digit(digit, self._loop.time()))

    def close(self) -> None:
        """Forget what is not complete. May be called twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _time_is_up(self) -> None:
        self._hand_over(self._collector.timer(self._loop.time()))

    def _hand_over(self, entry: str | None) -> None:
        self.close()
        if entry is not None:
            self._on_entry(entry)
        if (deadline := self._collector.next_deadline) is not None:
            self._timer = self._loop.call_at(deadline, self._time_is_up)
