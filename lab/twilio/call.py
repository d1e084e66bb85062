"""One call at Twilio: rings, asks the webhook, does what the TwiML says, tells how it went."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final, Literal, Protocol

from lab.softphone.codec import PCMU
from lab.softphone.ear import Ear
from lab.softphone.ending import Ending, Side
from lab.softphone.errors import CallFailed
from lab.softphone.handset import Handset
from lab.softphone.mouth import Mouth
from lab.softphone.rtp import RtpPacket
from lab.twilio.account import TERMINAL, Callee, CallStatus, Note, Post, new_sid
from lab.twilio.conference import Conferences, Participant
from lab.twilio.playout import FRAME_BYTES, SILENCE
from lab.twilio.stream import NO_FAULTS, MediaStream, StreamFaults
from lab.twilio.twiml import Document, TwimlError, Verb, read
from lab.twilio.webhooks import Webhooks, absolute

MAX_REDIRECTS: Final = 10
RING_SECONDS: Final = 60.0
DIAL_SECONDS: Final = 30.0
_STATES: Final = {"initiated": "initiated", "ringing": "ringing", "answered": "in-progress"}
_SIP_CODES: Final = {"busy": 486, "no-answer": 487, "canceled": 487, "failed": 404}
_WORDS_A_SECOND: Final = 3.0

Direction = Literal["inbound", "outbound-api", "outbound-dial"]


class Exchange(Protocol):
    """The account that a call belongs to."""

    account_sid: str
    webhooks: Webhooks
    conferences: Conferences
    post: Post
    asks_after_errors: bool
    calls: dict[str, TwilioCall]

    def owns(self, number: str) -> bool:
        """Whether a number belongs to the account."""
        ...

    def callee(self, number: str) -> Callee:
        """How somebody takes a call."""
        ...

    def note(self, note: Note) -> None:
        """Write into the debugger."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the call."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """Where TwiML comes from: an address, or the text itself."""

    url: str = ""
    method: str = "POST"
    twiml: str = ""
    fallback_url: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for with a call, by REST or by a noun of <Dial>.

    Attributes:
        status_url: Told of `events`.
        ring_seconds: How long it may ring.
        time_limit: How long it may last.
        amd: `Enable` or `DetectMessageEnd`; empty: nobody asks.
        amd_url: Told the verdict; empty: the call waits for it.
    """

    status_url: str = ""
    events: frozenset[str] = frozenset({"completed"})
    ring_seconds: float = RING_SECONDS
    time_limit: float | None = None
    amd: str = ""
    amd_url: str = ""


class _Over(Exception):
    """The call ends."""

    def __init__(self, status: CallStatus, by: Side = "far") -> None:
        super().__init__(status)
        self.status = status
        self.by = by


class TwilioCall(Handset):
    """A call, and the telephone at its end.

    Attributes:
        sid: The CallSid.
        codec: The telephone's.
        rung_at: When it began to ring, monotonic seconds.
        status: Twilio's word for where it is.
        streams: Its Media Streams, in order.
        verbs: What of the TwiML was begun, in order.
        faults: Of the streams that come.
        application_error: The caller has heard that an application error has occurred.
        sip_code: Of a call that was not answered.
    """

    def __init__(
        self,
        exchange: Exchange,
        direction: Direction,
        caller: str,
        called: str,
        wish: Wish | None = None,
        *,
        extra: Mapping[str, str] | None = None,
        parent: str = "",
    ) -> None:
        mouth = Mouth(ssrc=1)
        mouth.configure(PCMU, PCMU.payload_type, 20, None)
        mouth.paused = False
        super().__init__(Ear(), mouth)
        self.ear.expect(PCMU, PCMU.payload_type, None)
        self.codec = PCMU
        self.rung_at: float | None = self.started_at if direction == "inbound" else None
        self.sid = new_sid("CA")
        self.caller = caller
        self.called = called
        self.direction = direction
        self.status: CallStatus = "ringing" if direction == "inbound" else "queued"
        self.streams: list[MediaStream] = []
        self.verbs: list[Verb] = []
        self.faults: StreamFaults = NO_FAULTS
        self.application_error = False
        self.sip_code = 200
        self.created = datetime.now(UTC)
        self.parent = parent
        self.conference_sid = ""
        self.unbridged = asyncio.Event()
        """It is no longer with whoever has dialled it."""
        self._exchange = exchange
        self._wish = wish or Wish()
        self._extra = dict(extra or {})
        self._fallback_url = ""
        self._redirects = 0
        self._sent = 0
        self._updates: asyncio.Queue[Source | _Over] = asyncio.Queue()
        self._up: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- what a test, or the telephone, does

    @property
    def stream(self) -> MediaStream:
        """The last stream."""
        return self.streams[-1]

    async def answered(self) -> None:
        """Wait until the call is up. Raise CallFailed when it ends before that."""
        await asyncio.shield(self._up)
        if self.answered_at is None and self.ending is not None:
            raise CallFailed(self.ending.status, self.ending.reason)

    async def hang_up(self) -> Ending:
        """The telephone hangs up."""
        if self.ending is None:
            over: CallStatus = "completed" if self.answered_at else "no-answer"
            self._updates.put_nowait(_Over(over, "us"))
        return await self.ended

    def update(self, source: Source) -> None:
        """Do something else from now on."""
        self._updates.put_nowait(source)

    def end(self, status: CallStatus) -> None:
        """End it as REST does: `completed` or `canceled`."""
        self._updates.put_nowait(_Over(status))

    @property
    def is_over(self) -> bool:
        """Whether it has ended."""
        return self.status in TERMINAL

    def fields(self, **more: str) -> dict[str, str]:
        """Return what a webhook is told of the call."""
        fields = {
            "AccountSid": self._exchange.account_sid,
            "ApiVersion": "2010-04-01",
            "CallSid": self.sid,
            "CallStatus": self.status,
            "Called": self.called,
            "Caller": self.caller,
            "Direction": self.direction,
            "From": self.caller,
            "To": self.called,
        }
        for who, number in (("Caller", self.caller), ("From", self.caller)):
            fields |= _place(who, number)
        for who, number in (("Called", self.called), ("To", self.called)):
            fields |= _place(who, number)
        if self.parent:
            fields["ParentCallSid"] = self.parent
        if self.direction == "inbound":
            fields |= {"CallToken": f"{self.sid}-token", "StirVerstat": "TN-Validation-Passed-A"}
        return fields | self._extra | more

    # --- life

    async def arrive(self, source: Source, status_url: str = "") -> None:
        """Live as a call that came in."""
        if status_url:
            self._wish = replace(self._wish, status_url=status_url)
        await self._live(self._from(source))

    async def place(self, source: Source, wait_seconds: float = 0.0) -> None:
        """Live as a call that REST has asked for, which may have to wait for its turn."""
        await self._live(self._placed(source, wait_seconds))

    async def join(self) -> None:
        """Live as the one that <Dial> calls."""
        await self._live(self._dialled())

    async def _live(self, work: Coroutine[Any, Any, None]) -> None:
        over = _Over("completed")
        doing = asyncio.create_task(work, name=f"{self.sid} work")
        try:
            async with asyncio.timeout(self._wish.time_limit):
                while True:
                    news = asyncio.create_task(self._updates.get())
                    await asyncio.wait({doing, news}, return_when=asyncio.FIRST_COMPLETED)
                    if not news.done():
                        news.cancel()
                        await doing
                        break
                    await _cancelled(doing)
                    self.unbridged.set()
                    match news.result():
                        case _Over() as over:
                            break
                        case source:
                            doing = asyncio.create_task(self._from(source))
        except _Over as end:
            over = end
        except TimeoutError:
            pass
        finally:
            await _cancelled(doing)
            self._finish(over)

    def _finish(self, over: _Over) -> None:
        silent = self.status == "queued"
        self.status = over.status
        if over.status != "completed" and self.sip_code == 200:
            self.sip_code = _SIP_CODES[over.status]
        self.mouth.clear(time.monotonic())
        self.unbridged.set()
        self.over(Ending(over.by, self.sip_code, over.status))
        if not self._up.done():
            self._up.set_result(None)
        if not silent:
            self._tell("completed")

    async def _placed(self, source: Source, wait_seconds: float) -> None:
        await asyncio.sleep(wait_seconds)
        await self._ring()
        more: dict[str, str] = {}
        if self._wish.amd:
            verdict = self._verdict()
            if self._wish.amd_url:
                self._exchange.spawn(self._tell_verdict(verdict))
            else:
                more = await verdict
        await self._from(source, **more)

    async def _dialled(self) -> None:
        await self._ring()
        await asyncio.Event().wait()

    async def _ring(self) -> None:
        """Call the callee; return when it has answered."""
        callee = self._exchange.callee(self.called)
        self._become("initiated")
        if callee.ring_seconds is not None:
            self.rung_at = time.monotonic()
            self._become("ringing")
        patience = self._wish.ring_seconds
        await asyncio.sleep(min(callee.ring_seconds or 0.0, patience))
        late = (callee.ring_seconds or 0.0) >= patience
        if late or callee.outcome != "answer":
            self.sip_code = callee.sip_code if callee.sip_code != 200 and not late else 200
            raise _Over("no-answer" if late or callee.outcome == "answer" else callee.outcome)
        self._answer()
        if callee.talk_seconds is not None:
            self._exchange.spawn(self._leave_after(callee.talk_seconds))

    async def _leave_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.hang_up()

    def _answer(self) -> None:
        if self.answered_at is None:
            self.answered_at = time.monotonic()
            self._become("answered")
            self._up.set_result(None)

    # --- what is told

    def _become(self, event: str) -> None:
        self.status = _STATES[event]  # type: ignore[assignment]
        self._tell(event)

    def _tell(self, event: str) -> None:
        """Send a status callback, if anybody wants to know."""
        if not self._wish.status_url or event not in self._wish.events:
            return
        more = {
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(self._sent),
            "Timestamp": format_datetime(datetime.now(UTC)),
        }
        if event == "completed":
            seconds = 0 if self.answered_at is None else time.monotonic() - self.answered_at
            more |= {
                "CallDuration": str(round(seconds)),
                "Duration": str(-(-round(seconds) // 60)),
                "SipResponseCode": str(self.sip_code),
            }
        self._sent += 1
        self._exchange.spawn(self._deliver(event, self.fields(**more)))

    async def _deliver(self, event: str, fields: dict[str, str]) -> None:
        post = self._exchange.post
        await asyncio.sleep(post.delays.get(event, 0.0))
        for _ in range(post.copies.get(event, 1)):
            asked = await self._exchange.webhooks.ask(self._wish.status_url, fields)
            if not asked.is_good:
                self._note(15003, f"status callback: {asked.status or 'no answer'}")

    async def _verdict(self) -> dict[str, str]:
        callee = self._exchange.callee(self.called)
        await asyncio.sleep(callee.verdict_seconds)
        took = str(round(callee.verdict_seconds * 1000))
        return {"AnsweredBy": callee.answered_by, "MachineDetectionDuration": took}

    async def _tell_verdict(self, verdict: Coroutine[Any, Any, dict[str, str]]) -> None:
        found = await verdict
        if found["AnsweredBy"]:
            ours = {"AccountSid": self._exchange.account_sid, "CallSid": self.sid}
            await self._exchange.webhooks.ask(self._wish.amd_url, ours | found)

    def _note(self, code: int, text: str) -> None:
        self._exchange.note(Note(code, f"{self.sid}: {text}", time.monotonic()))

    # --- TwiML

    async def _from(self, source: Source, **more: str) -> None:
        """Carry out TwiML, and what it leads to."""
        self._fallback_url = source.fallback_url or self._fallback_url
        document: Document | None
        if source.url:
            document = await self._fetch(source.url, source.method, **more)
        else:
            try:
                document = self._read(source.twiml.encode(), "text/xml", "")
            except TwimlError:
                raise self._application_error() from None
        while document is not None:
            document = await self._perform(document)

    async def _fetch(self, url: str, method: str = "POST", **more: str) -> Document:
        error = (11200, "")
        for address, told in ((url, more), (self._fallback_url, None)):
            if not address:
                continue
            if told is None:
                told = {"ErrorCode": str(error[0]), "ErrorUrl": url}
            asked = await self._exchange.webhooks.ask(address, self.fields(**told), method)
            if not asked.is_good:
                error = (11205 if not asked.status else 11200, f"{address}: {asked.status}")
                self._note(*error)
                continue
            try:
                return self._read(asked.body, asked.content_type, address)
            except TwimlError as wrong:
                error = (wrong.code, address)
        raise self._application_error()

    def _read(self, body: bytes, content_type: str, url: str) -> Document:
        """Read TwiML, and write down what is wrong with it."""
        try:
            document = read(body, content_type, url)
        except TwimlError as wrong:
            self._note(wrong.code, f"{wrong} in {body[:2000]!r}")
            raise
        for warning in document.warnings:
            self._note(12200, warning)
        return document

    def _application_error(self) -> _Over:
        self.application_error = True
        self._answer()
        return _Over("completed")

    async def _perform(self, document: Document) -> Document | None:
        for index, verb in enumerate(document.verbs):
            if verb.name == "Reject" and self.answered_at is None and index == 0:
                self.verbs.append(verb)
                raise _Over("busy" if verb.get("reason") == "busy" else "no-answer")
            if verb.name != "Redirect" and verb.get("answerOnBridge") != "true":
                self._answer()
            self.verbs.append(verb)
            following = await self._do(verb, document.url)
            if following is not None:
                return following
        return None

    async def _do(self, verb: Verb, base: str) -> Document | None:
        match verb.name:
            case "Connect":
                return await self._connect(verb, base)
            case "Dial":
                return await self._dial(verb, base)
            case "Redirect":
                self._redirects += 1
                if self._redirects > MAX_REDIRECTS:
                    raise self._application_error()
                return await self._ask(verb.text, verb.get("method", "POST"), base)
            case "Hangup" | "Reject":
                raise _Over("completed")
            case "Pause":
                await asyncio.sleep(float(verb.get("length", "1")))
            case "Say":
                await asyncio.sleep(len(verb.text.split()) / _WORDS_A_SECOND)
            case "Play":
                digits = verb.get("digits").lower()
                await asyncio.sleep(sum(0.5 if key == "w" else 0.2 for key in digits) or 1.0)
        return None

    async def _ask(self, url: str, method: str, base: str, **more: str) -> Document:
        address = absolute(base, url)
        if not address:
            self._note(15004, f"{url} is not absolute, and inline TwiML has no address")
            raise self._application_error()
        return await self._fetch(address, method or "POST", **more)

    async def _after(self, verb: Verb, base: str, **more: str) -> Document | None:
        """Ask the `action`, if there is one; otherwise the next verb follows."""
        if not verb.get("action"):
            return None
        return await self._ask(verb.get("action"), verb.get("method"), base, **more)

    async def _connect(self, verb: Verb, base: str) -> Document | None:
        if not verb.children:
            return None
        noun = verb.children[0]
        url = noun.get("url")
        if not url.startswith(("ws://", "wss://")):
            url = absolute(base, url).replace("https://", "wss://", 1)
        speak, hear = self._voices()
        stream = MediaStream(
            new_sid("MZ"),
            url,
            call_sid=self.sid,
            account_sid=self._exchange.account_sid,
            parameters=noun.parameters,
            speak=speak,
            hear=hear,
            webhooks=self._exchange.webhooks,
            faults=self.faults,
        )
        self.streams.append(stream)
        callback = noun.get("statusCallback")
        started = asyncio.create_task(self._tell_stream(stream, callback, base, "stream-started"))
        try:
            ended_by = await stream.run()
        finally:
            started.cancel()
            for each in stream.notes:
                self._note(each.code, each.text)
            event = "stream-error" if stream.ended_by == "error" else "stream-stopped"
            self._exchange.spawn(self._tell_stream(stream, callback, base, event))
        if ended_by != "server" and not self._exchange.asks_after_errors:
            raise _Over("completed", "network")
        return await self._after(verb, base)

    async def _tell_stream(self, stream: MediaStream, url: str, base: str, event: str) -> None:
        if event == "stream-started":
            await stream.up.wait()
        if not url:
            return
        fields = {
            "AccountSid": self._exchange.account_sid,
            "CallSid": self.sid,
            "StreamSid": stream.sid,
            "StreamName": stream.sid,
            "StreamEvent": event,
            "Timestamp": datetime.now(UTC).isoformat(),
        }
        if event == "stream-error":
            fields["StreamError"] = "; ".join(note.text for note in stream.notes)
        await self._exchange.webhooks.ask(absolute(base, url), fields)

    def _voices(self) -> tuple[Any, Any]:
        """What a stream takes from the telephone's mouth, and gives to its ear."""
        ssrc, heard = random.getrandbits(32), 0

        def speak(now: float) -> bytes:
            packet = self.mouth.tick(now)
            return packet.payload if packet else SILENCE * FRAME_BYTES

        def hear(payload: bytes, now: float) -> None:
            nonlocal heard
            packet = RtpPacket(0, heard & 0xFFFF, heard * FRAME_BYTES, ssrc, payload)
            heard += 1
            self.packet_heard(self.ear.hear(packet.encode(), now))

        return speak, hear

    # --- others

    async def _dial(self, verb: Verb, base: str) -> Document | None:
        noun = verb.children[0] if verb.children else Verb("Number", {}, verb.text)
        if noun.name == "Conference":
            await self._confer(noun)
            return await self._after(verb, base, DialCallStatus="answered")
        caller = verb.get("callerId") or self.caller
        sid, status, seconds = "", "failed", 0.0
        mine = caller in (self.caller, self.called) or self._exchange.owns(caller)
        if noun.name == "Number" and not mine:
            self._note(13214, f"callerId {caller}")
        else:
            leg = self._leg(noun, caller, float(verb.get("timeout") or DIAL_SECONDS), base)
            sid = leg.sid
            try:
                with suppress(CallFailed):
                    await leg.answered()
                    self._answer()
                    await leg.unbridged.wait()
            finally:
                if not leg.unbridged.is_set():
                    leg.end("completed" if leg.answered_at else "canceled")
            status = "completed" if leg.answered_at else leg.status
            seconds = time.monotonic() - (leg.answered_at or time.monotonic())
        more = {"DialCallStatus": status, "DialBridged": str(status == "completed").lower()}
        if sid:
            more |= {"DialCallSid": sid, "DialCallDuration": str(round(seconds))}
        return await self._after(verb, base, **more)

    def _leg(self, noun: Verb, caller: str, seconds: float, base: str) -> TwilioCall:
        events = noun.get("statusCallbackEvent", "completed").split()
        wish = Wish(absolute(base, noun.get("statusCallback")), frozenset(events), seconds)
        leg = TwilioCall(self._exchange, "outbound-dial", caller, noun.text, wish, parent=self.sid)
        self._exchange.calls[leg.sid] = leg
        self._exchange.spawn(leg.join())
        return leg

    async def _confer(self, noun: Verb) -> None:
        room = self._exchange.conferences.named(noun.text)
        self.conference_sid = room.sid
        participant = Participant(
            self.sid,
            label=noun.get("participantLabel"),
            muted=noun.get("muted") == "true",
            starts=noun.get("startConferenceOnEnter") != "false",
            ends=noun.get("endConferenceOnExit") == "true",
        )
        room.enter(participant)
        try:
            await participant.left.wait()
        finally:
            room.leave(self.sid)


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end; what it had to say no longer matters."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _place(who: str, number: str) -> dict[str, str]:
    """Return where somebody is, as Twilio says it: mostly nothing."""
    country = "US" if number.startswith("+1") else ""
    return {f"{who}City": "", f"{who}Country": country, f"{who}State": "", f"{who}Zip": ""}
