"""The user agent: tells datagrams apart, owns transactions, legs and their timers.

Pure. Datagrams and commands go in with `now`; `datagrams()` and `events()` come out; `deadline`
says when `handle_timer` wants to be called. What it does with garbage is to count it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from math import inf

from lab.softphone.dialog import AGENT
from lab.softphone.digest import Credentials, authorised
from lab.softphone.errors import SdpError, SipError
from lab.softphone.fields import Address, NameAddr, Uri, Via
from lab.softphone.incoming import IncomingLeg, Invited
from lab.softphone.leg import Leg, LegEvent, OnAnswer
from lab.softphone.outgoing import OutgoingLeg
from lab.softphone.sdp import LocalMedia
from lab.softphone.sip import (
    ALLOW,
    REASONS,
    Headers,
    Request,
    Response,
    build_response,
    parse,
)
from lab.softphone.transaction import ClientTransaction, Outgoing, ServerTransaction, State, Timers

_MAGIC = "z9hG4bK"
"""How every branch begins (RFC 3261, section 8.1.1.7)."""


@dataclass(frozen=True, slots=True)
class Registration:
    """The registrar's final answer, 408 when there was none."""

    status: int
    reason: str


Event = Invited | LegEvent | Registration
"""What the user agent tells whoever drives it."""


class UserAgent:
    """A SIP user agent for any number of calls over one UDP address."""

    def __init__(
        self,
        address: Address,
        *,
        username: str = "phone",
        display: str = "",
        credentials: Credentials | None = None,
        timers: Timers | None = None,
        rng: random.Random | None = None,
        max_transactions: int = 4096,
    ) -> None:
        """`address` is our own, as others reach it.

        Requests beyond `max_transactions` are dropped and counted; their sender repeats them.
        """
        self.address = address
        self.credentials = credentials
        self.contact = NameAddr(str(Uri(address.host, username, address.port)))
        self.legs: dict[tuple[str, str], Leg] = {}
        self.malformed = 0
        self.strays = 0
        """Answers to nothing that we asked."""
        self.overflow = 0
        self._sender = NameAddr(str(Uri(address.host, username)), display)
        self._timers = timers or Timers()
        self._rng = rng or random.SystemRandom()
        self._max_transactions = max_transactions
        self._clients: dict[tuple[str, str], tuple[ClientTransaction, OnAnswer]] = {}
        self._servers: dict[tuple[str, Address, str], ServerTransaction] = {}
        self._outgoing: Outgoing = []
        self._events: list[Event] = []

    def invite(
        self,
        target: str,
        media: LocalMedia,
        destination: Address,
        now: float,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> OutgoingLeg:
        """Call somebody. Progressed, Answered and Ended events will follow."""
        leg = OutgoingLeg(
            self,
            target=target,
            sender=self._sender,
            media=media,
            destination=destination,
            give_up_after=self._timers.give_up,
            now=now,
            headers=headers,
        )
        self.legs[leg.call_id, leg.local_tag] = leg
        return leg

    def register(self, registrar: str, destination: Address, expires: int, now: float) -> None:
        """Register our contact for `expires` seconds; 0 takes it back. Registration will follow."""
        uri = Uri.parse(registrar)
        own = self._sender.with_tag(self.token())
        user = Uri.parse(self._sender.uri).user
        fields = (
            ("Via", str(self.via())),
            ("Max-Forwards", "70"),
            ("From", str(NameAddr(str(Uri(uri.host, user)), own.display, own.parameters))),
            ("To", str(NameAddr(str(Uri(uri.host, user))))),
            ("Call-ID", self.token()),
            ("CSeq", "1 REGISTER"),
            ("Contact", str(self.contact)),
            ("Expires", str(expires)),
            ("User-Agent", AGENT),
        )
        request = Request(Headers(fields), b"", "REGISTER", str(Uri(uri.host, port=uri.port)))

        def on_answer(request: Request, response: Response | None, now: float) -> None:
            if response is None:
                self.emit(Registration(408, REASONS[408]))
            elif not response.is_provisional:
                again = authorised(
                    request,
                    response,
                    self.credentials,
                    branch=self.via().branch,
                    cnonce=self.token(),
                )
                if again is None:
                    self.emit(Registration(response.status, response.reason))
                else:
                    self.transact(again, destination, now, on_answer)

        self.transact(request, destination, now, on_answer)

    def receive_datagram(self, data: bytes, source: Address, now: float) -> None:
        """Take one datagram. Never raises, whatever is in it."""
        if not data.strip(b"\r\n\0 "):
            return  # A keep-alive.
        try:
            message = parse(data)
        except SipError:
            self.malformed += 1
            return
        if isinstance(message, Request):
            self._receive_request(message, source, now)
        else:
            self._receive_response(message, now)

    @property
    def deadline(self) -> float:
        """When `handle_timer` is due; infinity while nothing is."""
        clients = (transaction.deadline for transaction, _ in self._clients.values())
        servers = (transaction.deadline for transaction in self._servers.values())
        return min(min(clients, default=inf), min(servers, default=inf))

    def handle_timer(self, now: float) -> None:
        """Do what is due by `now`."""
        for key, (client, on_answer) in list(self._clients.items()):
            if client.handle_timer(now):
                on_answer(client.request, None, now)
            if client.state is State.TERMINATED:
                del self._clients[key]
        for server_key, server in list(self._servers.items()):
            if server.handle_timer(now):
                for leg in list(self.legs.values()):
                    leg.acknowledgement_lost(server, now)
            if server.state is State.TERMINATED:
                del self._servers[server_key]

    def datagrams(self) -> Outgoing:
        """What is to be sent, in order. Each datagram comes once."""
        taken = list(self._outgoing)
        self._outgoing.clear()
        return taken

    def events(self) -> list[Event]:
        """What happened, in order. Each event comes once."""
        taken, self._events = self._events, []
        return taken

    def token(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"

    def via(self) -> Via:
        parameters = (("branch", _MAGIC + self.token()), ("rport", None))
        return Via(self.address.host, self.address.port, parameters)

    def send(self, message: Request, destination: Address) -> None:
        self._outgoing.append((message.encode(), destination))

    def transact(
        self, request: Request, destination: Address, now: float, on_answer: OnAnswer
    ) -> ClientTransaction:
        transaction = ClientTransaction(
            request, destination, now, timers=self._timers, outgoing=self._outgoing
        )
        self._clients[request.via.branch, request.method] = transaction, on_answer
        return transaction

    def emit(self, event: Event) -> None:
        self._events.append(event)

    def forget(self, leg: Leg) -> None:
        del self.legs[leg.call_id, leg.local_tag]

    def _receive_response(self, response: Response, now: float) -> None:
        found = self._clients.get((response.via.branch, response.cseq.method))
        if found is None:
            self.strays += 1
            return
        transaction, on_answer = found
        news = transaction.receive(response, now)
        if news is not None:
            on_answer(transaction.request, news, now)

    def _receive_request(self, request: Request, source: Address, now: float) -> None:
        via = request.via
        if request.method == "ACK":
            self._receive_ack(request, now)
            return
        known = self._servers.get((via.branch, via.sent_by, request.method))
        if known is not None:
            known.receive_again()
            return
        if len(self._servers) >= self._max_transactions:
            self.overflow += 1
            return
        received = request.headers.all("Via")
        headers = request.headers.without("Via")
        vias = tuple(("Via", value) for value in (str(via.received_from(source)), *received[1:]))
        request = Request(
            Headers((*vias, *headers.fields)), request.body, request.method, request.uri
        )
        transaction = ServerTransaction(
            request, via.reply_address(source), timers=self._timers, outgoing=self._outgoing
        )
        self._servers[via.branch, via.sent_by, request.method] = transaction
        self._dispatch(request, transaction, source, now)

    def _dispatch(
        self, request: Request, transaction: ServerTransaction, source: Address, now: float
    ) -> None:
        tag = request.recipient.tag
        leg = self.legs.get((request.call_id, tag)) if tag is not None else None
        if request.method == "CANCEL":
            self._on_cancel(request, transaction, now)
        elif request.headers.all("Require"):
            unsupported = ", ".join(request.headers.all("Require"))
            self._reply(transaction, 420, now, ("Unsupported", unsupported))
        elif leg is not None:
            leg.receive(request, transaction, now)
        elif tag is not None:
            self._reply(transaction, 481, now)
        elif request.method == "INVITE":
            self._on_invite(request, transaction, source, now)
        elif request.method == "OPTIONS":
            accept = ("Accept", "application/sdp")
            self._reply(transaction, 200, now, ("Allow", ALLOW), accept)
        elif request.method == "BYE":
            self._reply(transaction, 481, now)
        else:
            self._reply(transaction, 405, now, ("Allow", ALLOW))

    def _on_invite(
        self, request: Request, transaction: ServerTransaction, source: Address, now: float
    ) -> None:
        try:
            leg = IncomingLeg(self, request, transaction, source)
        except SdpError:
            self._reply(transaction, 488, now)
            return
        self.legs[leg.call_id, leg.local_tag] = leg
        self.emit(Invited(leg))

    def _on_cancel(self, request: Request, transaction: ServerTransaction, now: float) -> None:
        via = request.via
        invite = self._servers.get((via.branch, via.sent_by, "INVITE"))
        if invite is None:
            self._reply(transaction, 481, now)
            return
        self._reply(transaction, 200, now)
        for leg in list(self.legs.values()):
            if isinstance(leg, IncomingLeg):
                leg.cancel(invite, now)

    def _receive_ack(self, request: Request, now: float) -> None:
        """An ACK ends the repetition of a refusal by its branch, of a 2xx by its dialog."""
        via = request.via
        invite = self._servers.get((via.branch, via.sent_by, "INVITE"))
        if invite is not None and invite.state is not State.ACCEPTED:
            invite.acknowledge(now)
            return
        leg = self.legs.get((request.call_id, request.recipient.tag or ""))
        if leg is not None:
            leg.receive_ack(request, now)

    def _reply(
        self, transaction: ServerTransaction, status: int, now: float, *extra: tuple[str, str]
    ) -> None:
        response = build_response(transaction.request, status, to_tag=self.token(), extra=extra)
        transaction.respond(response, now)
