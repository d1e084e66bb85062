"""Who brings the caller of the demonstration: one way in of the service, and the far side of it.

A way starts what must be there before the service, says with which settings that is reached, and
dials. All else (service, agent, conversation, recording, picture) is the same for each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Protocol

from ari_app.bridge import VoiceBridge
from lab.asterisk import LabAsterisk
from lab.demo.caller import Handset
from lab.demo.progress import Steps
from lab.softphone import Arrival, Ending, HeardStats, Phone
from lab.softphone.codec import Codec
from lab.twilio import Number, Twilio, TwilioCall

EXTENSION = "100"
"""Leads to the application in the lab's dialplan."""


class Ear(Protocol):
    """What a telephone has heard."""

    @property
    def arrivals(self) -> tuple[Arrival, ...]: ...


class Telephone(Handset, Protocol):
    """A call as the caller has it; a `lab.softphone.Call` is one. Times are monotonic seconds."""

    started_at: float
    answered_at: float | None
    ended_at: float | None
    ending: Ending | None

    @property
    def rung_at(self) -> float | None:
        """When it first rang at the far end; None: that was not told."""
        ...

    @property
    def codec(self) -> Codec:
        """What the voices travel as, once it is answered."""
        ...

    @property
    def ear(self) -> Ear: ...

    async def answered(self) -> None:
        """Wait until the call is up.

        Raises:
            CallFailed: It ended first.
        """
        ...

    def stats(self) -> HeardStats: ...


class Way(Protocol):
    """A way for the caller.

    Attributes:
        opening: What happens, in a sentence; told before it begins.
        far_side: Who connects the call, for the error when it does not.
        begins: What is sent first, for the figures: an INVITE, a request.
        number: What is dialled; known when the service runs.
        chain: What the sound passes on its way to the service, for the picture.
        page: What to read for doing it with an agent of one's own.
        invitation: How a person takes the caller's place with `--keep`; None: they cannot.
    """

    opening: str
    far_side: str
    begins: str
    page: str

    @property
    def number(self) -> str: ...

    @property
    def chain(self) -> str: ...

    @property
    def invitation(self) -> str | None: ...

    async def prepare(self, stack: AsyncExitStack, steps: Steps) -> Mapping[str, object]:
        """Start what the service needs; return the settings by which it is found.

        Raises:
            LabError: It cannot be had or does not start.
        """
        ...

    def listens(self, bridge: VoiceBridge) -> str:
        """Say where the service waits for calls of this way."""
        ...

    async def connect(self, bridge: VoiceBridge, stack: AsyncExitStack, steps: Steps) -> None:
        """Start what needs the service: the caller's side."""
        ...

    async def dial(self) -> Telephone:
        """Place the call."""
        ...

    def figures(self, call: Telephone) -> list[tuple[str, str]]:
        """Say how evenly the agent's voice came, as names and values with units."""
        ...


class AsteriskWay:
    """A softphone calls through a real Asterisk; `MEDIA_TRANSPORT` says how its sound goes on."""

    opening = "A telephone calls an agent, through a real Asterisk."
    far_side = "Asterisk"
    begins = "INVITE"
    page = "docs/first-call.md"
    invitation = "Call it with a softphone on this machine (UDP, no registration, no password)"
    _asterisk: LabAsterisk
    _phone: Phone

    @property
    def number(self) -> str:
        return f"sip:{EXTENSION}@{self._asterisk.sip_host}:{self._asterisk.sip_port}"

    @property
    def chain(self) -> str:
        return f"softphone ↔ Asterisk {release(self._asterisk.version)}"

    async def prepare(self, stack: AsyncExitStack, steps: Steps) -> Mapping[str, object]:
        with steps.step("Asterisk") as step:
            asterisk = await stack.enter_async_context(LabAsterisk(progress=step.report))
            step.result = (
                f"{release(asterisk.version)}, SIP on {asterisk.sip_host}:{asterisk.sip_port}"
            )
        self._asterisk = asterisk
        return {
            "ari_url": asterisk.ari_url,
            "ari_username": asterisk.ari_username,
            "ari_password": asterisk.ari_password,
            "ari_app": asterisk.app,
            "audiosocket_bind": "127.0.0.1:0",
            "media_transport": os.environ.get("MEDIA_TRANSPORT", "audiosocket"),
        }

    def listens(self, bridge: VoiceBridge) -> str:
        if bridge.readiness().media_transport == "websocket":
            return f"chan_websocket at {bridge.settings.ari_url}/media/"
        return "AudioSocket on {}:{}".format(*bridge.audiosocket_address)

    async def connect(self, bridge: VoiceBridge, stack: AsyncExitStack, steps: Steps) -> None:
        with steps.step("Softphone") as step:
            self._phone = await stack.enter_async_context(Phone(username="caller"))
            step.result = self._phone.uri

    async def dial(self) -> Telephone:
        return await self._phone.dial(self.number)

    def figures(self, call: Telephone) -> list[tuple[str, str]]:
        return packets(call)


def packets(call: Telephone) -> list[tuple[str, str]]:
    """Say how evenly packets came, as names and values with units."""
    heard = call.stats()
    gaps = f"p50 {heard.gap_p50_ms:.1f} ms, p99 {heard.gap_p99_ms:.1f} ms"
    return [
        ("frame gap at the phone", gaps),
        ("frames heard, lost", f"{heard.packets:,}, {heard.lost:,}"),
    ]


_CALLER, _NUMBER = "+15550100001", "+15550100002"
_ORIGIN = "https://bridge.test"
"""Where Twilio finds the service; the lab's knows where that really is."""
_INTENDED = 31921
"""What Twilio notes whenever a server closes its stream."""
_PAUSE_MS = 400
"""A longer hole in the agent's voice is a pause between its sentences."""


class TwilioWay:
    """A telephone calls a number of Twilio's, whom the lab plays."""

    opening = "A telephone calls an agent, by Twilio's Media Streams; the lab plays Twilio."
    far_side = "Twilio"
    begins = "webhook"
    page = "docs/twilio.md"
    number = _NUMBER
    chain = "telephone ↔ Twilio, as the lab plays it"
    invitation = None
    _twilio: Twilio

    async def prepare(self, stack: AsyncExitStack, steps: Steps) -> Mapping[str, object]:
        self._origins: dict[str, str] = {}
        with steps.step("Twilio") as step:
            twilio = self._twilio = await stack.enter_async_context(Twilio(self._origins))
            step.result = f"the lab's own, REST on {twilio.base_url}"
        twilio.numbers[_NUMBER] = Number(f"{_ORIGIN}/twilio/voice")
        return {
            "dialer_type": "twilio",
            # Without one only programs of this machine may ask.
            "api_key": "key-of-the-demonstration",
            "api_public_url": _ORIGIN,
            "twilio_account_sid": twilio.account_sid,
            "twilio_auth_token": twilio.auth_token,
            "twilio_phone_number": _NUMBER,
            "twilio_api_base_url": twilio.base_url,
        }

    def listens(self, bridge: VoiceBridge) -> str:
        address = "http://{}:{}".format(*bridge.api_address)
        return f"webhooks on {address}, for Twilio {_ORIGIN}"

    async def connect(self, bridge: VoiceBridge, stack: AsyncExitStack, steps: Steps) -> None:
        self._origins[_ORIGIN] = "http://{}:{}".format(*bridge.api_address)

    async def dial(self) -> Telephone:
        return self._twilio.call(_CALLER, _NUMBER)

    def figures(self, call: Telephone) -> list[tuple[str, str]]:
        assert isinstance(call, TwilioCall)
        playouts = [stream.playout for stream in call.streams]
        holes = [gap.ms for playout in playouts for gap in playout.gaps if gap.ms < _PAUSE_MS]
        longest = f", the longest of {max(holes):.0f} ms" if holes else ""
        told = [each.kind for playout in playouts for each in playout.told]
        noted = sorted({str(code) for code in self._twilio.codes() if code != _INTENDED})
        return [
            ("holes in the agent's voice", f"{len(holes) or 'none'}{longest}"),
            ("messages of sound, clears", f"{told.count('media'):,}, {told.count('clear')}"),
            ("errors and warnings at Twilio", ", ".join(noted) or "none"),
        ]


def release(version: str) -> str:
    """The short form of Asterisk's version: `22.10.1` of `22.10.1+dfsg`."""
    return version.partition("+")[0].partition("~")[0]
