"""One call, as a test or a demonstration drives it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from lab.softphone.codec import Codec
from lab.softphone.ending import Ending
from lab.softphone.errors import CallFailed
from lab.softphone.handset import Handset
from lab.softphone.incoming import IncomingLeg
from lab.softphone.leg import Answered, ChangeRefused, Leg, LegEvent, MediaChanged, Progressed
from lab.softphone.media import MediaStream
from lab.softphone.sdp import Agreement, Direction

_MAX_PROGRESS = 64


@dataclass(frozen=True, slots=True)
class Progress:
    """A provisional answer. `at` is monotonic seconds."""

    status: int
    reason: str
    at: float
    early_media: bool


class Call(Handset):
    """One call of a `Phone`, which makes it. All sound is 16-bit PCM, mono, 8 kHz."""

    def __init__(self, leg: Leg, stream: MediaStream, pump: Callable[[], None]) -> None:
        super().__init__(stream.ear, stream.mouth)
        self.stream = stream
        stream.on_packet = self.packet_heard
        self.leg = leg
        self.agreement: Agreement | None = None
        self._pump = pump
        self._progress: deque[Progress] = deque(maxlen=_MAX_PROGRESS)
        self._news = asyncio.Event()
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._changed: asyncio.Future[MediaChanged | ChangeRefused] | None = None

    @property
    def id(self) -> str:
        """The SIP Call-ID."""
        return self.leg.call_id

    @property
    def is_incoming(self) -> bool:
        return isinstance(self.leg, IncomingLeg)

    @property
    def progress(self) -> tuple[Progress, ...]:
        """Every provisional answer beyond 100 that came, in order."""
        return tuple(self._progress)

    @property
    def rung_at(self) -> float | None:
        """When the first of them came, in monotonic seconds; None: none did."""
        return self._progress[0].at if self._progress else None

    @property
    def codec(self) -> Codec:
        """What was agreed on.

        Raises:
            RuntimeError: Nothing has been yet.
        """
        if self.agreement is None:
            raise RuntimeError("nothing has been agreed on yet")
        return self.agreement.codec

    async def answered(self) -> None:
        """Wait until the call is up. Raise CallFailed when it ends before that."""
        await asyncio.shield(self._answered)
        if self.answered_at is None and self.ending is not None:
            raise CallFailed(self.ending.status, self.ending.reason)

    async def rung(self, status: int = 180) -> Progress:
        """Wait for a provisional answer. Raise CallFailed when the call ends before it came."""
        while True:
            for progress in self._progress:
                if progress.status == status:
                    return progress
            if self.ending is not None:
                raise CallFailed(self.ending.status, self.ending.reason)
            self._news.clear()
            await self._news.wait()

    async def answer(self) -> None:
        """Answer a call that comes in, and wait until it is up.

        Raises:
            RuntimeError: it is not ringing here.
            CallFailed: it ended first.
        """
        self._incoming().answer(time.monotonic())
        self._pump()
        await self.answered()

    def reject(self, status: int = 486) -> None:
        """Refuse a call that comes in."""
        self._incoming().reject(status, time.monotonic())
        self._pump()

    async def hang_up(self) -> Ending:
        """End the call, whatever its state: CANCEL, BYE or a refusal. May be called again."""
        self.stream.stop_sending()
        self.leg.hang_up(time.monotonic())
        self._pump()
        return await self.ended

    async def send_digits(self, digits: str, *, press_ms: int = 100, gap_ms: int = 100) -> None:
        """Press digits (RFC 4733) and wait until the last one, and its pause, are over.

        Raises:
            ValueError: a character that is no digit.
            SoftphoneError: the far end takes no telephone events.
            CallOver: the call ended first.
        """
        self._check_not_over()
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.mouth.press(
            digits,
            press_ms=press_ms,
            gap_ms=gap_ms,
            on_finished=lambda: finished.set_result(None),
        )
        await self._unless_over(finished)

    async def hold(self) -> None:
        """Put the far end on hold: we send nothing, and ask it for nothing (`sendonly`).

        Raises:
            CallFailed: the far end refused.
            CallOver: the call ended first.
        """
        await self._change(Direction.SEND)

    async def unhold(self) -> None:
        """Take the far end back from hold. Raises as `hold` does."""
        await self._change(Direction.BOTH)

    def handle(self, event: LegEvent, at: float) -> None:
        """Take an event of our leg; `at` is when it came."""
        match event:
            case Progressed(status=status, reason=reason, agreement=agreement):
                early = agreement is not None
                self._progress.append(Progress(status, reason, at, early))
                self._news.set()
                if agreement is not None:
                    self.stream.agree(agreement)
            case Answered(agreement=agreement):
                self.answered_at = at
                self._agree(agreement)
                self.stream.start_sending()
                self._answered.set_result(None)
            case MediaChanged(agreement=agreement):
                self._agree(agreement)
                self._settle_change(event)
            case ChangeRefused():
                self._settle_change(event)
            case _:
                self.finish(event.ending)

    def begin_early_media(self, agreement: Agreement) -> None:
        """Speak before the call, which comes in, is answered."""
        self._agree(agreement)
        self.stream.start_sending()

    def finish(self, ending: Ending) -> None:
        """The call is over. May be called again; the first ending counts."""
        if self.ending is not None:
            return
        self.over(ending)
        self.stream.close()
        self._news.set()
        if not self._answered.done():
            self._answered.set_result(None)

    def _agree(self, agreement: Agreement) -> None:
        self.agreement = agreement
        self.stream.agree(agreement)
        # A phone that holds the other has nothing to say to it: it has no music of its own.
        media = self.leg.media
        holding = media is not None and not media.direction.receives
        self.mouth.paused = holding or not agreement.may_send

    def _settle_change(self, event: MediaChanged | ChangeRefused) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(event)

    async def _change(self, direction: Direction) -> None:
        self._check_not_over()
        self.leg.change(direction, time.monotonic())
        changed = self._changed = asyncio.get_running_loop().create_future()
        self._pump()
        match await self._unless_over(changed):
            case ChangeRefused(status=status, reason=reason):
                raise CallFailed(status, reason)

    def _incoming(self) -> IncomingLeg:
        if not isinstance(self.leg, IncomingLeg):
            raise RuntimeError("the call goes out")
        return self.leg
