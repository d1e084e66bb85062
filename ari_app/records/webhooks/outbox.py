"""The outbox of webhooks: takes events of calls, and has them sent by one process at a time."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from ari_app.errors import ConfigError
from ari_app.process.addresses import origin
from ari_app.process.files import why_failed
from ari_app.process.network import session_for_others, trusting
from ari_app.records.plain_json import stamp
from ari_app.records.spend.limits import SpendAlert
from ari_app.records.webhooks import events
from ari_app.records.webhooks.keeper import Keeper, SpoolAway
from ari_app.records.webhooks.schedule import Answer
from ari_app.records.webhooks.sender import AT_ONCE, Poster, Receiver, SendStats
from ari_app.records.webhooks.signing import secrets_of
from ari_app.records.webhooks.spool import Counts, Delivery, Spool, SpoolUnusable

log = structlog.get_logger(__name__)

_TURN_SECONDS: Final = 1.0
_LOSS_SECONDS: Final = 300.0
_LAST_SECONDS: Final = 3.0
_LAST_LOOK_SECONDS: Final = 0.05
_COUNT_SECONDS: Final = 5.0
_ASK_SECONDS: Final = 60.0
_TIDY_EVERY: Final = 720
"""So many counts, an hour."""


@dataclass(frozen=True, slots=True)
class OutboxOptions:
    """Who is told, and where what waits is kept.

    Attributes:
        urls: The receivers.
        secret: Signs; several with commas.
        spool: The file.
        ca_file: Certificates to trust instead of the system's.
    """

    urls: Sequence[str]
    secret: str
    spool: Path
    ca_file: Path | None = None


def open_spool(path: Path) -> Spool:
    """Open the file.

    Raises:
        ConfigError: It cannot be used.
    """
    with _usable(path):
        return Spool(path)


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, SpoolUnusable) as error:
        raise ConfigError(not_usable(path, why_failed(error))) from None


def not_usable(path: Path, why: str) -> str:
    """Say that a file can be no spool."""
    return (
        f"WEBHOOK_SPOOL {path} cannot be used: {why}. Name a file in a folder that the service may "
        "write to, or move this one away."
    )


class Outbox:
    """Tells others what happens to calls. Open it with `async with`.

    `heard` is a listener of the journal. Several processes may share a spool: one of them sends,
    and when it dies another one does.

    Args:
        options: Who is told, and where what waits is kept.
        now: Unix time.
        again: The spool was used before: should it be away, events wait as they do then.

    Attributes:
        stats: What became of deliveries, in this process.
        counts: What is in the spool; looked at every 5 s, by whoever sends.
    """

    def __init__(
        self,
        options: OutboxOptions,
        *,
        now: Callable[[], float] = time.time,
        again: bool = False,
    ) -> None:
        self._options = options
        self._again = again
        self._now = now
        self.stats = SendStats()
        self.counts = Counts()
        self._keeper = Keeper(options.spool, len(options.urls), now, self._wake)
        self._receivers: list[Receiver] = []
        self._lost_before, self._lost_until = 0, 0.0
        self._turn: int | None = None
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Outbox:
        """Begin.

        Raises:
            ConfigError: The spool or the certificates cannot be used.
        """
        tls = trusting(self._options.ca_file, "WEBHOOK_CA_FILE")
        with _usable(self._options.spool):
            await self._keeper.open(again=self._again)
        # When the thread has ended, that takes it.
        self._exit.callback(self._leave_turn)
        self._exit.push_async_callback(self._keeper.close)
        session = await self._exit.enter_async_context(
            session_for_others(max_connections=AT_ONCE * len(self._options.urls), decompress=False)
        )
        poster = Poster(session, secrets_of(self._options.secret), tls=tls, now=self._now)
        self._receivers = [
            Receiver(number, url, self._keeper, poster, self.stats, self._now)
            for number, url in enumerate(self._options.urls, 1)
        ]
        sending = asyncio.create_task(self._send(), name="webhooks")
        self._exit.push_async_callback(_end, sending)
        self._exit.push_async_callback(self._send_the_last)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._exit.aclose()

    async def _send_the_last(self) -> None:
        """Give what has just been told the time for one attempt; it is on disk anyway."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                while (  # noqa: ASYNC110
                    any(each.listens for each in self._receivers) and await self._ask(Spool.untried)
                ):
                    await asyncio.sleep(_LAST_LOOK_SECONDS)

    # --- what happens

    def began(self, document: Mapping[str, Any]) -> None:
        """Tell that a call has begun; never waits, never raises."""
        self._put(lambda at: events.call_started(document, at))

    def ended(self, document: Mapping[str, Any]) -> None:
        """Tell that a call has ended; the same call told again is told once."""
        self._put(lambda at: events.call_ended(document, at))

    def recorded(self, document: Mapping[str, Any], recording: Mapping[str, Any]) -> None:
        """Tell that a recording of a call is ready; never waits, never raises.

        Args:
            document: The call's, or no more than its `session_id`.
            recording: As `recordings` in the document has it.
        """
        self._put(lambda at: events.recording_ready(document, recording, at))

    def spent(self, alert: SpendAlert) -> None:
        """Tell that a limit of a day is near, or reached; never waits, never raises."""
        self._put(lambda at: events.spend_alert(alert, at))

    def _put(self, make: Callable[[str], events.Event]) -> None:
        at = stamp(datetime.fromtimestamp(self._now(), UTC)) or ""
        try:
            event = make(at)
        except (TypeError, ValueError, KeyError):
            self._keeper.stats.lost += 1
            log.exception("webhook_lost")
            return
        self._keeper.put(event)

    # --- what is asked

    async def of_call(self, session_id: str) -> list[dict[str, Any]]:
        """Return the deliveries of a call, for its record.

        Returns:
            Empty also while the spool does not answer; that is logged.
        """
        try:
            found = await self._keeper.ask(lambda spool: spool.of(session_id), 2.0)
        except SpoolAway as error:
            log.warning("webhooks_not_read", error=str(error))
            return []
        urls = self._options.urls
        return [told(each, urls) for each in found if each.session_id == session_id]

    async def forget(self, session_id: str, document: object = None) -> None:
        """Delete everything of a call; a hook of the call log's.

        Raises:
            SpoolAway: It was not deleted.
        """
        await self._keeper.forget(session_id)

    @property
    def lost(self) -> int:
        """How many events could not be kept."""
        return self._keeper.stats.lost

    def problems(self) -> list[str]:
        """Say what is lost, in a sentence: for `/health/ready`, for five minutes after each."""
        lost, now = self.lost, time.monotonic()
        if lost > self._lost_before:
            self._lost_before, self._lost_until = lost, now + _LOSS_SECONDS
        if now >= self._lost_until:
            return []
        return [" ".join([f"Webhooks are lost, {lost} so far.", *self.warnings()])]

    def warnings(self) -> list[str]:
        """Say why events cannot be kept at the moment, while none is lost yet."""
        failure = self._keeper.stats.failure
        if failure is None:
            return []
        return [f"WEBHOOK_SPOOL {self._options.spool} cannot be written: {failure}."]

    # --- sending

    def _wake(self) -> None:
        for receiver in self._receivers:
            receiver.wake()

    async def _send(self) -> None:
        while True:
            try:
                await self._send_in_turn()
            except Exception:
                # What waits is on disk: it is sent a little later.
                log.exception("webhooks_interrupted")
                await asyncio.sleep(_TURN_SECONDS)

    async def _send_in_turn(self) -> None:
        # Another process tells nobody that it dies.
        while not await self._ask(lambda _: self._has_turn()):  # noqa: ASYNC110
            await asyncio.sleep(_TURN_SECONDS)
        await self._ask(lambda spool: spool.give_up_beyond(len(self._receivers), self._now()))
        async with asyncio.TaskGroup() as group:
            for receiver in self._receivers:
                group.create_task(receiver.run())
            group.create_task(self._look_after())

    def _has_turn(self) -> bool:
        """Whether no other process sends; the kernel takes that from whoever dies."""
        if self._turn is not None:
            # Asked before, when the disk answered later than anybody waited.
            return True
        path = self._options.spool
        file = os.open(
            path.with_name(f"{path.name}-turn"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._turn = file
        return True

    def _leave_turn(self) -> None:
        file, self._turn = self._turn, None
        if file is not None:
            os.close(file)

    async def _look_after(self) -> None:
        rounds = 0
        while True:
            if (counts := await self._ask(Spool.counts)) is not None:
                self.counts.waiting, self.counts.dead = counts.waiting, counts.dead
            if rounds % _TIDY_EVERY == 0:
                await self._ask(lambda spool: spool.tidy(self._now()))
            rounds += 1
            await asyncio.sleep(_COUNT_SECONDS)

    async def _ask(self, do: Callable[[Spool], Any]) -> Any:
        try:
            return await self._keeper.ask(do, _ASK_SECONDS)
        except SpoolAway as error:
            log.warning("webhooks_not_read", error=str(error))
            return None


async def send_test(options: OutboxOptions) -> list[tuple[str, Answer, float]]:
    """Send a test event to each receiver at once, by no spool.

    Returns:
        The address, what it answered, and after how many seconds.

    Raises:
        ConfigError: The certificates cannot be used.
    """
    tls = trusting(options.ca_file, "WEBHOOK_CA_FILE")
    at = stamp(datetime.fromtimestamp(time.time(), UTC)) or ""
    async with session_for_others(decompress=False) as session:
        poster = Poster(session, secrets_of(options.secret), tls=tls)

        async def send(url: str) -> tuple[str, Answer, float]:
            event, began = events.test_event(at), time.monotonic()
            answer = await poster.post(url, event.id, event.kind, 1, event.body)
            return url, answer, time.monotonic() - began

        return list(await asyncio.gather(*map(send, options.urls)))


def told(delivery: Delivery, urls: Sequence[str]) -> dict[str, Any]:
    """Return a delivery as others are shown it, without what is secret in its address."""
    number = delivery.receiver

    def when(moment: float | None) -> str | None:
        return None if moment is None else stamp(datetime.fromtimestamp(moment, UTC))

    waits = delivery.state == "waiting"
    return {
        "event_id": delivery.event_id,
        "type": delivery.kind,
        "receiver": origin(urls[number - 1]) if number <= len(urls) else None,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "http_status": delivery.status,
        "error": delivery.error,
        "created_at": when(delivery.created_at),
        "tried_at": when(delivery.tried_at),
        "next_at": when(delivery.due_at) if waits and delivery.due_at else None,
        "settled_at": when(delivery.settled_at),
    }


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
