"""Which UUIDs may connect: each for a limited time, each once. Pure: `now` is an argument."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar
from uuid import UUID

T = TypeVar("T")

Refusal = Literal["unknown_uuid", "expired", "reused"]

_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class _Expected(Generic[T]):
    value: T
    expires_at: float


class Expectations(Generic[T]):
    """The UUIDs that Asterisk was told of and has not connected with yet.

    A UUID is all that a connection proves itself with, so it is good for one connection. The
    last 1024 that were used or have expired are remembered, only to name the refusal well.
    """

    def __init__(self) -> None:
        self._expected: dict[UUID, _Expected[T]] = {}
        self._past: OrderedDict[UUID, Refusal] = OrderedDict()

    def add(self, uuid: UUID, value: T, *, now: float, ttl: float) -> None:
        """Expect `uuid` for `ttl` seconds. Raises ValueError when it is expected already."""
        self._sweep(now)
        if uuid in self._expected:
            raise ValueError("this UUID is expected already")
        self._past.pop(uuid, None)
        self._expected[uuid] = _Expected(value, now + ttl)

    def take(self, uuid: UUID, *, now: float) -> T | Refusal:
        """What was registered under `uuid`, which is used up now; or why not."""
        self._sweep(now)
        expected = self._expected.pop(uuid, None)
        if expected is None:
            return self._past.get(uuid, "unknown_uuid")
        self._remember(uuid, "reused")
        return expected.value

    def forget(self, uuid: UUID) -> bool:
        """Expect it no more; whether it was expected."""
        return self._expected.pop(uuid, None) is not None

    def count(self, *, now: float) -> int:
        """How many UUIDs are expected."""
        self._sweep(now)
        return len(self._expected)

    def clear(self) -> None:
        """Expect nothing."""
        self._expected.clear()

    def _sweep(self, now: float) -> None:
        expired = [uuid for uuid, entry in self._expected.items() if entry.expires_at <= now]
        for uuid in expired:
            del self._expected[uuid]
            self._remember(uuid, "expired")

    def _remember(self, uuid: UUID, refusal: Refusal) -> None:
        self._past[uuid] = refusal
        if len(self._past) > _REMEMBERED:
            self._past.popitem(last=False)
