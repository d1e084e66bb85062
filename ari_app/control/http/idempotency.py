"""Answers to requests with an Idempotency-Key: a request that is repeated gets the first answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ari_app.control.http.problems import Problem

Answer = TypeVar("Answer")

_KEEP_SECONDS = 24 * 3600.0
MAX_KEYS = 10_000
MAX_KEY_LENGTH = 255


@dataclass(slots=True)
class _Entry(Generic[Answer]):
    fingerprint: bytes
    began: float
    answer: asyncio.Future[Answer]


def check_key(key: str) -> None:
    """Refuse an Idempotency-Key that cannot be kept.

    Raises:
        Problem: `invalid_header`.
    """
    if not 0 < len(key) <= MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()):
        raise Problem(
            "invalid_header",
            f"Idempotency-Key must be 1 to {MAX_KEY_LENGTH} printable ASCII characters.",
        )


class IdempotentAnswers(Generic[Answer]):
    """The answers to requests that carried a key.

    Args:
        now: Seconds on a clock that never goes back; the running loop's otherwise.
        max_keys: So many are kept; the oldest makes room for one more.
        keep_seconds: For so long.
    """

    def __init__(
        self,
        now: Callable[[], float] = lambda: asyncio.get_running_loop().time(),
        *,
        max_keys: int = MAX_KEYS,
        keep_seconds: float = _KEEP_SECONDS,
    ) -> None:
        self._now = now
        self._max_keys = max_keys
        self._keep_seconds = keep_seconds
        self._entries: dict[str, _Entry[Answer]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def answer(
        self, key: str, fingerprint: bytes, work: Callable[[], Awaitable[Answer]]
    ) -> tuple[Answer, bool]:
        """Return the first answer to a request with this key, doing `work` when there is none.

        Args:
            key: What the client calls the request.
            fingerprint: Tells requests apart that differ.
            work: Grants the request, or raises.

        Returns:
            The answer, and whether it was there already.

        Raises:
            Problem: `idempotency_mismatch`, or `invalid_header` for a key that is empty, too
                long or not printable ASCII.
            Exception: What `work` raised; every waiting repetition gets the same.
        """
        check_key(key)
        self._forget_old()
        entry = self._entries.get(key)
        if entry is not None:
            if entry.fingerprint != fingerprint:
                raise Problem("idempotency_mismatch")
            return await asyncio.shield(entry.answer), True
        if len(self._entries) >= self._max_keys:
            del self._entries[next(iter(self._entries))]
        entry = self._entries[key] = _Entry(
            fingerprint, self._now(), asyncio.get_running_loop().create_future()
        )
        try:
            answer = await work()
        except BaseException as error:
            if self._entries.get(key) is entry:
                del self._entries[key]
            _pass_on(entry.answer, error)
            # The error knows this frame, which would keep it, and all that asking has made.
            del entry
            raise
        entry.answer.set_result(answer)
        return answer, False

    def _forget_old(self) -> None:
        oldest = self._now() - self._keep_seconds
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.began > oldest:
                return
            del self._entries[key]


def _pass_on(answer: asyncio.Future[Answer], error: BaseException) -> None:
    if not isinstance(error, Exception):
        answer.cancel()
        return
    answer.set_exception(error)
    answer.exception()  # It is raised here as well: nobody need wait for it.
