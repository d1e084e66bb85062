"""A telephone without a handset: SIP over UDP, RTP for each call."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Self

import structlog

from lab.softphone.agent import Event, Registration, UserAgent
from lab.softphone.call import Call
from lab.softphone.codec import codecs_named
from lab.softphone.datagrams import bind_udp
from lab.softphone.digest import Credentials
from lab.softphone.driver import SipDriver, resolve
from lab.softphone.ending import Ending
from lab.softphone.errors import CallFailed, SdpError
from lab.softphone.fields import Address, Uri
from lab.softphone.impairment import Impairment
from lab.softphone.incoming import IncomingLeg, Invited
from lab.softphone.leg import Ended, Leg
from lab.softphone.media import MediaStream
from lab.softphone.policy import Answer, Policy, Reject
from lab.softphone.sdp import Agreement, LocalMedia
from lab.softphone.transaction import Timers

log = structlog.get_logger(__name__)


class Phone:
    """A SIP phone for any number of calls at once.

        async with Phone(username="6001", password="secret") as phone:
            call = await phone.call("sip:600@127.0.0.1:5060")
            await call.play("hello.wav")
            await call.hang_up()

    What happens to calls that come in is decided by `on_incoming`, which may be set at any time.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        *,
        username: str = "phone",
        password: str | None = None,
        display: str = "",
        port: int = 0,
        codecs: tuple[str, ...] = ("PCMU", "PCMA"),
        ptime_ms: int = 20,
        on_incoming: Policy | None = None,
        impairment: Impairment | None = None,
        timers: Timers | None = None,
        max_incoming: int = 64,
    ) -> None:
        """`host` is the IPv4 address to bind and to name to others; port 0 takes a free one.

        `codecs` are for calls that come in. Beyond `max_incoming` calls that nobody has taken with
        `incoming`, further ones are refused as busy.

        Raises:
            ValueError: an unknown codec or ptime.
        """
        self.on_incoming: Policy = on_incoming or Answer()
        self.impairment = impairment
        self._host = host
        self._port = port
        self._username = username
        self._display = display
        self._credentials = None if password is None else Credentials(username, password)
        self._codecs = codecs_named(*codecs)
        self._ptime_ms = LocalMedia(Address(host, 0), self._codecs, ptime_ms).ptime_ms
        self._timers = timers
        self._driver: SipDriver | None = None
        self._is_closed = False
        self._calls: dict[Leg, Call] = {}
        self._delayed: dict[Leg, asyncio.TimerHandle] = {}
        self._incoming: asyncio.Queue[Call] = asyncio.Queue(max_incoming)
        self._registration: asyncio.Future[Registration] | None = None
        self._registrar: str | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Bind the SIP port. Raise OSError when it is taken."""
        sock = bind_udp(self._host, self._port)
        agent = UserAgent(
            Address(*sock.getsockname()[:2]),
            username=self._username,
            display=self._display,
            credentials=self._credentials,
            timers=self._timers,
        )
        self._driver = SipDriver(agent, self._handle)
        self._driver.open(sock)

    async def close(self, timeout: float = 2.0) -> None:
        """End every call, take the registration back and let go of all ports.

        A far end that does not answer within `timeout` seconds is not waited for. May be called
        again.
        """
        if self._driver is None or self._is_closed:
            return
        self._is_closed = True
        for handle in self._delayed.values():
            handle.cancel()
        self._delayed.clear()
        calls = self.calls
        try:
            with contextlib.suppress(TimeoutError, CallFailed):
                async with asyncio.timeout(timeout):
                    await asyncio.gather(*(call.hang_up() for call in calls))
                    if self._registrar is not None:
                        await self.register(self._registrar, expires=0)
        finally:
            for call in self.calls:
                call.finish(Ending("us", 408, "the phone was switched off"))
            self._calls.clear()
            self._driver.close()

    @property
    def agent(self) -> UserAgent:
        """The SIP core, for its counters. Raise RuntimeError before `start`."""
        return self._sip.agent

    @property
    def _sip(self) -> SipDriver:
        if self._driver is None:
            raise RuntimeError("the phone is not switched on")
        return self._driver

    @property
    def address(self) -> Address:
        """Where others reach us."""
        return self.agent.address

    @property
    def uri(self) -> str:
        """What others dial to reach us."""
        return str(Uri(self.address.host, self._username, self.address.port))

    @property
    def calls(self) -> tuple[Call, ...]:
        """The calls that are not over."""
        return tuple(self._calls.values())

    async def dial(
        self,
        target: str,
        *,
        codec: str | tuple[str, ...] = "PCMU",
        ptime_ms: int | None = None,
        telephone_events: bool = True,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Call:
        """Call somebody and come back at once, while it rings there.

        Raises:
            SipError: `target` is no SIP URI.
            ValueError: an unknown codec or ptime.
            OSError: its host is not known, or no RTP port is free.
        """
        agent = self.agent
        destination = await resolve(Uri.parse(target).address)
        names = (codec,) if isinstance(codec, str) else codec
        stream = MediaStream(self._host, impairment=self.impairment)
        try:
            media = LocalMedia(
                stream.address,
                codecs_named(*names),
                ptime_ms or self._ptime_ms,
                events=telephone_events,
            )
        except ValueError:
            stream.close()
            raise
        leg = agent.invite(target, media, destination, time.monotonic(), headers)
        call = self._calls[leg] = Call(leg, stream, self._sip.pump)
        self._sip.pump()
        return call

    async def call(
        self,
        target: str,
        *,
        codec: str | tuple[str, ...] = "PCMU",
        timeout: float = 30.0,
        ptime_ms: int | None = None,
        telephone_events: bool = True,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Call:
        """Call somebody and wait for the answer.

        Raises:
            CallFailed: refused, not reachable, or not answered within `timeout` seconds (408); the
                call is cancelled then.
            SipError, ValueError, OSError: as for `dial`.
        """
        call = await self.dial(
            target,
            codec=codec,
            ptime_ms=ptime_ms,
            telephone_events=telephone_events,
            headers=headers,
        )
        try:
            async with asyncio.timeout(timeout):
                await call.answered()
        except TimeoutError:
            self._drop(call)
            raise CallFailed(408, f"not answered within {timeout:g} s") from None
        except asyncio.CancelledError:
            self._drop(call)
            raise
        return call

    async def incoming(self, timeout: float | None = None) -> Call:
        """The next call that comes in and is not refused at once, as soon as it rings.

        Raises:
            TimeoutError: nobody called in time.
        """
        async with asyncio.timeout(timeout):
            return await self._incoming.get()

    async def register(self, registrar: str, *, expires: int = 3600, timeout: float = 10.0) -> None:
        """Register with `sip:HOST:PORT`; `close` takes it back. It is not refreshed.

        Raises:
            CallFailed: the registrar refused or did not answer.
            RuntimeError: another registration is under way.
        """
        if self._registration is not None:
            raise RuntimeError("another registration is under way")
        destination = await resolve(Uri.parse(registrar).address)
        self._registration = asyncio.get_running_loop().create_future()
        try:
            self.agent.register(registrar, destination, expires, time.monotonic())
            self._sip.pump()
            async with asyncio.timeout(timeout):
                answer = await self._registration
        except TimeoutError:
            answer = Registration(408, "no answer")
        finally:
            self._registration = None
        if answer.status >= 300:
            raise CallFailed(answer.status, answer.reason)
        self._registrar = registrar if expires else None

    def _handle(self, event: Event, at: float) -> None:
        match event:
            case Invited(leg=leg):
                self._on_invited(leg)
            case Registration():
                if self._registration is not None and not self._registration.done():
                    self._registration.set_result(event)
            case _:
                call = self._calls.get(event.leg)
                if call is not None:
                    call.handle(event, at)
                if isinstance(event, Ended):
                    self._forget(event.leg)

    def _on_invited(self, leg: IncomingLeg) -> None:
        now = time.monotonic()
        policy = self.on_incoming
        if self._is_closed or self._incoming.full():
            policy = Reject(480 if self._is_closed else 486)
        if isinstance(policy, Reject) and policy.after_s == 0:
            leg.reject(policy.status, now, policy.contact)
            return
        try:
            stream = MediaStream(self._host, impairment=self.impairment)
        except OSError as error:
            log.warning("no rtp port", error=str(error))
            leg.reject(503, now)
            return
        try:
            agreement = leg.prepare(LocalMedia(stream.address, self._codecs, self._ptime_ms))
        except SdpError:
            stream.close()
            leg.reject(488, now)
            return
        call = self._calls[leg] = Call(leg, stream, self._sip.pump)
        self._incoming.put_nowait(call)
        self._follow(policy, call, leg, agreement)

    def _follow(
        self, policy: Policy, call: Call, leg: IncomingLeg, agreement: Agreement | None
    ) -> None:
        now = time.monotonic()
        match policy:
            case Answer(after_s=after_s) if after_s == 0:
                leg.answer(now)
            case Answer(after_s=after_s, early_media=early):
                self._ring(call, leg, agreement if early else None)
                self._later(leg, after_s, lambda: leg.answer(time.monotonic()))
            case Reject(status=status, after_s=after_s, contact=contact):
                self._ring(call, leg, None)
                self._later(leg, after_s, lambda: leg.reject(status, time.monotonic(), contact))
            case _:
                self._ring(call, leg, None)

    @staticmethod
    def _ring(call: Call, leg: IncomingLeg, early: Agreement | None) -> None:
        leg.ring(time.monotonic(), early_media=early is not None)
        if early is not None:
            call.begin_early_media(early)

    def _later(self, leg: IncomingLeg, seconds: float, act: Callable[[], None]) -> None:
        def run() -> None:
            del self._delayed[leg]
            if leg.is_waiting:
                act()
                self._sip.pump()

        self._delayed[leg] = asyncio.get_running_loop().call_later(seconds, run)

    def _drop(self, call: Call) -> None:
        """Cancel a call that nobody waits for any more; its end comes by itself."""
        call.stream.stop_sending()
        call.leg.hang_up(time.monotonic())
        self._sip.pump()

    def _forget(self, leg: Leg) -> None:
        self._calls.pop(leg, None)
        handle = self._delayed.pop(leg, None)
        if handle is not None:
            handle.cancel()
