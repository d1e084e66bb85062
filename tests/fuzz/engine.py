"""Changes inputs at random and tries them. Pure but for the clock of :func:`fuzz`."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.fuzz.targets import Target

_MAX_BYTES: Final = 64 * 1024
_MAX_CHANGES: Final = 6
_ODD_BYTES: Final = (b"\x00", b"\xff", b"\x80", b"\n", b'"', b"\\", b"{", b"}", b"\xed\xa0\x80")
_ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 2**31, 2**63 - 1, 2**63, -(2**63) - 1, 1e308, -0.0, 0.1, "", " ",
    "0", "1e9", "x" * 5000, "\x00", "\n", "${SHELL(id)}", "\u202e", "\U0001f600", "../..",
    [], {}, [[]], [None], {"": None}, {"type": "x"}, {"__class__": "x"},
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Crash:
    """An input that a target raised for."""

    data: bytes
    error: Exception


def changed(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """`data` with a few changes: within its JSON where it is some, otherwise in its bytes."""
    tree = _json(data) if chance.random() < 0.7 else None
    for _ in range(chance.randint(1, _MAX_CHANGES)):
        if tree is None:
            data = _changed_bytes(data, others, chance)
        else:
            tree = _changed_tree(tree, chance)
    if tree is not None:
        data = json.dumps(tree, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")
    return data[:_MAX_BYTES]


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _changed_tree(tree: Any, chance: random.Random) -> Any:
    match tree:
        case dict() if tree and chance.random() < 0.85:
            key = chance.choice(list(tree))
            match chance.randrange(5):
                case 0:
                    return {name: value for name, value in tree.items() if name != key}
                case 1:
                    odd = chance.choice(("", "type", "x" * 300, f"{key}_", "\x00", "system__x"))
                    return {**tree, odd: chance.choice(_ODD_VALUES)}
                case _:
                    return {**tree, key: _changed_tree(tree[key], chance)}
        case list() if tree and chance.random() < 0.85:
            at = chance.randrange(len(tree))
            match chance.randrange(4):
                case 0:
                    return tree[:at] + tree[at + 1 :]
                case 1:
                    return tree[:at] + [tree[at]] * chance.choice((2, 3, 200)) + tree[at:]
                case _:
                    return [*tree[:at], _changed_tree(tree[at], chance), *tree[at + 1 :]]
        case str() if tree and chance.random() < 0.5:
            at = chance.randrange(len(tree) + 1)
            return tree[:at] + str(chance.choice(_ODD_VALUES)) + tree[at:]
        case int() if chance.random() < 0.5:
            return tree + chance.choice((-1, 1, 2**32, -(2**64)))
        case _:
            return chance.choice(_ODD_VALUES)


def _changed_bytes(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    end = min(len(data), at + chance.choice((1, 1, 2, 4, 16, 64)))
    match chance.randrange(7):
        case 0:
            return data[:at] + data[end:]
        case 1:
            return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
        case 2:
            return data[:at] + chance.choice(_ODD_BYTES) + data[at:]
        case 3:
            return data[:at] + data[at:end] * chance.choice((2, 3, 100)) + data[end:]
        case 4:
            other = chance.choice(others)
            return data[:at] + other[chance.randrange(len(other) + 1) :]
        case 5:
            return data[:at] + chance.randbytes(chance.choice((1, 3, 20))) + data[end:]
        case _:
            return data[:at]


def fuzz(
    target: Target,
    seconds: float,
    seed: int,
    *,
    clock: Callable[[], float] = time.monotonic,
    told: Callable[[int], None] = lambda tries: None,
) -> tuple[int, Crash | None]:
    """Try a target for so long.

    Args:
        target: What to try.
        seconds: How long.
        seed: Of the random numbers; the same one gives the same inputs.
        clock: Seconds that never go back.
        told: Called now and then with the number of inputs so far.

    Returns:
        How many inputs were tried, and the first that it raised for.
    """
    end = clock() + seconds
    tries = 0
    for data in inputs(target.seeds, random.Random(seed)):
        if (crash := attempt(target, data)) is not None:
            return tries, crash
        tries += 1
        if tries % 256 == 0:
            told(tries)
            if clock() >= end:
                break
    return tries, None


def inputs(seeds: Sequence[bytes], chance: random.Random) -> Iterator[bytes]:
    """The seeds, and then changes of them without end."""
    yield from seeds
    while True:
        yield changed(chance.choice(seeds), seeds, chance)


def attempt(target: Target, data: bytes) -> Crash | None:
    """Try one input."""
    try:
        target.run(data)
    except Exception as error:
        return Crash(data, error)
    return None
