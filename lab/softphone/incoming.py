"""A call that comes in: from their INVITE to our answer.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.softphone.dialog import Dialog
from lab.softphone.ending import Ending
from lab.softphone.fields import Address
from lab.softphone.leg import Host, Leg, LegState
from lab.softphone.sdp import Agreement, LocalMedia, Session
from lab.softphone.sip import REASONS, Request
from lab.softphone.transaction import ServerTransaction


class IncomingLeg(Leg):
    """The called side of a call."""

    def __init__(
        self, host: Host, invite: Request, transaction: ServerTransaction, peer: Address
    ) -> None:
        """Take an INVITE outside any dialog. Raise SdpError when its offer cannot be read."""
        super().__init__(host, invite.call_id, host.token(), LegState.INVITED)
        self.caller = invite.sender
        self.called = invite.uri
        self.headers = invite.headers
        self.dialog: Dialog = Dialog.of_called(invite, self.local_tag, peer)
        self._transaction = transaction
        self._offer = Session.parse(invite.body) if invite.has_sdp else None
        self._answer: tuple[Session, Agreement | None] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it still waits for `answer` or `reject`."""
        return self.state is LegState.INVITED

    def prepare(self, media: LocalMedia) -> Agreement | None:
        """Say what we can do; None when the caller leaves the offer to us.

        Raises:
            SdpError: nothing in common. `reject(488)` is what remains.
        """
        self.media = media
        if self._offer is None:
            self._answer = media.offer(), None
        else:
            self._answer = media.answer(self._offer)
        return self._answer[1]

    def ring(self, now: float, *, early_media: bool = False) -> None:
        """Answer 180, or 183 with our session description."""
        if self.state is not LegState.INVITED:
            return
        contact = (("Contact", str(self._host.contact)),)
        if early_media and self._offer is not None:
            body = self._prepared()[0].encode()
            self._reply(self._transaction, 183, now, extra=contact, body=body)
        else:
            self._reply(self._transaction, 180, now, extra=contact)

    def answer(self, now: float) -> None:
        """Answer 200. Answered follows at once, or with the ACK when that carries the answer.

        Raises:
            RuntimeError: the call is not waiting for an answer any more.
        """
        if self.state is not LegState.INVITED:
            raise RuntimeError("the call is not waiting for an answer")
        session, agreement = self._prepared()
        self.state = LegState.UP
        self._accept(self._transaction, session, now)
        if agreement is not None:
            self._settle(agreement)

    def reject(self, status: int, now: float, contact: str = "") -> None:
        """Answer with a final status of 300 or more, and whom to call instead. Nothing happens once
        the call is answered."""
        if self.state is LegState.INVITED:
            extra = (("Contact", f"<{contact}>"),) if contact else ()
            self._reply(self._transaction, status, now, extra=extra)
            self._over(Ending("us", status, REASONS.get(status, "")))

    def hang_up(self, now: float) -> None:
        """Decline the call while it rings, hang it up once it is answered."""
        if self.state is LegState.INVITED:
            self.reject(603, now)
        else:
            super().hang_up(now)

    def cancel(self, transaction: ServerTransaction, now: float) -> None:
        """The caller takes an INVITE back. If it is ours, and not answered, the call is over."""
        if transaction is self._transaction and self.state is LegState.INVITED:
            self._reply(self._transaction, 487, now)
            self._over(Ending("far", 487, "cancelled"))

    def _on_bye(self, request: Request, transaction: ServerTransaction, now: float) -> None:
        if self.state is LegState.INVITED:
            self._reply(self._transaction, 487, now)
        super()._on_bye(request, transaction, now)

    def _prepared(self) -> tuple[Session, Agreement | None]:
        if self._answer is None:
            raise RuntimeError("prepare was not called")
        return self._answer


@dataclass(frozen=True, slots=True)
class Invited:
    """Somebody calls. The leg waits for `prepare`, then `ring`, `answer` or `reject`."""

    leg: IncomingLeg
