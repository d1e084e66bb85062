"""One side of a call, from INVITE to BYE: what both directions have in common.

Pure. A leg acts through its `Host`, the user agent, and reports by events.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lab.softphone.dialog import Dialog
from lab.softphone.digest import Credentials, authorised
from lab.softphone.ending import Ending
from lab.softphone.errors import SdpError
from lab.softphone.fields import Address, NameAddr, Via
from lab.softphone.sdp import Agreement, Direction, LocalMedia, Session
from lab.softphone.sip import ALLOW, REASONS, Request, Response, build_response
from lab.softphone.transaction import ClientTransaction, ServerTransaction

OnAnswer = Callable[[Request, Response | None, float], None]
"""Called with the request, each answer to it (None: it timed out) and `now`."""


class Host(Protocol):
    """What a leg needs of the user agent."""

    credentials: Credentials | None
    contact: NameAddr

    def token(self) -> str: ...
    def via(self) -> Via: ...
    def send(self, message: Request, destination: Address) -> None: ...
    def transact(
        self, request: Request, destination: Address, now: float, on_answer: OnAnswer
    ) -> ClientTransaction: ...
    def emit(self, event: LegEvent) -> None: ...
    def forget(self, leg: Leg) -> None: ...


class LegState(enum.Enum):
    """Where a leg stands."""

    INVITING = "inviting"
    """Our INVITE has no final answer."""
    INVITED = "invited"
    """Their INVITE waits for ours."""
    UP = "up"
    ENDING = "ending"
    """CANCEL or BYE is on its way, or waits for its turn."""
    OVER = "over"


class Leg:
    """The part of a call that both directions share: what happens once it is up."""

    def __init__(self, host: Host, call_id: str, local_tag: str, state: LegState) -> None:
        self.call_id = call_id
        self.local_tag = local_tag
        self.state = state
        self.dialog: Dialog | None = None
        self.media: LocalMedia | None = None
        self.agreement: Agreement | None = None
        self._host = host
        self._ack: Request | None = None
        self._change: LocalMedia | None = None
        self._unacknowledged: ServerTransaction | None = None
        self._offer_in_answer = False
        self._bye_sent = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.call_id} {self.state.value}>"

    @property
    def is_over(self) -> bool:
        return self.state is LegState.OVER

    def hang_up(self, now: float) -> None:
        """End the call in the way that its state asks for. Nothing happens the second time."""
        if self.state is LegState.UP:
            self.state = LegState.ENDING
            # Whoever was called says no BYE before the ACK is here (RFC 3261, section 15).
            if self._unacknowledged is None:
                self._send_bye(now)

    def change(self, direction: Direction, now: float) -> None:
        """Send a re-INVITE with another direction. MediaChanged or ChangeRefused will follow.

        Raises:
            RuntimeError: the call is not up, or another change is still under way.
        """
        if self.state is not LegState.UP or self.dialog is None or self.media is None:
            raise RuntimeError("the call is not up")
        if self._change is not None or self._unacknowledged is not None:
            raise RuntimeError("another change is under way")
        self._change = self.media.changed(direction, self._ptime_ms)
        request = self.dialog.request(
            "INVITE",
            via=self._host.via(),
            contact=self._host.contact,
            body=self._change.offer().encode(),
        )
        self._host.transact(request, self.dialog.destination, now, self._on_change_answer)

    def receive(self, request: Request, transaction: ServerTransaction, now: float) -> None:
        """Take a request within the dialog, other than ACK and CANCEL."""
        if self.dialog is None or request.sender.tag != self.dialog.remote.tag:
            self._reply(transaction, 481, now)
            return
        if not self.dialog.accepts(request):
            self._reply(transaction, 500, now)
            return
        match request.method:
            case "BYE":
                self._on_bye(request, transaction, now)
            case "INVITE":
                self._on_invite(request, transaction, now)
            case "OPTIONS":
                self._reply(transaction, 200, now, extra=(("Allow", ALLOW),))
            case _:
                self._reply(transaction, 405, now, extra=(("Allow", ALLOW),))

    def receive_ack(self, request: Request, now: float) -> None:
        """Take the ACK of a 2xx."""
        waiting = self._unacknowledged
        if waiting is None or request.cseq.number != waiting.request.cseq.number:
            return
        waiting.acknowledge(now)
        self._unacknowledged = None
        if self._offer_in_answer:
            self._offer_in_answer = False
            self._conclude_from_ack(request)
        if self.state is LegState.ENDING and not self._bye_sent:
            self._send_bye(now)

    def acknowledgement_lost(self, transaction: ServerTransaction, now: float) -> None:
        """No ACK came for a 2xx. If it was ours, end the call (RFC 3261, section 13.3.1.4)."""
        if self._unacknowledged is transaction:
            self._unacknowledged = None
            self._send_bye(now)

    def _on_bye(self, request: Request, transaction: ServerTransaction, now: float) -> None:
        if self._unacknowledged is not None:
            self._unacknowledged.acknowledge(now)
        self._reply(transaction, 200, now)
        self._over(Ending("far", 200, "hung up", _q850_cause(request)))

    def _on_invite(self, request: Request, transaction: ServerTransaction, now: float) -> None:
        assert self.dialog is not None
        if self.state is not LegState.UP or self._unacknowledged is not None:
            self._reply(transaction, 500, now, extra=(("Retry-After", "1"),))
            return
        if self._change is not None:
            self._reply(transaction, 491, now)
            return
        assert self.media is not None
        self.media = self.media.changed(self.media.direction, self._ptime_ms)
        agreement: Agreement | None = None
        try:
            if request.has_sdp:
                session, agreement = self.media.answer(Session.parse(request.body))
            else:
                session = self.media.offer()
            self.dialog.refresh_target(request)
        except SdpError:
            self._reply(transaction, 488, now)
            return
        self._accept(transaction, session, now)
        if agreement is not None:
            self._settle(agreement)

    def _accept(self, transaction: ServerTransaction, session: Session, now: float) -> None:
        """Answer an INVITE with 200; its ACK is awaited from here on."""
        self._offer_in_answer = not transaction.request.has_sdp
        self._unacknowledged = transaction
        self._reply(
            transaction,
            200,
            now,
            extra=(("Contact", str(self._host.contact)), ("Allow", ALLOW)),
            body=session.encode(),
        )

    def _conclude_from_ack(self, request: Request) -> None:
        assert self.media is not None
        try:
            agreement = self.media.conclude(Session.parse(request.body))
        except SdpError:
            # Without an answer there is nothing to change; a call that never had one stays silent.
            return
        self._settle(agreement)

    @property
    def _ptime_ms(self) -> int:
        assert self.media is not None
        return self.media.ptime_ms if self.agreement is None else self.agreement.ptime_ms

    def _settle(self, agreement: Agreement) -> None:
        first = self.agreement is None
        self.agreement = agreement
        self._host.emit(Answered(self, agreement) if first else MediaChanged(self, agreement))

    def _on_change_answer(self, request: Request, response: Response | None, now: float) -> None:
        if response is None:
            self._refuse_change(408, REASONS[408], now)
        elif response.is_success:
            self._on_change_accepted(request, response, now)
        elif not response.is_provisional and not self._retry(
            request, response, now, self._on_change_answer
        ):
            self._refuse_change(response.status, response.reason, now)

    def _on_change_accepted(self, request: Request, response: Response, now: float) -> None:
        assert self.dialog is not None
        change, self._change = self._change, None
        if change is not None:
            self.dialog.refresh_target(response)
        self._acknowledge(request)
        if change is None or self.state is not LegState.UP:
            return
        try:
            agreement = change.conclude(Session.parse(response.body))
        except SdpError as error:
            self._host.emit(ChangeRefused(self, 488, str(error)))
            return
        self.media = change
        self._settle(agreement)

    def _refuse_change(self, status: int, reason: str, now: float) -> None:
        self._change = None
        self._host.emit(ChangeRefused(self, status, reason))
        if status == 481:
            self._over(Ending("far", status, reason))
        elif status == 408:
            self.hang_up(now)

    def _acknowledge(self, invite: Request) -> None:
        """Send the ACK for a 2xx; the same one again for a repeated answer."""
        assert self.dialog is not None
        number = invite.cseq.number
        if self._ack is None or self._ack.cseq.number != number:
            self._ack = self.dialog.request(
                "ACK",
                via=self._host.via(),
                contact=self._host.contact,
                cseq=number,
                extra=credentials_of(invite),
            )
        self._host.send(self._ack, self.dialog.destination)

    def _send_bye(self, now: float) -> None:
        assert self.dialog is not None
        self.state = LegState.ENDING
        self._bye_sent = True
        request = self.dialog.request("BYE", via=self._host.via(), contact=self._host.contact)
        self._host.transact(request, self.dialog.destination, now, self._on_bye_answer)

    def _on_bye_answer(self, request: Request, response: Response | None, now: float) -> None:
        if response is not None and response.is_provisional:
            return
        if response is not None and self._retry(request, response, now, self._on_bye_answer):
            return
        self._over(Ending("us", 200, "hung up"))

    def _retry(
        self, request: Request, response: Response, now: float, on_answer: OnAnswer
    ) -> ClientTransaction | None:
        """Send the request again with credentials, when that is what the answer asks for."""
        again = authorised(
            request,
            response,
            self._host.credentials,
            branch=self._host.via().branch,
            cnonce=self._host.token(),
        )
        if again is None or self.dialog is None:
            return None
        self.dialog.local_cseq = again.cseq.number
        return self._host.transact(again, self.dialog.destination, now, on_answer)

    def _reply(
        self,
        transaction: ServerTransaction,
        status: int,
        now: float,
        *,
        extra: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
    ) -> None:
        response = build_response(
            transaction.request, status, to_tag=self.local_tag, extra=extra, body=body
        )
        transaction.respond(response, now)

    def _over(self, ending: Ending) -> None:
        if not self.is_over:
            self.state = LegState.OVER
            self._host.emit(Ended(self, ending))
            self._host.forget(self)


@dataclass(frozen=True, slots=True)
class Progressed:
    """A provisional answer to our INVITE; with an agreement when early media comes with it."""

    leg: Leg
    status: int
    reason: str
    agreement: Agreement | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The call is up, whoever called."""

    leg: Leg
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class MediaChanged:
    """A re-INVITE, ours or theirs, changed what was agreed."""

    leg: Leg
    agreement: Agreement


@dataclass(frozen=True, slots=True)
class ChangeRefused:
    """Our re-INVITE was refused; what was agreed before stays."""

    leg: Leg
    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event of every leg."""

    leg: Leg
    ending: Ending


LegEvent = Progressed | Answered | MediaChanged | ChangeRefused | Ended
"""What a leg tells whoever drives the user agent."""


def credentials_of(request: Request) -> tuple[tuple[str, str], ...]:
    """An ACK carries the credentials of its INVITE (RFC 3261, section 22.1)."""
    return tuple(
        (name, value)
        for name, value in request.headers.fields
        if name.lower() in ("authorization", "proxy-authorization")
    )


def _q850_cause(request: Request) -> int | None:
    for value in request.headers.all("Reason"):
        if match := re.search(r"Q\.850\s*;.*?cause\s*=\s*([0-9]{1,3})", value, re.IGNORECASE):
            return int(match[1])
    return None
