from __future__ import annotations

import asyncio

from ari_app.call.keypad import DigitMode, Keypad
from ari_app.call.plan import CallPolicy


async def test_an_entry_is_complete_at_the_terminator() -> None:
    entries: list[str] = []
    keypad = Keypad(CallPolicy().digit_collector(), entries.append)
    for digit in "12#":
        keypad.press(digit)
    assert entries == ["12"]
    keypad.close()


async def test_an_entry_is_complete_when_no_key_follows() -> None:
    entries: asyncio.Queue[str] = asyncio.Queue(1)
    keypad = Keypad(CallPolicy(digit_timeout_seconds=0.01).digit_collector(), entries.put_nowait)
    keypad.press("7")
    keypad.press("8")
    assert await entries.get() == "78"
    keypad.close()


async def test_what_is_not_complete_is_forgotten() -> None:
    entries: list[str] = []
    keypad = Keypad(CallPolicy(digit_timeout_seconds=0.01).digit_collector(), entries.append)
    keypad.press("7")
    keypad.close()
    keypad.close()
    await asyncio.sleep(0.03)
    assert entries == []


async def test_each_key_at_once() -> None:
    entries: list[str] = []
    keypad = Keypad(CallPolicy(digit_mode=DigitMode.EACH).digit_collector(), entries.append)
    for digit in "1#":
        keypad.press(digit)
    assert entries == ["1", "#"]
