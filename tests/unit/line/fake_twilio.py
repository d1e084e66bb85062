"""Twilio in memory: calls, what it asks of us, and the far end of a Media Stream."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

from ari_app.audio.g711 import ulaw_to_pcm
from ari_app.line.twilio.gateway import TwilioGateway
from ari_app.line.twilio.line import TwilioLine
from ari_app.line.twilio.rest import CallInfo, Fields, TwilioError
from tests.unit.line.fake_socket import FakeSocket
from tests.waiting import until

ACCOUNT = "AC0123456789abcdef0123456789abcdef"
PUBLIC_URL = "https://bridge.example.com"
SILENCE = b"\xff" * 160


def parse(document: str) -> ElementTree.Element:
    """The document as a tree."""
    return ElementTree.fromstring(document)


class FakeRest:
    """Twilio's REST interface.

    Attributes:
        made: The fields of each call that was placed.
        updated: What was changed, by call.
        status: What is said of a call that is looked up.
        failure, update_failure: What creating a call, and changing one, fails with.
        unanswered: So many changes are carried out, and the answer is lost.
        create_seconds: How long creating a call takes.
        gone: There is no such call any more, as is said when it is to be changed.
        listed: What a list of calls names.
    """

    def __init__(self) -> None:
        self.refused = False
        self.made: list[dict[str, Any]] = []
        self.updated: list[tuple[str, Mapping[str, Any]]] = []
        self.status: str | None = "in-progress"
        self.failure: TwilioError | None = None
        self.create_seconds = 0.0
        self.listed: list[str] = []
        self.looks = 0
        self.update_failure: TwilioError | None = None
        self.unanswered = 0
        self.gone = False
        self.on_update: Callable[[str, Fields], None] = lambda call_sid, fields: None

    async def check(self) -> None:
        """It answers."""

    async def close(self) -> None:
        """It holds nothing."""

    async def create(self, fields: Fields) -> CallInfo:
        self.made.append(dict(fields))
        await asyncio.sleep(self.create_seconds)
        if self.failure is not None:
            raise self.failure
        return CallInfo(f"CAout{len(self.made)}", "queued")

    async def find(self, call_sid: str) -> CallInfo | None:
        self.looks += 1
        return None if self.status is None else CallInfo(call_sid, self.status)

    async def placed(self, to: str, sender: str, within_seconds: float) -> list[str]:
        return self.listed

    async def update(self, call_sid: str, fields: Fields, *, once: bool = False) -> bool:
        if self.update_failure is not None:
            raise self.update_failure
        if self.gone:
            await asyncio.sleep(0.1)
            return False
        self.updated.append((call_sid, fields))
        self.on_update(call_sid, fields)
        if self.unanswered:
            self.unanswered -= 1
            await asyncio.sleep(0.1)
            if once:
                raise TwilioError("late", code="twilio_timeout", may_be_done=True)
            return await self.update(call_sid, fields)
        return True


class FakeStream:
    """The far end of a stream: it plays 8 bytes a millisecond, and answers marks when it has.

    Attributes:
        socket: Our end.
        heard: What the caller has heard.
        voice: What it sends in 20 ms.
        stops: It sends no sound any more.
    """

    def __init__(self, call_sid: str, **parameters: str) -> None:
        self.socket = FakeSocket()
        self.sid = "MZ" + call_sid[2:]
        self.call_sid = call_sid
        self.heard: list[bytes] = []
        self.voice = SILENCE
        self.stops = False
        self.cleared = 0
        self._parameters = parameters
        self._sequence = 0
        self._taken = 0
        self._ahead: deque[bytes | str] = deque()

    def says(self, event: str, **parts: Any) -> None:
        """Send a message."""
        self._sequence += 1
        head = {"event": event, "sequenceNumber": str(self._sequence), "streamSid": self.sid}
        self.socket.sends(json.dumps(head | parts))

    def begins(self) -> None:
        """Say who it is."""
        self.socket.sends(
            json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"})
        )
        start = {
            "accountSid": ACCOUNT,
            "streamSid": self.sid,
            "callSid": self.call_sid,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self._parameters,
        }
        self.says("start", start=start)

    def beat(self) -> None:
        """Let 20 ms pass."""
        if self.socket.close_code is None and not self.stops:
            payload = base64.b64encode(self.voice).decode()
            self.says("media", media={"track": "inbound", "chunk": "1", "payload": payload})
        new, self._taken = self.socket.got[self._taken :], len(self.socket.got)
        for piece in new:
            self._take(json.loads(piece))
        if self.socket.close_code is not None:
            return
        left = 160
        while self._ahead and (left or isinstance(self._ahead[0], str)):
            first = self._ahead.popleft()
            if isinstance(first, str):
                self.says("mark", mark={"name": first})
                continue
            self.heard.append(ulaw_to_pcm(first[:left]))
            if rest := first[left:]:
                self._ahead.appendleft(rest)
            left -= len(first) - len(rest)

    def _take(self, message: dict[str, Any]) -> None:
        assert message["streamSid"] == self.sid
        match message:
            case {"event": "media", "media": {"payload": payload}}:
                self._ahead.append(base64.b64decode(payload))
            case {"event": "mark", "mark": {"name": name}}:
                self._ahead.append(name)
            case {"event": "clear"}:
                self.cleared += 1
                marks = [each for each in self._ahead if isinstance(each, str)]
                self._ahead.clear()
                for name in marks:
                    self.says("mark", mark={"name": name})
            case _:
                raise AssertionError(message)


class FakeTwilio:
    """Twilio around a gateway: it follows the documents that we give it.

    Attributes:
        streams: The last stream of each call.
        documents: What webhooks were answered.
        comes: Streams are opened.
        asks: It asks what comes after a stream.
    """

    def __init__(self, gateway: TwilioGateway, rest: FakeRest) -> None:
        self.gateway, self.rest = gateway, rest
        self.streams: dict[str, FakeStream] = {}
        self.comes = self.asks = True
        self.documents: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._over: set[str] = set()
        self._replaced: set[FakeStream] = set()
        rest.on_update = self._updated

    async def close(self) -> None:
        """End what still runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def form(self, call_sid: str, status: str, **more: str) -> dict[str, list[str]]:
        """The fields of a webhook."""
        fields = {
            "CallSid": call_sid,
            "AccountSid": ACCOUNT,
            "From": "+15550100001",
            "To": "+15550100002",
            "CallStatus": status,
            "Direction": "inbound",
            **more,
        }
        return {name: [value] for name, value in fields.items()}

    def calls(self, call_sid: str, query: str = "") -> None:
        """Somebody calls our number."""
        self._spawn(self._call(call_sid, query))

    async def _call(self, call_sid: str, query: str) -> None:
        document = await self.gateway.comes_in(self.form(call_sid, "ringing"), query)
        self.documents.append(document)
        await self._follow(call_sid, document)

    async def answers(self, line: TwilioLine) -> None:
        """Whom we call answers."""
        await until(lambda: line.call_sid)
        self.tells(line.call_sid, "ringing")
        self.tells(line.call_sid, "in-progress")
        self._spawn(self._follow(line.call_sid, self.rest.made[-1]["Twiml"]))

    def follows(self, call_sid: str, document: str) -> None:
        """A call that was placed is answered."""
        self._spawn(self._follow(call_sid, document))

    def tells(self, call_sid: str, status: str, query: str = "") -> None:
        """Send a status callback."""
        self.gateway.is_told(self.form(call_sid, status, Direction="outbound-api"), query)

    def hangs_up(self, call_sid: str) -> None:
        """The caller hangs up."""
        self._over.add(call_sid)
        stream = self.streams.get(call_sid)
        if stream is None:
            self.gateway.is_told(self.form(call_sid, "completed"), "")
        else:
            stream.says("stop", stop={"callSid": call_sid})
            stream.socket.drops(1000)

    def _updated(self, call_sid: str, fields: Fields) -> None:
        """Another document takes the place of the stream."""
        stream = self.streams.get(call_sid)
        if stream is not None and stream.socket.close_code is None:
            stream.says("stop", stop={"callSid": call_sid})
            stream.socket.drops(1000)
            self._replaced.add(stream)
        if "Twiml" in fields:
            self._spawn(self._follow(call_sid, str(fields["Twiml"])))

    async def _follow(self, call_sid: str, document: str) -> None:
        given = parse(document).find("./Connect/Stream")
        if given is None or call_sid in self._over or not self.comes:
            return
        parameters = {each.attrib["name"]: each.attrib["value"] for each in given}
        token = given.attrib["url"].rpartition("/")[2]
        line = self.gateway.claim(token)
        if line is None:
            return
        stream = FakeStream(call_sid, **parameters)
        if (before := self.streams.get(call_sid)) is not None:
            stream.heard = before.heard
        self.streams[call_sid] = stream
        stream.begins()
        await line.serve(token, stream.socket, stream.socket.abort)
        if self.asks and call_sid not in self._over and stream not in self._replaced:
            form = self.form(call_sid, "in-progress")
            self.documents.append(await self.gateway.comes_after(form, ""))

    def _spawn(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))
