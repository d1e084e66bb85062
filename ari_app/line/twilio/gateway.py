"""The way in and out through Twilio: its webhooks, and who may come with which stream."""

from __future__ import annotations

import asyncio
import re
import socket as socket_module
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl

import structlog
from aiohttp import hdrs, web

from ari_app.line import arguments
from ari_app.line.arguments import OwnArguments
from ari_app.line.interface import WORKER_LOST, Arrival, CallEnd, Outcome, Placing, Status
from ari_app.line.twilio import twiml
from ari_app.line.twilio.leg import (
    AFTER_PATH,
    MEDIA_PATH,
    STATUS_PATH,
    TARGET,
    VOICE_PATH,
    Rest,
    TwilioOptions,
    after_query,
)
from ari_app.line.twilio.line import TwilioLine
from ari_app.line.twilio.protocol import (
    ANSWERED,
    MAX_MESSAGE_BYTES,
    TERMINAL,
    is_sid,
    screened,
)
from ari_app.line.twilio.rest import Fields, TwilioError
from ari_app.line.twilio.signature import Signatures
from ari_app.line.twilio.twiml import Ending
from ari_app.line.websocket_input import BadInput
from ari_app.process.network import let_go
from linekit.clock import FrameClock

log = structlog.get_logger(__name__)

_BODY_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 0.5
_WRITE_BUFFER_BYTES: Final = 8192
_KEEP: Final = 10_000
_REFUSED_SECONDS: Final = 15.0
_ACCEPTED_SECONDS: Final = 300.0
"""How long until Twilio is asked again whether it accepts us."""
_AGAIN_SECONDS: Final = (2.0, 4.0, 8.0, 16.0, *[30.0] * 480)
"""The pauses before Twilio is asked once more for what was not done; no call is longer than all of
them."""
_OWED_SECONDS: Final = 7.0
"""For the first two of them, when the service stops."""
_LOOK_SECONDS: Final = 2.5
"""With what a call may take to be decided, less than Twilio waits for an answer."""
_LOG_SECONDS: Final = 10.0
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_OWN: Final = frozenset({"caller_id", "called_number", "call_sid", "bodySHA256"})
_MAX_VARIABLES: Final = 100
_MAX_VALUE: Final = 4096
_MAX_PARTY: Final = 128
_REFUSED: Final = "Twilio accepts neither TWILIO_ACCOUNT_SID nor TWILIO_AUTH_TOKEN"
_HINTS: Final = {
    "wrong_signature": "API_PUBLIC_URL must be to the letter what Twilio was given, and "
    "TWILIO_AUTH_TOKEN the primary token of the account and region that has the call",
    "shared_key": "take the Webhook Rule out, or let it not match this address",
}


Form = Mapping[str, Sequence[str]]


_STATUS: Final[Mapping[str, type[web.HTTPException]]] = {
    "malformed": web.HTTPBadRequest,
    "no_websocket": web.HTTPBadRequest,
    "too_late": web.HTTPRequestTimeout,
    "unknown_token": web.HTTPNotFound,
    "token_used": web.HTTPNotFound,
}
"""What is answered to what is refused; 403 to everything else."""


class Api(Rest, Protocol):
    """The requests of the gateway, as `TwilioApi` carries them out."""

    @property
    def refused(self) -> bool: ...

    async def check(self) -> None: ...

    async def close(self) -> None: ...


class TwilioGateway:
    """The way in and out through an account at Twilio.

    Args:
        options: What all lines share.
        api: Twilio's REST interface; closed with the gateway.
        signatures: Tell what is Twilio's.
        clock: Gives out the frames of all calls.
        on_refused: Called with a reason for each request and stream that is refused, or closed for
            what it has sent.

    Attributes:
        routes: What it serves on the HTTP server, where it checks by itself who comes.
    """

    name = "twilio"

    def __init__(
        self,
        options: TwilioOptions,
        api: Api,
        signatures: Signatures,
        clock: FrameClock,
        on_refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._options, self._api, self._clock = options, api, clock
        self._signatures = signatures
        self._on_refused = on_refused
        self._take: Callable[[Arrival], object] | None = None
        self._lines: dict[str, TwilioLine] = {}
        self._expected: dict[str, TwilioLine] = {}
        self._used: dict[str, None] = {}
        # How calls ended of which Twilio may still ask; names of ours of which nothing was heard.
        self._endings: dict[str, Ending] = {}
        self._given_up: dict[str, None] = {}
        self._logged: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.routes = [
            web.post(VOICE_PATH, self.voice),
            web.post(AFTER_PATH, self.after),
            web.post(STATUS_PATH, self.status),
            web.get(MEDIA_PATH, self.media),
        ]

    # --- ari_app.line.interface.Gateway

    async def run(self, take: Callable[[Arrival], object]) -> None:
        """Take calls in until cancelled; look now and then whether Twilio accepts us."""
        self._take = take
        try:
            while True:
                try:
                    await self._api.check()
                except TwilioError as error:
                    # Calls come in all the same, and a request says more about its own failure.
                    self._say("twilio_rest_failed", error=str(error), code=error.code)
                await asyncio.sleep(_REFUSED_SECONDS if self._api.refused else _ACCEPTED_SECONDS)
        finally:
            self._take = None

    def serves(self, how: Placing) -> bool:
        """Whether we are the ones who call."""
        return how.audio is None and not how.needs_channel

    def place(self, session_id: str, number: str, how: Placing) -> TwilioLine:
        """Make a line to somebody."""
        return self._line(f"twilio-{session_id}", how.caller_id, number, placing=how)

    @property
    def connected(self) -> bool:
        """Whether Twilio can be told to call."""
        return not self._api.refused

    def problems(self) -> list[str]:
        """Say that Twilio does not accept us, if that is so."""
        return [_REFUSED] if self._api.refused else []

    def adopt(self, session_id: str, kept: Mapping[str, Any], begin: Callable[[], None]) -> None:
        """Adopt none: their sound ended with the process that they came to."""

    async def mend(self, *, expected: bool, adopting: bool = False) -> None:
        """Do nothing: who was left without a stream asks what comes after it."""

    async def close(self) -> None:
        """Stop what runs in the background; what is owed to callers has a moment more."""
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=_OWED_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._api.close()

    def _line(self, line_id: str, caller: str, called: str, **more: Any) -> TwilioLine:
        return TwilioLine(
            line_id,
            caller,
            called,
            options=self._options,
            rest=self._api,
            clock=self._clock,
            book=self,
            on_refused=self._on_refused,
            **more,
        )

    # --- ari_app.line.twilio.line.Book

    @property
    def expected(self) -> int:
        """How many calls wait for their stream."""
        return len(self._expected)

    def enter(self, line: TwilioLine) -> None:
        for call_sid in line.calls:
            self._lines[call_sid] = line
        self._lines[_named(line.session_id)] = line

    def expect(self, token: str, line: TwilioLine) -> None:
        self._expected[token] = line

    def withdraw(self, token: str) -> None:
        if self._expected.pop(token, None) is not None:
            _keep(self._used, token, None)

    def leave(self, line: TwilioLine) -> None:
        for name in [name for name, each in self._lines.items() if each is line]:
            del self._lines[name]
        for token in [token for token, each in self._expected.items() if each is line]:
            self.withdraw(token)
        if line.call_sid and line.ending is not None:
            _keep(self._endings, line.call_sid, line.ending)
        elif line.placed and line.session_id:
            _keep(self._given_up, line.session_id, None)

    def claim(self, token: str) -> TwilioLine | None:
        """Return whose stream it is that has come, once: nobody else can come for it then."""
        line = self._expected.get(token)
        self.withdraw(token)
        return line

    def is_known(self, call_sid: str) -> bool:
        return call_sid in self._lines or call_sid in self._endings

    def owe(self, call_sid: str, fields: Fields) -> None:
        self._spawn(self._change(call_sid, fields))

    async def _change(self, call_sid: str, fields: Fields) -> None:
        for pause in _AGAIN_SECONDS:
            await asyncio.sleep(pause)
            try:
                await self._api.update(call_sid, fields)
            except TwilioError as error:
                if error.code == TwilioError.default_code:
                    log.error("twilio_call_given_up", call_sid=call_sid, error=str(error))
                    return
            else:
                log.info("twilio_call_given_back", call_sid=call_sid)
                return

    # --- what Twilio asks and tells

    async def comes_in(self, form: Form, query: str) -> str:
        """Return the document for a call that comes in.

        Args:
            form: What Twilio says of it.
            query: Of the address that Twilio was given.

        Raises:
            BadInput: It is none.
        """
        call_sid, status = _field(form, "CallSid"), _field(form, "CallStatus")
        if not is_sid(call_sid):
            raise BadInput("malformed", "The form names no call.")
        if status in TERMINAL:
            return twiml.hang_up()
        if call_sid not in self._lines and call_sid in self._endings:
            await self._is_back(call_sid)
        line = self._lines.get(call_sid)
        if line is None:
            if self._take is None:
                ending = Ending(Outcome(Status.REJECTED, "starting"), CallEnd(""))
                return twiml.refusal(ending, self._options.elsewhere)
            line = self._arrives(call_sid, form, query, self._take)
        return await line.document()

    def _arrives(
        self, call_sid: str, form: Form, query: str, take: Callable[[Arrival], object]
    ) -> TwilioLine:
        caller, called = (_party(_field(form, name)) for name in ("From", "To"))
        answered = _field(form, "CallStatus") == ANSWERED
        line = self._line(call_sid, caller, called, call_sid=call_sid, answered=answered)
        # Not its token: that is good from when it is told.
        self._lines[call_sid] = line
        own, variables, problems = read_query(query)
        take(
            Arrival(
                line,
                own.agent_id,
                variables,
                own.overrides,
                own.limits,
                recorded=own.recorded,
                problems=problems,
            )
        )
        return line

    async def _is_back(self, call_sid: str) -> None:
        """Let a call come again that we have had: another document may have sent it back.

        A signature has no time: whoever has an old one could let agents be dialled for ever.
        """
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                info = await self._api.find(call_sid)
        except (TwilioError, TimeoutError) as error:
            # Nobody can say whether the call is there, and whoever was sent back would be lost.
            self._say("twilio_rest_failed", error=str(error))
        else:
            if info is None or info.status in TERMINAL:
                raise BadInput("replayed", "The call has ended.")
        self._endings.pop(call_sid, None)

    async def comes_after(self, form: Form, query: str) -> str:
        """Return the document for what comes after the agent, or after a transfer's target."""
        call_sid, status = _field(form, "CallSid"), _field(form, "CallStatus")
        if dialled := _field(form, "DialCallStatus"):
            return twiml.after_dial(dialled, _ending_in(query), self._options.elsewhere)
        if (line := self._lines.get(call_sid)) is not None:
            if status in TERMINAL:
                line.reported(call_sid, status, _sip_code(form))
            return await line.after(call_sid)
        lost = Ending(WORKER_LOST, CallEnd(""))
        ending = self._endings.get(call_sid, lost)
        return twiml.after(
            ending,
            self._options.elsewhere,
            dialled=self._options.url(after_query(ending)),
            placed=_field(form, "Direction").startswith("outbound"),
        )

    def is_told(self, form: Form, query: str) -> None:
        """Take what Twilio tells of a call: its state, its stream, who has answered.

        Raises:
            BadInput: It belongs to another call.
        """
        call_sid, status = _field(form, "CallSid"), _field(form, "CallStatus")
        asked = dict(parse_qsl(query))
        name, leg = asked.get("call", ""), asked.get("leg", "")
        line = self._lines.get(call_sid) or self._lines.get(_named(name))
        if line is None:
            if name in self._given_up and is_sid(call_sid) and status not in TERMINAL:
                del self._given_up[name]
                self._spawn(self._end(call_sid))
            return
        if call_sid not in line.calls and not (is_sid(call_sid) and line.is_called(call_sid, leg)):
            if not leg.startswith(TARGET):
                raise BadInput("wrong_call", "The form names another call.")
            if status not in TERMINAL:
                self._spawn(self._end(call_sid))
            return
        if event := _field(form, "StreamEvent"):
            if event == "stream-error":
                why = _field(form, "StreamError")[:200]
                line.stream_failed(call_sid, _field(form, "StreamSid"), why)
            return
        if (found := screened(_field(form, "AnsweredBy"))) is not None:
            line.judged(call_sid, found)
        if status:
            line.reported(call_sid, status, _sip_code(form))

    async def _end(self, call_sid: str) -> None:
        """End a call of ours that nobody waits for: its placing seemed to have failed."""
        log.warning("twilio_stray_call", call_sid=call_sid)
        ended = {"Status": "completed"}
        try:
            await self._api.update(call_sid, ended)
        except TwilioError:
            self.owe(call_sid, ended)

    # --- over HTTP

    async def voice(self, request: web.Request) -> web.Response:
        """Answer `comes_in`."""
        return await self._answered(request, self.comes_in)

    async def after(self, request: web.Request) -> web.Response:
        """Answer `comes_after`."""
        return await self._answered(request, self.comes_after)

    async def status(self, request: web.Request) -> web.Response:
        """Pass on to `is_told`."""
        form = await self._form(request)
        try:
            self.is_told(form, _query(request))
        except BadInput as error:
            raise self._refusal(error) from None
        return web.Response(status=204)

    async def _answered(
        self, request: web.Request, answer: Callable[[Form, str], Awaitable[str]]
    ) -> web.Response:
        form = await self._form(request)
        try:
            document = await answer(form, _query(request))
        except BadInput as error:
            raise self._refusal(error) from None
        return web.Response(text=document, content_type=twiml.CONTENT_TYPE)

    async def _form(self, request: web.Request) -> Form:
        """Return the fields of a request that is Twilio's.

        Raises:
            web.HTTPException: It is not.
        """
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await request.read()
            return self._signatures.check_webhook(
                request.raw_path, request.headers, request.content_type, body
            )
        except TimeoutError:
            raise self._refusal(BadInput("too_late", "The body is late.")) from None
        except web.HTTPRequestEntityTooLarge:
            raise self._refusal(BadInput("oversized", "The body is too long.")) from None
        except (web.RequestPayloadError, ConnectionError):
            raise self._refusal(BadInput("malformed", "The body has not all come.")) from None
        except BadInput as error:
            raise self._refusal(error) from None

    # --- streams

    async def media(self, request: web.Request) -> web.StreamResponse:
        """Serve the stream of one call."""
        token = request.match_info["token"]
        try:
            self._signatures.check_upgrade(request.raw_path, request.headers)
            if token not in self._expected:
                reason = "token_used" if token in self._used else "unknown_token"
                raise BadInput(reason, "No call expects this stream.")
        except BadInput as error:
            raise self._refusal(error) from None
        # No pings: whether Twilio answers them is not known, and sound comes all the time.
        socket = web.WebSocketResponse(
            timeout=_CLOSE_SECONDS,
            compress=False,
            max_msg_size=MAX_MESSAGE_BYTES,
            writer_limit=1,
        )
        if hdrs.SEC_WEBSOCKET_VERSION not in request.headers or not socket.can_prepare(request).ok:
            raise self._refusal(BadInput("no_websocket", "It is no WebSocket."))
        line = self.claim(token)
        assert line is not None, "it is expected"
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("Twilio has gone")
        # What is not read must not be heard late: little of it lies anywhere.
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        transport.get_extra_info("socket").setsockopt(
            socket_module.SOL_SOCKET, socket_module.SO_SNDBUF, _WRITE_BUFFER_BYTES
        )
        try:
            await line.serve(token, socket, transport.abort)
        finally:
            let_go(socket)
        return socket

    # --- what is refused

    def _refusal(self, error: BadInput) -> web.HTTPException:
        reason = error.reason
        self._on_refused(reason)
        self._say("twilio_refused", reason=reason, problem=str(error), hint=_HINTS.get(reason, ""))
        return (
            web.HTTPRequestEntityTooLarge(0, 0)
            if reason == "oversized"
            else _STATUS.get(reason, web.HTTPForbidden)()
        )

    def _say(self, what: str, **more: str) -> None:
        """Write to the log, of each kind once in a while: anybody may send anything."""
        now = asyncio.get_running_loop().time()
        key = f"{what} {more.get('reason', '')}"
        if now - self._logged.get(key, -_LOG_SECONDS) >= _LOG_SECONDS:
            self._logged[key] = now
            log.warning(what, **{name: text for name, text in more.items() if text})

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def read_query(query: str) -> tuple[OwnArguments, dict[str, str], tuple[str, ...]]:
    """Read what the address of a number's webhook says of its calls.

    Returns:
        What it says by our own names; the variables; a sentence for each that cannot be used.
        Values are not repeated.
    """
    own = OwnArguments()
    variables: dict[str, str] = {}
    problems: list[str] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "bodySHA256":
            continue
        if name in arguments.NAMES:
            if (problem := own.read(name, value)) is not None:
                problems.append(problem)
        elif not _NAME.fullmatch(name):
            problems.append("a parameter has a name that is not letters, digits and _")
        elif name in _OWN or name.startswith("system__"):
            problems.append(f"{name} cannot be set by a parameter")
        elif len(value) > _MAX_VALUE or len(variables) >= _MAX_VARIABLES:
            problems.append(f"{name} is too long, or one too many")
        else:
            variables[name] = value
    return own, variables, tuple(problems)


def _ending_in(query: str) -> Ending:
    """Return how the agent's part ended, from the address that we gave ourselves."""
    told = dict(parse_qsl(query))
    end = CallEnd(told.pop("AGENT_SESSION_ID", ""), told.pop("AGENT_CONVERSATION_ID", ""))
    to = told.pop("AGENT_TRANSFER_TO", None)
    outcome = Outcome(Status.TRANSFER, told.pop("AGENT_REASON", "agent_transfer"), to)
    told.pop("AGENT_STATUS", None)
    return Ending(outcome, end, variables=told)


def _field(form: Form, name: str) -> str:
    return next(iter(form.get(name, ())), "")


def _party(text: str) -> str:
    """Return who calls or is called: a number, or whatever the far end says."""
    return "".join(each for each in text[:_MAX_PARTY] if each.isprintable())


def _sip_code(form: Form) -> int | None:
    text = _field(form, "SipResponseCode")
    return int(text) if re.fullmatch(r"[1-6][0-9]{2}", text, re.ASCII) else None


def _named(session_id: str) -> str:
    """Return how a line is found by its own name; nothing of Twilio's is called so."""
    return f"call {session_id}"


def _query(request: web.Request) -> str:
    return request.raw_path.partition("?")[2]


def _keep(kept: dict[str, Any], name: str, value: Any) -> None:
    kept.pop(name, None)
    kept[name] = value
    while len(kept) > _KEEP:
        del kept[next(iter(kept))]
