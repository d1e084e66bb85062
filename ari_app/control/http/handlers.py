"""The handlers of the operations: body in, call control, answer out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Protocol

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from ari_app.call.calls import Calls
from ari_app.control.control import CallControl
from ari_app.control.http.application import (
    audit_changes,
    new_public_app,
    of_itself,
    serve_operations,
)
from ari_app.control.http.audit import CALL, AuditLog
from ari_app.control.http.calls import CallHandlers
from ari_app.control.http.idempotency import IdempotentAnswers
from ari_app.control.http.keys import Keys
from ari_app.control.http.listen import Listening
from ari_app.control.http.middleware import (
    KEY_NAME,
    add_headers,
)
from ari_app.control.http.models import (
    ActionResponse,
    EndCallResponse,
    InitiateCallResponse,
    Readiness,
    SessionList,
    call_id,
    detail,
    summary,
)
from ari_app.control.http.operations import EVENTS_PATH, IDEMPOTENCY_KEY
from ari_app.control.http.page import Watch, page_routes
from ari_app.control.http.rates import RequestRates
from ari_app.control.http.recording import recording_of
from ari_app.control.http.requests import (
    DtmfRequest,
    EndCallRequest,
    InitiateCallRequest,
    MuteRequest,
    RecordingRequest,
    SayToAgentRequest,
    TakeOverRequest,
    TransferRequest,
    read_model,
    read_nothing,
)
from ari_app.control.http.server import while_there
from ari_app.control.http.streams import stream_events
from ari_app.process.loop import in_turns
from ari_app.records.journal import Journal
from ari_app.records.metrics import CONTENT_TYPE, Metrics
from ari_app.records.recording.archive import RecordingArchive
from ari_app.records.store.log import CallLog


class ServiceView(Protocol):
    """The parts of the service that the interface shows."""

    @property
    def calls(self) -> Calls:
        """The calls."""
        ...

    @property
    def control(self) -> CallControl:
        """What may be asked of them."""
        ...

    @property
    def call_log(self) -> CallLog | None:
        """What is kept of calls; None: nothing is."""
        ...

    @property
    def journal(self) -> Journal:
        """What happens in them."""
        ...

    @property
    def metrics(self) -> Metrics:
        """The metrics."""
        ...

    @property
    def recordings(self) -> RecordingArchive | None:
        """The recordings of calls."""
        ...

    async def deliveries(self, session_id: str) -> list[dict[str, Any]]:
        """Return what others were told of a call, and whether they have it."""
        ...

    def readiness(self) -> Readiness:
        """Say whether new calls are taken."""
        ...


class Handlers:
    """One method for each operation.

    Args:
        service: What is shown and acted on.
        keyed: The service asks for an API key.
        public_url: How others reach the interface; None: as the request at hand did.
        number_pattern: What a number to call must match; None is E.164.
    """

    def __init__(
        self,
        service: ServiceView,
        *,
        keyed: bool,
        public_url: str | None = None,
        number_pattern: str | None = None,
    ) -> None:
        self._service = service
        self._calls = CallHandlers(service)
        self._public_url = public_url
        self._listening = Listening(service)
        self._of_itself = of_itself(keyed=keyed, number_pattern=number_pattern)
        # As JSON, for thousands are kept, and the model takes four times as much.
        self._initiated: IdempotentAnswers[str] = IdempotentAnswers()

    def by_name(self) -> Mapping[str, Handler]:
        """Return the handlers by the names of `ari_app.control.http.operations.OPERATIONS`."""
        return {
            "initiate_call": self.initiate_call,
            "end_call": self.end_call,
            "list_sessions": self.list_sessions,
            "get_session": self.get_session,
            "follow_session": self.follow_session,
            "listen": self.listen,
            "transfer": self.transfer,
            "take_over": self.take_over,
            "give_back": self.give_back,
            "dtmf": self.dtmf,
            "hold": self.hold,
            "unhold": self.unhold,
            "say_to_agent": self.say_to_agent,
            "mute": self.mute,
            "recording": self.recording,
            "get_recording": self.get_recording,
            **self._calls.by_name(),
            "ready": self.ready,
            "metrics": self.metrics,
            **self._of_itself,
        }

    # --- calls

    async def initiate_call(self, request: web.Request) -> web.Response:
        """Begin a call; once for each Idempotency-Key."""
        body = await read_model(request, InitiateCallRequest)
        key = request.headers.get(IDEMPOTENCY_KEY)
        if key is None:
            # A client that hangs up before the call begins would not know that there is one: it has
            # no key to ask with again.
            work = asyncio.ensure_future(self._initiate(request, body))
            answer, replayed = await while_there(request, work), False
        else:
            kept, replayed = await self._initiated.answer(
                key, _fingerprint(body), lambda: self._initiate_to_keep(request, body)
            )
            answer = InitiateCallResponse.model_validate_json(kept)
        request[CALL] = answer.session_id
        response = _json(answer)
        if replayed:
            response.headers["Idempotent-Replayed"] = "true"
        return response

    async def _initiate_to_keep(self, request: web.Request, body: InitiateCallRequest) -> str:
        return (await self._initiate(request, body)).model_dump_json()

    async def _initiate(
        self, request: web.Request, body: InitiateCallRequest
    ) -> InitiateCallResponse:
        control = self._service.control
        wish = replace(
            control.understood(body.to_wish()),
            traceparent=request.headers.get("traceparent", ""),
            tracestate=request.headers.get("tracestate", ""),
        )
        record = await control.initiate(wish)
        audio = wish.audio
        is_brought = audio is not None and audio.is_brought
        if is_brought:
            message = "gets the agent when you bring its sound"
        elif audio is None and wish.called_number is not None:
            message = "is called"
        else:
            message = "gets the agent"
        events = EVENTS_PATH.format(session_id=record.session_id)
        return InitiateCallResponse(
            success=True,
            session_id=record.session_id,
            websocket_url=self._websocket_url(request, events),
            message=f"Call initiated successfully: the other side {message}.",
            call_id=wish.reference,
            audio_url=self._websocket_url(request, audio.path) if audio and is_brought else None,
        )

    def _websocket_url(self, request: web.Request, path: str) -> str:
        base = self._public_url or f"{request.scheme}://{request.host}"
        return "ws" + base.removeprefix("http").rstrip("/") + path

    async def end_call(self, request: web.Request) -> web.Response:
        """End a call, and wait until it is over."""
        body = await read_model(request, EndCallRequest)
        control = self._service.control
        over = control.record(body.session_id).ended_at is not None
        record = await control.end(body.session_id, body.reason)
        return _json(
            EndCallResponse(
                success=True,
                session_id=record.session_id,
                call_id=call_id(record),
                duration=round(record.duration(asyncio.get_running_loop().time()), 3),
                message="The call had ended already." if over else "Call ended.",
            )
        )

    # --- sessions

    async def list_sessions(self, request: web.Request) -> web.Response:
        """List all calls."""
        calls = self._service.calls
        sessions = [
            summary(record)
            async for name in in_turns(tuple(calls.records))
            # It may have been forgotten since.
            if (record := calls.record(name)) is not None
        ]
        return _json(
            SessionList(
                active_sessions=calls.count(),
                max_concurrent_calls=calls.max_concurrent_calls,
                sessions=sessions,
            )
        )

    async def get_session(self, request: web.Request) -> web.Response:
        """Show one call."""
        return _json(detail(self._service.control.record(_session_id(request))))

    async def follow_session(self, request: web.Request) -> web.StreamResponse:
        """Stream one call's events, until it has ended."""
        record = self._service.control.record(_session_id(request))
        return await stream_events(request, self._service.journal, record)

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """Let somebody listen to a call."""
        return await self._listening.serve(request, _session_id(request))

    async def transfer(self, request: web.Request) -> web.Response:
        """Pass the caller on."""
        body = await read_model(request, TransferRequest)
        await self._service.control.transfer(_session_id(request), body.to, body.mode)
        return _done(request, "The transfer has begun.")

    async def take_over(self, request: web.Request) -> web.Response:
        """Call a supervisor, who speaks with the caller then."""
        body = await read_model(request, TakeOverRequest)
        who = request.get(KEY_NAME, "")
        await self._service.control.take_over(_session_id(request), body.endpoint, who)
        return _done(request, "The telephone rings; the agent goes on until it is answered.")

    async def give_back(self, request: web.Request) -> web.Response:
        """Let the agent speak with the caller again."""
        await read_nothing(request)
        await self._service.control.give_back(_session_id(request))
        return _done(request, "The caller is back with the agent.")

    async def dtmf(self, request: web.Request) -> web.Response:
        """Press keys."""
        body = await read_model(request, DtmfRequest)
        await self._service.control.send_dtmf(_session_id(request), body.digits.upper())
        return _done(request, "The keys are sent.")

    async def hold(self, request: web.Request) -> web.Response:
        """Give the caller music."""
        await read_nothing(request)
        await self._service.control.hold(_session_id(request), on=True)
        return _done(request, "The caller is on hold.")

    async def unhold(self, request: web.Request) -> web.Response:
        """Give the caller the agent again."""
        await read_nothing(request)
        await self._service.control.hold(_session_id(request), on=False)
        return _done(request, "The caller is back with the agent.")

    async def say_to_agent(self, request: web.Request) -> web.Response:
        """Tell the agent something."""
        body = await read_model(request, SayToAgentRequest)
        await self._service.control.say_to_agent(_session_id(request), body.kind, body.text)
        return _done(request, "The agent has been told.")

    async def mute(self, request: web.Request) -> web.Response:
        """Let the agent not hear the caller, or hear again."""
        body = await read_model(request, MuteRequest)
        await self._service.control.mute(_session_id(request), body.muted)
        return _done(
            request,
            "The agent hears silence." if body.muted else "The agent hears the caller again.",
        )

    async def recording(self, request: web.Request) -> web.Response:
        """Record a call, pause, or go on."""
        body = await read_model(request, RecordingRequest)
        await self._service.control.record_call(_session_id(request), body.on)
        return _done(request, "The call is recorded." if body.on else "The recording pauses.")

    async def get_recording(self, request: web.Request) -> web.StreamResponse:
        """Give out the recording of a call that has ended."""
        return await recording_of(request, self._service, _session_id(request))

    # --- service

    async def ready(self, request: web.Request) -> web.Response:
        """Say whether new calls are taken."""
        readiness = self._service.readiness()
        ok = not readiness.problems
        return _json(readiness, HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE)

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer in Prometheus' text format."""
        text = b"".join([piece async for piece in in_turns(self._service.metrics.pieces())])
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})


def _session_id(request: web.Request) -> str:
    return request.match_info["session_id"]


def _fingerprint(body: BaseModel) -> bytes:
    value = orjson.dumps(body.model_dump(), option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(value).digest()


def _json(model: BaseModel, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(
        status=status.value, text=model.model_dump_json(), content_type="application/json"
    )


def _done(request: web.Request, message: str) -> web.Response:
    return _json(ActionResponse(success=True, session_id=_session_id(request), message=message))


def serve_calls(
    app: web.Application, service: ServiceView, handlers: Handlers, routes: Sequence[web.RouteDef]
) -> Watch:
    """Serve the operations on calls, and the routes of the ways in; streams end when the
    application shuts down.

    Returns:
        What shows all calls, not served yet.
    """
    app.on_response_prepare.append(add_headers)
    watch = Watch(service)

    async def end_streams(_: web.Application) -> None:
        service.journal.close()
        watch.stop()

    app.on_shutdown.append(end_streams)
    serve_operations(app, handlers.by_name())
    app.router.add_routes(routes)
    return watch


def build_web_app(
    service: ServiceView,
    *,
    keys: Keys,
    public_url: str | None = None,
    number_pattern: str | None = None,
    rates: RequestRates | None = None,
    routes: Sequence[web.RouteDef] = (),
    sign_in_seconds: float = 12 * 3600.0,
    audit_file: AuditLog | None = None,
    hidden: Collection[str] = (),
    price: str = "",
) -> web.Application:
    """Build the aiohttp application.

    Args:
        service: What is shown and acted on.
        keys: One of them is asked for on everything but health and metrics; none asks for nothing.
        public_url: How others reach the interface, for the URLs in its answers; None: as the
            request at hand did.
        number_pattern: What a number to call must match as a whole; None is E.164.
        rates: How often each address may ask; None is any number of times.
        routes: What ways in serve here, where they check by themselves who comes.
        sign_in_seconds: How long a browser stays signed in to the page.
        audit_file: Where changes are written down; None: in the log alone.
        hidden: What must not be kept of them: `numbers`.
        price: What a minute with an agent costs: `0.10 EUR`; empty: nobody says.
    """
    app, access = new_public_app(
        keys,
        audit_changes(audit_file, hidden),
        checked_paths=frozenset(route.path for route in routes),
        rates=rates or RequestRates(),
        on_refused=service.metrics.http_was_refused,
        sign_in_seconds=sign_in_seconds,
    )
    handlers = Handlers(
        service, keyed=bool(keys), public_url=public_url, number_pattern=number_pattern
    )
    watch = serve_calls(app, service, handlers, routes)
    features = {
        "log": service.call_log is not None,
        "recordings": service.recordings is not None,
    }
    app.router.add_routes(page_routes(access, watch, features=features, price=price))
    return app
