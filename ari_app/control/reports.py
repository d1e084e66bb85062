"""Asks for what the agent's service says of a conversation, where it does not tell by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from ari_app.errors import AgentError
from ari_app.process.loop import cancelled
from ari_app.records.agent_report import NoReport, Report, report_on
from ari_app.records.events import CallEnded, CallEvent
from ari_app.records.record import CallRecord

log = structlog.get_logger(__name__)

PAUSES: Final = (10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds before each time of asking: the analysis takes its time."""
_MAX_WAITING: Final = 1000
_AT_ONCE: Final = 4


class ReportFetcher:
    """Asks for the report on each conversation when its call is over; a listener of the journal.

    Args:
        fetch: Asks the service for a conversation; it has a deadline of its own.
        keep: Takes what is to be kept; never waits, never raises.
    """

    def __init__(
        self, fetch: Callable[[str], Awaitable[object]], keep: Callable[[Report], None]
    ) -> None:
        self._fetch = fetch
        self._keep = keep
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def heard(self, record: CallRecord, event: CallEvent) -> None:
        """Begin to ask when a call has ended in which there was a conversation."""
        if not isinstance(event, CallEnded) or not record.has_conversed:
            return
        if len(self._tasks) >= _MAX_WAITING:
            log.warning("agent_report_not_asked_for", session=record.session_id)
            return
        task = asyncio.create_task(
            self._ask(record.conversation_id), name=f"report {record.conversation_id}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Ask for nothing more."""
        await cancelled(*self._tasks)

    async def _ask(self, conversation_id: str) -> None:
        why = "it is not analysed yet"
        for pause in PAUSES:
            await asyncio.sleep(pause)
            try:
                async with self._places:
                    report = report_on(await self._fetch(conversation_id))
            except AgentError as error:
                why = str(error)
                if not error.retryable:
                    break
            except NoReport as error:
                why = str(error)
                break
            else:
                if report is not None:
                    self._keep(report)
                    return
        log.warning("agent_report_not_there", conversation=conversation_id, error=why)
