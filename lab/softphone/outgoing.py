"""A call that we make: from our INVITE to the answer, or to none.

Pure.
"""

from __future__ import annotations

from lab.softphone.dialog import AGENT, Dialog
from lab.softphone.digest import authorised
from lab.softphone.ending import Ending
from lab.softphone.errors import SdpError
from lab.softphone.fields import Address, NameAddr
from lab.softphone.leg import Host, Leg, LegState, Progressed
from lab.softphone.sdp import Agreement, LocalMedia, Session
from lab.softphone.sip import ALLOW, REASONS, Headers, Request, Response, build_cancel


class OutgoingLeg(Leg):
    """The caller's side of a call."""

    def __init__(
        self,
        host: Host,
        *,
        target: str,
        sender: NameAddr,
        media: LocalMedia,
        destination: Address,
        give_up_after: float,
        now: float,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Send the INVITE.

        `target` is the URI that is called, `sender` our From without its tag, `destination` where
        the request goes, `give_up_after` the seconds that a cancelled INVITE may stay unanswered,
        `headers` what the INVITE carries besides.
        """
        local_tag = host.token()
        super().__init__(host, host.token(), local_tag, LegState.INVITING)
        self.media: LocalMedia = media
        self._destination = destination
        self._give_up_after = give_up_after
        self._cancelled = False
        self._provisional = False
        self._confirmed = False
        self._early: Agreement | None = None
        fields = [
            ("Via", str(host.via())),
            ("Max-Forwards", "70"),
            ("From", str(sender.with_tag(local_tag))),
            ("To", str(NameAddr(target))),
            ("Call-ID", self.call_id),
            ("CSeq", "1 INVITE"),
            ("Contact", str(host.contact)),
            ("Allow", ALLOW),
            ("User-Agent", AGENT),
            *headers,
            ("Content-Type", "application/sdp"),
        ]
        invite = Request(Headers(tuple(fields)), media.offer().encode(), "INVITE", target)
        self._transaction = host.transact(invite, destination, now, self._on_answer)

    def hang_up(self, now: float) -> None:
        """Cancel the call while it is not answered, hang it up once it is."""
        if self.state is not LegState.INVITING:
            super().hang_up(now)
            return
        self.state = LegState.ENDING
        self._cancelled = True
        # CANCEL waits for the first provisional answer (RFC 3261, section 9.1).
        if self._provisional:
            self._send_cancel(now)

    def _send_cancel(self, now: float) -> None:
        cancel = build_cancel(self._transaction.request)
        self._host.transact(cancel, self._destination, now, _take_no_notice)
        self._transaction.give_up_after(self._give_up_after, now)

    def _on_answer(self, request: Request, response: Response | None, now: float) -> None:
        if response is None:
            self._over(Ending("us" if self._cancelled else "network", 408, REASONS[408]))
        elif response.is_provisional:
            self._on_provisional(request, response, now)
        elif response.is_success:
            self._on_success(request, response, now)
        else:
            self._on_refusal(request, response, now)

    def _on_provisional(self, request: Request, response: Response, now: float) -> None:
        first, self._provisional = not self._provisional, True
        if self._cancelled:
            if first:
                self._send_cancel(now)
            return
        if response.status == 100 or response.recipient.tag is None:
            return
        if response.contact is not None:
            self.dialog = Dialog.of_caller(request, response, self._destination)
        agreement: Agreement | None = None
        if response.has_sdp:
            try:
                agreement = self.media.conclude(Session.parse(response.body))
            except SdpError:
                agreement = None
        self._early = agreement or self._early
        self._host.emit(Progressed(self, response.status, response.reason, agreement))

    def _on_success(self, request: Request, response: Response, now: float) -> None:
        dialog = Dialog.of_caller(request, response, self._destination)
        if not self._confirmed:
            self._confirmed = True
            self.dialog = dialog
            self._acknowledge(request)
            self._begin(response, now)
        elif self.dialog is not None and dialog.remote.tag == self.dialog.remote.tag:
            self._acknowledge(request)
        else:
            self._drop_fork(dialog, request, now)

    def _begin(self, response: Response, now: float) -> None:
        if self._cancelled:
            self._send_bye(now)
            return
        self.state = LegState.UP
        try:
            agreement = (
                self.media.conclude(Session.parse(response.body))
                if response.has_sdp or self._early is None
                else self._early
            )
        except SdpError:
            self.hang_up(now)
            return
        self._settle(agreement)

    def _drop_fork(self, dialog: Dialog, request: Request, now: float) -> None:
        """Another phone answered the same INVITE: let it go (RFC 3261, section 13.2.2.4)."""
        via, contact = self._host.via(), self._host.contact
        ack = dialog.request("ACK", via=via, contact=contact, cseq=request.cseq.number)
        self._host.send(ack, dialog.destination)
        bye = dialog.request("BYE", via=self._host.via(), contact=contact)
        self._host.transact(bye, dialog.destination, now, _take_no_notice)

    def _on_refusal(self, request: Request, response: Response, now: float) -> None:
        again = authorised(
            request,
            response,
            None if self._cancelled else self._host.credentials,
            branch=self._host.via().branch,
            cnonce=self._host.token(),
        )
        if again is None:
            self._over(Ending("us" if self._cancelled else "far", response.status, response.reason))
            return
        self._provisional = False
        self.dialog = None
        self._transaction = self._host.transact(again, self._destination, now, self._on_answer)


def _take_no_notice(request: Request, response: Response | None, now: float) -> None:
    """The answer to this request changes nothing."""
