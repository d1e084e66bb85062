"""What pages are told of the calls of all workers and of all machines."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final, Protocol

import aiohttp
import orjson
import structlog
from aiohttp import web

from ari_app.control.http.machines import Elsewhere
from ari_app.control.http.models import join_readiness
from ari_app.control.http.page import MOST_WATCHERS, Look, Watching
from ari_app.control.http.relay import Relay, There
from ari_app.control.workers.hub import Hub
from ari_app.control.workers.roster import Worker

log = structlog.get_logger(__name__)

WATCH_PATH: Final = "/page/watch"
_FIRST_SECONDS: Final = 1.0
_MOST_NEWS: Final = 64 * 1024 * 1024
"""Bytes of what a worker tells at once: at first all its calls, those of the last minute too, with
some 400 bytes of each. No worker has so many; aiohttp's own limit is that of 1400."""


class FrontState(Protocol):
    """A front: its workers, and what is wrong."""

    @property
    def hub(self) -> Hub:
        """The workers."""
        ...

    def problems(self) -> list[str]:
        """Say why no call can come in or go out, beside what the workers say."""
        ...

    def warnings(self) -> list[str]:
        """Say what else is wrong, beside what the workers say."""
        ...


class MergedWatch(Watching):
    """Tells pages what changes among the calls of all workers, and of all machines.

    While somebody watches, each of them is watched, by one stream however many pages there are.

    Args:
        front: What knows the workers, and what is wrong beside them.
        relay: Asks the workers.
        elsewhere: The other machines; None: there are none, or it is they who watch.
        most: How many may watch at once.
    """

    def __init__(
        self,
        front: FrontState,
        relay: Relay[Worker],
        elsewhere: Elsewhere | None = None,
        most: int = MOST_WATCHERS,
    ) -> None:
        super().__init__(most)
        self._front = front
        self._hub = front.hub
        self._relay = relay
        self._elsewhere = elsewhere
        self._told: dict[Worker | str, _Mirror] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_watching(), name="watch")
        try:
            await self._all_heard()
            return await super()._stream(request)
        finally:
            if self._watchers <= 1:
                self.forget()

    def stop(self) -> None:
        """End all streams: nothing more will come."""
        super().stop()
        self.forget()

    def forget(self) -> None:
        """Stop watching workers and machines."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
        for mirror in self._told.values():
            mirror.close()
        self._told.clear()

    async def _all_heard(self) -> None:
        """Wait for the first news of all workers and machines, for 1 s at most: a page that comes
        again takes calls that it is not told of for ended."""
        await asyncio.sleep(0)  # for the keeper to begin
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_SECONDS):
                await asyncio.gather(*(each.heard.wait() for each in self._told.values()))

    async def _keep_watching(self) -> None:
        while True:
            there = self._all()
            for who in self._told.keys() - there.keys():
                self._told.pop(who).close()
            for who, each in there.items():
                mirror = self._told.setdefault(who, _Mirror())
                if mirror.task is None or mirror.task.done():
                    mirror.heard.clear()
                    mirror.task = asyncio.create_task(
                        self._watch(each, mirror), name="watch a worker"
                    )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._hub.changed()

    def _all(self) -> dict[Worker | str, There[Any]]:
        """Return whom to watch: workers, and machines by a name that each of their starts makes
        anew."""
        found: dict[Worker | str, There[Any]] = {
            worker: There(worker, self._relay) for worker in self._hub.roster
        }
        if self._elsewhere is not None:
            found |= {f"{each.to.name}/{each.to.run}": each for each in self._elsewhere.all()}
        return found

    async def _watch(self, there: There[Any], mirror: _Mirror) -> None:
        try:
            async with there.relay.stream(there.to, WATCH_PATH) as response:
                response.raise_for_status()
                while line := await response.content.readline(max_line_length=_MOST_NEWS):
                    if line.startswith(b"data: "):
                        mirror.take(orjson.loads(line[6:]))
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError):
            # It ends, or is not there yet: whoever is there in a second is watched.
            pass
        except Exception:
            match there.to:
                case Worker(number=number):
                    log.exception("worker_not_watched", worker=number)
                case machine:
                    log.exception("machine_not_watched", machine=machine.name)
        finally:
            mirror.heard.set()

    async def _look(self) -> Look:
        now = asyncio.get_running_loop().time()
        rows: dict[str, dict[str, Any]] = {}
        levels: dict[str, Any] = {}
        running, limit = 0, self._hub.max_calls
        here: list[tuple[list[str], list[str]]] = []
        for who, mirror in self._told.items():
            rows.update(mirror.rows)
            levels.update(mirror.levels)
            running += mirror.running
            if not isinstance(who, Worker):
                limit += mirror.limit
            elif mirror.heard.is_set():
                here.append((mirror.problems, mirror.warnings))
        if self._elsewhere is not None:
            limit = self._elsewhere.limit(limit)
        own = self._front.problems(), self._front.warnings()
        problems, warnings = join_readiness(own, here, self._hub.roster.problems())
        rest = {
            "levels": levels,
            "running": running,
            "limit": limit,
            "problems": problems,
            "warnings": warnings,
        }
        return Look(now, rows, rest)


class _Mirror:
    """The calls of one worker, or of another machine, as it tells of them.

    Attributes:
        task: Listens to it.
        heard: It has told of them all, or will not for now.
    """

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.heard = asyncio.Event()
        self.rows: dict[str, dict[str, Any]] = {}
        self.levels: dict[str, Any] = {}
        self.running = self.limit = 0
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def close(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def take(self, news: dict[str, Any]) -> None:
        if not self.heard.is_set():
            # It tells of all of them: what it had told before, over a connection that is gone, may
            # be over.
            self.rows.clear()
        for row in news["calls"]:
            self.rows[row["id"]] = row
        for key in news["gone"]:
            self.rows.pop(key, None)
        self.levels, self.running = news["levels"], news["running"]
        self.limit = news["limit"]
        # A worker of another version, while all are replaced, may not tell them.
        self.problems, self.warnings = news.get("problems", []), news.get("warnings", [])
        self.heard.set()
