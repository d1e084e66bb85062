"""Tells the call log and the webhooks what becomes of a call's recordings, in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import structlog

from ari_app.call.calls import Calls
from ari_app.errors import AppError
from ari_app.records.record import CallRecord
from ari_app.records.recording.archive import RecordingArchive, merge_parts
from ari_app.records.store.log import CallLog
from ari_app.records.webhooks.outbox import Outbox

log = structlog.get_logger(__name__)

_ASK_AGAIN_SECONDS: Final = 1.0
_END_SECONDS: Final = 2.0
_KEPT_SECONDS: Final = 10.0
_MERGE_AGAIN_SECONDS: Final = 15.0
_TELL_SECONDS: Final = 5.0


async def tell_if_missing(recordings: RecordingArchive, call_log: CallLog) -> None:
    """Say so in the log where there are no recordings, though the call log knows of some: their
    disk may not be mounted, and what is recorded now is below it when it is."""
    with contextlib.suppress(AppError, OSError):
        if await asyncio.to_thread(recordings.is_bare) and await call_log.has_recordings():
            log.warning("recordings_not_there", folder=str(recordings.folder))


class RecordingPublisher:
    """Tells the call log and the webhooks of recordings.

    Args:
        calls: Returns the calls that run, or have just ended.
        document: Makes a call's document.
        call_log: Keeps calls; None: they are not kept.
        outbox: Sends webhooks; None: none are sent.
    """

    def __init__(
        self,
        calls: Callable[[], Calls],
        document: Callable[[CallRecord], Mapping[str, Any]],
        call_log: CallLog | None,
        outbox: Outbox | None,
    ) -> None:
        self._calls = calls
        self._document = document
        self._call_log = call_log
        self._outbox = outbox
        self._telling: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._merging = asyncio.Lock()
        # Of calls that are over: what the log is to have, the newest of each.
        self._newest: dict[str, list[dict[str, Any]]] = {}

    def changed(
        self, session_id: str, parts: list[dict[str, Any]], ready: list[dict[str, Any]]
    ) -> None:
        """Take what is known of a call's recordings; never waits.

        Args:
            session_id: The call.
            parts: All of its recordings, as `recordings` in its document has them.
            ready: Those whose files have been completed since the last time.
        """
        if self._call_log is not None and session_id in self._calls().records:
            self._call_log.amend(session_id, "recordings", parts)
        _keep(self._telling, self._tell(session_id, parts, ready))

    async def _tell(
        self, session_id: str, parts: list[dict[str, Any]], ready: list[dict[str, Any]]
    ) -> None:
        record = self._calls().records.get(session_id)
        document: Mapping[str, Any] | None = None
        if record is not None:
            if ready and (live := self._calls().live(session_id)) is not None:
                # A file may be done a moment before its call: what is told goes in that order.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(live.ended.wait(), _END_SECONDS)
            if ready and self._outbox is not None:
                document = self._document(record)
        elif self._call_log is not None:
            self._newest[session_id] = parts
            await self._kept(self._call_log, session_id)
            try:
                document, ready = await self._merged(self._call_log, session_id, ready)
            except AppError:
                _keep(self._waiting, self._merge_later(self._call_log, session_id))
        if self._outbox is not None:
            for part in ready:
                self._outbox.recorded(document or {"session_id": session_id}, part)

    async def _kept(self, call_log: CallLog, session_id: str) -> None:
        """Wait, for 10 s at most, until the call log has a call that a lost process has left: only
        then have webhooks been told of its end."""
        with contextlib.suppress(AppError, TimeoutError):
            async with asyncio.timeout(_KEPT_SECONDS):
                while await call_log.find(session_id) is None:  # noqa: ASYNC110
                    await asyncio.sleep(_ASK_AGAIN_SECONDS)

    async def _merged(
        self,
        call_log: CallLog,
        session_id: str,
        ready: list[dict[str, Any]],
    ) -> tuple[Mapping[str, Any] | None, list[dict[str, Any]]]:
        """Add what was found of a call's recordings to those in the call log.

        Returns:
            The call's document, if the call log has one, and those of `ready` as they are now.

        Raises:
            AppError: The call log cannot be asked; what was found alone would take the place of
                what it has.
        """
        async with self._merging:
            await call_log.settle()
            document = await call_log.find(session_id)
            parts = list((document or {}).get("recordings") or ())
            if (newest := self._newest.pop(session_id, None)) is not None:
                parts = merge_parts(parts, newest)
                call_log.amend(session_id, "recordings", parts)
        paths = {part["path"] for part in ready}
        return document, [part for part in parts if part["path"] in paths]

    async def _merge_later(self, call_log: CallLog, session_id: str) -> None:
        while session_id in self._newest:
            await asyncio.sleep(_MERGE_AGAIN_SECONDS)
            with contextlib.suppress(AppError):
                await self._merged(call_log, session_id, [])

    async def all_told(self) -> None:
        """Wait until everything has been told, for 5 s at most."""
        for task in self._waiting:
            # The file is found by its old name as well.
            task.cancel()
        if self._telling:
            await asyncio.wait(self._telling, timeout=_TELL_SECONDS)


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
