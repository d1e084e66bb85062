"""What a line of Twilio's is made of: its legs, what all lines share, and why Twilio calls
nobody."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlencode

from ari_app.line.interface import Result
from ari_app.line.twilio import twiml
from ari_app.line.twilio.protocol import Progress
from ari_app.line.twilio.rest import CallInfo, Fields, TwilioError
from ari_app.line.twilio.twiml import Elsewhere, Ending

if TYPE_CHECKING:
    from ari_app.line.twilio.stream import MediaStream

_RESULTS: Final = MappingProxyType(
    {
        **dict.fromkeys((21201, 21211, 21217, 21401), Result.INVALID_NUMBER),
        **dict.fromkeys((21214, 32017), Result.UNREACHABLE),
        **dict.fromkeys((21215, 21216, 21219), Result.REJECTED),
    }
)
_WHY: Final = MappingProxyType(
    {
        21210: "the caller's number is neither TWILIO_PHONE_NUMBER nor verified at Twilio",
        21212: "the caller's number is not one that Twilio can show",
        21215: "the account may not call that country (Voice Geographic Permissions)",
        21219: "a trial account calls verified numbers only",
        10004: "the account has as many calls as it may have",
    }
)

VOICE_PATH: Final = "/twilio/voice"
AFTER_PATH: Final = "/twilio/after"
STATUS_PATH: Final = "/twilio/status"
MEDIA_PATH: Final = "/twilio/media/{token}"
TARGET: Final = "target"
"""How status callbacks name the leg of a transfer's target; a number follows, for a late one about
the last target must not be taken for one about the next."""


def result_of_refusal(error: TwilioError) -> tuple[Result, str]:
    """Say what has come of a call that Twilio would not place, and why."""
    why = _WHY.get(error.number)
    return _RESULTS.get(error.number, Result.FAILED), f"{error} ({why})" if why else str(error)


class Rest(Protocol):
    """The requests of a line, as `TwilioApi` carries them out."""

    async def create(self, fields: Fields) -> CallInfo: ...

    async def find(self, call_sid: str) -> CallInfo | None: ...

    async def placed(self, to: str, sender: str, within_seconds: float) -> list[str]: ...

    async def update(self, call_sid: str, fields: Fields, *, once: bool = False) -> bool: ...


@dataclass(frozen=True, slots=True)
class TwilioOptions:
    """The facts that all lines share.

    Attributes:
        public_url: How Twilio reaches us, without a slash at its end.
        account_sid: Whose calls they are.
        number: What people whom we call see; None: each request says.
        elsewhere: Where callers go on after the agent.
        worker: The number of this process among several, by which what Twilio asks later finds it;
            0: it is alone.
    """

    public_url: str
    account_sid: str
    number: str | None = None
    elsewhere: Elsewhere = field(default_factory=Elsewhere)
    worker: int = 0

    def url(self, path: str) -> str:
        """Return where Twilio reaches a path of ours."""
        if self.worker:
            path += f"{'&' if '?' in path else '?'}worker={self.worker}"
        return self.public_url + path

    def stream_url(self, token: str) -> str:
        """Return where Twilio brings a stream; such an address has no query."""
        return "ws" + self.public_url.removeprefix("http") + MEDIA_PATH.format(token=token)

    def new_token(self) -> str:
        """Return what a stream comes with; nobody else knows it."""
        token = secrets.token_urlsafe(24)
        return f"{self.worker}.{token}" if self.worker else token


class Leg:
    """A call at Twilio.

    Attributes:
        name: What status callbacks call it; empty: it is the caller's.
        call_sid: Its name at Twilio; empty until it is known.
        progress: Its life.
        token: What its stream comes with.
        media: Its stream; None: none has come yet.
        placing: Asks Twilio to call them; None: nobody does.
        in_room: It was put into the waiting room.
        moving: Held while it is moved: until then it is not known where it is.
        asked_after: Twilio has asked what comes after its stream.
    """

    def __init__(
        self, *, placed: bool, name: str = "", call_sid: str = "", answered: bool = False
    ) -> None:
        self.name = name
        self.call_sid = call_sid
        self.progress = Progress(placed=placed, answered=answered)
        self.token = ""
        self.media: MediaStream | None = None
        self.placing: asyncio.Task[None] | None = None
        self.in_room = False
        self.moving = asyncio.Lock()
        self.asked_after = asyncio.Event()

    @property
    def has_sound(self) -> bool:
        """Whether sound flows through it."""
        return self.media is not None and self.media.begun and not self.media.moved


def after_query(ending: Ending) -> str:
    """Return the path at which Twilio tells how the call to a transfer's target has ended.

    It says by itself how the agent's part ended, so that it is known for as long as the two speak.
    """
    return f"{AFTER_PATH}?{urlencode(sorted(twiml.told(ending).items()))}"
