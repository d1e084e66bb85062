"""The keys that a caller presses, on their way to the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from ari_app.records.hiding import SECRET_KEYS

KEYS: Final = frozenset("0123456789*#ABCD")
"""What a telephone's keypad has (ITU-T Q.23)."""


class DigitMode(StrEnum):
    """The ways to handle keys."""

    OFF = "off"
    EACH = "each"  # every key is told at once
    COLLECT = "collect"  # keys are told together, when the entry is complete


class DigitCollector:
    """Turns keys into entries.

    In the mode `collect` an entry is complete when the terminator is pressed (it is not part of
    the entry), when it is as long as it may be, or when no further key has come for a while. The
    terminator pressed alone is an entry of its own: the caller has been asked to press it.

    Args:
        mode: What happens with keys.
        inter_digit_timeout: Seconds without a key after which an entry is complete.
        terminator: The key that completes an entry; empty: there is none.
        max_digits: The longest entry.

    Raises:
        ValueError: A timeout that is not positive, a terminator that is no key, or no room for a
            digit.
    """

    def __init__(
        self,
        mode: DigitMode,
        *,
        inter_digit_timeout: float = 3.0,
        terminator: str = "#",
        max_digits: int = 32,
    ) -> None:
        if not inter_digit_timeout > 0:
            raise ValueError("the time between two digits must be more than 0 seconds")
        if terminator and terminator not in KEYS:
            raise ValueError("the terminator must be one key: 0 to 9, *, #, A to D, or nothing")
        if max_digits < 1:
            raise ValueError("an entry must have room for at least one digit")
        self._mode = mode
        self._inter_digit_timeout = inter_digit_timeout
        self._terminator = terminator
        self._max_digits = max_digits
        self._entry = ""
        self._deadline: float | None = None
        self._together = ""
        self._together_until = 0.0

    @property
    def together(self) -> str:
        """In the mode `each`: the keys up to the last one that would be one entry; otherwise
        nothing."""
        return self._together

    @property
    def begun(self) -> str:
        """The entry as far as it has come."""
        return self._entry

    @property
    def next_deadline(self) -> float | None:
        """When `timer` has something to do; None while nothing is waiting."""
        return self._deadline

    def digit(self, digit: str, now: float) -> str | None:
        """Take a key; the entry, when this key completes one.

        What is no key (a hook flash) is passed over.
        """
        key = digit.upper()
        if self._mode is DigitMode.OFF or key not in KEYS:
            return None
        if self._mode is DigitMode.EACH:
            self._put_together(key, now)
            return key
        if key == self._terminator:
            return self.finish() or key
        self._entry += key
        if len(self._entry) >= self._max_digits:
            return self.finish()
        self._deadline = now + self._inter_digit_timeout
        return None

    def _put_together(self, key: str, now: float) -> None:
        if now >= self._together_until or len(self._together) >= self._max_digits:
            self._together = ""
        self._together = "" if key == self._terminator else self._together + key
        self._together_until = now + self._inter_digit_timeout

    def timer(self, now: float) -> str | None:
        """Return the entry, when the time for its next key is over at `now`."""
        if self._deadline is None or now < self._deadline:
            return None
        return self.finish()

    def finish(self) -> str | None:
        """Return the entry as far as it has come; None when there is none."""
        entry, self._entry, self._deadline = self._entry, "", None
        return entry or None


def for_record(digits: str, *, sensitive: bool) -> str:
    """Return an entry as logs and transcripts may show it; of a sensitive one not even its
    length."""
    return SECRET_KEYS if sensitive else digits


class Keypad:
    """Collects one call's keys.

    Args:
        collector: Makes entries of them.
        on_entry: Gets each complete entry.
    """

    def __init__(self, collector: DigitCollector, on_entry: Callable[[str], None]) -> None:
        self._collector = collector
        self._on_entry = on_entry
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def press(self, digit: str) -> None:
        """Take a key."""
        self._hand_over(self._collector.digit(digit, self._loop.time()))

    @property
    def together(self) -> str:
        """The keys so far that belong together, where each is an entry of its own."""
        return self._collector.together

    @property
    def begun(self) -> str:
        """The entry that is not complete."""
        return self._collector.begun

    def resume(self, entry: str) -> None:
        """Go on with an entry that was begun elsewhere."""
        for digit in entry:
            self.press(digit)

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
