"""SIP dialogs (RFC 3261, section 12): what two phones remember of each other during a call.

Pure.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from lab.softphone.errors import SipError
from lab.softphone.fields import Address, NameAddr, Uri, Via
from lab.softphone.sip import ALLOW, Headers, Request, Response

AGENT = "lab-softphone"


@dataclass(slots=True)
class Dialog:
    """One dialog. Requests within it are built here, and their CSeq counted."""

    call_id: str
    local: NameAddr
    remote: NameAddr
    remote_target: Uri
    route_set: tuple[NameAddr, ...]
    peer: Address
    """Where the far end's first message came from: the way when a route names no IP address."""
    local_cseq: int
    remote_cseq: int | None = None

    @classmethod
    def of_caller(cls, invite: Request, response: Response, peer: Address) -> Dialog:
        """The dialog that an answer to our INVITE opens. Raise SipError without a Contact."""
        return cls(
            call_id=invite.call_id,
            local=invite.sender,
            remote=response.recipient,
            remote_target=_target(response),
            route_set=tuple(reversed(_record_route(response))),
            peer=peer,
            local_cseq=invite.cseq.number,
        )

    @classmethod
    def of_called(cls, invite: Request, local_tag: str, peer: Address) -> Dialog:
        """The dialog that an INVITE of theirs opens. Raise SipError without a Contact."""
        return cls(
            call_id=invite.call_id,
            local=invite.recipient.with_tag(local_tag),
            remote=invite.sender,
            remote_target=_target(invite),
            route_set=tuple(_record_route(invite)),
            peer=peer,
            local_cseq=0,
            remote_cseq=invite.cseq.number,
        )

    @property
    def destination(self) -> Address:
        """Where the next request goes: the first route, else the far end's Contact.

        Every route is taken for a loose one; strict routing died with RFC 2543.
        """
        uri = Uri.parse(self.route_set[0].uri) if self.route_set else self.remote_target
        try:
            ipaddress.ip_address(uri.host.strip("[]"))
        except ValueError:
            return self.peer
        return uri.address

    def request(
        self,
        method: str,
        *,
        via: Via,
        contact: NameAddr,
        cseq: int | None = None,
        body: bytes = b"",
        extra: tuple[tuple[str, str], ...] = (),
    ) -> Request:
        """Build a request; `cseq` is given only for an ACK, which repeats its INVITE's number."""
        if cseq is None:
            self.local_cseq += 1
            cseq = self.local_cseq
        fields = [
            ("Via", str(via)),
            ("Max-Forwards", "70"),
            *(("Route", str(route)) for route in self.route_set),
            ("From", str(self.local)),
            ("To", str(self.remote)),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq} {method}"),
            ("Contact", str(contact)),
            ("User-Agent", AGENT),
            *extra,
        ]
        if method == "INVITE":
            fields.append(("Allow", ALLOW))
        if body:
            fields.append(("Content-Type", "application/sdp"))
        return Request(Headers(tuple(fields)), body, method, str(self.remote_target))

    def accepts(self, request: Request) -> bool:
        """Take note of a request's CSeq; False when it is older than one seen (section 12.2.2)."""
        number = request.cseq.number
        if self.remote_cseq is not None and number < self.remote_cseq:
            return False
        self.remote_cseq = number
        return True

    def refresh_target(self, message: Request | Response) -> None:
        """A re-INVITE, or the answer to one, may move the far end. Raise SipError if unreadable."""
        if message.contact is not None:
            self.remote_target = Uri.parse(message.contact.uri)


def _target(message: Request | Response) -> Uri:
    if message.contact is None:
        raise SipError("no Contact")
    return Uri.parse(message.contact.uri)


def _record_route(message: Request | Response) -> list[NameAddr]:
    routes = [NameAddr.parse(value) for value in message.headers.all("Record-Route")]
    for route in routes:
        Uri.parse(route.uri)
    return routes
