"""The HTTP interface of several workers: what concerns one call goes to its worker, the rest is of
all of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final, Protocol
from urllib.parse import parse_qs

import orjson
import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from ari_app.control.http.application import (
    audit_changes,
    new_app,
    new_public_app,
    of_itself,
    serve_operations,
)
from ari_app.control.http.audit import AuditLog
from ari_app.control.http.idempotency import IdempotentAnswers, check_key
from ari_app.control.http.keys import Keys
from ari_app.control.http.machines import Elsewhere, only_machines
from ari_app.control.http.merged_watch import WATCH_PATH, FrontState, MergedWatch
from ari_app.control.http.middleware import add_headers
from ari_app.control.http.models import Readiness, join_readiness
from ari_app.control.http.operations import IDEMPOTENCY_KEY, OPERATIONS
from ari_app.control.http.page import Watching, page_routes
from ari_app.control.http.rates import RequestRates
from ari_app.control.http.relay import Relay, There, WorkerAway
from ari_app.control.http.requests import read_body
from ari_app.control.http.server import while_there
from ari_app.control.workers.merged_metrics import FrontMetrics, MergedMetrics
from ari_app.control.workers.roster import Worker
from ari_app.process.loop import compute
from ari_app.records.metrics import CONTENT_TYPE

log = structlog.get_logger(__name__)

_ASK_SECONDS: Final = 1.0
_READY_SECONDS: Final = 0.3
"""For a worker to say how it is. Whoever checks this machine waits for half a second (HAProxy) or a
whole one: a single worker that stands still must not be taken for all of them."""
_MOST_MACHINES: Final = 1000
_STREAMS: Final = frozenset({"follow_session", "listen"})
_FORM: Final = "application/x-www-form-urlencoded"


class FrontView(FrontState, Protocol):
    """The parts of the front that the interface shows."""

    @property
    def metrics(self) -> FrontMetrics:
        """What the front counts itself."""
        ...


class FrontHandlers:
    """One method for each operation that is not simply passed on.

    Args:
        front: What is shown.
        relay: Asks the workers.
        keyed: The service asks for an API key.
        number_pattern: What a number to call must match; None is E.164.
        elsewhere: The other machines; None: there are none.
        of_machine: It is one of them who asks, and it has found that this one is to answer.
    """

    def __init__(
        self,
        front: FrontView,
        relay: Relay[Worker],
        *,
        keyed: bool,
        number_pattern: str | None,
        elsewhere: Elsewhere | None,
        of_machine: bool = False,
    ) -> None:
        self._front = front
        self._elsewhere = None if of_machine else elsewhere
        # Machines ask with a key only where this one was asked first: it gives the call to
        # whichever has room, as it did then.
        self._elsewhere_with_key = elsewhere
        self._roster = front.hub.roster
        self._relay = relay
        self._merged = MergedMetrics()
        self._of_itself = of_itself(keyed=keyed, number_pattern=number_pattern)
        self._initiated: IdempotentAnswers[_Kept] = (
            IdempotentAnswers() if elsewhere is None else elsewhere.answers
        )
        self._begin = 0
        self._none_begins = asyncio.Event()
        self._none_begins.set()

    async def all_begun(self) -> None:
        """Wait until nobody waits any more for a call to begin.

        Whoever is cut off asks again, and the next front does not know their key: somebody would be
        called twice.
        """
        await self._none_begins.wait()

    def by_name(self) -> Mapping[str, Handler]:
        """Return the handlers by the names of `ari_app.control.http.operations.OPERATIONS`."""
        ours: dict[str, Handler] = {
            "initiate_call": self.initiate_call,
            "end_call": self.end_call,
            "get_recording": self.get_recording,
            "list_sessions": self.list_sessions,
            "ready": self.ready,
            "metrics": self.metrics,
            **self._of_itself,
        }
        for operation in OPERATIONS:
            passed = self.pass_on if operation.name in _STREAMS else self.relay
            ours.setdefault(operation.name, passed)
        return ours

    # --- what goes to a worker

    async def relay(self, request: web.Request) -> web.StreamResponse:
        """Let the worker answer that has the call, or any where no call is named."""
        body = await read_body(request)
        there = await self._who_has(request.match_info.get("session_id", ""))
        return await there.relay.answer(request, there.to, body)

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Give the connection to the worker that has the call."""
        there = await self._who_has(request.match_info.get("session_id", ""))
        return there.relay.pass_on(request, there.to)

    async def get_recording(self, request: web.Request) -> web.StreamResponse:
        """Give out a recording, whichever machine has the file."""
        there = await self._who_has(request.match_info["session_id"])
        if self._elsewhere is not None and not await self._gives(request, there):
            others = self._elsewhere.all()
            give = await asyncio.gather(*(self._gives(request, each) for each in others))
            there = next(itertools.compress(others, give), there)
        return await there.relay.answer(request, there.to, b"")

    async def _gives(self, request: web.Request, there: There[Any]) -> bool:
        """Return whether a worker, or a machine, would give out what a request asks for."""
        try:
            return await there.relay.would_give(request, there.to, _ASK_SECONDS)
        except WorkerAway:
            return False

    async def way_in(self, request: web.Request) -> web.StreamResponse:
        """Serve what a way in serves, which checks by itself who comes."""
        info = request.match_info
        if "token" in info:
            worker = self._roster.of_token(info["token"]) or self._roomiest()
            return self._relay.pass_on(request, worker)
        if request.content_type != _FORM:
            # What the agent's service sends may hold a call's sound.
            return await self._relay.answer(request, self._roomiest(), request.content)
        body = await read_body(request)
        return await self._relay.answer(request, self._of_way_in(request, body), body)

    def _of_way_in(self, request: web.Request, body: bytes) -> Worker:
        named = request.query.get("worker", "")
        worker = self._roster.of_token(f"{named}.") if named else None
        if worker is None:
            form = parse_qs(body.decode("utf-8", "replace"))
            worker = self._roster.of_line(form.get("CallSid", [""])[0])
        return worker or self._roomiest()

    async def _who_has(self, session_id: str) -> There[Any]:
        """Return the worker, or the other machine, that has a call; any worker if none has it."""
        worker = self._roster.of_session(session_id)
        if worker is None:
            self._await(session_id)
        if worker is None and session_id and self._elsewhere is not None:
            there = await self._elsewhere.of_call(session_id)
            if there is not None:
                return there
        return There(worker or self._roomiest(), self._relay)

    def _await(self, *names: object) -> None:
        """Refuse a request about a call, or a line, of a lost worker, which the next one may go on
        with: any other worker would say that there is none.

        Raises:
            WorkerAway: One of `names` is such a call or line.
        """
        if any(isinstance(name, str) and self._roster.is_awaited(name) for name in names):
            raise WorkerAway

    def _roomiest(self) -> Worker:
        """Return the one with the least to do; one that drains still answers.

        Raises:
            WorkerAway: There is none.
        """
        worker = self._roster.roomiest()
        if worker is None:
            raise WorkerAway
        return worker

    # --- calls

    async def initiate_call(self, request: web.Request) -> web.Response:
        """Begin a call; once for each Idempotency-Key."""
        body = await read_body(request)
        key = request.headers.get(IDEMPOTENCY_KEY)
        if key is None:
            work = asyncio.ensure_future(self._initiate(request, body, self._elsewhere))
            return (await while_there(request, work)).response()
        check_key(key)
        # Whoever was asked first has the answer.
        there = None if self._elsewhere is None else await self._elsewhere.of_key(key)
        if there is not None:
            return _Kept(*await there.relay.ask(request, there.to, body)).response()
        kept, replayed = await self._initiated.answer(
            key, _fingerprint(body), lambda: self._granted(request, body)
        )
        response = kept.response()
        if replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    async def _granted(self, request: web.Request, body: bytes) -> _Kept:
        kept = await self._initiate(request, body, self._elsewhere_with_key)
        if kept.status != HTTPStatus.OK:
            # It is not remembered, but whoever asks at the same time is told the same.
            raise _NotGranted(kept)
        # Every response gets the others anew, and thousands are kept.
        types = [each for each in kept.headers if each[0].lower() == "content-type"]
        return replace(kept, headers=types)

    async def _initiate(
        self, request: web.Request, body: bytes, elsewhere: Elsewhere | None
    ) -> _Kept:
        wish = _object(body)
        named = wish.get("session_id")
        worker = self._roster.of_session(named) if isinstance(named, str) else None
        reference = wish.get("call_id")
        line = None if wish.get("called_number") else reference
        if worker is None and isinstance(line, str):
            worker = self._roster.of_line(line)
        if worker is None:
            self._await(line, named)
        if worker is None and elsewhere is not None:
            there = await elsewhere.for_wish(named, reference, wish.get("called_number"))
            if there is not None:
                # The key is ours to keep: it would be taken there for one that was asked first.
                asked = there.relay.ask(request, there.to, body, without=IDEMPOTENCY_KEY)
                return _Kept(*await asked)
        worker = worker or self._roomiest()
        # Many may be asked for before the first of them counts.
        worker.promised += 1
        self._begin += 1
        self._none_begins.clear()
        try:
            return _Kept(*await self._relay.ask(request, worker, body))
        finally:
            worker.promised -= 1
            self._begin -= 1
            if not self._begin:
                self._none_begins.set()

    async def end_call(self, request: web.Request) -> web.StreamResponse:
        """End a call, and wait until it is over."""
        body = await read_body(request)
        named = _object(body).get("session_id")
        there = await self._who_has(named if isinstance(named, str) else "")
        return await there.relay.answer(request, there.to, body)

    async def list_sessions(self, request: web.Request) -> web.Response:
        """List all calls."""
        told = await self._of_all("/sessions")
        lists = [orjson.loads(body) for _, body in told.values()]
        limit = self._front.hub.max_calls
        if self._elsewhere is not None:
            others = [orjson.loads(body) for body in await self._elsewhere.of_all("/sessions")]
            limit = self._elsewhere.limit(
                limit + sum(one["max_concurrent_calls"] for one in others)
            )
            lists += others
        sessions = [each for one in lists for each in one["sessions"]]
        sessions.sort(key=lambda each: each.get("started_at") or "")
        return web.json_response(
            {
                "active_sessions": sum(one["active_sessions"] for one in lists),
                "max_concurrent_calls": limit,
                "sessions": sessions,
            },
            dumps=lambda value: orjson.dumps(value).decode(),
        )

    # --- service

    async def ready(self, request: web.Request) -> web.Response:
        """Say whether new calls are taken."""
        readiness = await self.readiness()
        status = HTTPStatus.SERVICE_UNAVAILABLE if readiness.problems else HTTPStatus.OK
        return web.Response(
            status=status.value,
            text=readiness.model_dump_json(),
            content_type="application/json",
        )

    async def readiness(self) -> Readiness:
        """Ask all workers how they are."""
        told = await self._of_all("/health/ready", _READY_SECONDS)
        each = {number: Readiness.model_validate_json(body) for number, (_, body) in told.items()}
        known = [one for one in each.values() if not one.problems]
        problems, warnings = join_readiness(
            (self._front.problems(), self._front.warnings()),
            [(one.problems, one.warnings) for one in each.values()],
            self._roster.problems(),
        )
        said = next(iter([*known, *each.values()]), None)
        return Readiness(
            status="not_ready" if problems else "ready",
            problems=problems,
            warnings=warnings,
            active_sessions=sum(one.active_sessions for one in each.values()),
            asterisk_version=None if said is None else said.asterisk_version,
            media_transport=None if said is None else said.media_transport,
        )

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer in Prometheus' text format."""
        told = await self._of_all("/metrics")
        metrics = self._front.metrics
        metrics.ready.set(not self._front.problems() and self._roster.takes)
        taking = sum(worker.takes and not worker.draining for worker in self._roster)
        metrics.workers.labels("taking").set(taking)
        metrics.workers.labels("not_taking").set(self._roster.expected - taking)
        metrics.worker_calls.clear()
        for worker in self._roster:
            metrics.worker_calls.labels(worker.number).set(worker.used)
        texts = {str(number): body.decode() for number, (_, body) in told.items()}
        # Not in the loop: callers wait in the front for their worker.
        text = await compute(self._merged.render, metrics.render(), texts)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def _of_all(
        self, path: str, seconds: float = _ASK_SECONDS
    ) -> dict[int, tuple[int, bytes]]:
        """Ask all workers; those that do not answer are left out."""
        workers = list(self._roster)
        answers = await asyncio.gather(
            *(self._relay.get(worker, path, seconds) for worker in workers),
            return_exceptions=True,
        )
        found = {}
        for worker, answer in zip(workers, answers, strict=True):
            if isinstance(answer, WorkerAway):
                continue
            if isinstance(answer, BaseException):
                raise answer
            found[worker.number] = answer
        return found


@dataclass(frozen=True, slots=True)
class _Kept:
    """A worker's answer, kept to be given again."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def response(self) -> web.Response:
        response = web.Response(status=self.status, body=self.body)
        for name, value in self.headers:
            response.headers[name] = value
        return response


class _NotGranted(Exception):
    """A worker's refusal, as it has worded it."""

    def __init__(self, kept: _Kept) -> None:
        super().__init__("not granted")
        self.kept = kept


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer with a worker's refusal as it has worded it."""
    try:
        return await handler(request)
    except _NotGranted as refusal:
        return refusal.kept.response()


def _object(body: bytes) -> dict[str, Any]:
    """Return a body's JSON object; an empty one where it is none, which the worker then refuses."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _fingerprint(body: bytes) -> bytes:
    with contextlib.suppress(orjson.JSONDecodeError, orjson.JSONEncodeError):
        body = orjson.dumps(orjson.loads(body), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(body).digest()


def build_front_app(
    front: FrontView,
    relay: Relay[Worker],
    *,
    keys: Keys,
    number_pattern: str | None,
    rates: RequestRates,
    routes: Sequence[tuple[str, str]],
    features: dict[str, bool],
    sign_in_seconds: float,
    elsewhere: Elsewhere | None = None,
    audit_file: AuditLog | None = None,
    hidden: Collection[str] = (),
    price: str = "",
) -> web.Application:
    """Build the aiohttp application.

    Args:
        front: What is shown.
        relay: Asks the workers.
        keys: One of them is asked for on everything but health and metrics; none asks for nothing.
        number_pattern: What a number to call must match as a whole; None is E.164.
        rates: How often each address may ask.
        routes: Method and path of what ways in serve, where they check by themselves who comes.
        features: What the service has: `log` and `recordings`.
        sign_in_seconds: How long a browser stays signed in to the page.
        elsewhere: The other machines; None: there are none.
        audit_file: Where changes are written down that reach no worker; None: in the log alone.
        hidden: What must not be kept, as `RECORDS_HIDE` says.
        price: What a minute with an agent costs: `0.10 EUR`; empty: nobody says.
    """
    app, access = new_public_app(
        keys,
        audit_changes(audit_file, hidden),
        refusals,
        checked_paths=frozenset(path for _, path in routes),
        rates=rates,
        on_refused=front.metrics.http_was_refused,
        sign_in_seconds=sign_in_seconds,
    )
    app.on_response_prepare.append(add_headers)
    watch = MergedWatch(front, relay, elsewhere)
    _end_with(app, watch)
    handlers = FrontHandlers(
        front, relay, keyed=bool(keys), number_pattern=number_pattern, elsewhere=elsewhere
    )
    if elsewhere is None:
        # Several machines go on asking this one for as long as it lasts.
        app.on_shutdown.append(lambda _: handlers.all_begun())
    serve_operations(app, handlers.by_name())
    for method, path in routes:
        app.router.add_route(method, path, handlers.way_in)
    app.router.add_routes(page_routes(access, watch, features=features, price=price))
    # What only the workers know of.
    app.router.add_route(hdrs.METH_ANY, "/{path:.*}", handlers.relay)
    return app


def _end_with(app: web.Application, watch: Watching) -> None:
    """End what pages are told when the application ends."""

    async def end_streams(_: web.Application) -> None:
        watch.stop()

    app.on_shutdown.append(end_streams)


def build_machine_app(
    front: FrontView,
    relay: Relay[Worker],
    *,
    secret: str,
    number_pattern: str | None,
    routes: Sequence[web.RouteDef],
    elsewhere: Elsewhere,
    audit_file: AuditLog | None = None,
    hidden: Collection[str] = (),
) -> web.Application:
    """Build what other machines ask: the same, for the calls of this machine alone.

    Args:
        front: What is shown.
        relay: Asks the workers.
        secret: What the others bring.
        number_pattern: What a number to call must match as a whole; None is E.164.
        routes: What only machines ask.
        elsewhere: The other machines.
        audit_file: Where changes are written down that reach no worker; None: in the log alone.
        hidden: What must not be kept, as `RECORDS_HIDE` says.
    """
    app = new_app(
        only_machines(secret, front.metrics.http_was_refused),
        audit_changes(audit_file, hidden),
        refusals,
    )
    app.on_response_prepare.append(add_headers)
    handlers = FrontHandlers(
        front,
        relay,
        keyed=True,
        number_pattern=number_pattern,
        elsewhere=elsewhere,
        of_machine=True,
    )
    serve_operations(app, handlers.by_name())
    watch = MergedWatch(front, relay, most=_MOST_MACHINES)
    _end_with(app, watch)
    app.router.add_get(WATCH_PATH, watch.serve)
    app.router.add_routes(routes)
    return app
