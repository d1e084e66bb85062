"""The messages of a Media Stream, both ways, how far the caller has heard, and what becomes of a
call. Pure.

Sources: https://www.twilio.com/docs/voice/media-streams/websocket-messages
and https://www.twilio.com/docs/voice/api/call-resource
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import orjson
import pybase64
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ari_app.line.interface import (
    Answered,
    EndCause,
    Ended,
    LineEvent,
    Result,
    Rings,
    Screened,
)
from ari_app.line.results import result_of
from ari_app.line.websocket_input import BadInput

FRAME_MS: Final = 20
RATE_HZ: Final = 8000
LEAD_MS: Final = 160.0
"""So much lies at Twilio, at most: what a late packet takes from it is not heard."""
MAX_MESSAGE_BYTES: Final = 64 * 1024
"""Twilio's own have 0.4 kB."""
_BYTES_PER_MS: Final = RATE_HZ // 1000
_HEADERS: Final = (b"RIFF", b"OggS", b"fLaC", b".snd")
_SID: Final = re.compile(r"[A-Za-z0-9]{2,64}")


def is_sid(text: str) -> bool:
    """Return whether a text may name something of Twilio's: it means nothing but itself."""
    return _SID.fullmatch(text) is not None


# --- what Twilio says


class _Part(BaseModel):
    # New fields appear unannounced.
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class _Format(_Part):
    encoding: str
    sampleRate: int
    channels: int


class _Start(_Part):
    accountSid: str
    streamSid: str
    callSid: str
    mediaFormat: _Format
    customParameters: dict[str, str] = Field(default_factory=dict)


class _Media(_Part):
    payload: Annotated[str, Field(min_length=1)]
    track: str = "inbound"


class _Dtmf(_Part):
    digit: str


class _Mark(_Part):
    name: Annotated[str, Field(max_length=64)]


class _ConnectedMessage(_Part):
    event: Literal["connected"]
    protocol: str


class _StartMessage(_Part):
    event: Literal["start"]
    streamSid: str
    start: _Start


class _MediaMessage(_Part):
    event: Literal["media"]
    streamSid: str
    media: _Media


class _DtmfMessage(_Part):
    event: Literal["dtmf"]
    streamSid: str
    dtmf: _Dtmf


class _MarkMessage(_Part):
    event: Literal["mark"]
    streamSid: str
    mark: _Mark


class _StopMessage(_Part):
    event: Literal["stop"]
    streamSid: str


_Message = (
    _ConnectedMessage | _StartMessage | _MediaMessage | _DtmfMessage | _MarkMessage | _StopMessage
)
_MESSAGES: Final[TypeAdapter[_Message]] = TypeAdapter(
    Annotated[_Message, Field(discriminator="event")]
)
_EVENTS: Final = frozenset({"connected", "start", "media", "dtmf", "mark", "stop"})


@dataclass(frozen=True, slots=True)
class Started:
    """The stream begins.

    Attributes:
        account_sid, call_sid: Whose it is.
        parameters: What our TwiML has given it.
    """

    account_sid: str
    call_sid: str
    parameters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Media:
    """The caller's sound.

    Attributes:
        ulaw: G.711 µ-law, 8 kHz, any length.
    """

    ulaw: bytes


@dataclass(frozen=True, slots=True)
class Digit:
    """The caller has pressed a key."""

    digit: str


@dataclass(frozen=True, slots=True)
class Marked:
    """What was sent before this mark was played, or thrown away by a `clear`."""

    name: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The stream has ended: the caller hung up, or another document took its place."""


Said = Started | Media | Digit | Marked | Stopped


class Stream:
    """The messages of one stream in their order: `connected`, `start`, the rest, `stop`.

    Attributes:
        sid: The stream's name; empty before `start`.
        over: `stop` has come.
    """

    def __init__(self) -> None:
        self.sid = ""
        self.over = False
        self._greeted = self._heard_media = False

    def read(self, text: str) -> Said | None:
        """Return what a message says; None where it is nothing that matters.

        Raises:
            BadInput: It is no message of Twilio's, comes too early or twice, or belongs to another
                stream.
        """
        message = _parse(text)
        if message is None or self.over:
            return None
        match message:
            case _ConnectedMessage():
                if self._greeted:
                    raise BadInput("twice", "`connected` came twice.")
                self._greeted = True
                return None
            case _StartMessage():
                return self._started(message)
        if not self.sid:
            raise BadInput("too_early", f"A `{message.event}` came before `start`.")
        if message.streamSid != self.sid:
            raise BadInput("wrong_stream", "A message names another stream.")
        match message:
            case _MediaMessage():
                return self._media(message.media)
            case _DtmfMessage():
                return Digit(message.dtmf.digit)
            case _MarkMessage():
                return Marked(message.mark.name)
            case _StopMessage():
                self.over = True
                return Stopped()

    def _started(self, message: _StartMessage) -> Started:
        if not self._greeted:
            raise BadInput("too_early", "`start` came before `connected`.")
        if self.sid:
            raise BadInput("twice", "`start` came twice.")
        start = message.start
        if not is_sid(message.streamSid) or start.streamSid != message.streamSid:
            raise BadInput("wrong_stream", "`start` names two streams.")
        if start.mediaFormat != _Format(encoding="audio/x-mulaw", sampleRate=RATE_HZ, channels=1):
            raise BadInput("wrong_format", "The stream is not µ-law at 8000 Hz, mono.")
        self.sid = message.streamSid
        return Started(start.accountSid, start.callSid, start.customParameters)

    def _media(self, media: _Media) -> Media | None:
        if not media.track.startswith("inbound"):
            return None
        try:
            ulaw = pybase64.b64decode(media.payload, validate=True)
        except (binascii.Error, ValueError):
            raise BadInput("malformed", "The sound of a `media` is not base64.") from None
        # Four bytes of a voice may be anything, later on.
        if not self._heard_media and ulaw.startswith(_HEADERS):
            raise BadInput("audio_with_header", "The sound begins with the header of a file.")
        self._heard_media = True
        return Media(ulaw)


def _parse(text: str) -> _Message | None:
    try:
        message: Any = orjson.loads(text)
        event = message["event"] if isinstance(message, dict) else None
        if isinstance(event, str) and event not in _EVENTS:
            return None  # There may be more of them one day.
        return _MESSAGES.validate_python(message)
    except (orjson.JSONDecodeError, ValidationError, KeyError):
        raise BadInput("malformed", "A text message is none of a Media Stream.") from None


# --- what we say: to the letter, for Twilio may end a stream over a field that it does not know


def media(stream_sid: str, ulaw: bytes) -> str:
    """Have sound played after what was sent before."""
    payload = pybase64.b64encode(ulaw).decode("ascii")
    # Nothing in it needs an escape: a message for each 40 ms of each call is worth the shortcut.
    return f'{{"event":"media","streamSid":"{stream_sid}","media":{{"payload":"{payload}"}}}}'


def mark(stream_sid: str, name: str) -> str:
    """Ask to be told when all that was sent before was played."""
    return _text(event="mark", streamSid=stream_sid, mark={"name": name})


def clear(stream_sid: str) -> str:
    """Have thrown away what was not played yet; its marks come back at once."""
    return _text(event="clear", streamSid=stream_sid)


def _text(**parts: object) -> str:
    return orjson.dumps(parts).decode()


# --- how far the caller has heard


class PlayOut:
    """What Twilio was sent, and how much of it the caller has heard. Times are seconds.

    Without a word from Twilio, what was sent is taken to be played in real time from when it was
    sent, or from the end of what was sent before. Each mark that comes back says how much later
    than that it really was. A mark of before the last `clear` says nothing: that brings all back.
    """

    _MARK_MS: Final = 200.0

    def __init__(self) -> None:
        self._sent_ms = self._heard_ms = self._marked_ms = 0.0
        self._ends_at = 0.0
        self._late = 0.0
        self._generation = self._number = 0
        self._marks: dict[str, tuple[float, float]] = {}

    def ahead_ms(self, now: float) -> float:
        """Return how much lies ahead of real time, by our own clock."""
        return max(0.0, self._ends_at - now) * 1000

    def unheard_ms(self, now: float) -> float:
        """Return how much of what was sent is not known to have been heard, as the marks say."""
        late = max(0.0, self._ends_at + self._late - now) * 1000
        return min(late, self._sent_ms - self._heard_ms)

    @property
    def mark_due(self) -> bool:
        """Whether it is time for a mark."""
        return self._sent_ms - self._marked_ms >= self._MARK_MS

    @property
    def unmarked(self) -> bool:
        """Whether something was sent after the last mark."""
        return self._sent_ms > self._marked_ms

    @property
    def pending(self) -> bool:
        """Whether a mark of now has not come back."""
        return bool(self._marks)

    def sent(self, ulaw_bytes: int, now: float) -> None:
        """Note that sound was sent."""
        length_ms = ulaw_bytes / _BYTES_PER_MS
        self._sent_ms += length_ms
        self._ends_at = max(self._ends_at, now) + length_ms / 1000

    def mark(self) -> str:
        """Note a mark that is sent now, and return its name."""
        self._number += 1
        name = f"{self._generation}.{self._number}"
        self._marked_ms = self._sent_ms
        self._marks[name] = (self._sent_ms, self._ends_at)
        return name

    def marked(self, name: str, now: float) -> None:
        """Note that a mark has come back.

        Raises:
            BadInput: None of this name was sent.
        """
        if (known := self._marks.pop(name, None)) is not None:
            position_ms, due = known
            self._heard_ms = max(self._heard_ms, position_ms)
            self._late = max(0.0, now - due)
            return
        generation, _, number = name.partition(".")
        if not (
            _is_number(generation)
            and _is_number(number)
            and int(generation) <= self._generation
            and 0 < int(number) <= self._number
        ):
            raise BadInput("unknown_mark", "A mark came back that was not sent.")

    def clear(self, now: float) -> float:
        """Note that what was not heard yet will not be; how much, in ms."""
        lost = self.unheard_ms(now)
        self._generation += 1
        self._marks.clear()
        self._heard_ms = self._marked_ms = self._sent_ms
        self._ends_at = min(self._ends_at, now)
        return lost


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 12


# --- what becomes of a call

ANSWERED: Final = "in-progress"
TERMINAL: Final = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
_CAUSES: Final = MappingProxyType({"completed": 16, "busy": 17, "no-answer": 19, "canceled": 16})
"""ITU-T Q.850."""
_CAUSES_BY_SIP: Final = MappingProxyType(
    {404: 1, 410: 22, 480: 18, 484: 28, 486: 17, 487: 19, 503: 41, 603: 21}
)
"""RFC 3398."""
_RESULTS: Final = MappingProxyType(
    {"busy": Result.BUSY, "no-answer": Result.NO_ANSWER, "canceled": Result.NO_ANSWER}
)
_ANSWERED_BY: Final = MappingProxyType(
    {
        "human": "HUMAN",
        "machine_start": "MACHINE",
        "machine_end_beep": "MACHINE",
        "machine_end_silence": "MACHINE",
        "machine_end_other": "MACHINE",
        "fax": "MACHINE",
        "unknown": "NOTSURE",
    }
)


def screened(answered_by: str) -> Screened | None:
    """Return who has answered, in the words of the settings; None: they are not known."""
    status = _ANSWERED_BY.get(answered_by)
    return None if status is None else Screened(status, answered_by)


class Progress:
    """The life of one call as status callbacks and look-ups tell it, in whatever order they come.

    Attributes:
        rang, answered: It did.
        over: It has ended: nothing that comes later counts.
        cause: Why.
    """

    def __init__(self, *, placed: bool, answered: bool = False) -> None:
        self.answered = answered
        self.rang = self.over = False
        self.cause = EndCause()
        self._placed = placed

    def heard(self, status: str, sip_code: int | None = None) -> list[LineEvent]:
        """Take a `CallStatus`; return what is new in it."""
        if self.over:
            return []
        if status in TERMINAL:
            return self._ended(status, sip_code)
        if status == ANSWERED:
            return self.was_answered()
        if status == "ringing" and self._placed and not self.rang and not self.answered:
            self.rang = True
            return [Rings()]
        return []

    def was_answered(self) -> list[LineEvent]:
        """Note that it is up, whoever says so first."""
        if self.answered or self.over:
            return []
        self.answered = True
        return [Answered()] if self._placed else []

    def _ended(self, status: str, sip_code: int | None) -> list[LineEvent]:
        told: list[LineEvent] = []
        if status == "completed":
            # What said that it was answered may have been lost, or be late.
            told = self.was_answered()
        self.over = True
        cause = _CAUSES.get(status)
        if cause is None and sip_code is not None:
            cause = _CAUSES_BY_SIP.get(sip_code)
        self.cause = EndCause(cause, sip_code)
        if self.answered or not self._placed:
            return [*told, Ended("caller_hung_up")]
        result = result_of(None, sip_code, rang=self.rang)
        if result is not Result.REJECTED:
            result = _RESULTS.get(status, result)
        return [Ended(result.value, result)]
