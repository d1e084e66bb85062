"""A Twilio of one's own: its REST interface, its numbers and its calls, for one account."""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, Final, Self
from urllib.parse import urlsplit

from aiohttp import web
from multidict import MultiMapping

from lab.twilio.account import TERMINAL, Callee, Note, Number, Post, new_sid
from lab.twilio.call import RING_SECONDS, Source, TwilioCall, Wish
from lab.twilio.conference import Conference, Conferences
from lab.twilio.stream import NO_FAULTS, StreamFaults
from lab.twilio.webhooks import Webhooks
from lab.web import serving

MAX_TWIML: Final = 4000
_ADDRESS: Final = re.compile(r"\+[1-9]\d{6,14}|client:\S+|sips?:\S{1,250}")
_EVENTS: Final = frozenset({"initiated", "ringing", "answered", "completed"})
_DIGITS: Final = re.compile(r"[0-9*#wW]{0,32}")
_UP: Final = ("in-progress",)
_EARLY: Final = ("queued", "initiated", "ringing")

Json = dict[str, Any]
Form = MultiMapping[Any]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RestError(Exception):
    """A request that is refused, with Twilio's code for it."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def body(self) -> Json:
        """Return what the client is told."""
        return {
            "code": self.code,
            "message": str(self),
            "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
            "status": self.status,
        }


class Twilio:
    """One account.

        async with Twilio(origins={"https://bridge.test": "http://127.0.0.1:8080"}) as twilio:
            twilio.numbers["+15550100002"] = Number("https://bridge.test/twilio/voice")
            call = twilio.call("+15550100001", "+15550100002")
            await call.answered()

    Args:
        origins: The public origins that lead to this machine. Requests are signed for the public
            address and go to the local one; streams too.
        calls_a_second: How many calls REST begins; what is more waits in `queued`.

    Attributes:
        base_url: For the client of the REST interface.
        account_sid, auth_token: Its credentials.
        numbers: What belongs to the account.
        callees: How those whom it calls take a call; all others answer at once.
        calls: Every call, by its SID.
        notes: The debugger: errors and warnings.
        post: How status callbacks travel.
        asks_after_errors: A stream that breaks is followed by its `action`; otherwise the call
            ends. Nobody has told which of the two Twilio does.
        faults: Of the streams of new calls.
        refusals: The next POSTs are answered with these, one each.
        stall_creates: So many creates are carried out and never answered.
        fail_updates: So many updates are carried out, and answered as if they had failed.
        list_lag: A call is listed so much later than it was made.
        requests: Method and path of each REST request.
    """

    def __init__(self, origins: Mapping[str, str], *, calls_a_second: float = 1.0) -> None:
        self.account_sid = new_sid("AC")
        self.auth_token = new_sid("")
        self.base_url = ""
        self.numbers: dict[str, Number] = {}
        self.callees: dict[str, Callee] = {}
        self.calls: dict[str, TwilioCall] = {}
        self.notes: list[Note] = []
        self.post = Post()
        self.asks_after_errors = False
        self.faults: StreamFaults = NO_FAULTS
        self.webhooks = Webhooks(self.auth_token, origins)
        self.conferences = Conferences(self.account_sid)
        self.refusals: deque[RestError] = deque()
        self.stall_creates = 0
        self.fail_updates = 0
        self.list_lag = timedelta()
        self.requests: list[tuple[str, str]] = []
        self._spacing = 1 / calls_a_second
        self._next_start = 0.0
        self._served = AsyncExitStack()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._as_twilio])
        account = f"/2010-04-01/Accounts/{self.account_sid}"
        calls, rooms = f"{account}/Calls", f"{account}/Conferences"
        room = f"{rooms}/{{room}}"
        people = f"{room}/Participants"
        app.add_routes(
            [
                web.post(f"{calls}.json", self._create),
                web.get(f"{calls}.json", self._list),
                web.get(f"{calls}/{{sid}}.json", self._get),
                web.post(f"{calls}/{{sid}}.json", self._update),
                web.get(f"{account}.json", self._account),
                web.get(f"{account}/IncomingPhoneNumbers.json", self._numbers),
                web.get(f"{rooms}.json", self._rooms),
                web.get(f"{room}.json", self._room),
                web.post(f"{room}.json", self._end_room),
                web.get(f"{people}.json", self._people),
                web.post(f"{people}.json", self._invite),
                web.get(f"{people}/{{who}}.json", self._person),
                web.post(f"{people}/{{who}}.json", self._change_person),
                web.delete(f"{people}/{{who}}.json", self._kick),
            ]
        )
        self.base_url = await self._served.enter_async_context(serving(app))
        return self

    async def __aexit__(self, *error: object) -> None:
        while self._tasks:  # what ends has something to tell
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.webhooks.close()
        await self._served.aclose()

    # --- what a test does

    def call(self, caller: str, called: str, **extra: str) -> TwilioCall:
        """Let somebody call a number of the account; the call, which begins at once.

        `extra` are fields of the webhook beside the usual ones, such as `StirVerstat`.
        """
        number = self.numbers[called]
        call = self._begin(TwilioCall(self, "inbound", caller, called, extra=extra))
        source = Source(number.voice_url, fallback_url=number.fallback_url)
        self.spawn(call.arrive(source, number.status_url))
        return call

    async def call_to(self, number: str, seconds: float = 5.0) -> TwilioCall:
        """Wait for a call to a number; the last one.

        Raises:
            TimeoutError: None came.
        """
        async with asyncio.timeout(seconds):
            while True:
                found = [call for call in self.calls.values() if call.called == number]
                if found:
                    return found[-1]
                await asyncio.sleep(0.005)

    def codes(self) -> list[int]:
        """Return the codes in the debugger."""
        return [note.code for note in self.notes]

    # --- what calls need

    def owns(self, number: str) -> bool:
        """Whether a number belongs to the account."""
        return number in self.numbers

    def callee(self, number: str) -> Callee:
        """How somebody takes a call."""
        return self.callees.get(number, Callee())

    def note(self, note: Note) -> None:
        """Write into the debugger."""
        self.notes.append(note)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something until it is done, or the account is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _begin(self, call: TwilioCall) -> TwilioCall:
        call.faults = self.faults
        self.calls[call.sid] = call
        return call

    # --- REST

    @web.middleware
    async def _as_twilio(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append((request.method, request.path))
        secret = base64.b64encode(f"{self.account_sid}:{self.auth_token}".encode())
        given = request.headers.get("Authorization", "").encode()
        try:
            if not hmac.compare_digest(given, b"Basic " + secret):
                raise RestError(401, 20003, "Authenticate")
            if self.refusals and request.method == "POST":
                raise self.refusals.popleft()
            return await handler(request)
        except RestError as refusal:
            return web.json_response(refusal.body(), status=refusal.status)
        except web.HTTPNotFound:
            error = RestError(404, 20404, f"The requested resource {request.path} was not found")
            return web.json_response(error.body(), status=404)

    async def _create(self, request: web.Request) -> web.Response:
        form = await request.post()
        call, source = self._wished(form), _source(form)
        if source is None:
            raise RestError(400, 21205, "Url parameter is required.")
        now = time.monotonic()
        waits = max(0.0, self._next_start - now)
        self._next_start = now + waits + self._spacing
        self._begin(call)
        self.spawn(call.place(source, waits))
        if self.stall_creates:
            self.stall_creates -= 1
            await asyncio.sleep(3600)
        body = self._resource(call) | {"status": "queued", "queue_time": str(round(waits * 1000))}
        return web.json_response(body, status=201)

    def _wished(self, form: Form) -> TwilioCall:
        """Check what a create asks for."""
        to, caller = _text(form, "To"), _text(form, "From")
        if not to:
            raise RestError(400, 21201, "No 'To' number is specified")
        if not _ADDRESS.fullmatch(to) or to == caller:
            raise RestError(400, 21211, f"Invalid 'To' Phone Number: {to}")
        if not _ADDRESS.fullmatch(caller):
            raise RestError(400, 21212, f"Invalid 'From' Number: {caller}")
        if caller not in self.numbers:
            raise RestError(400, 21210, f"'From' phone number not verified: {caller}")
        events = {str(event) for event in form.getall("StatusCallbackEvent", [])} or {"completed"}
        if events - _EVENTS:
            raise RestError(400, 21626, f"Invalid status callback events {events - _EVENTS}")
        timeout = _number(form, "Timeout", RING_SECONDS, 600)
        digits = _text(form, "SendDigits")
        if not _DIGITS.fullmatch(digits):
            raise RestError(400, 21206, f"SendDigits {digits!r}")
        amd = _text(form, "MachineDetection")
        if amd not in ("", "Enable", "DetectMessageEnd"):
            raise RestError(400, 21262, f"MachineDetection {amd!r}")
        asynchronous = _text(form, "AsyncAmd") == "true"
        wish = Wish(
            _url(form, "StatusCallback"),
            frozenset(events),
            timeout,
            _number(form, "TimeLimit", 14_400, 86_400),
            "" if digits else amd,
            _url(form, "AsyncAmdStatusCallback") if asynchronous else "",
        )
        return TwilioCall(self, "outbound-api", caller, to, wish)

    async def _list(self, request: web.Request) -> web.Response:
        query = request.query
        since = _moment(query.get("StartTime>", "1970-01-01"))
        found = [
            self._resource(call)
            for call in reversed(self.calls.values())
            if query.get("To", call.called) == call.called
            and query.get("From", call.caller) == call.caller
            and query.get("Status", call.status) == call.status
            and since <= call.created <= datetime.now(UTC) - self.list_lag
        ]
        return web.json_response(_page("calls", found, int(query.get("PageSize", "50"))))

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self._resource(self._found(request)))

    async def _update(self, request: web.Request) -> web.Response:
        call, form = self._found(request), await request.post()
        status = _text(form, "Status")
        source = _source(form)
        if status not in ("", "canceled", "completed"):
            raise RestError(400, 21218, f"Invalid status {status!r}")
        allowed = {"canceled": _EARLY, "completed": (*_EARLY, *_UP)}.get(status, _UP)
        if call.status in TERMINAL or (call.status not in allowed):
            raise RestError(400, 21220, "Call is not in-progress. Cannot redirect.")
        match status:
            case "canceled" | "completed":
                ended = "canceled" if call.answered_at is None else "completed"
                call.end(ended)  # type: ignore[arg-type]
            case _ if source is None:
                raise RestError(400, 21205, "Neither Url nor Twiml")
            case _:
                call.update(source)
        if self.fail_updates:
            self.fail_updates -= 1
            raise RestError(500, 20500, "Internal")
        return web.json_response(self._resource(call))

    def _found(self, request: web.Request) -> TwilioCall:
        call = self.calls.get(request.match_info["sid"])
        if call is None:
            raise web.HTTPNotFound
        return call

    def _resource(self, call: TwilioCall) -> Json:
        answered, ended = call.answered_at, call.ended_at
        return {
            "account_sid": self.account_sid,
            "answered_by": None,
            "api_version": "2010-04-01",
            "date_created": format_datetime(call.created),
            "direction": call.direction,
            "duration": str(round(ended - answered)) if answered and ended else None,
            "end_time": format_datetime(call.created) if ended else None,
            "from": call.caller,
            "parent_call_sid": call.parent or None,
            "sid": call.sid,
            "start_time": format_datetime(call.created) if answered else None,
            "status": call.status,
            "to": call.called,
            "uri": f"/2010-04-01/Accounts/{self.account_sid}/Calls/{call.sid}.json",
        }

    async def _account(self, request: web.Request) -> web.Response:
        return web.json_response({"sid": self.account_sid, "status": "active", "type": "Full"})

    async def _numbers(self, request: web.Request) -> web.Response:
        wanted = request.query.get("PhoneNumber", "")
        found = [
            {
                "phone_number": phone,
                "voice_url": number.voice_url,
                "voice_method": "POST",
                "voice_fallback_url": number.fallback_url,
                "status_callback": number.status_url,
            }
            for phone, number in self.numbers.items()
            if wanted in ("", phone)
        ]
        return web.json_response(_page("incoming_phone_numbers", found, 50))

    # --- conferences

    async def _rooms(self, request: web.Request) -> web.Response:
        query = request.query
        found = [
            room.resource()
            for room in self.conferences
            if query.get("FriendlyName", room.name) == room.name
            and query.get("Status", room.status) == room.status
        ]
        return web.json_response(_page("conferences", found, 50))

    async def _room(self, request: web.Request) -> web.Response:
        return web.json_response(self._conference(request).resource())

    async def _end_room(self, request: web.Request) -> web.Response:
        room = self._conference(request)
        if _text(await request.post(), "Status") == "completed":
            room.end()
        return web.json_response(room.resource())

    def _conference(self, request: web.Request) -> Conference:
        name = request.match_info["room"]
        for room in self.conferences:
            if name in (room.sid, room.name) and room.status != "completed":
                return room
        raise web.HTTPNotFound

    async def _people(self, request: web.Request) -> web.Response:
        room = self._conference(request)
        people = [each.resource(self.account_sid, room.sid) for each in room.participants.values()]
        return web.json_response(_page("participants", people, 50))

    async def _invite(self, request: web.Request) -> web.Response:
        form = await request.post()
        room = self.conferences.named(request.match_info["room"])
        attributes = "".join(
            f' {name}="{value}"'
            for name, field in (
                ("endConferenceOnExit", "EndConferenceOnExit"),
                ("startConferenceOnEnter", "StartConferenceOnEnter"),
                ("muted", "Muted"),
                ("participantLabel", "Label"),
            )
            if (value := _text(form, field))
        )
        twiml = f"<Conference{attributes}>{room.name}</Conference>"
        source = Source(twiml=f"<Response><Dial>{twiml}</Dial></Response>")
        call = self._wished(form)
        self._begin(call)
        self.spawn(call.place(source))
        body = {"call_sid": call.sid, "conference_sid": room.sid, "status": "queued"}
        return web.json_response(body | {"account_sid": self.account_sid}, status=201)

    async def _person(self, request: web.Request) -> web.Response:
        room, who = self._conference(request), request.match_info["who"]
        for each in room.participants.values():
            if who in (each.call_sid, each.label):
                return web.json_response(each.resource(self.account_sid, room.sid))
        raise web.HTTPNotFound

    async def _change_person(self, request: web.Request) -> web.Response:
        room, form = self._conference(request), await request.post()
        each = room.participants.get(request.match_info["who"])
        if each is None:
            raise web.HTTPNotFound
        each.muted = _text(form, "Muted", str(each.muted)).lower() == "true"
        each.hold = _text(form, "Hold", str(each.hold)).lower() == "true"
        if "EndConferenceOnExit" in form:
            each.ends = _text(form, "EndConferenceOnExit").lower() == "true"
        return web.json_response(each.resource(self.account_sid, room.sid))

    async def _kick(self, request: web.Request) -> web.Response:
        room, who = self._conference(request), request.match_info["who"]
        if who not in room.participants:
            raise web.HTTPNotFound
        room.participants[who].left.set()
        return web.Response(status=204)


def _text(form: Form, name: str, default: str = "") -> str:
    value = form.get(name, default)
    return value if isinstance(value, str) else ""


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise RestError(400, 20001, f"StartTime {text!r}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _url(form: Form, name: str) -> str:
    url = _text(form, name)
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.hostname or "_" in parts.netloc):
        raise RestError(400, 21609 if "Status" in name else 21205, f"{name} is not a valid URL")
    return url


def _number(form: Form, name: str, default: float, largest: float) -> float:
    text = _text(form, name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= largest:
        raise RestError(400, 20001, f"{name} {text!r}")
    return value


def _source(form: Form) -> Source | None:
    """Return where the TwiML is, by what a create or an update says."""
    url, twiml = _url(form, "Url"), _text(form, "Twiml")
    if not url and not twiml:
        return None
    if not url and len(twiml) > MAX_TWIML:
        raise RestError(400, 21205, f"Twiml of {len(twiml)} characters")
    method = _text(form, "Method") or "POST"
    return Source(url, method, "" if url else twiml, _url(form, "FallbackUrl"))


def _page(name: str, found: list[Json], size: int) -> Json:
    return {name: found[:size], "page": 0, "page_size": size, "next_page_uri": None}
