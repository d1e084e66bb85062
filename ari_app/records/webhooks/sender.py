"""Sends what waits in the spool: to each receiver by itself, of each call one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import aiohttp
import structlog

from ari_app.process.addresses import origin
from ari_app.process.network import read_bounded, why_unreachable
from ari_app.records.webhooks.keeper import Keeper, SpoolAway
from ari_app.records.webhooks.schedule import Answer, Fate, judge, retry_after
from ari_app.records.webhooks.signing import sign
from ari_app.records.webhooks.spool import Ready

log = structlog.get_logger(__name__)

AT_ONCE: Final = 8
"""Deliveries under way to one receiver."""
_ANSWER_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 1.0
_WRITE_AGAIN_SECONDS: Final = 1.0
_MAX_ANSWER_BYTES: Final = 16 * 1024
_AGENT: Final = "ari-app"


@dataclass(slots=True)
class SendStats:
    """Counters of a process.

    Attributes:
        delivered: Events that a receiver has taken.
        failed: Attempts that came to nothing.
        dead: Deliveries that were given up.
    """

    delivered: int = 0
    failed: int = 0
    dead: int = 0


class Poster:
    """Posts events to receivers: signed, with a deadline, without following anybody elsewhere.

    Args:
        session: Its connections are used again.
        secrets: Each signs.
        tls: Whose certificates are trusted.
        now: Unix time.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        secrets: list[bytes],
        *,
        tls: ssl.SSLContext,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._session = session
        self._secrets = secrets
        self._tls = tls
        self._now = now

    async def post(
        self,
        url: str,
        event_id: str,
        kind: str,
        attempt: int,
        body: bytes,
        traceparent: str | None = None,
    ) -> Answer:
        """Send an event, and say what came of it. Of the answer the status alone counts."""
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": _AGENT,
            "X-AriApp-Signature": sign(self._secrets, body, int(self._now())),
            "X-AriApp-Event": kind,
            "X-AriApp-Event-Id": event_id,
            "X-AriApp-Attempt": str(attempt),
        }
        if traceparent is not None:
            headers["traceparent"] = traceparent
        try:
            async with (
                asyncio.timeout(_ANSWER_SECONDS),
                self._session.post(
                    url,
                    # A stream is sent in pieces: a long transcript holds up nobody.
                    data=io.BytesIO(body),
                    headers=headers,
                    ssl=self._tls,
                    # A redirect would take the call's words elsewhere.
                    allow_redirects=False,
                ) as response,
            ):
                wait = retry_after(response.headers.get("Retry-After"), self._now())
                await _pass_over(response)
                return Answer(response.status, retry_after=wait)
        except TimeoutError:
            return Answer(error=f"no answer within {_ANSWER_SECONDS:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Answer(error=why_unreachable(error)[:200])
        except Exception as error:
            # It must not be tried again at once, whatever it was.
            log.exception("webhook_not_sent", event_id=event_id)
            return Answer(error=type(error).__name__)


async def _pass_over(response: aiohttp.ClientResponse) -> None:
    """Read a short answer, so that the connection can be used again; cut a long one off."""
    # The status has been said.
    with contextlib.suppress(aiohttp.ClientError, OSError):
        await read_bounded(response, _MAX_ANSWER_BYTES)
    if not response.content.at_eof():
        response.close()


class Receiver:
    """Sends to one address.

    Args:
        number: Its place among the receivers, from 1.
        url: The address.
        keeper: Has what is to be sent.
        poster: Sends it.
        stats: Counts.
        now: Unix time.
    """

    def __init__(
        self,
        number: int,
        url: str,
        keeper: Keeper,
        poster: Poster,
        stats: SendStats,
        now: Callable[[], float],
    ) -> None:
        self._number = number
        self._url = url
        self._keeper = keeper
        self._poster = poster
        self._stats = stats
        self._now = now
        self._news = asyncio.Event()
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._quiet_until = 0.0

    @property
    def listens(self) -> bool:
        """Whether it has not asked for quiet."""
        return asyncio.get_running_loop().time() >= self._quiet_until

    def wake(self) -> None:
        """Look at once: there may be something to send."""
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled; what is under way is cut off then, and sent again another time."""
        try:
            while True:
                self._news.clear()
                await self._begin()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._news.wait()
        finally:
            tasks = list(self._under_way.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self) -> None:
        room = AT_ONCE - len(self._under_way)
        if room <= 0 or not self.listens:
            return
        busy = frozenset(self._under_way)
        try:
            ready = await self._keeper.ask(
                lambda spool: spool.take(self._number, self._now(), room, busy)
            )
        except SpoolAway as error:
            log.warning("webhooks_not_read", error=str(error))
            return
        for each in ready:
            task = asyncio.create_task(self._deliver(each), name=f"webhook {each.event_id}")
            self._under_way[each.seq] = task
            task.add_done_callback(partial(self._done, each.seq))

    def _done(self, seq: int, task: asyncio.Task[None]) -> None:
        del self._under_way[seq]
        self.wake()

    async def _deliver(self, each: Ready) -> None:
        loop = asyncio.get_running_loop()
        began, attempt = loop.time(), each.attempts + 1
        answer = await self._poster.post(
            self._url, each.event_id, each.kind, attempt, each.body, each.traceparent
        )
        at = self._now()
        then = judge(answer, attempt, random.uniform(-1, 1))
        if answer.retry_after and then.fate is not Fate.DELIVERED:
            self._quiet_until = max(self._quiet_until, loop.time() + answer.retry_after)
        told = {
            "session": each.session_id,
            "type": each.kind,
            "event_id": each.event_id,
            "to": origin(self._url),
            "attempt": attempt,
            "answer": answer.words,
            "seconds": round(loop.time() - began, 3),
        }
        match then.fate:
            case Fate.DELIVERED:
                self._stats.delivered += 1
                # What goes well would be three lines a call; `ari-app webhooks show` has it.
                write = log.debug if attempt == 1 else log.info
                write("webhook_delivered", **told)
            case Fate.AGAIN:
                self._stats.failed += 1
                log.warning("webhook_failed", **told, again_in=round(then.pause))
            case Fate.DEAD:
                self._stats.failed += 1
                self._stats.dead += 1
                log.error("webhook_given_up", **told)
        # Until this is on disk it is not sent again.
        while True:
            try:
                await self._keeper.ask(
                    lambda spool: spool.settle(each.seq, each.event_id, answer, then, at)
                )
            except SpoolAway as error:
                log.warning("webhooks_not_written", error=str(error))
                await asyncio.sleep(_WRITE_AGAIN_SECONDS)
            else:
                return
