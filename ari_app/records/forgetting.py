"""Follows deletions of calls that others have told of."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

import structlog

from ari_app.process.files import why_failed
from ari_app.records.store.log import OnDelete

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS: Final = 5.0
_LONGEST_PAUSE_SECONDS: Final = 600.0
"""A disk may be away for a day, with all that is to be removed from it."""


class Forgetting:
    """Has removed what there is of calls that were deleted elsewhere. What can be removed does not
    wait for what cannot be.

    Args:
        hooks: Each removes something of a call, as those of the call log do.
    """

    def __init__(self, hooks: Iterable[OnDelete]) -> None:
        self._queues = [_Queue(hook) for hook in hooks]

    def put(self, session_id: str, recordings: Iterable[str]) -> None:
        """Have a call removed, behind those that wait.

        Args:
            session_id: The call.
            recordings: The paths of its recordings.
        """
        document = {"recordings": [{"path": path} for path in recordings]}
        for each in self._queues:
            each.put(session_id, document)

    async def run(self) -> None:
        """Remove what is told until cancelled."""
        await asyncio.gather(*(each.run() for each in self._queues))


class _Queue:
    """What waits for one hook, one call after the other: a machine that comes back hears of all of
    a month at once.

    What cannot be removed is tried again after a pause, which doubles each time; nothing that
    waits behind it is held up.
    """

    def __init__(self, forget: OnDelete) -> None:
        self._forget = forget
        self._waiting: deque[tuple[str, Mapping[str, Any], float]] = deque()
        self._news = asyncio.Event()

    def put(
        self,
        session_id: str,
        document: Mapping[str, Any],
        pause_seconds: float = _FIRST_PAUSE_SECONDS,
    ) -> None:
        self._waiting.append((session_id, document, pause_seconds))
        self._news.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                session_id, document, pause = self._waiting.popleft()
                try:
                    await self._forget(session_id, document)
                except Exception as error:
                    # Said once of each: there may be thousands, again and again.
                    if pause == _FIRST_PAUSE_SECONDS:
                        log.error(
                            "deleted_call_not_forgotten",
                            session=session_id,
                            error=why_failed(error),
                        )
                    longer = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                    loop.call_later(pause, self.put, session_id, document, longer)
